"""Codec: waveform to codes and back."""
