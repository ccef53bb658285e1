"""From reference clips to voices: the speaker embedding of a clip and, in context, its codes.

Official: ``Qwen3TTSModel.create_voice_clone_prompt``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import require_text, switch
from .audio.files import read_audio, resample
from .compiled.engine import Engine
from .config import ModelConfig
from .errors import RequestError
from .ops import Array, Ints, Wave
from .request import per_item
from .speaker.encoder import SpeakerEncoderWeights, speaker_embedding
from .speech_tokenizer import Qwen3TTSTokenizer
from .voice.prompt_item import Fingerprint, VoiceClonePromptItem, digest
from .voice.reference_clip import warn_about_clip

if TYPE_CHECKING:
    from .compiled.speaker.encoder import CompiledSpeakerEncoder

MOST_SECONDS = 600  # of a clip: an hour would take some 10 GB, and no more than 20 s make a better voice


@dataclass(frozen=True)
class VoiceCloner:
    """Makes voices of clips with the speaker encoder and the codec encoder of one base model."""

    config: ModelConfig
    speech_tokenizer: Qwen3TTSTokenizer
    speaker_encoder: SpeakerEncoderWeights | None  # base models have one
    engine: Engine

    def voices(self, ref_audio: Any, ref_text: Any, x_vector_only_mode: Any) -> list[VoiceClonePromptItem]:
        """One voice per clip; each argument is one value, or a list with one for each clip."""
        given = ref_audio if isinstance(ref_audio, list) else [ref_audio]
        clips = [read_audio(clip, longest=MOST_SECONDS) for clip in given]
        texts = per_item(ref_text, len(clips), "ref_text", None)
        x_vector_only = per_item(x_vector_only_mode, len(clips), "x_vector_only_mode", False)
        for transcript in texts:
            if transcript is not None:
                require_text(transcript, "ref_text")
        x_vector_only = [switch(alone, "x_vector_only_mode") for alone in x_vector_only]
        for i, (transcript, alone) in enumerate(zip(texts, x_vector_only, strict=True)):
            if not alone and not transcript:
                raise RequestError(f"ref_text of item {i} is missing; only x_vector_only_mode=True works without it")
        for i, ((wave, rate), transcript, alone) in enumerate(zip(clips, texts, x_vector_only, strict=True)):
            name = "the reference clip" if len(clips) == 1 else f"reference clip {i}"
            if len(wave) > MOST_SECONDS * rate:
                raise RequestError(
                    f"{name} is {len(wave) / rate:.0f} s long, and {MOST_SECONDS} s are the most; cut it to 10 to 20 s"
                )
            warn_about_clip(wave, rate, None if alone else transcript, name)
        codes = [None] * len(clips) if all(x_vector_only) else self._encode(clips)
        embeddings = [self.embedding(*clip) for clip in clips]
        return [
            VoiceClonePromptItem(
                None if alone else code, embedding, bool(alone), not alone, transcript, self.fingerprint
            )
            for code, embedding, alone, transcript in zip(codes, embeddings, x_vector_only, texts, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The parts of the model that voices depend on; hashing them takes about 0.1 s, once."""
        encoder = self.speech_tokenizer.encoder.weights
        stored = (*encoder.semantic.codebooks, *encoder.acoustic.codebooks)[: self.config.talker_config.num_code_groups]
        return Fingerprint(
            model_size=self.config.tts_model_size,
            speaker_encoder=digest(self.speaker_encoder, np.float16),
            codebooks=digest(tuple((book.embed_sum, book.cluster_usage) for book in stored), np.float32),
        )

    def embedding(self, wave: Wave, rate: int) -> Array:
        """The speaker embedding [H] of a clip."""
        c, w = self.config.speaker_encoder_config, self.speaker_encoder
        assert c is not None and w is not None
        audio = resample(wave, rate, c.sample_rate)
        with self.engine.limited():
            if self.engine.runs_kernels:
                return self.compiled_speaker_encoder.embedding(audio)
            return speaker_embedding(audio, w, c)

    @cached_property
    def compiled_speaker_encoder(self) -> CompiledSpeakerEncoder:
        """Packed at the first clip: most models never get one."""
        from .compiled.speaker.encoder import CompiledSpeakerEncoder

        assert self.speaker_encoder is not None and self.config.speaker_encoder_config is not None
        return CompiledSpeakerEncoder.pack(self.speaker_encoder, self.config.speaker_encoder_config, self.engine.team)

    def _encode(self, clips: list[tuple[Wave, int]]) -> list[Ints | None]:
        """Clips of one rate are encoded as a batch and others one by one: the official choice, and the last code of a
        clip can depend on it."""
        encode, needed = self.speech_tokenizer.encode_waves, self.speech_tokenizer.get_input_sample_rate()
        waves = [resample(samples, rate, needed) for samples, rate in clips]
        if len({rate for _, rate in clips}) == 1:
            return list(encode(waves))
        return [encode([wave])[0] for wave in waves]
