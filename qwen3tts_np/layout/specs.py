"""Every tensor of the two files of a checkpoint, in the order of the key tables.

``model.safetensors`` holds the talker, the code predictor and, in base models, the speaker encoder (BF16);
``speech_tokenizer/model.safetensors`` holds the codec's decoder and encoder (F32). Each table is beside the
block that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..checkpoint.keys import TensorSpec, specs
from ..codec.decoder import CodecDecoderWeights, codec_decoder_sizes
from ..codec.encoder import CodecEncoderWeights, codec_encoder_sizes
from ..config import CodecConfig, ModelConfig
from ..speaker.encoder import SpeakerEncoderWeights, speaker_encoder_sizes
from ..talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ..talker.talker import TalkerWeights, talker_sizes


def model_specs(c: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of ``model.safetensors``."""
    yield from specs(TalkerWeights, talker_sizes(c.talker_config), "talker.", "BF16")
    yield from specs(CodePredictorWeights, code_predictor_sizes(c.talker_config), "talker.code_predictor.", "BF16")
    if c.speaker_encoder_config is not None:
        sizes = speaker_encoder_sizes(c.speaker_encoder_config)
        yield from specs(SpeakerEncoderWeights, sizes, "speaker_encoder.", "BF16")


def codec_specs(c: CodecConfig) -> Iterator[TensorSpec]:
    """Every tensor of ``speech_tokenizer/model.safetensors``."""
    yield from specs(CodecDecoderWeights, codec_decoder_sizes(c.decoder_config), "decoder.", "F32")
    yield from specs(CodecEncoderWeights, codec_encoder_sizes(c.encoder_config), "encoder.", "F32")
