"""Vectors of 16 lanes for Numba: the only instructions the compiled kernels are written in.

``f32x16`` and ``i32x16`` are Numba values like an int or a float. Each operation is a few lines of LLVM code, and
LLVM cuts the 16 lanes to what the CPU has: one AVX-512 register, two of AVX2, four of NEON. ``array, i`` means 16
consecutive elements of a one-dimensional contiguous array from element i on. Nothing checks bounds.

- ``llvm``: the vector types, and how a body of LLVM code becomes a Numba function;
- ``instruction_sets``: the table of what differs from CPU to CPU;
- ``ops``: operations on vectors: memory, arithmetic, across lanes, between threads;
- ``functions``: exp, sin² and the activations, as polynomials;
- ``tiles``: operations on several vectors at once, and their products with packed weights.
"""
