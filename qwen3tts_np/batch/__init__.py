"""Manifests spoken: a file for each row, in one process or many. README.md says how it is used on a cluster."""
