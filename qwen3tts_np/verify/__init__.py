"""Health of a checkpoint: files, tensors, statistics, and a live comparison with the official package."""
