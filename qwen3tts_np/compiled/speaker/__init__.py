"""Speaker encoder on compiled kernels."""
