"""Split residual vector quantisation, both ways: frames to codes and back.

Code 0 of a frame (semantic) and codes 1..G-1 (acoustic) come from two quantisers of the same vector.
Trap: the acoustic one starts from that vector, not from the residual of the semantic one.

Official: ``SplitResidualVectorQuantizer`` (decoder) and ``MimiSplitResidualVectorQuantizer`` (encoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..checkpoint.keys import Names, blocks, tensor
from ..ops import Array, Ints, conv1d, lookup, nearest
from ..trace import Scope, record, tracing


@dataclass(frozen=True)
class DecoderCodebook:
    """A codebook as stored: an entry is embedding_sum / max(cluster_usage, 1e-5)."""

    official: ClassVar[Names] = ("EuclideanCodebook",)

    cluster_usage: Array = tensor("_codebook.cluster_usage", "C")
    embedding_sum: Array = tensor("_codebook.embedding_sum", "C Q/2")


@dataclass(frozen=True)
class DecoderQuantizer:
    """A quantiser of the decoder. ``input_proj`` is stored but not used in decoding."""

    official: ClassVar[Names] = ("ResidualVectorQuantizer",)

    input_proj: Array = tensor("input_proj.weight", "Q/2 Q 1")
    codebooks: tuple[DecoderCodebook, ...] = blocks(DecoderCodebook, "vq.layers.{}", "layers")
    output_proj: Array = tensor("output_proj.weight", "Q Q/2 1")


@dataclass(frozen=True)
class EncoderCodebook:
    """A codebook as stored: an entry is embed_sum / max(cluster_usage, 1e-5)."""

    official: ClassVar[Names] = ("MimiEuclideanCodebook",)

    cluster_usage: Array = tensor("codebook.cluster_usage", "C")
    embed_sum: Array = tensor("codebook.embed_sum", "C E")
    initialized: Array = tensor("codebook.initialized", "1")  # training state, not used


@dataclass(frozen=True)
class EncoderQuantizer:
    """A quantiser of the encoder. ``output_proj`` is stored but not used in encoding."""

    official: ClassVar[Names] = ("MimiResidualVectorQuantizer",)

    input_proj: Array | None = tensor("input_proj.weight", "E H 1", when="projects")
    codebooks: tuple[EncoderCodebook, ...] = blocks(EncoderCodebook, "layers.{}", "layers")
    output_proj: Array | None = tensor("output_proj.weight", "H E 1", when="projects")


def dequantise(codes: Ints, codebooks: Sequence[Array], output_proj: Array, name: str) -> Array:
    """The projected sum of the entries with these codes. codes [T, G'], G' codebooks [C, E] -> [Q, T]."""
    t = Scope(name)
    if tracing():
        for i, entries in enumerate(codebooks):
            t(f"vq.layers.{i}.quantized", entries[codes[:, i]].T)
    x = t("vq", lookup(codes, codebooks).T)  # [E, T]
    return t("output_proj", conv1d(x, output_proj))


def quantise(
    x: Array, codebooks: Sequence[Array], input_proj: Array | None, name: str, given: Ints | None = None
) -> Ints:
    """The entry of each codebook nearest to the residual of those before it. x [H, T] -> codes [T, G'].

    ``given`` codes [T, G'] replace the nearest ones (teacher forcing).
    """
    if input_proj is not None:
        x = record(f"{name}.input_proj", conv1d(x, input_proj))  # [E, T]
    residual, codes = x.T, []  # [T, E]
    for i, entries in enumerate(codebooks):
        t = Scope(f"{name}.layers.{i}")
        t("residual", residual.T)
        codes.append(t("codes", nearest(residual, entries) if given is None else given[:, i]))  # [T]
        quantised = t("quantized", entries[codes[-1]].T).T  # [T, E]
        residual = residual - quantised
    return np.stack(codes, axis=1)
