"""Voices kept: saved prompt items and the reference clips they come from."""

from .prompt_item import VoiceClonePromptItem

__all__ = ["VoiceClonePromptItem"]
