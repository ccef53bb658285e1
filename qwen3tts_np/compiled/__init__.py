"""The compiled path: the same blocks as the reference on Numba kernels, under the same file names."""
