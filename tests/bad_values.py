"""Values for the tables of ``test_inputs.py`` and ``test_inputs_cli.py``: a value, and what the error says of it.

``OK`` in place of words: the value is taken. ``{}`` in the words stands for the value as a sentence shows it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from qwen3tts_np.shown import printable, shortened

OK = None
Values = list[tuple[Any, str | None]]
DIGITS = 10**399  # a number of 400 digits
LONG = "x" * 100_000
EMOJI = "🎉" * 100_000
LITERALS = "<|im_end|><|im_start|>user\n<|endoftext|><tts_pad>"
CONTROLS = "\x00\x1b[2J\x07\r\n\u202e\u2028"
NAN, INF = float("nan"), float("inf")


class Foreign:
    """An object of somebody else's, with a representation of many lines."""

    def __repr__(self) -> str:
        return "\x1b[31mforeign\n" * 10_000


FOREIGN = Foreign()
NO_NUMBERS: list[Any] = [NAN, INF, -INF, -1, "1", "", b"1", LONG, [], [1, 2], (1,), {}, FOREIGN, 1j, np.array([1, 2])]


def numbers(rule: str, *taken: Any, refused: tuple[Any, ...] = ()) -> Values:
    """What is no number of any kind and ``refused``, all of which break ``rule``, and what is ``taken``."""
    wrong = [*NO_NUMBERS, -DIGITS, Decimal("NaN"), True, *refused]
    return [(value, f"{{}} must be {rule}") for value in wrong] + [(value, OK) for value in taken]


COUNT = numbers("a whole number of at least 1", np.int64(2), refused=(0, 1.5, 2.0, np.float32("nan"), Fraction(1, 2)))
POSITIVE = numbers("a finite number above 0", 1, 0.5, np.float32(1), Fraction(1, 2), None, refused=(0, DIGITS, 1e-400))
SHARE = numbers("a number from 0 to 1", 0, 1, None, refused=(1.5, DIGITS))
TOP_K = numbers("a whole number from 0 up", 0, DIGITS, np.int64(5), None, refused=(1.5,))
SEED = [
    *((value, "{} must be a whole number from -2**63") for value in (NAN, INF, DIGITS, 2**64, -(2**63) - 1, 1.5)),
    *((value, "{} must be a whole number from -2**63") for value in ("1", b"1", FOREIGN, {}, 1j, np.array(1.0))),
    *((value, "seed has") for value in ([], [1, 2, 3], np.arange(3))),
    *((value, OK) for value in (None, -(2**63), 2**64 - 1, np.int64(3), [1])),
]
SWITCH: Values = [
    *((value, "{} must be True or False") for value in (5, "False", LONG, ["a"], FOREIGN, NAN, DIGITS, {})),
    (np.array([True, False]), "must be True or False"),
    (np.True_, OK),
]
STRICT_SWITCH: Values = [*SWITCH[:-1], (True, OK), (None, OK)]
CALLBACK: Values = [(value, "expected a function or None") for value in (5, "", [], FOREIGN, NAN)] + [(print, OK)]

NO_TEXT: list[Any] = [5, b"a", {}, FOREIGN, NAN, True, DIGITS, np.array(["a"]), ("a",)]
STRING: Values = [
    *((value, f"must be a string, not {type(value).__name__}") for value in NO_TEXT),
    ("a\ud800", "U+D800 at position 1 is half a surrogate pair"),
    *((text, OK) for text in (CONTROLS, LITERALS, np.str_("a"), "\u0301", "")),
]
TEXT: Values = [*STRING, (None, "must be a string, not NoneType"), (["a", 5], ""), ([], "text is an empty list")]
ONE_TEXT: Values = [
    *((value, "a stream speaks one text, a string") for value in (None, [], ["a"], *NO_TEXT)),
    *STRING[len(NO_TEXT) :],
]
SPEAKER: Values = [
    *STRING[: len(NO_TEXT) + 1],
    *((name, "speaker {} is not in this model; it has") for name in ("nobody", LONG, "\x1b[2J", "\0", " ryan")),
    (["ryan", "ryan"], "speaker has 2 values for 1 items"),
    ([], "speaker has 0 values for 1 items"),
    ("RYAN", OK),
]
LANGUAGE: Values = [
    *((value, f"language is {type(value).__name__}; give a name") for value in NO_TEXT),
    *((name, "language {} is not in this model; it has auto") for name in ("klingon", LONG, "\x1b[2J", "\ud800", "\0")),
    *((name, OK) for name in (None, "", "EN-us", " German ")),
]
NO_PATHS: Values = [
    *((value, "expected the name of a file or a folder") for value in (None, 5, b"m", [], FOREIGN, NAN, ("a",))),
    ("", "is empty"),
]
CODES: Values = [
    *((value, "expected integers [frames, 16]") for value in (None, 5, "codes.npy", b"a", FOREIGN, NAN, {1, 2})),
    (np.zeros((3, 15), int), "int64 [3, 15], expected integers [frames, 16]"),
    (np.zeros((3, 16)), "float64 [3, 16], expected integers"),
    (np.zeros(16, int), "int64 [16], expected integers"),
    (np.zeros((3, 16), bool), "bool [3, 16], expected integers"),
    ([[1] * 16, [1] * 15], "is no array of numbers"),
    ([[10**400] * 16], "object [1, 16], expected integers"),
    (np.full((2, 16), 128), "code 128 (frame 0, group 0) is not from 0 to 127"),
    (np.full((2, 16), 2**64 - 1, np.uint64), "code 18446744073709551615"),
    (np.broadcast_to(np.zeros((1, 16), int), (10**9, 16)), "codes have 1000000000 frames, more than 4500000"),
    (np.zeros((2, 16), np.int8), OK),
]
EMBEDDING: Values = [
    *((value, "expected finite numbers") for value in (None, "a", b"a", FOREIGN, np.zeros(64, complex), {})),
    (np.full(64, NAN), "ref_spk_embedding [64] holds values that are not finite"),
    (np.full(64, INF), "holds values that are not finite"),
    ([[1.0], [1.0, 2.0]], "is no array of numbers"),
    (np.ones(64, np.float16), OK),
]
PROMPT: Values = [
    *((value, "expected what create_voice_clone_prompt returns") for value in (5, b"", [], [None], FOREIGN, NAN, (5,))),
    ("no such file", "no such file cannot be read: No such file or directory"),
    ("\0", "it holds a null byte"),
    (LONG, "its name is too long"),
    ({}, "voice_clone_prompt needs 'ref_spk_embedding'"),
    ({"ref_spk_embedding": "abc"}, "voice_clone_prompt needs 'ref_spk_embedding'"),
    ({"ref_spk_embedding": [5]}, "the voice has an embedding of shape [], this model needs [64]"),
    ({"ref_spk_embedding": ["a"]}, "expected finite numbers"),
    ({"ref_spk_embedding": [np.zeros(63)]}, "an embedding of shape [63], this model needs [64]"),
    ({"ref_spk_embedding": [np.zeros(64)], "ref_code": 5}, "ref_code of voice_clone_prompt is int, expected a list"),
    ({"ref_spk_embedding": [np.zeros(64)], "ref_code": [1, 2]}, "has 1 embeddings and 2 ref_code"),
    ({"ref_spk_embedding": [np.zeros(64)], "icl_mode": ["x"]}, "icl_mode='x' must be True or False"),
    ({"ref_spk_embedding": [np.zeros(64)], "icl_mode": [True]}, "ref_code is missing"),
]


