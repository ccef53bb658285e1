"""Splits a long text into pieces for the model: sentences, groups of short ones, or parts of a long one.

A missed sentence end costs nothing, since sentences are joined up to a target length anyway; a false one is audible as
a break within a sentence. So in doubt the rules do not split. Three steps:

1. blocks: paragraphs, and independent lines (headings, verse, list items);
2. sentence ends in each block: full stops with another meaning (``3.5``, ``Dr. Ha``, ``z. B.``, ``J. R.``, ``a.com``)
   are skipped, closing quotes and brackets are included;
3. pieces: sentences joined up to a target length; those that are too long are cut where it is least audible: at the
   ends of sentences quoted in them, at clauses, between words, between characters.

Lengths are in milliseconds of speech (``pace.py``), so they mean the same in every script.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise

from ..arguments import real_number, require_text
from ..errors import RequestError
from ..shown import shortened
from .languages import Habits, habits_of, is_common
from .pace import is_han, is_kana, milliseconds

TARGET, LONGEST = 12.0, 18.0  # seconds; some 180 and 270 letters of English, 55 and 80 characters of Chinese
SHORT = 2_000  # ms; shorter sentences sound isolated and join a neighbour
FULL_LINE = 50  # columns; a shorter line without a stop was ended on purpose


class Break(IntEnum):
    """Kinds of breaks that end a piece, from weakest to strongest."""

    WORD = 0
    CLAUSE = 1
    SENTENCE = 2
    PARAGRAPH = 3


@dataclass(frozen=True)
class Piece:
    """A part of a text. ``before + text + after`` of all pieces is the text."""

    text: str  # no white space at its edges
    ends: Break
    before: str  # white space at the beginning of the text; "" in all but the first
    after: str  # white space up to the next piece

    @property
    def spoken(self) -> str:
        """The text on one line."""
        return one_line(self.text)

    @property
    def has_words(self) -> bool:
        """Whether there is anything to speak; "* * *" and "---" are pauses."""
        return any(c.isalnum() for c in self.text)


def one_line(text: str) -> str:
    """``text`` on one line; a line end between Chinese or Japanese characters does not become a space."""
    return re.sub(r"\s+", lambda gap: "" if _joins_han(text, *gap.span()) else " ", text)


def break_between(before: str, after: str) -> Break:
    """The break between two parts of a text, by the signs and the white space there."""
    gap = before[len(before.rstrip()) :] + after[: len(after) - len(after.lstrip())]
    if len(_LINE_ENDS.findall(gap)) > 1:
        return Break.PARAGRAPH
    if _LINE_ENDS.search(gap) or _STOPPED.search(before.rstrip()[-10:]):
        return Break.SENTENCE
    return Break.CLAUSE if _CLAUSE_ENDS.search(before.rstrip()[-10:]) else Break.WORD


def split(text: str, language: str = "auto", target: float = TARGET, longest: float = LONGEST) -> list[Piece]:
    """Cut ``text`` into pieces of about ``target`` and at most ``longest`` seconds of speech.

    A piece never crosses the end of a paragraph. Only a single character (with all combining characters) longer than
    ``longest`` makes a longer piece. White space alone has no pieces. ``language`` is one of the ten that the model was
    trained on; with any other name, such as "auto", it is detected. Raises RequestError unless 1 <= target <= longest.
    """
    require_text(text, "text")
    if not 1 <= real_number(target) <= real_number(longest) < math.inf:
        pieces = f"pieces of {shortened(target)} to {shortened(longest)} s"
        raise RequestError(f"{pieces}: the target must be at least 1 s and not the larger")
    source = _Source(text, habits_of(language, text), round(1000 * target), round(1000 * longest))
    parts = [part for block in _blocks(text) for part in source.cut_block(block)]
    ends = [0, *(part.start for part in parts[1:]), len(text)]
    return [
        Piece(text[part.start : part.end], part.ends, text[start : part.start], text[part.end : end])
        for part, start, end in zip(parts, ends, ends[1:], strict=False)
    ]


@dataclass(frozen=True)
class _Part:
    """text[start:end], without white space at its edges, and the break that ends it."""

    start: int
    end: int
    ends: Break


# --- blocks ---------------------------------------------------------------------------------------

_LINE = re.compile(r"\S(?:[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*\S)?")  # without white space at its edges
_LINE_ENDS = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_UNBROKEN = re.compile(r"\S+")
_BULLET = re.compile(r"(?:[-*+•◦‣·–—]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s")
_STOPPED = re.compile(r"[.!?…。！？｡．‼⁇⁈⁉][\"'”’»«“)\]}）】」』〕》〉\s]*$")


def _blocks(text: str) -> Iterator[_Part]:
    """Paragraphs, and independent lines.

    A blank line ends a paragraph. A single line end is line wrapping if all lines of the paragraph are as full as they
    could be. Otherwise it ends a paragraph if no blank lines are used and the line ends with a stop; or a sentence, if
    a bullet follows or the line ends early without a stop (headings, verse).
    """
    lines = [m.span() for m in _LINE.finditer(text)]
    groups = _groups(text, lines)
    for group in groups:
        wrapped = _is_wrapped(text, group)
        start = 0
        for i, line in enumerate(group):
            following = group[i + 1] if i + 1 < len(group) else None
            ends = None if wrapped and following else _line_break(text, line, following, len(groups) > 1)
            if ends is not None:
                yield _Part(group[start][0], line[1], ends)
                start = i + 1


def _groups(text: str, lines: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Lines with no blank line between them."""
    groups: list[list[tuple[int, int]]] = []
    for i, line in enumerate(lines):
        if i == 0 or _is_blank(text, lines[i - 1], line):
            groups.append([])
        groups[-1].append(line)
    return groups


