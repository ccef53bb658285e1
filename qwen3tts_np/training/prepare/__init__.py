"""From recordings to what a model is trained on: codes, x-vectors, a split, and the checks that a row must pass."""
