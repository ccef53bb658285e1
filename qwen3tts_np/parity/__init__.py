"""The parity kit: exact tensors for other implementations, and the first tensor where theirs differ."""