def _is_wrapped(text: str, lines: list[tuple[int, int]]) -> bool:
    """Whether these lines are one wrapped line: the next word never fitted, and not all lines end with a stop."""
    width = max(_columns(text[slice(*line)]) for line in lines)
    full = all(_columns(text[slice(*a)]) + _columns(_first_unit(text, *b)) > width for a, b in pairwise(lines))
    listed = any(_BULLET.match(text, *line) for line in lines[1:])
    return full and not listed and not all(_stops(text, line) for line in lines[:-1])


def _first_unit(text: str, start: int, end: int) -> str:
    """The text that might fit on the line before: a space and a word, or a few Chinese or Japanese characters."""
    found = _UNBROKEN.match(text, start, end)
    assert found is not None
    return text[start : start + 2] if _is_asian(text[start]) else " " + found.group()


def _stops(text: str, line: tuple[int, int]) -> bool:
    return _STOPPED.search(text, max(line[0], line[1] - 10), line[1]) is not None


def _is_blank(text: str, line: tuple[int, int], following: tuple[int, int]) -> bool:
    return len(_LINE_ENDS.findall(text, line[1], following[0])) > 1


def _line_break(text: str, line: tuple[int, int], following: tuple[int, int] | None, blank_lines: bool) -> Break | None:
    if following is None:
        return Break.PARAGRAPH
    if _BULLET.match(text, following[0], following[1]):
        return Break.SENTENCE
    if _stops(text, line):
        return None if blank_lines else Break.PARAGRAPH
    goes_on = _first_letter(text, *following).islower() or _columns(text[slice(*line)]) >= FULL_LINE
    return None if goes_on else Break.SENTENCE


def _first_letter(text: str, start: int, end: int) -> str:
    return next((c for c in text[start : min(end, start + 20)] if c.isalnum()), "")


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def _joins_han(text: str, start: int, end: int) -> bool:
    at_line_end = _LINE_ENDS.search(text, start, end) is not None
    return at_line_end and start > 0 and end < len(text) and _is_asian(text[start - 1]) and _is_asian(text[end])


