"""The sound card, by way of sounddevice (PortAudio)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any

from ..errors import RequestError
from ..extras import imported, install
from ..ops import Pcm

AHEAD = 2000  # packets that are made and not played yet; then whoever makes them waits
PART = 0.1  # s, written at once: playing that is broken off ends as soon


def check_can_play() -> None:
    """RequestError where there is no library or no sound card."""
    sound = _sounddevice()
    try:
        sound.query_devices(kind="output")
    except (sound.PortAudioError, ValueError) as e:
        raise RequestError(f"there is no sound card to play on: {e}") from None


class Player:
    """Plays samples beside whoever makes them."""

    def __init__(self, rate: int) -> None:
        """``rate`` in Hz. RequestError where the sound card cannot play that."""
        sound = _sounddevice()
        self._error, self._part = sound.PortAudioError, round(PART * rate)
        try:
            self._stream = sound.OutputStream(samplerate=rate, channels=1, dtype="int16")
            self._stream.start()
        except (self._error, ValueError) as e:
            raise RequestError(f"the sound card cannot play {rate} Hz: {e}") from None
        self._waiting: Queue[Pcm | None] = Queue(AHEAD)
        self._failure: Exception | None = None
        self._stopped = False
        self._thread = Thread(target=self._play, name="player", daemon=True)
        self._thread.start()

    def write(self, samples: Pcm) -> None:
        """Play ``samples`` after those before. RequestError where the sound card has failed."""
        self._check()
        self._waiting.put(samples)

    def finish(self) -> None:
        """Wait until all is heard."""
        self._waiting.put(None)
        self._thread.join()
        self._stream.stop()
        self._stream.close()
        self._check()

    def stop(self) -> None:
        """Be silent now."""
        self._stopped = True
        self._waiting.put(None)
        self._thread.join()
        self._stream.abort()
        self._stream.close()

    def _play(self) -> None:
        """Take all samples, and play them unless that is over; so nobody waits for a full queue in vain."""
        while (samples := self._waiting.get()) is not None:
            for start in range(0, len(samples), self._part):
                if self._stopped or self._failure is not None:
                    break
                try:
                    self._stream.write(samples[start : start + self._part, None])
                except self._error as e:
                    self._failure = e

    def _check(self) -> None:
        if self._failure is not None:
            raise RequestError(f"the sound card has failed: {self._failure}")


@contextmanager
def open_player(rate: int) -> Iterator[Player]:
    """A player whose samples are all heard at the end, or no more of them where it is left by an error."""
    player = Player(rate)
    try:
        yield player
    except BaseException:
        player.stop()
        raise
    player.finish()


def _sounddevice() -> Any:
    try:
        return imported("sounddevice", "playing", install("play"))
    except OSError as e:  # the wheel for Linux comes without it
        raise RequestError(f"playing needs PortAudio ({e}): install libportaudio2, or portaudio") from None
