"""The prompt of one request, position by position: the parts summed at each, and their purpose.

Every row is a talker input. Its text part is a token of the text vocabulary (``text_projection(text_embedding[id])``);
its codec part, where there is one, an id of the codec vocabulary, a frame of a reference, or an x-vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..config import ModelConfig
from ..model import Qwen3TTSModel
from ..report.tables import Table
from ..text.prompt import Position, Prompt
from ..text.templates import text_ids
from ..text.tokenizer import Tokenizer
from .request import SPEECH, WrittenRequest, prepare

SHOWN_CODES = 4  # of a reference frame
REASONS = {
    "instruction": "the user's turn: how to speak, or which voice",
    "role": "the assistant's turn begins",
    "pad": "the text begins behind this",
}
CODEC_IDS = {
    "codec_pad_id": "codec side empty",
    "codec_bos_id": "speech begins",
    "codec_think_id": "a language tag follows",
    "codec_nothink_id": "no language tag: the model finds the language itself",
    "codec_think_bos_id": "begin of the tag",
    "codec_think_eos_id": "end of the tag",
}


@dataclass(frozen=True)
class Row:
    """One talker input. ``position`` counts from 0; those after the prefill are read one per frame."""

    position: int
    kind: str  # instruction, role, language tag, speaker, pad, bos, text, reference frame, frame
    text_id: int
    text: str
    codec_id: int | None
    codec: str
    sum: str
    why: str


@dataclass(frozen=True)
class Explanation:
    mode: str
    streaming: bool  # the text runs in parallel with the frames, not before them
    prefill: list[Row]
    frames: list[Row]  # read with the first frames; the last row represents all later ones

    def tables(self) -> Iterator[Table]:
        note = "text stands for text_projection(text_embedding[text id])."
        yield _table(f"Read at once: {len(self.prefill)} positions", self.prefill, note)
        note = "The last row repeats, one position per frame, until the model writes the end of speech."
        yield _table("Then one position per frame", self.frames, note)


def explain(model: Qwen3TTSModel, request: WrittenRequest) -> Explanation:
    """Lay out the prompt. Raises RequestError for a request that the model does not support."""
    prompt = prepare(model, request).prompt
    said = len(text_ids(model.text_tokenizer, request.argument("text")).text)
    words = iter(_word_kinds(prompt, said, model.config))
    names, body = _Names(model.config, model.text_tokenizer), False
    prefill, last = [], len(prompt.prefill) - 1
    for t, position in enumerate(prompt.prefill):
        prefill.append(names.prefill_row(t, position, next(words) if body else "", t == last))
        body |= position.why == "pad"
    trailing = [*prompt.trailing, model.config.tts_pad_token_id]
    frames = [names.frame_row(last + 1 + n, n, token, next(words)) for n, token in enumerate(trailing)]
    mode = (request.method or SPEECH[model.config.tts_model_type]).removeprefix("generate_")
    bos = next(row for row in prefill if row.codec_id == model.config.talker_config.codec_bos_id)
    streaming = bos.text_id != model.config.tts_pad_token_id
    return Explanation(mode, streaming, prefill, frames)


def as_json(e: Explanation) -> dict[str, Any]:
    return dataclasses.asdict(e)


def _word_kinds(prompt: Prompt, said: int, config: ModelConfig) -> list[str]:
    """The kind of each text token after the codec prefix, up to the first that every later frame repeats.

    ``said`` tokens are the text; in in-context mode the reference's transcript precedes it.
    """
    begin = next(t for t, p in enumerate(prompt.prefill) if p.why == "pad") + 1
    tokens = [*(p.text for p in prompt.prefill[begin:]), *prompt.trailing]
    end = len(tokens) - 1 - tokens[::-1].index(config.tts_eos_token_id)
    in_context = any(p.why == "reference frame" for p in prompt.prefill)
    reference = end - said if in_context else 0
    kinds = ["what the reference says"] * reference + ["text to say"] * (end - reference) + ["end of the text"]
    return kinds + ["no text (any more)"] * (len(tokens) + 1 - len(kinds))


class _Names:
    """Words for ids."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        c = config.talker_config
        self._tokenizer, self._groups = tokenizer, c.num_code_groups
        self._marks = {getattr(c, name): name for name in CODEC_IDS}
        self._languages = {i: name for name, i in c.codec_language_id.items()}
        self._speakers = {i: name for name, i in c.spk_id.items()}
        self._frames = 0  # of the reference, so far

    def prefill_row(self, t: int, p: Position, word: str, last: bool) -> Row:
        codec, added, codec_why = self._codec(p)
        why = "; ".join(part for part in (REASONS.get(p.why, ""), word, codec_why) if part)
        if last:
            why += "; the logits here choose code 0 of the first frame"
        total = f"text + {added}" if added else "text"
        return Row(t, p.why, p.text, self._token(p.text), p.codec, codec, total, why)

    def frame_row(self, t: int, n: int, token: int, word: str) -> Row:
        codec = f"the {self._groups} codes of frame {n}"
        why = f"{word}; frame {n} is read, and the logits choose code 0 of the next"
        return Row(t, "frame", token, self._token(token), None, codec, f"text + {self._groups} embeddings", why)

    def _codec(self, p: Position) -> tuple[str, str, str]:
        """(contents of the position, codec part added to the text, purpose)."""
        if p.frame is not None:
            n, self._frames = self._frames, self._frames + 1
            more = "..." if len(p.frame) > SHOWN_CODES else ""
            codes = " ".join(map(str, p.frame[:SHOWN_CODES])) + more
            return codes, f"{len(p.frame)} embeddings", f"frame {n} of the reference, to be continued"
        if p.x_vector:
            return "x-vector", "x-vector", "the voice, as the speaker encoder hears it in the reference"
        if p.codec is None:
            return "", "", ""
        added = f"codec_embedding[{p.codec}]"
        if p.why == "speaker":
            return self._speakers[p.codec], added, "a voice of the model's table"
        if p.why == "language tag" and p.codec in self._languages:
            return self._languages[p.codec], added, "the language"
        name = self._marks[p.codec]
        return name.removesuffix("_id"), added, CODEC_IDS[name]

    def _token(self, token: int) -> str:
        text = self._tokenizer.decode([token])
        return "(part of a character)" if "\ufffd" in text else repr(text)


def _table(title: str, rows: list[Row], note: str = "") -> Table:
    headers = ["position", "kind", "text id", "text token", "codec id", "codec", "sum", "why"]
    cells = [
        [
            str(r.position),
            r.kind,
            str(r.text_id),
            r.text,
            "" if r.codec_id is None else str(r.codec_id),
            r.codec,
            r.sum,
            r.why,
        ]
        for r in rows
    ]
    return Table(title, headers, "rlrlrlll", cells, note)
