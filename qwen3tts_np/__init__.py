"""Qwen3-TTS on NumPy and Numba: no framework."""
