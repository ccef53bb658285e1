"""Registered voices: a folder of our voice files, one a voice, ``NAME.safetensors``.

A file is complete or not there (``files/output.py``), so nothing is registered by half, and a server that is killed
loses nothing; what it was writing, the next one removes. A name is letters, digits, spaces and ``-_.``, can be that of
a file on every system, and never leaves the folder.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..batch.identity import fault_of_id
from ..errors import CheckpointError, MissingFileError, OutputError, QwenTTSError
from ..files.input import read_bytes
from ..files.output import remove_leftovers, scratch_folder
from ..shown import shortened
from ..voice.prompt_item import VoiceClonePromptItem
from .refusal import Refusal
from .settings import CLIP_BYTES

SUFFIX = ".safetensors"
LONGEST_NAME = 64  # bytes
_MARKS = frozenset(" -_.")


@dataclass(frozen=True)
class Registered:
    """A voice in the folder."""

    name: str
    created: int  # seconds since 1970
    size: int  # bytes
    item: VoiceClonePromptItem


class VoiceFolder:
    """The registered voices. Without a folder there are none, and none can be made."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writing = threading.Lock()
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise OutputError(f"--voices {folder} cannot be made: {e.strerror}") from None
            remove_leftovers(folder, lambda name: name.endswith(SUFFIX))

    def names(self) -> list[str]:
        """All names, sorted. A file whose name no voice can have is none; nor is any, where the folder has gone."""
        if self._folder is None:
            return []
        try:
            stems = [path.stem for path in self._folder.iterdir() if path.suffix == SUFFIX]
        except OSError:
            return []
        return sorted(unicodedata.normalize("NFC", stem) for stem in stems if self._path(stem) is not None)

    def all(self) -> list[Registered]:
        """All voices, sorted; a file that cannot be read is none."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except (Refusal, QwenTTSError):
                continue
        return found

    def get(self, name: str) -> Registered:
        """The voice of this name. Refusal if there is none, CheckpointError if its file is damaged."""
        path = self._path(name)
        try:
            if path is None:
                raise FileNotFoundError
            found = path.stat()
            item = VoiceClonePromptItem.load(path)
        except (FileNotFoundError, MissingFileError):  # also one that is deleted now
            known = ", ".join(self.names()) or "none"
            raise Refusal(
                404, f"voice {shortened(name)} is not registered; there is {known}", "voice", "no_such_voice"
            ) from None
        return Registered(path.stem, int(found.st_mtime), found.st_size, item)

    def add(self, name: str, item: VoiceClonePromptItem) -> Registered:
        """Register a voice. Refusal for a name that is taken, or none."""
        path = self.new(name)
        with self._writing:
            self.new(name)
            item.save(path)
        return self.get(name)

    def new(self, name: str) -> Path:
        """Where a new voice of this name goes. Refusal if it cannot have this name."""
        if self._folder is None:
            raise Refusal(403, "this server keeps no voices: start it with --voices DIR", code="no_voices")
        path = self._path(name)
        if path is None:
            raise Refusal(
                400,
                f"name={shortened(name)} cannot be the name of a voice: take letters, digits, spaces and -_. (not "
                f"first or last), at most {LONGEST_NAME} bytes",
                "name",
            )
        if path.exists():
            raise Refusal(409, f"voice {shortened(name)} is registered already; delete it first", "name", "name_taken")
        return path

    def remove(self, name: str) -> None:
        """Delete a voice. Refusal if there is none."""
        path = self._path(name)
        try:
            if path is None:
                raise FileNotFoundError
            path.unlink()
        except FileNotFoundError:
            raise Refusal(404, f"voice {shortened(name)} is not registered", "name", "no_such_voice") from None

    def content(self, name: str) -> bytes:
        """The file of a voice."""
        self.get(name)
        path = self._path(name)
        assert path is not None
        return read_bytes(path)

    def _path(self, name: str) -> Path | None:
        """The file of a voice of this name; None where no voice can have it."""
        name = unicodedata.normalize("NFC", name)
        proper = name and all(c.isalnum() or c in _MARKS for c in name) and name[0].isalnum() and name[-1].isalnum()
        if self._folder is None or not proper or fault_of_id(name) or len(os.fsencode(name)) > LONGEST_NAME:
            return None
        return self._folder / f"{name}{SUFFIX}"


def voice_of_file(content: bytes) -> VoiceClonePromptItem:
    """The voice in an uploaded file: one of ours, or of the official demo (.pt). CheckpointError where it is none."""
    if len(content) > CLIP_BYTES:
        raise Refusal(413, f"the voice file has {len(content)} bytes and the limit is {CLIP_BYTES}", "voice_file")
    with scratch_folder() as folder:
        path = folder / "voice_file"
        path.write_bytes(content)
        try:
            return VoiceClonePromptItem.load(path)
        except CheckpointError as e:
            raise Refusal(400, str(e).replace(f"{folder}{os.sep}", ""), "voice_file", "no_voice") from None
