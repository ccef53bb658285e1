"""The attributes that scripts read of the official networks, under their names: a view, nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass

from .config import ModelConfig, SpeakerEncoderConfig
from .speaker.encoder import SpeakerEncoderWeights
from .speech_tokenizer import Qwen3TTSTokenizer
from .text.prompt import supported_languages


@dataclass(frozen=True, repr=False)
class NetworkView:
    """``model.model``. Official: ``Qwen3TTSForConditionalGeneration``."""

    config: ModelConfig
    speech_tokenizer: Qwen3TTSTokenizer
    speaker_encoder: SpeakerEncoderWeights | None  # base models have one
    device: str = "cpu"

    @property
    def tts_model_type(self) -> str:
        """ "base", "custom_voice" or "voice_design"."""
        return self.config.tts_model_type

    @property
    def tts_model_size(self) -> str:
        """ "0b6" or "1b7"."""
        return self.config.tts_model_size

    @property
    def tokenizer_type(self) -> str:
        """ "qwen3_tts_tokenizer_12hz"."""
        return str(self.config.FIXED["tokenizer_type"])

    @property
    def speaker_encoder_sample_rate(self) -> int:
        """Hz, of the audio that a speaker embedding is computed from."""
        return int(SpeakerEncoderConfig.FIXED["sample_rate"])

    def get_supported_speakers(self) -> list[str]:
        """The model's table, sorted."""
        return sorted(self.config.talker_config.spk_id)

    def get_supported_languages(self) -> list[str]:
        """The names every ``language`` argument takes, sorted; "auto" is one of them."""
        return supported_languages(self.config.talker_config)
