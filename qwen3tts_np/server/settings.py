"""The options of a server, and the limits of every request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..text.lexicon import Lexicon

POSITIONS = 1024  # of a place: its prompt, and a frame of 80 ms each; 18 s of text and its runaway bound fit in
FIRST_PACKET = 2  # frames: the first sound comes soon
MOST_PACKET = 32  # frames; a packet has 1.5 times as many as the one before, so that playback does not run dry
TOGETHER = 32  # frames of all who speak: decoding more of them at once does not take less time for each
REFERENCE_SLICE = 8  # frames of a reference that are decoded in a turn, so that those who speak do not stutter
CLIP_BYTES = 10 << 20  # of a reference clip or a voice file
CLIP_SECONDS = 120.0
BODY_BYTES = CLIP_BYTES * 4 // 3 + (1 << 20)  # a clip in base64, and all that is said beside it
UNREAD_SECONDS = 30.0  # of speech that a client has not read; its next piece waits until it has
READ_SECONDS = 60.0  # for a client that is behind to read on, or to send the next text; then its place goes to others
GRACE_SECONDS = 30  # for running answers once the server is asked to stop


@dataclass(frozen=True)
class Settings:
    """The options of ``qwen3tts-np serve``."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    places: int = 4  # answers of one model at once
    queue: int = 32  # answers of one model that wait for a place
    max_text: int = 20_000  # characters of one request
    voices: Path | None = None  # the folder of registered voices
    lexicon: Lexicon | None = None  # how words of every text are read
    allow_fetch: bool = False  # whether URLs of clips are read
    origins: tuple[str, ...] = ()  # of pages elsewhere that may call (CORS)
    certificate: Path | None = None
    key: Path | None = None  # of the certificate

    @property
    def scheme(self) -> str:
        """http, or https with a certificate."""
        return "https" if self.certificate else "http"
