"""A request: one piece of text in one voice, laid out and ready for the frame loop.

    text, voice, language --(``prompt_layout``)--> Prompt
    sampling arguments ----(``limits_of``)-> Limits   } Request -> ``generate.py``
    seed ------------------------------------------>

The three kinds of voice are those of the three kinds of checkpoint. A request is complete: it has the same codes alone,
in the company of others, and streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from .arguments import codes_of, require_text, require_type, vector_of, whole_number
from .checkpoint.pretrained import asks_for_nothing
from .config import GenerationConfig, ModelConfig
from .errors import RequestError, RequestTypeError
from .notices import notify
from .ops import Array, Ints, Wave
from .shown import shortened
from .talker.generator import check_seed, fresh_seed
from .talker.sampling import SamplingParameters
from .text.feed import TextSource
from .text.prompt import Conditioning, Prompt, build_prompt
from .text.templates import TextIds, instruct_ids, reference_ids, text_ids
from .text.tokenizer import Tokenizer
from .voice.prompt_item import VoiceClonePromptItem


@dataclass(frozen=True)
class CustomVoice:
    """A voice of the model's table, and how it is to speak. Custom-voice models."""

    speaker: str
    instruct: str = ""

    def __post_init__(self) -> None:
        if self.speaker is not None:  # of the official package: none
            require_text(self.speaker, "speaker")
        require_text(self.instruct, "instruct")


@dataclass(frozen=True)
class DesignedVoice:
    """The voice that ``instruct`` describes; "" lets the model choose one. Voice-design models."""

    instruct: str = ""

    def __post_init__(self) -> None:
        require_text(self.instruct, "instruct")


@dataclass(frozen=True)
class ClonedVoice:
    """The voice of a reference clip, as ``create_voice_clone_prompt`` or a saved file has it. Base models."""

    item: VoiceClonePromptItem

    def __post_init__(self) -> None:
        require_type(self.item, VoiceClonePromptItem, "item")


# Arguments of transformers' generate() that the official package takes, and hands on to nobody.
_UNUSED = frozenset(
    "assistant_model attention_mask bad_words_ids bos_token_id cache_implementation custom_generate early_stopping "
    "forced_bos_token_id forced_eos_token_id generation_config guidance_scale length_penalty logits_processor "
    "max_length max_time min_length min_new_tokens min_p negative_prompt_ids no_repeat_ngram_size num_beams "
    "num_return_sequences output_attentions output_hidden_states output_logits output_scores pad_token_id "
    "prefix_allowed_tokens_fn renormalize_logits return_dict_in_generate stop_strings stopping_criteria streamer "
    "suppress_tokens synced_gpus typical_p use_cache use_model_defaults".split()
)

Voice = CustomVoice | DesignedVoice | ClonedVoice
MODEL_TYPE_OF: dict[type, str] = {CustomVoice: "custom_voice", DesignedVoice: "voice_design", ClonedVoice: "base"}


@dataclass(frozen=True)
class Limits:
    """The sampling rules, and the limit on generated tokens."""

    talker: SamplingParameters
    subtalker: SamplingParameters
    max_new_tokens: int  # trap: N tokens are N - 1 frames, since the last token's frame is never completed


@dataclass(frozen=True, eq=False)
class Request:
    """One piece of text, ready for the frame loop.

    RequestError if the prompt has a place for a speaker embedding and there is none.
    """

    prompt: Prompt
    limits: Limits
    seed: int = 0
    x_vector: Array | None = None  # [H] the speaker embedding, where the prompt has a place for one
    reference_codes: Ints | None = None  # [frames, G] what cloning in context continues
    incoming: TextSource | None = None  # text that follows ``prompt.trailing`` and is still arriving

    def __post_init__(self) -> None:
        require_type(self.prompt, Prompt, "prompt")
        require_type(self.limits, Limits, "limits")
        check_seed(self.seed)
        if self.x_vector is not None:
            own = vector_of(self.x_vector, "x_vector").copy()  # what the caller writes to his later is another voice
            own.flags.writeable = False
            object.__setattr__(self, "x_vector", own)
        if self.reference_codes is not None:
            object.__setattr__(self, "reference_codes", codes_of(self.reference_codes, "the reference codes"))
        if self.incoming is not None:
            require_type(self.incoming, TextSource, "incoming")
        if self.x_vector is None and any(position.x_vector for position in self.prompt.prefill):
            raise RequestError("the prompt has a place for a speaker embedding (x-vector), and the request has none")

    def waits(self, frames: int) -> bool:
        """Whether text that the frame after ``frames`` needs has not arrived: one token for each frame so far."""
        if self.incoming is None or self.incoming.finished:
            return False
        return frames > len(self.prompt.trailing) + self.incoming.arrived


class Utterance(NamedTuple):
    """A request that has been spoken."""

    samples: Wave  # [samples] at the codec's output rate
    codes: Ints  # [frames, G]


