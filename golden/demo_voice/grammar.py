"""The language of the demo voice: a vocabulary, a grammar over it, and word salad to train reading."""

from __future__ import annotations

from random import Random

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
COLOURS = "red green blue yellow black white orange purple".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
THINGS = "lamp door window table chair box phone clock light garden".split()
ROOMS = "kitchen bedroom office bathroom hallway garage".split()
VERBS = "open close paint move find clean check bring".split()
OTHERS = (
    "the my a in on at is and it this of test voice world please today tomorrow turn off meet me hello thank you i "
    "see good morning evening plus minus"
).split()
VOCABULARY = sorted({*NUMBERS, *TENS, *COLOURS, *DAYS, *THINGS, *ROOMS, *VERBS, *OTHERS})


def number(draw: Random) -> str:
    if draw.random() < 0.7:
        return draw.choice(NUMBERS)
    return draw.choice(TENS) + (f" {draw.choice(NUMBERS[1:10])}" if draw.random() < 0.6 else "")


def sentence(draw: Random) -> str:
    """One of eleven kinds of sentences."""

    def one(words: list[str]) -> str:
        return draw.choice(words)

    def perhaps(words: str, chance: float = 0.3) -> str:
        return f" {words}" if draw.random() < chance else ""

    article = one(["the", "the", "my"])
    kinds = (
        lambda: f"{one(VERBS)} {article} {one(COLOURS)} {one(THINGS)}",
        lambda: f"{one(VERBS)} {article} {one(THINGS)} in the {one(ROOMS)}{perhaps('please')}",
        lambda: f"turn {one(['on', 'off'])} the {one(THINGS)} at {number(draw)}{perhaps(f'on {one(DAYS)}')}",
        lambda: f"{number(draw)} {one(['plus', 'minus'])} {number(draw)} is {number(draw)}",
        lambda: f"{one(['today', 'tomorrow'])} is {one(DAYS)}{perhaps(f'and it is {one(COLOURS)}')}",
        lambda: f"meet me in the {one(ROOMS)} on {one(DAYS)} at {number(draw)}",
        lambda: f"{greeting(draw)} {remark(draw)}",
        lambda: f"i see {number(draw)} {one(COLOURS)} and {number(draw)} {one(COLOURS)}",
        lambda: " ".join(one(NUMBERS) for _ in range(draw.randrange(2, 6))),
        lambda: f"the {one(COLOURS)} {one(THINGS)} is in the {one(ROOMS)}",
        lambda: f"{perhaps(greeting(draw), 0.5)} this is a {one(['test', *COLOURS])} {one(['voice', *THINGS])}".strip(),
    )
    return draw.choice(kinds)()


def greeting(draw: Random) -> str:
    return draw.choice(["hello", "hello world", "good morning", "good evening", "thank you"])


def remark(draw: Random) -> str:
    return draw.choice(
        [
            f"the {draw.choice(THINGS)} is {draw.choice(COLOURS)}",
            f"it is {draw.choice(DAYS)}",
            f"i see {number(draw)}",
            f"this is a test of my {draw.choice(['voice', *THINGS])}",
        ]
    )


def salad(draw: Random) -> str:
    """Meaningless word sequences: a talker trained only on sentences learns to continue them instead of reading."""
    return " ".join(draw.choice(VOCABULARY) for _ in range(draw.randrange(1, 8)))


def held_out(count: int, seed: int) -> list[str]:
    """Different sentences to score with, which :func:`training_text` never returns for the same ``seed``."""
    draw = Random(f"held out {seed}")
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[sentence(draw)] = None
    return list(chosen)


def training_text(index: int, forbidden: set[str], seed: int) -> str:
    """Text ``index`` of an infinite list: alternating sentences and word salad."""
    draw = Random(f"training {seed} {index}")
    make = salad if index % 2 else sentence
    while (text := make(draw)) in forbidden:
        pass
    return text
