"""The parity kit: exact tensors for other implementations, and the first place where theirs differ."""
