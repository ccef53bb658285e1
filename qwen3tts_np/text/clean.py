"""Text cleaning: normalises line ends and spaces and removes invisible characters, for text from files and e-books.

Python's ``generate_*`` calls do not use it: they read a text unchanged, as the official package does.
"""

from __future__ import annotations

import re
import unicodedata

from ..arguments import require_text, require_type
from ..errors import RequestError

_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028]")
_BROKEN_WORD = re.compile("\u00ad[ \t]*\n[ \t]*")  # a soft hyphen at the end of a line joins the parts of a word
# Soft hyphen, zero-width space, word joiner, byte-order mark, marks of direction, invisible operators, tags, fillers of
# Hangul, selectors of glyph variants (but not those that emoji have).
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_JOINER = re.compile("[\u200c\u200d]+")
_BLANK = re.compile(r"[^\S\n]|\u2800")  # no-break spaces and tabs too, and the empty pattern of Braille


def clean(text: str) -> str:
    """``text`` with line ends as ``\\n``, blanks as spaces, and without invisible and control characters.

    A zero-width joiner is kept where it joins something: in emoji, and in scripts such as Arabic and Devanagari. Raises
    RequestError for a text that is not a proper string, and for NUL characters, a sign of UTF-16 read as UTF-8.
    """
    require_text(text, "text")
    if "\0" in text:
        raise RequestError(
            f"the text has a NUL character at position {text.index(chr(0))}: is it UTF-16 without a byte-order mark? "
            "save it as UTF-8"
        )
    lines = _LINE_END.sub("\n", text).replace("\u2029", "\n\n")
    seen = _INVISIBLE.sub("", _BROKEN_WORD.sub("", lines))
    joined = _JOINER.sub(lambda found: found.group() if _joins(seen[found.start() - 1 : found.start()]) else "", seen)
    return "".join(c for c in _BLANK.sub(" ", joined) if c == "\n" or unicodedata.category(c) != "Cc")


class Cleaning:
    """The cleaning of a text that arrives in pieces: together what :func:`clean` makes of the complete text.

    Held back is what may change with the next piece: trailing characters that nobody sees, and the first half of a
    surrogate pair, which senders that count in UTF-16 cut in two.
    """

    def __init__(self) -> None:
        self._held = self._before = ""

    def feed(self, text: str) -> str:
        """What is settled by more text; perhaps nothing. RequestErrors of :func:`clean`: nothing is kept then."""
        require_type(text, str, "text")
        joined = (self._held + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        end = _settled(joined)
        ready = self._cleaned(joined[:end])
        self._held, self._before = joined[end:], joined[:end][-1:] or self._before
        return ready

    def finish(self) -> str:
        """The rest. Half a surrogate pair, whose other half never came, is none of it."""
        held, self._held = self._held, ""
        return self._cleaned(held[:-1] if "\ud800" <= held[-1:] <= "\udbff" else held)

    def _cleaned(self, text: str) -> str:
        return clean(self._before + text)[len(clean(self._before)) :]


def _settled(text: str) -> int:
    """Where the end of ``text`` begins that more text may change: at a character that is removed, or may be."""
    end = start = len(text)
    while start and (text[start - 1].isspace() or _removed(text[start - 1])):
        start -= 1
        if _removed(text[start]):
            end = start
    if text.endswith("\r"):  # perhaps half of a line end
        return min(end, len(text) - 1)
    return end


def _removed(c: str) -> bool:
    """Whether a character may be none of the cleaned text; so may half a surrogate pair, until the other half comes."""
    if unicodedata.category(c) in ("Cc", "Cs"):
        return not c.isspace()
    return bool(_INVISIBLE.match(c) or _JOINER.match(c))


def _joins(before: str) -> bool:
    """Whether a joiner after this character changes the text: not in the scripts of the model's languages."""
    return bool(before) and ("\u0600" <= before <= "\u109f" or unicodedata.category(before) in ("So", "Sk", "Mn"))
