"""The voice that comes with the package: a tiny checkpoint that speaks English sentences of about a hundred words.

``golden/demo_voice`` makes it; its README describes how, and how well it speaks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..checkpoint.hub import published_names, repository
from ..errors import RequestError
from ..shown import shortened

CHECKPOINT = Path(__file__).parents[1] / "demo_voice"
LONGEST = 10  # words of a piece; the voice was trained on no longer sentences
NAMED = 12  # words that a refusal lists
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


@cache
def vocabulary() -> frozenset[str]:
    """Every word the demo voice can say."""
    return frozenset((CHECKPOINT / "words.txt").read_text(encoding="utf-8").split())


def is_meant(only: str | Path) -> bool:
    """Whether the only argument of ``say`` is a text for the demo voice, and not a model whose text comes by a pipe."""
    name = Path(only).as_posix()
    return not (os.path.isdir(only) or repository(name) or "/" in name or name.startswith("Qwen3-TTS"))


def download_hint() -> str:
    """Where to get a model for any text, as part of a sentence."""
    name = next(name for name in published_names() if name.endswith("CustomVoice"))
    return f'a real model says anything: qwen3tts-np say {name} "..." downloads one'


def notice() -> str:
    """The notice shown to users of the demo voice."""
    return f"this is the demo voice, which knows {len(vocabulary())} English words; {download_hint()}"


def readable(text: str) -> str:
    """``text`` in the form that the demo voice was trained on: lower case, no symbols, numbers in words, short lines.

    Sentences, and parts of at most 10 words of longer ones, become paragraphs, which are spoken one by one.
    RequestError names the words it does not know.
    """
    sentences = [list(_words(sentence)) for sentence in re.split(r"[.!?;:\n]+", text)]
    unknown = dict.fromkeys(word for words in sentences for word in words if word not in vocabulary())
    if unknown:
        raise RequestError(_refusal(list(unknown)))
    pieces = [piece for words in sentences for piece in _pieces(words)]
    if not pieces:
        raise RequestError(f"there is no word to say in {shortened(text)}")
    return "\n\n".join(" ".join(piece) for piece in pieces)


def _words(sentence: str) -> Iterator[str]:
    """Lower case, and numbers up to 99 in words; anything else is kept, to be refused."""
    for word in re.findall(r"[^\W_]+(?:['’][^\W_]+)*", sentence.lower()):
        if re.fullmatch("[0-9]{1,2}", word):
            yield from spelled(int(word))
        else:
            yield word


def spelled(number: int) -> list[str]:
    """0 to 99 in words."""
    if number < len(UNITS):
        return [UNITS[number]]
    tens, unit = divmod(number, 10)
    return [TENS[tens - 2], *([UNITS[unit]] if unit else [])]


def _pieces(words: list[str]) -> Iterator[list[str]]:
    """Equal parts of at most :data:`LONGEST` words."""
    count = -(-len(words) // LONGEST)
    for i in range(count):
        yield words[i * len(words) // count : (i + 1) * len(words) // count]


def _refusal(unknown: list[str]) -> str:
    shown = ", ".join(repr(word) for word in unknown[:NAMED])
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    known = sorted(vocabulary())
    some = ", ".join(known[:: max(1, len(known) // NAMED)][:NAMED])
    return f"the demo voice does not know {shown}{more}; it knows {len(known)} words such as {some}; {download_hint()}"
