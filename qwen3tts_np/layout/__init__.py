"""The official layout of a checkpoint: every tensor that it must hold, what a directory is, other weight formats."""
