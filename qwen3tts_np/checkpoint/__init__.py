"""Checkpoint files: the safetensors reader and writer, the key tables, the hub."""
