"""Codec on compiled kernels."""