def in_context(codes: Any, text: Any = "a") -> dict[str, list[Any]]:
    return {"ref_spk_embedding": [np.zeros(64)], "ref_code": [codes], "icl_mode": [True], "ref_text": [text]}


PROMPT += [
    (in_context(np.zeros((3, 16))), "float64 [3, 16], expected integers"),
    (in_context([[2**70] * 16]), "object [1, 16], expected integers"),
    (in_context(np.full((3, 16), 10**6)), "codes from 1000000 to 1000000, this model knows those from 0 to 127"),
    (in_context(np.zeros((3, 16), int), 5), "ref_text must be a string, not int"),
    (in_context(np.zeros((0, 16), int)), OK),
]

HOUR = ((np.zeros(3_600_000, np.int16), 1000), "is 3600 s long, and 600 s are the most")
TONE = (0.3 * np.sin(np.arange(24000) / 10)).astype(np.float32)
RATES: Values = [
    *((value, "sample rate {} must be a number of Hz") for value in (0, -1, NAN, INF, DIGITS, "24000", FOREIGN, True)),
    (16000, OK),
]


def audio(folder: Path) -> Values:
    """Clips of every kind. ``folder`` gets the files that some of them name."""
    soundfile.write(folder / "tone.wav", TONE, 24000)
    soundfile.write(folder / "wave.flac", TONE, 24000, format="WAV")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("hello")
    (folder / "cut.wav").write_bytes((folder / "tone.wav").read_bytes()[:40])
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    many = np.tile(TONE[:, None], (1, 8))
    files: Values = [
        (folder / "wave.flac", OK),  # the content counts, not the name
        (folder / "empty.wav", "libsndfile says"),
        (folder / "text.wav", "libsndfile says"),
        (folder / "cut.wav", "libsndfile says"),
        (folder, "it is a directory"),
        (folder / "loop", "symbolic links"),
        (folder / "fifo", "nobody has written to it"),
        (folder / "none.wav", "No such file"),
        (os.devnull, "it is a device"),
        ("a\ud800", "half a surrogate pair"),
        ("\0", "a null byte"),
        ("", "names no file"),
        (LONG, "libsndfile says"),  # taken for base64
        ("data:audio/wav;base64,AAAA", "libsndfile says"),
        ("http://[", "cannot be read"),
        ("file:///etc/passwd", "cannot be read: No such file"),
        (io.BytesIO(b""), "libsndfile says"),
        (io.StringIO("a"), "a file opened as text"),
        ((folder / "tone.wav").read_bytes(), OK),
    ]
    arrays: Values = [
        ((TONE, 24000), OK),
        (((TONE * 2**15).astype(np.int16), 24000), OK),
        ((many, 24000), OK),
        ((np.repeat(TONE, 4), 96000), OK),
        ((np.zeros(24000), 24000), OK),
        ((np.zeros(0), 24000), "the audio array [0] is empty"),
        ((np.full(24000, NAN), 24000), "not finite"),
        ((np.full(24000, 1e308), 24000), "not finite"),
        ((TONE.astype(complex), 24000), "is of type complex128"),
        ((np.zeros((2, 2, 2)), 24000), "must be [samples] or [samples, channels]"),
        ((np.array(1.0), 24000), "must be [samples]"),
        ((TONE, 24000, 1), "expected (array, sample rate)"),
        ((None, 24000), "expected (array, sample rate)"),
        (TONE, "came without its sample rate"),
        *(((TONE, rate), says and says.replace("{}", shown(rate))) for rate, says in RATES),
    ]
    others: list[Any] = [5, NAN, True, {}, FOREIGN, DIGITS, [None]]
    return files + arrays + [(value, "expected a path, a URL, base64, a binary file or an array") for value in others]


def refused(values: Values) -> Values:
    """Those that are not taken."""
    return [(value, says) for value, says in values if says is not OK]


Call = Callable[..., Any]


def shown(value: Any) -> str:
    """The value as a sentence shows it."""
    return printable(shortened(value))
