"""Saved voices (prompt items) and checks of the reference clips they are made from."""

from .prompt_item import VoiceClonePromptItem

__all__ = ["VoiceClonePromptItem"]
