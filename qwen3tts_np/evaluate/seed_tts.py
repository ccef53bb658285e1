"""The benchmark Seed-TTS-eval: its list of utterances, and what the official report sets for it.

``meta.lst`` has a line per utterance, ``id|words of the clip|clip|text to be said``, in some lists with the recording
of the text as a fifth field; clips are relative to it. Audio is ``DIR/id.wav``. Settings of the official evaluation
(technical report, and the model card): language "auto", 2048 frames at most, the checkpoint's own sampling. Its judges
are Whisper large-v3 or Paraformer and WavLM; numbers of other judges are not comparable with published ones.

Anastassiou et al. (2024), "Seed-TTS: A Family of High-Quality Versatile Speech Generation Models".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import RequestError
from ..files.input import read_text
from ..files.name import shown_name
from ..manifest import Row
from ..shown import shortened

PROTOCOL = "seed-tts"
SETTINGS: dict[str, str | int] = {"language": "auto", "max_new_tokens": 2048}
FIELDS = (4, 5)


def rows(path: Path, audio: Path | None = None) -> Iterator[Row]:
    """The utterances of a ``meta.lst``, whose audio is in the folder ``audio``. RequestError names a bad line."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) not in FIELDS or not fields[0] or not fields[3]:
            raise RequestError(
                f"{shown_name(path)}:{number}: expected id|words of the clip|clip|text, found {shortened(line)}"
            )
        name, ref_text, ref_audio, text = fields[:4]
        yield Row(
            line=number,
            name=name,
            id=name,
            text=text,
            audio=None if audio is None else str(audio / f"{name}.wav"),
            ref_audio=str(path.parent / ref_audio),
            ref_text=ref_text,
            language=str(SETTINGS["language"]),
            sampling={"max_new_tokens": SETTINGS["max_new_tokens"]},
        )


def manifest(path: Path) -> str:
    """The same as a manifest for ``batch``, JSON Lines, with the settings of the benchmark."""
    lines = []
    for row in rows(path):
        given = {"id": row.id, "text": row.text, "ref_audio": row.ref_audio, "ref_text": row.ref_text, **SETTINGS}
        lines.append(json.dumps(given, ensure_ascii=False))
    return "\n".join(lines) + "\n"