def _is_asian(c: str) -> bool:
    """A script without spaces between words, or its punctuation."""
    return is_han(c) or is_kana(c) or "\u3000" < c <= "\u303f" or "\uff00" <= c <= "\uff65" or c in "“”‘’…—"


# --- ends of sentences ----------------------------------------------------------------------------

_STOP = re.compile(r"\.(?:[ \u00a0]\.)+|[.!?…。！？｡．‼⁇⁈⁉]+")
_FULL_WIDTH = frozenset("。！？｡．")
# An ambiguous quote is taken as closing where no word follows it. French puts a space before closing quotes.
_CLOSERS = re.compile(r"(?:[”’)\]}）】」』〕》〉｝］]|[\"'“«»‹›＂](?!\w)|[ \u00a0\u202f]{1,2}[»›](?!\w))*")
_BEFORE_WORD = re.compile(r"[\s\"'“”‘’„‚«»‹›‘(\[{（【「『〔《〈¿¡—–―\-*•_]*")
_BRACKETS = frozenset("([{（【〔")
# The word before a full stop, with what is abbreviated in front of it: "Dr", "p.m", "z. B", "EE. UU".
_A = r"[A-Za-z\u00aa-\u024f\u0400-\u04ff]"  # other scripts do not abbreviate this way
_WORD = re.compile(rf"(?:(?<![\w.]){_A}{{1,2}}\.[ \u00a0\u202f]?)*(?:{_A}{{1,9}}\.)*(?:{_A}|[\d’'\-])+$")
_NEXT_WORD = re.compile(r"\w+['’]?")
_INITIAL = re.compile(r"[^\W\d_]\.")
_ROMAN = re.compile(r"[IVXLC]+")
_LOOK_BACK = 40  # characters, longer than any abbreviation
_TAG = re.compile(
    r"(?:と|って|っ|など|なんて|の|は|が|を|に|も|で|や|だ)"  # the sentence continues after the quotation
    r"|[^，。！？；\s]{0,6}(?:说|說|道|问|問|答|喊|叫|想)"  # who said it
)


def sentence_ends(text: str, start: int, end: int, habits: Habits) -> Iterator[int]:
    """Ends of the sentences in text[start:end], closing quotes and brackets included, without the last one."""
    sentence = start
    for stop in _STOP.finditer(text, start, end):
        closed = _CLOSERS.match(text, stop.end(), end)
        assert closed is not None
        position = closed.end()
        if sentence <= stop.start() and position < end and _ends_sentence(text, sentence, stop, position, end, habits):
            yield position
            sentence = position


def _ends_sentence(text: str, start: int, stop: re.Match[str], position: int, end: int, habits: Habits) -> bool:
    """Whether the sentence starting at ``start`` ends with ``stop`` and another one starts at ``position``."""
    run, before, after = stop.group(), text[stop.start() - 1 : stop.start()], text[position]
    word = _BEFORE_WORD.match(text, position, end)
    assert word is not None
    first = text[word.end()] if word.end() < end else ""
    asian = bool(_FULL_WIDTH & set(run)) or bool(before and _is_asian(before) and _is_asian(after))
    if run == "．" and before.isdigit() and after.isdigit():
        return False
    if before in _BRACKETS:  # (?)
        return False
    if set(run) <= set(". \u00a0…") and run != ".":  # an ellipsis counts as a pause
        return after.isspace() and first.isupper()
    if asian:
        return position == stop.end() or not _TAG.match(text, position, end)
    if not after.isspace() and not (run != "." and _is_asian(after)):
        return False
    if first.islower():
        return False
    return run != "." or not _is_abbreviation(text, start, stop.start(), word.end(), end, habits)


