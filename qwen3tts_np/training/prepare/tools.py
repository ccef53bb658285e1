"""The parts of a checkpoint that preparation needs: tokenizer, codec and speaker encoder; no talker is loaded.

A clip is measured by one thread, and each thread has a clip of its own: nobody waits for anybody within a clip, as
threads that share one do in every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...cloning import VoiceCloner
from ...compiled.engine import Engine
from ...config import ModelConfig
from ...errors import RequestError
from ...model import Qwen3TTSModel
from ...speech.store import hash_of
from ...speech_tokenizer import Qwen3TTSTokenizer
from ...text.templates import text_ids
from ...text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Tools:
    """Of the checkpoint that will be trained. ``voices``: None where there is no speaker encoder."""

    config: ModelConfig
    tokenizer: Tokenizer
    codec: Qwen3TTSTokenizer
    voices: VoiceCloner | None
    threads: int = 1  # clips that may be measured at once

    @classmethod
    def load(cls, model: Path, speaker_encoder: Path | None = None, threads: int | None = None) -> Tools:
        """``model``: the directory of a checkpoint. ``speaker_encoder``: that of a base model, if its encoder is to
        be borrowed.

        RequestError where that has none, or one for models of another width.
        """
        all_cores = Engine.choose("auto", np.dtype(np.float32), threads=threads)
        engine = replace(all_cores, threads=1)
        read = Qwen3TTSModel.for_prompts(model)
        lent = read if speaker_encoder is None else Qwen3TTSModel.for_prompts(speaker_encoder)
        codec = Qwen3TTSTokenizer.load(model / "speech_tokenizer", engine)
        if speaker_encoder is not None:
            if lent.speaker_encoder is None:
                raise RequestError(f"--speaker-encoder {speaker_encoder} has none; base models have one")
            if (lent_width := lent.config.talker_config.hidden_size) != (
                width := read.config.talker_config.hidden_size
            ):
                raise RequestError(
                    f"--speaker-encoder {speaker_encoder} makes embeddings of {lent_width} values, and the model to be "
                    f"trained has {width}; take the base model of its size"
                )
        voices = None if lent.speaker_encoder is None else VoiceCloner(lent.config, codec, lent.speaker_encoder, engine)
        return cls(read.config, read.text_tokenizer, codec, voices, all_cores.cores)

    def pack(self, decoder: bool = False) -> None:
        """Pack the weights of what measures clips, unless they are: many threads will ask for them at once."""
        if self.codec.engine.runs_kernels:
            _ = self.codec.compiled_decoder if decoder else self.codec.compiled_encoder
            if self.voices is not None:
                _ = self.voices.compiled_speaker_encoder

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what codes and embeddings depend on."""
        if self.voices is not None:
            return hash_of(self.voices.fingerprint)
        encoder = self.codec.encoder.weights
        return hash_of((*encoder.semantic.codebooks, *encoder.acoustic.codebooks))

    def text_tokens(self, text: str) -> int:
        """How many tokens the talker reads of ``text``."""
        return len(text_ids(self.tokenizer, text).text)
