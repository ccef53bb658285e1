"""The prompt as a table: the parts summed at each position of the talker's input, before any weight is used.

A talker input is the sum of a text part (a token of the text vocabulary, through ``text_projection``) and a codec
part (an id of the codec vocabulary, a reference frame, or the speaker's x-vector); instruction and role have no codec
part. A finished prompt is the prefill table and the trailing text, one token per frame.

Official: ``Qwen3TTSForConditionalGeneration.generate`` and ``generate_icl_prompt``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..config import ModelConfig, TalkerConfig
from ..errors import RequestError, RequestTypeError
from ..ops import Ints
from ..shown import shortened
from .languages import language_name
from .templates import TextIds


@dataclass(frozen=True)
class Position:
    """One position of the prefill. At most one of the three codec parts is present."""

    why: str  # role, language tag, speaker, pad, bos, text, reference frame, instruction
    text: int
    codec: int | None = None
    frame: tuple[int, ...] | None = None  # the G codes of a reference frame
    x_vector: bool = False  # the reference's speaker embedding


@dataclass(frozen=True)
class Prompt:
    """The input of the talker: ``prefill`` at once, then ``trailing`` text ids, one added to each frame's input.

    When ``trailing`` is used up, ``tts_pad`` is added instead.
    """

    prefill: tuple[Position, ...]
    trailing: tuple[int, ...]
    opening: int = 0  # positions before the first that depends on the text to be spoken


@dataclass(frozen=True)
class Conditioning:
    """The voice in the prompt: the speaker's position, and the reference that in-context cloning continues."""

    speaker: str | None = None  # a name of the model's table
    x_vector: bool = False  # the prompt carries a speaker embedding
    reference_text: tuple[int, ...] = ()  # token ids of the transcript
    reference_codes: Ints | None = None  # [frames, G]; None unless cloning in context


def build_prompt(
    config: ModelConfig, text: TextIds, language: str, voice: Conditioning, instruct: list[int], streaming: bool
) -> Prompt:
    """Lay out one request.

    ``language`` is "auto", a name of the model's table in any case, or its code (en, zh-CN); ``streaming`` feeds the
    text one token per frame instead of all of it before the first frame. Raises RequestError for an unknown language or
    speaker.
    """
    c = config.talker_config
    head = [Position("instruction", t) for t in instruct]
    head += [Position("role", t) for t in text.role]
    head += _codec_prefix(config, language, voice)
    if voice.reference_codes is not None:
        body, trailing = _in_context(config, text, voice, streaming)
    elif streaming:
        body = [Position("text", text.first, codec=c.codec_bos_id)]
        trailing = [*text.trailing, config.tts_eos_token_id]
    else:
        body = _whole_text([*text.text, config.tts_eos_token_id], c)
        body.append(Position("bos", config.tts_pad_token_id, codec=c.codec_bos_id))
        trailing = []
    return Prompt((*head, *body), tuple(trailing), len(head) + min(len(voice.reference_text), len(body)))


def language_id(c: TalkerConfig, language: str, speaker: str | None) -> int | None:
    """The language tag, or None for "auto". A dialect speaker uses its dialect unless another language is given."""
    if not isinstance(language, str):
        raise RequestTypeError(f"language is {type(language).__name__}; give a name, a code such as en-US, or 'auto'")
    name = key_of(c.codec_language_id, language.strip(), "language") or language_name(language) or "auto"
    speaker = key_of(c.spk_id, speaker, "speaker") if speaker else None
    dialect = c.spk_is_dialect.get(speaker, False) if speaker else False
    if name in ("chinese", "auto") and isinstance(dialect, str):
        return c.codec_language_id[dialect]
    if name == "auto":
        return None
    if name not in c.codec_language_id or "dialect" in name:  # dialects are selected through their speakers
        raise RequestError(
            f"language {shortened(language)} is not in this model; it has {', '.join(supported_languages(c))}"
        )
    return c.codec_language_id[name]


def supported_languages(c: TalkerConfig) -> list[str]:
    """The languages that a caller may select, sorted."""
    return sorted(["auto", *(name for name in c.codec_language_id if "dialect" not in name)])


def speaker_id(c: TalkerConfig, speaker: str) -> int:
    """The codec id of a speaker; its name may be in any case."""
    name = key_of(c.spk_id, speaker, "speaker")
    if name is None:
        known = ", ".join(sorted(c.spk_id)) or "none: it is not a custom-voice model"
        raise RequestError(f"speaker {shortened(speaker)} is not in this model; it has {known}")
    return c.spk_id[name]


def key_of(table: Mapping[str, int], name: str, what: str) -> str | None:
    """The key of ``table`` that is ``name``, in any case. RequestError where it could be several."""
    if not isinstance(name, str):
        raise RequestTypeError(f"{what} is {type(name).__name__}; give a name")
    if name in table:
        return name
    found = [key for key in table if key.lower() == name.lower()]
    if len(found) > 1:
        which = " or ".join(map(shortened, found))
        raise RequestError(f"{what} {shortened(name)} could be {which}; write the one you mean")
    return found[0] if found else None


def _codec_prefix(config: ModelConfig, language: str, voice: Conditioning) -> list[Position]:
    """Thinking tag, speaker, pad over ``tts_pad`` and, under the last, ``tts_bos``."""
    c = config.talker_config
    tag = language_id(c, language, voice.speaker)
    ids = [c.codec_nothink_id, c.codec_think_bos_id, c.codec_think_eos_id]
    if tag is not None:
        ids = [c.codec_think_id, c.codec_think_bos_id, tag, c.codec_think_eos_id]
    pad = config.tts_pad_token_id
    prefix = [Position("language tag", pad, codec=i) for i in ids]
    if voice.speaker:
        prefix.append(Position("speaker", pad, codec=speaker_id(c, voice.speaker)))
    elif voice.x_vector:
        prefix.append(Position("speaker", pad, x_vector=True))
    return [*prefix, Position("pad", config.tts_bos_token_id, codec=c.codec_pad_id)]


def _whole_text(ids: list[int], c: TalkerConfig) -> list[Position]:
    return [Position("text", t, codec=c.codec_pad_id) for t in ids]


def _in_context(
    config: ModelConfig, text: TextIds, voice: Conditioning, streaming: bool
) -> tuple[list[Position], list[int]]:
    """Reference and target text, and the reference's frames: in sequence, or in parallel when streaming."""
    c, pad = config.talker_config, config.tts_pad_token_id
    assert voice.reference_codes is not None
    words = [*voice.reference_text, *text.text, config.tts_eos_token_id]
    frames = [Position("bos", pad, codec=c.codec_bos_id)]
    frames += [Position("reference frame", pad, frame=tuple(map(int, row))) for row in voice.reference_codes]
    if not streaming:
        return _whole_text(words, c) + frames, []
    beside = words[: len(frames)] + [pad] * (len(frames) - len(words))
    return [replace(f, text=t) for f, t in zip(frames, beside, strict=True)], words[len(frames) :]
