"""Disk <-> arrays: the safetensors reader, the key tables, synthetic checkpoints."""
