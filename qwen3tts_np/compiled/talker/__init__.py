"""Talker and code predictor on compiled kernels."""
