"""Voices kept: saved prompt items and the reference clips they come from."""
