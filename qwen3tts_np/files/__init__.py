"""The way out to the disk: whatever this package writes is complete under its name, or not there."""
