"""Recognises files that are given as a voice and are something else, for an error that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

from ..files.input import open_input

TORCH = "a PyTorch file"
_CLIP = "audio ({}), not a saved voice: a clip goes to --ref-audio, or 'qwen3tts-np voice create' makes a voice of it"
_AUDIO = {
    b"RIFF": "WAV",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"FORM": "AIFF",
}


def kind_of(path: Path) -> str | None:
    """None for what may be a safetensors file, or is not there; :data:`TORCH`; or a sentence's end."""
    if os.path.isdir(path):
        return "a directory; give the file of a voice"
    if not os.path.isfile(path):
        return None
    with open_input(path) as file:
        head = file.read(16)
    if head[4:8] == bytes(4):  # the length of a safetensors header; trap: its first byte may be a brace
        return None
    for mark, name in _AUDIO.items():
        if head.startswith(mark):
            return _CLIP.format(name)
    if head[4:8] == b"ftyp":
        return _CLIP.format("MP4")
    if head.startswith(b"PK\x03\x04"):
        return TORCH
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON, not a saved voice of this program; 'qwen3tts-np voice create' makes one of a clip"
    if head[:4].isalpha():
        return "none of this program's voices, which are .safetensors files; make one with 'qwen3tts-np voice create'"
    return None
