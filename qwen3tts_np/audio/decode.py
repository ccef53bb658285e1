"""The content of an audio file as samples, whatever its header claims."""

from __future__ import annotations

import io
import math

import numpy as np
import soundfile

from ..errors import AudioTooLong, RequestError
from ..ops import Wave

AT_ONCE = 1 << 26  # values allocated on the word of a header: 256 MiB of address space
BLOCK = 1 << 24  # values of a longer file that are decoded at once
MOST = 1 << 28  # samples of a clip, three hours at 24 kHz


def decode(data: bytes, what: str, longest: float = math.inf) -> tuple[Wave, int]:
    """The samples [T] of the audio file ``data``, its channels averaged, and its rate in Hz.

    The header is not believed: a file that claims more than AT_ONCE values is decoded in blocks, so that memory follows
    what is there, and no more than MOST samples are, nor than last ``longest`` seconds: a megabyte of FLAC may hold
    hours of silence. AudioTooLong there, RequestError for what libsndfile cannot read; both begin with ``what``.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            # Trap: between blocks soundfile seeks, after which an MP3 may go on with other bits: one call if possible.
            # Trap: without their number soundfile reads no encoding that cannot seek, such as GSM 06.10.
            once = 0 <= file.frames * file.channels <= AT_ONCE
            samples = file.read(file.frames, "float32", always_2d=True) if once else _in_blocks(file, what, longest)
            return _mono(samples), file.samplerate
    except soundfile.LibsndfileError as e:
        raise RequestError(f"{what} cannot be read: libsndfile says {e.error_string!r}") from None


def _in_blocks(file: soundfile.SoundFile, what: str, longest: float) -> Wave:
    """[T, 1], averaged block by block, so that many channels are in memory for one block only."""
    frames, blocks, found = max(BLOCK // file.channels, 1), [], 0
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        blocks.append(_mono(block))
        found += len(block)
        if found > MOST:
            raise AudioTooLong(f"{what} has more than {MOST} samples, the most that is read; cut it to 10 to 20 s")
        if found > longest * file.samplerate:
            raise AudioTooLong(f"{what} lasts more than {longest:.0f} s, which are the most; cut it to 10 to 20 s")
    return np.concatenate(blocks)[:, None] if blocks else np.zeros((0, 1), np.float32)


@np.errstate(over="ignore", invalid="ignore")
def _mono(samples: Wave) -> Wave:
    """[T, channels] -> [T]"""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
