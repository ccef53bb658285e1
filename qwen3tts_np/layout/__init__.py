"""The official layout of a checkpoint: its tensors, the description of a directory, other weight formats."""
