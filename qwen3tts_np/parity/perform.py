"""Everything that a model computes for a request: ids, activations in the order of execution, results, ranks."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from ..arguments import codes_of
from ..audio.files import resample
from ..codec.encoder import NAME as ENCODER
from ..codec.encoder import split_rvq
from ..errors import RequestError
from ..inspect.request import WrittenRequest, prepare
from ..model import Qwen3TTSModel
from ..ops import AnyArray, Ints
from ..speaker.encoder import speaker_embedding
from ..text.templates import instruct_ids, text_ids
from ..trace import trace
from .forced import GIVEN, HEADS, RESIDUALS, code_ranks, codebook_ranks, forced

_QUANTISER = f"{ENCODER}.quantizer."


def perform(model: Qwen3TTSModel, request: WrittenRequest, patterns: tuple[str, ...] = ()) -> dict[str, AnyArray]:
    """All values of a request in the order of execution: ids, activations matching ``patterns``, results, ranks.

    Without patterns every activation is kept.
    """
    request = request.for_model(model)
    wanted = (*patterns, *HEADS, *RESIDUALS) if patterns else ()
    with trace(*wanted) as activations:
        before: dict[str, AnyArray] = {}
        if request.method == "encode":
            after = _encode(model, request, activations)
        elif request.method == "decode":
            before, after = _decode(model, request)
        elif request.method == "speaker_embedding":
            after = _embedding(model, request)
        else:
            after = _speak(model, request, activations)
            before = _ids(model, request)
    kept = {name: value for name, value in activations.items() if _fits(name.rpartition("@")[0], patterns)}
    return {name: _plain(value) for name, value in {**before, **kept, **after}.items()}


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _plain(value: AnyArray) -> AnyArray:
    """Integers as int32, like everywhere in golden/."""
    return value.astype(np.int32) if value.dtype.kind in "iu" else value


def _speak(model: Qwen3TTSModel, request: WrittenRequest, activations: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    if request.codes is not None:
        model = forced(model, request.codes, request.last)
    ((wave, codes),) = model.generate([prepare(model, request)])
    return {"codes.0": codes, "wav.0": wave, **code_ranks(activations, codes)}


def _ids(model: Qwen3TTSModel, request: WrittenRequest) -> dict[str, AnyArray]:
    """The token ids that the activations are computed from."""
    texts = text_ids(model.text_tokenizer, request.argument("text"))
    found = {"input_ids.0": np.array([*texts.role, *texts.text, *texts.tail])}
    instruct = instruct_ids(model.text_tokenizer, request.argument("instruct") or "")
    return found | ({"instruct_ids.0": np.array(instruct)} if instruct else {})


def _encode(model: Qwen3TTSModel, request: WrittenRequest, activations: dict[str, AnyArray]) -> dict[str, AnyArray]:
    codec = model.speech_tokenizer
    codes: Ints
    (codes,) = codec.encode(**request.filled()).audio_codes
    if request.codes is not None:
        c = codec.config.decoder_config
        codes_of(request.codes, GIVEN, c.num_quantizers, c.codebook_size)
        if len(request.codes) != len(codes):
            raise RequestError(f"the given codes have {len(request.codes)} frames, the clip has {len(codes)}")
        for name in [name for name in activations if name.startswith(_QUANTISER)]:
            del activations[name]
        with trace() as quantiser:
            codes = split_rvq(activations[f"{ENCODER}.downsample@0"], codec.encoder, request.codes)
        activations.update(quantiser)
    return {"codes.0": codes, **codebook_ranks(activations, codes, codec.encoder)}


def _decode(model: Qwen3TTSModel, request: WrittenRequest) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
    codes = request.argument("audio_codes")
    (wave,), _ = model.speech_tokenizer.decode(codes)
    return {"codes.0": codes}, {"wav.0": wave}


def _embedding(model: Qwen3TTSModel, request: WrittenRequest) -> dict[str, AnyArray]:
    c = model.config.speaker_encoder_config
    if model.speaker_encoder is None or c is None:
        raise RequestError("speaker_embedding needs a base model: the others have no speaker encoder")
    wave, rate = request.argument("audio")
    return {"speaker_embedding.0": speaker_embedding(resample(wave, rate, c.sample_rate), model.speaker_encoder, c)}
