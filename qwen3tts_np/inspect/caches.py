"""Cost of attention and size of its caches: the part of a frame's work that grows with the sequence length.

A query is multiplied with every key it attends to, and as many values are summed: 4 N D FLOPs per position. Keys and
values are float32, 2 K D numbers per layer and position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import CodecConfig, CodecDecoderConfig, CodecEncoderConfig, CodePredictorConfig, ModelConfig, TalkerConfig

TransformerConfig = TalkerConfig | CodePredictorConfig | CodecDecoderConfig | CodecEncoderConfig
BYTES = 4  # of a float32


@dataclass(frozen=True)
class AttentionCost:
    """Cost of the attention of one network, per frame."""

    component: str
    layers: int
    heads: tuple[int, int, int]  # query heads, key/value heads, width of a head
    sees: str
    flops: float  # per frame
    bytes_read: float  # of keys and values, per frame
    bytes_a_second: float  # growth of the cache per second of speech; 0 if it does not grow
    bytes_held: float  # in the cache, at the given length


def attention_costs(
    config: ModelConfig | None, codec: CodecConfig | None, positions: int, frame_rate: float
) -> Iterator[AttentionCost]:
    """``positions``: read so far by the talker, or by the codec encoder; ``frame_rate`` in Hz."""
    if config is not None:
        talker = config.talker_config
        yield _cost("talker", talker, "all before it", positions, positions, frame_rate)
        groups = talker.num_code_groups
        seen = groups * (groups + 1) // 2  # position i of a frame sees i + 1
        yield _cost("code predictor", talker.code_predictor_config, f"its frame: 1 to {groups}", seen, groups, 0)
    if codec is not None:
        decoder, encoder = codec.decoder_config, codec.encoder_config
        window = min(decoder.sliding_window, positions)
        yield _cost("codec decoder", decoder, f"{decoder.sliding_window} frames", window, window, 0)
        steps = encoder.downsample_stride
        seen = 2 * steps * positions
        yield _cost("codec encoder", encoder, "all before it (reference)", seen, steps * positions, 0)


def _cost(name: str, c: TransformerConfig, sees: str, seen: int, held: int, growth: float) -> AttentionCost:
    """``seen``: query-key pairs per frame; ``held``: positions in the cache; ``growth``: positions per second."""
    position = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * BYTES
    return AttentionCost(
        component=name,
        layers=c.num_hidden_layers,
        heads=(c.num_attention_heads, c.num_key_value_heads, c.head_dim),
        sees=sees,
        flops=4.0 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * seen,
        bytes_read=float(position * seen),
        bytes_a_second=position * growth,
        bytes_held=float(position * held),
    )
