"""Server-sent events of a spoken answer: OpenAI's ``speech.audio.delta`` and ``speech.audio.done``."""

from __future__ import annotations

import base64
import json
from typing import Any

from .outlet import End

MEDIA_TYPE = "text/event-stream"


def event(kind: str, **fields: Any) -> bytes:
    """One event, whose data name its kind too."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(audio: bytes) -> bytes:
    """Encoded audio."""
    return event("speech.audio.delta", audio=base64.b64encode(audio).decode())


def done(input_tokens: int, end: End) -> bytes:
    """The end. Tokens that go in are those of the text, tokens that come out are frames; ``complete`` is ours."""
    usage = {
        "input_tokens": input_tokens,
        "output_tokens": end.frames,
        "total_tokens": input_tokens + end.frames,
    }
    return event("speech.audio.done", usage=usage, complete=all(piece.complete for piece in end.pieces))
