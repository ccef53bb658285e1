"""Teacher-forced scores of a model on speech that is given: see README.md. READ FIRST: ``score.py``."""