def make_request(
    config: ModelConfig,
    tokenizer: Tokenizer,
    text: str,
    voice: Voice,
    language: str,
    streaming: bool,
    limits: Limits,
    seed: int | None,
) -> Request:
    """Lay out one piece of text. A seed of None is drawn here, so that the request has its codes for good.

    RequestError for a text that is not a proper string, a speaker or language the model does not have, or a bad seed.
    """
    drawn = fresh_seed() if seed is None else check_seed(seed)
    ids = text_ids(tokenizer, text)
    check_positions(config, len(ids.text))  # before a position is made of each
    prompt = prompt_layout(config, tokenizer, voice, language, streaming)(ids)
    limits = within_positions(config, prompt, limits)
    if not isinstance(voice, ClonedVoice):
        return Request(prompt, limits, drawn)
    item = voice.item
    return Request(prompt, limits, drawn, item.ref_spk_embedding, item.ref_code if item.icl_mode else None)


def prompt_layout(
    config: ModelConfig, tokenizer: Tokenizer, voice: Voice, language: str, streaming: bool
) -> Callable[[TextIds], Prompt]:
    """The function that lays out the prompt of a text in this voice and language."""
    conditioning = conditioning_of(voice, tokenizer)
    instruct = "" if isinstance(voice, ClonedVoice) else voice.instruct
    instruction = instruct_ids(tokenizer, instruct)
    return lambda text: build_prompt(config, text, language, conditioning, instruction, streaming)


def conditioning_of(voice: Voice, tokenizer: Tokenizer) -> Conditioning:
    """The conditioning of the prompt by a voice."""
    if isinstance(voice, CustomVoice):
        return Conditioning(speaker=voice.speaker or None)
    if isinstance(voice, DesignedVoice):
        return Conditioning()
    item = voice.item
    if not item.icl_mode:
        return Conditioning(x_vector=item.x_vector_only_mode)
    assert item.ref_code is not None and item.ref_text is not None
    return Conditioning(
        x_vector=True,
        reference_text=tuple(reference_ids(tokenizer, item.ref_text)),
        reference_codes=item.ref_code,
    )


def limits_of(defaults: GenerationConfig, sampling: dict[str, Any]) -> Limits:
    """The caller's sampling arguments over those of generation_config.json; None stands for the latter."""
    values = asdict(defaults)
    for name, value in sampling.items():
        if name in values:
            values[name] = values[name] if value is None else value
        elif name in _UNUSED:
            if not asks_for_nothing(value):
                notify(f"{name} has no effect, here and in the official package")
        elif not asks_for_nothing(value):
            raise RequestTypeError(
                f"there is no argument {shortened(name)}; the sampling arguments are {', '.join(values)}"
            )
    limit = whole_number(values["max_new_tokens"], "max_new_tokens")
    names = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")
    talker = SamplingParameters(**{name: values[name] for name in names})
    subtalker = SamplingParameters(
        do_sample=values["subtalker_dosample"],  # spelled so in the official file
        **{name: values[f"subtalker_{name}"] for name in names[1:4]},
        prefix="subtalker_",
    )
    return Limits(talker, subtalker, limit)


def check_positions(config: ModelConfig, needed: int) -> None:
    """RequestError for a request that needs more positions than the model has."""
    positions = config.talker_config.max_position_embeddings
    if needed > positions:
        raise RequestError(
            f"the request has {needed} positions and the model has {positions} (max_position_embeddings); "
            "speak the text in parts, as 'qwen3tts-np say' does"
        )


def within_positions(config: ModelConfig, prompt: Prompt, limits: Limits) -> Limits:
    """``limits`` that end where the model's positions end: each of the prompt takes one, and so does each frame.

    RequestError where the text does not fit in. Trap: the official package reads on past the last position, where no
    model was trained.
    """
    check_positions(config, len(prompt.prefill) + len(prompt.trailing))
    positions = config.talker_config.max_position_embeddings
    most = positions - len(prompt.prefill) + 1
    if limits.max_new_tokens <= most:
        return limits
    notify(f"speech ends after {most - 1} frames at the latest, where the model's {positions} positions end")
    return replace(limits, max_new_tokens=most)


def check_sizes(config: ModelConfig, request: Request) -> None:
    """RequestError for a request that was prepared for a model with other tables or another width."""
    c, prompt = config.talker_config, request.prompt
    highest = max([*(position.text for position in prompt.prefill), *prompt.trailing], default=0)
    codec = max((position.codec for position in prompt.prefill if position.codec is not None), default=0)
    fits = highest < c.text_vocab_size and codec < c.vocab_size
    fits &= request.x_vector is None or request.x_vector.shape == (c.hidden_size,)
    if not fits or len(prompt.prefill) > c.max_position_embeddings:
        raise RequestError("the request was prepared for another model: its ids, or its embedding, do not fit this one")
    if request.reference_codes is not None:
        codes_of(request.reference_codes, "the reference codes", c.num_code_groups, c.code_predictor_config.vocab_size)


def one_text(text: Any) -> str:
    """RequestError unless ``text`` is a string."""
    if not isinstance(text, str):
        raise RequestTypeError(f"text is {type(text).__name__}; a stream speaks one text, a string")
    return text


def texts_of(text: str | list[str]) -> list[str]:
    """One text or a list of them, as a list. RequestError for an empty one."""
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise RequestError("text is an empty list; give at least one text")
    return texts


def per_item(value: Any, count: int, name: str, default: Any) -> list[Any]:
    """One value for each of ``count`` items: a list of that length, or one value for all; None, False: default."""
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise RequestError(f"{name} has {len(values)} values for {count} items; give one, or one for each")
    return [default if v is None or v is False else v for v in values]
