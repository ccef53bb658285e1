"""Disk <-> arrays: the safetensors reader, the key tables, the hub."""