def _is_abbreviation(text: str, start: int, dot: int, following: int, end: int, habits: Habits) -> bool:
    """Whether the full stop at ``dot`` only marks an abbreviation or an ordinal number."""
    found = _WORD.search(text, max(start, dot - _LOOK_BACK), dot)
    if found is None:
        return False
    joined = re.sub(r"\s", "", found.group().lower())  # "z.b"
    word = re.split(r"[.\s]", found.group())[-1]
    begins = not any(c.isalnum() for c in text[max(start, found.start() - _LOOK_BACK) : found.start()])
    names = {joined, word.lower(), re.split("['’]", word.lower())[-1]}  # "l'avv"
    if names & habits.titles:
        return True
    if text[following : following + 1].isdigit() and names & habits.numbered:
        return True
    if word.isdigit():
        return begins or (habits.ordinals and not _begins_sentence(text, following, end, habits))
    if _ROMAN.fullmatch(word) and begins:
        return True
    shortened = (
        max(map(len, joined.split("."))) <= (2 if "." in joined else 1)  # an initial, "U.S", "p.m"
        or bool(names & habits.others)
        or (habits.ordinals and _ROMAN.fullmatch(word) is not None)
    )
    return shortened and not _begins_sentence(text, following, end, habits)


def _begins_sentence(text: str, position: int, end: int, habits: Habits) -> bool:
    """Whether a capitalised common word is at ``position``: "He", not "Henry", and not the initial of "A. Bell"."""
    word = _NEXT_WORD.match(text, position, end)
    if word is None or not word.group()[0].isupper() or _INITIAL.match(text, position, end):
        return False
    return is_common(word.group().lower().replace("’", "'"), habits)


# --- quotations -----------------------------------------------------------------------------------

_PAIRS = {"”": "“„", "“": "„", "’": "‘", "»": "«", "«": "»", "›": "‹", "‹": "›", '"': '"', "＂": "＂"} | dict(
    zip(")]}）】」』〕》〉｝］", "([{（【「『〔《〈｛［", strict=True)
)
_OPENING = frozenset("".join(_PAIRS.values()))


def _inside_quotation(text: str, start: int, end: int) -> list[bool]:
    """For each character, whether it is inside quotes or brackets; the closing one is not."""
    change = [0] * (end - start + 1)
    opened: list[int] = []
    count = dict.fromkeys(_OPENING, 0)
    for i in range(start, end):
        c = text[i]
        openers = _PAIRS.get(c, "")
        if any(count[o] for o in openers):
            while True:
                position = opened.pop()
                count[text[position]] -= 1
                if text[position] in openers:
                    break
            change[position - start] += 1
            change[i - start] -= 1
        elif c in _OPENING:
            opened.append(i)
            count[c] += 1
    return [depth > 0 for depth in accumulate(change[:-1])]


# --- pieces ---------------------------------------------------------------------------------------

_CLAUSE = re.compile(
    r"[,;:،؛][\"'”’»)\]]*(?=\s)|[，、；：][”’」』）]*|[ \u00a0](?=[—–-][ \u00a0])|—+|(?:…|\.\.\.)+[\"'”’»)\]]*"
)
_CLAUSE_ENDS = re.compile(r"[,;:،؛，、；：—–][\"'”’»)\]」』）]*$")
_GAP = re.compile(r"\s+")
_CANNOT_BEGIN = frozenset(
    "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶーゝゞヽヾ々」』）】〕》〉、。，．！？；：”’…—・％"
)
_JOINERS = frozenset("\u200c\u200d")

_Cutter = Callable[[_Part], list[int]]


