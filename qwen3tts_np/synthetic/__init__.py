"""Checkpoints of the official layout with random weights."""
