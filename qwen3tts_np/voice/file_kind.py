"""The kind of a file that was given as a voice and is none, for a sentence that says what to do."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from ..files.input import open_input

TORCH = "a PyTorch file"
_CLIP = "audio ({}), not a saved voice: a clip goes to --ref-audio, or 'qwen3tts-np voice create' makes a voice of it"
_OTHER = "{}, not a saved voice of this program; 'qwen3tts-np voice create' makes one of a clip"
_AUDIO = {
    b"RIFF": "WAV",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"#!AMR": "AMR",
    b"\x1a\x45\xdf\xa3": "WebM",
    b"\x30\x26\xb2\x75": "WMA",
}
_OTHERS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x80": "a pickle, which is not read because it could run anything",
    b"GGUF": "GGUF weights",
    b"\x1f\x8b": "a gzip archive",
}
_LEFT_TO_ITS_READER = b"version https://git-lfs"  # which says what to do


def kind_of(path: Path) -> str | None:
    """None for what may be a safetensors file, or is not there; :data:`TORCH`; or a sentence's end."""
    if os.path.isdir(path):
        return "a directory; give the file of a voice"
    if not os.path.isfile(path):
        return None
    with open_input(path) as file:
        head = file.read(32)
    # A safetensors file has the length of its header in 8 bytes and then the header. Trap: either may look like a mark.
    if not head or head[8:9] == b"{" or head.startswith(_LEFT_TO_ITS_READER):
        return None
    for mark, name in _AUDIO.items():
        if head.startswith(mark):
            return _CLIP.format(name)
    if head[4:8] == b"ftyp":
        return _CLIP.format("MP4")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.lstrip()[:1] in (b"{", b"["):
        return _OTHER.format("JSON")
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            return _OTHER.format(name)
    return "none of this program's voices, which are .safetensors files; make one with 'qwen3tts-np voice create'"


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return TORCH  # whose reader says what is wrong with it
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    arrays = bool(names) and all(name.endswith(".npy") for name in names)
    return _OTHER.format("NumPy arrays (.npz)" if arrays else "a zip archive")