class _Source:
    """A text, the data of its language, and the target and maximum length of its pieces in ms."""

    def __init__(self, text: str, habits: Habits, target: int, longest: int) -> None:
        self._text, self._habits, self._target, self._longest = text, habits, target, longest
        self._until = [0, *accumulate(map(milliseconds, text))]

    def cut_block(self, block: _Part) -> list[_Part]:
        """The pieces of a block; the last one has the break of the block."""
        inside = _inside_quotation(self._text, block.start, block.end)
        stops = list(sentence_ends(self._text, block.start, block.end, self._habits))
        outer = [stop for stop in stops if not inside[stop - 1 - block.start]]

        def quoted(part: _Part) -> list[int]:
            return stops[bisect_right(stops, part.start) : bisect_left(stops, part.end)]

        cutters: list[tuple[_Cutter, Break]] = [
            (quoted, Break.SENTENCE),
            (self._clauses, Break.CLAUSE),
            (self._words, Break.WORD),
            (self._characters, Break.WORD),
        ]
        sentences = self._parts(block, outer, Break.SENTENCE)
        return self._pack([part for sentence in sentences for part in self._shorten(sentence, cutters)], block)

    def _shorten(self, part: _Part, cutters: list[tuple[_Cutter, Break]]) -> list[_Part]:
        """``part`` in short enough pieces, cut by the first of ``cutters`` that is able to."""
        if self._length(part) <= self._longest or not cutters:
            return [part]
        (cutter, kind), *others = cutters
        parts = self._parts(part, cutter(part), kind)
        return self._pack([short for p in parts for short in self._shorten(p, others)], part)

    def _pack(self, parts: list[_Part], whole: _Part) -> list[_Part]:
        """Neighbours joined so that ``whole`` is divided into pieces of similar length, near the target."""
        length = self._length(whole)
        share = length / max(1, round(length / self._target))

        def share_of(part: _Part) -> int:
            middle = (self._until[part.start] + self._until[part.end]) / 2 - self._until[whole.start]
            return int(middle / share) if share else 0

        even = self._join(parts, lambda a, b: share_of(a) == share_of(b))
        return self._join(even, lambda a, b: min(self._length(a), self._length(b)) < SHORT)

    def _join(self, parts: list[_Part], belong_together: Callable[[_Part, _Part], bool]) -> list[_Part]:
        """Neighbours joined where they belong together and the result is not too long."""
        joined: list[_Part] = []
        previous: _Part | None = None
        for part in parts:
            whole = part if previous is None else _Part(joined[-1].start, part.end, part.ends)
            if previous is not None and self._length(whole) <= self._longest and belong_together(previous, part):
                joined[-1] = whole
            else:
                joined.append(part)
            previous = part
        return joined

    def _length(self, part: _Part) -> int:
        return self._until[part.end] - self._until[part.start]

    def _parts(self, whole: _Part, cuts: list[int], kind: Break) -> list[_Part]:
        """``whole`` cut at ``cuts``, without the white space there."""
        edges = [whole.start, *cuts, whole.end]
        parts = []
        for start, end in pairwise(edges):
            if piece := self._text[start:end].strip():
                start += self._text[start:end].index(piece)
                parts.append(_Part(start, start + len(piece), kind))
        parts[-1] = _Part(parts[-1].start, parts[-1].end, whole.ends)
        return parts

    def _clauses(self, part: _Part) -> list[int]:
        return [m.end() for m in _CLAUSE.finditer(self._text, part.start, part.end)]

    def _words(self, part: _Part) -> list[int]:
        """Positions of white space, and between Chinese or Japanese characters where a line may break."""
        spaces = [m.start() for m in _GAP.finditer(self._text, part.start, part.end)]
        between = [i for i in range(part.start + 1, part.end) if self._may_begin(i) and self._is_between_han(i)]
        return sorted({*spaces, *between})

    def _characters(self, part: _Part) -> list[int]:
        return [i for i in range(part.start + 1, part.end) if self._may_begin(i)]

    def _is_between_han(self, i: int) -> bool:
        return all(is_han(c) or is_kana(c) for c in self._text[i - 1 : i + 1])

    def _may_begin(self, i: int) -> bool:
        """Whether the character at i can start a piece: not if it combines with the one before."""
        c = self._text[i]
        joined = (
            c in _CANNOT_BEGIN
            or c in _JOINERS
            or self._text[i - 1] in _JOINERS
            or unicodedata.category(c)[0] == "M"
            or "\U0001f3fb" <= c <= "\U0001f3ff"  # skin tones
            or "\u1160" <= c <= "\u11ff"  # vowels and finals of a Korean syllable
        )
        return not joined
