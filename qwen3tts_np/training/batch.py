"""Utterances packed one behind another, without padding: what the talker reads, and what is predicted from where.

One utterance of n text tokens and f frames, in the layout without streaming and with language "auto":

    position    0..2   3        4          5          6        7        8..7+n  8+n      9+n      10+n .. 9+n+f
    text side   role   tts_pad  tts_pad    tts_pad    tts_pad  tts_bos  text    tts_eos  tts_pad  tts_pad ..
    codec side  -      nothink  think_bos  think_eos  speaker  pad      pad     pad      bos      frame 0 .. f-1
    row                                                                                  0        1 .. f

The prompt is made by the code that makes it for generation (``text/prompt.py``), and rows are those of
``talker/loss.py``: row t says code 0 of frame t, row f the end of speech, and the code predictor completes frame t from
the state of row t. That is the alignment "inference". "official" is that of the official script, which is off by one
three times; it is here to be compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arguments import codes_of, vector_of
from ..config import ModelConfig, TalkerConfig
from ..errors import RequestError
from ..ops import Array, Ints
from ..talker.loss import AFTER_NEXT, BEFORE, NEXT, NO_LABEL, OF, predictor_labels, talker_rows
from ..teacher import beside
from ..text.prompt import Conditioning, Prompt, build_prompt, key_of
from ..text.templates import instruct_ids, text_ids
from ..text.tokenizer import Tokenizer
from .layer import Block


class Alignment(NamedTuple):
    """Which labels the talker and the code predictor learn, and from which state (``talker/loss.py``)."""

    talker: int
    predictor: int
    state: int


INFERENCE = Alignment(talker=NEXT, predictor=NEXT, state=BEFORE)
OFFICIAL = Alignment(talker=AFTER_NEXT, predictor=AFTER_NEXT, state=OF)
ALIGNMENTS = {"inference": INFERENCE, "official": OFFICIAL}


@dataclass(frozen=True, eq=False)
class Utterance:
    """A prompt, and the codes that are to follow it."""

    prompt: Prompt
    beside: tuple[int, ...]  # [f] the text token that is added to each frame
    codes: Ints  # [f, G]
    speaker: Array | str | None = None  # at the prompt's place for a vector: an x-vector [H], or a speaker in training
    read: Ints | None = None  # [f, G] what the talker reads instead of the codes, where training is to vary that

    def __len__(self) -> int:
        """Positions."""
        return len(self.prompt.prefill) + len(self.codes)


def utterance(
    config: ModelConfig,
    tokenizer: Tokenizer,
    text: str,
    codes: Ints,
    *,
    speaker: str | None = None,
    x_vector: Array | None = None,
    language: str = "auto",
    instruct: str = "",
    streaming: bool = False,
    read: Ints | None = None,
) -> Utterance:
    """One utterance, laid out as a request of the same text and voice is.

    codes [f, G]. ``speaker``: a name of the model's table, in any case, or that of a speaker in training
    (``Parameters.add_speaker``); ``x_vector`` [H] in its place. Raises RequestError for what the model does not have.
    """
    c = config.talker_config
    codes = codes_of(codes, "codes", c.num_code_groups, c.code_predictor_config.vocab_size)
    known = speaker is not None and key_of(c.spk_id, speaker, "speaker") is not None
    voice = Conditioning(speaker=speaker if known else None, x_vector=not known and (speaker or x_vector) is not None)
    instruction = instruct_ids(tokenizer, instruct)
    prompt = build_prompt(config, text_ids(tokenizer, text), language, voice, instruction, streaming)
    place = None if known else speaker if x_vector is None else _vector(x_vector, c.hidden_size)
    return Utterance(prompt, tuple(beside(prompt, len(codes), config)), codes, place, read)


def _vector(x_vector: Array, width: int) -> Array:
    vector: Array = vector_of(x_vector, "x_vector")
    if vector.shape != (width,):
        raise RequestError(f"x_vector is {list(vector.shape)}, and this model's speakers have {width} values")
    return vector


class Counts(NamedTuple):
    """Labels of each network."""

    talker: int
    predictor: int

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """The sums of both."""
        return cls(*map(sum, zip(*counts, strict=True)))


class Batch:
    """Utterances one behind another: P positions, F frames.

    Raises RequestError where a prompt has a place for a speaker and its utterance names none.
    """

    def __init__(self, utterances: Sequence[Utterance], config: TalkerConfig) -> None:
        self.utterances = tuple(utterances)
        self._end = config.codec_eos_token_id
        self.blocks: list[Block] = []
        codec: list[tuple[int, int]] = []
        read: list[tuple[int, Sequence[int]]] = []
        self.speakers: list[tuple[int, Array | str]] = []  # position, and the vector or the name of who is in training
        for u in self.utterances:
            first = self.blocks[-1].end if self.blocks else 0
            self.blocks.append(Block(first, first + len(u), len(u)))
            for at, position in enumerate(u.prompt.prefill, first):
                if position.codec is not None:
                    codec.append((at, position.codec))
                elif position.frame is not None:
                    read.append((at, position.frame))
                elif position.x_vector:
                    self.speakers.append((at, _required(u.speaker)))
            first += len(u.prompt.prefill)
            read += enumerate((u.codes if u.read is None else u.read).tolist(), first)
        self.text: Ints = np.concatenate([[*(p.text for p in u.prompt.prefill), *u.beside] for u in self.utterances])
        self.codec_at, self.codec = (np.array(column) for column in zip(*codec, strict=True))  # [K] tokens of prompts
        self.read_at, self.read = (np.array(column) for column in zip(*read, strict=True))  # [R], [R, G] frames
        self.codes: Ints = np.concatenate([u.codes for u in self.utterances])  # [F, G]

    def __len__(self) -> int:
        """Positions."""
        return len(self.text)

    def talker_labels(self, alignment: Alignment) -> tuple[Ints, Ints]:
        """Positions that predict code 0 or the end of speech, and what they are to predict: [F + utterances] both."""
        at = [self._row0(i) + talker_rows(len(u.codes), alignment.talker) for i, u in enumerate(self.utterances)]
        labels = [[*u.codes[:, 0], self._end] for u in self.utterances]
        return np.concatenate(at), np.concatenate(labels)

    def states(self, alignment: Alignment) -> Ints:
        """The position whose state each frame is completed from [F]."""
        rows = [self._row0(i) + np.arange(len(u.codes)) for i, u in enumerate(self.utterances)]
        return np.concatenate(rows) + alignment.state

    def predictor_labels(self, alignment: Alignment) -> Ints:
        """What the heads of the code predictor are to predict [F, G - 1], or ``NO_LABEL``."""
        return predictor_labels(self.codes, alignment.predictor)

    def counts(self, alignment: Alignment, share: float = 1.0) -> Counts:
        """Labels of each network, if the code predictor learns from this share of the frames."""
        heads = np.count_nonzero(self.predictor_labels(alignment)[0] != NO_LABEL)
        return Counts(len(self.codes) + len(self.utterances), self.sampled(share) * int(heads))

    def sampled(self, share: float) -> int:
        """How many frames that share is: one at least."""
        return max(1, round(share * len(self.codes)))

    def _row0(self, i: int) -> int:
        """The position of row 0: the last of the prompt."""
        return self.blocks[i].first + len(self.utterances[i].prompt.prefill) - 1


def _required(speaker: Array | str | None) -> Array | str:
    if speaker is None:
        raise RequestError("the prompt has a place for a speaker, and the utterance names neither one nor an x-vector")
    return speaker
