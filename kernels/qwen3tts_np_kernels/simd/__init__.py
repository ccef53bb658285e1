"""Vectors of 16 lanes for Numba: the only instructions the compiled kernels are written in.

``f32x16`` and ``i32x16`` are Numba values like an int or a float. Each operation is a few lines of LLVM IR, and LLVM
splits the 16 lanes for the CPU: one AVX-512 register, two of AVX2, four of NEON. ``array, i`` means 16 consecutive
elements of a one-dimensional contiguous array, starting at element i. Bounds are not checked.

- ``llvm``: the vector types, and the decorator that turns a body of LLVM IR into a Numba function;
- ``instruction_sets``: the table of differences between CPUs;
- ``ops``: operations on vectors: memory, arithmetic, across lanes, between threads;
- ``functions``: exp, sin² and the activations, as polynomials;
- ``tiles``: operations on several vectors at once, and their products with packed weights.
"""
