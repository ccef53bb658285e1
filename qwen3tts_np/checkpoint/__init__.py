"""Disk <-> arrays: the safetensors reader, the language of the key tables, the hub."""
