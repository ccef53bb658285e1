"""Foreign text in sentences and on terminals: names, transcripts and values that somebody else wrote."""

from __future__ import annotations

import re

LONGEST = 100  # characters of a value in a sentence
LONGEST_WORD = 1024  # characters: paths are shown completely, and somebody else's file may hold any name
# Control characters, line separators, marks that turn the direction of writing, halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What begins as a URL, well-formed or not, unless a host follows; then it may be a name and a password.
_URL = re.compile(
    r"(?:[a-z][a-z\d+.-]{1,30}:|https?|ftp)[/\\]+(?![/\\])(?![^@:/\\?#]+[/?#])|https?:(?![/\\])", re.IGNORECASE
)


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with whatever could move a cursor, begin a line or name a colour as its escape: ``\x1b``, ``\n``.

    ``keep``: characters that stay, such as the line ends of a text that is ours.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def without_passwords(text: str) -> str:
    r"""``text`` without what comes before the host in its URLs, well-formed or not (``http:\\user:password@host``).

    Trap: a password may hold slashes, so all up to the last @ of the word goes. One letter before ``:\`` is a drive.
    """
    return "".join(map(_without_password, re.split(r"([\s'\"]+)", text))) if "@" in text else text


def _without_password(word: str) -> str:
    before, _, host = word.rpartition("@")
    url = _URL.search(before)
    return word if url is None else before[: url.end()] + host


def with_short_words(text: str, longest: int = LONGEST_WORD) -> str:
    """``text`` with the beginning and the length of every word that is longer than ``longest``."""
    return re.sub(rf"\S{{{longest + 1},}}", lambda word: f"{word[0][:LONGEST]}... ({len(word[0])} characters)", text)


def shortened(value: object) -> str:
    """``repr(value)``, or its beginning and its length where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 512:
        return f"{'-' if value < 0 else ''}a whole number of {value.bit_length()} bits"
    if isinstance(value, str | bytes) and len(value) > LONGEST:
        return f"{value[: LONGEST // 2]!r}... ({len(value)} {'characters' if isinstance(value, str) else 'bytes'})"
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of more than some thousand digits
        text = f"{type(value).__name__} of very large numbers"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}... ({len(text)} characters)"
