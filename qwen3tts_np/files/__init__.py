"""Output to disk: every file or folder that this package writes is complete under its name, or absent."""
