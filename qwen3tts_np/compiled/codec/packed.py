"""The packed weights of the codec decoder in a file of their own, which is mapped and used in place.

``speech_tokenizer/decoder.packed.safetensors`` holds every array of :class:`CompiledDecoderWeights` under the path of
its field: float32, and int16 with scales where ``decoder_weights.py`` says so. ``METADATA_KEY`` of its header states
the version, the tree of the other fields, and a digest of the official weights beside it. With other weights there, the
file is left alone and they are packed when they are loaded. Version 1 had float32 only, and is computed as it is.

Rows of activations are filled up to register tiles, whose width differs from CPU to CPU. Where all channels fill the
widest, as in the released codec, the order is the same on every CPU; otherwise no such file is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from qwen3tts_np_kernels.activation_jit import Activation
from qwen3tts_np_kernels.conv_jit import Convolution, DepthwiseConvolution, MonoConvolution, WeightFormat
from qwen3tts_np_kernels.toom_cook_jit import MinimalFilter

from ...checkpoint.beside import read_beside
from ...checkpoint.config_file import read_codec_config
from ...checkpoint.keys import TensorSpec, check, load
from ...checkpoint.packed import LINE
from ...checkpoint.safetensors import Checkpoint
from ...checkpoint.writer import write_safetensors
from ...codec.decoder import CodecDecoderWeights, codec_decoder_sizes
from ...layout.specs import codec_specs
from .decoder_weights import (
    CompiledDecoderWeights,
    Layer,
    PreTransformer,
    Quantizer,
    ResidualUnit,
    Upsample,
    WaveformBlock,
)

NAME = "decoder.packed.safetensors"
METADATA_KEY = "qwen3tts_np.packed_decoder"
VERSION, OLDEST = 2, 1
WEIGHTS: WeightFormat = "int16"
"""The decoder's format beside matrices of int8 to int4, which lose more than it does."""
_DTYPES = {"float32": "F32", "int16": "I16"}
_WIDEST = 32  # channels of the widest register tile
_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        CompiledDecoderWeights, Quantizer, PreTransformer, Layer, Upsample, WaveformBlock, ResidualUnit,
        Convolution, MinimalFilter, DepthwiseConvolution, MonoConvolution, Activation,
    )
}  # fmt: skip


def write_packed_decoder(folder: Path) -> bool:
    """Write the file beside the weights of a ``speech_tokenizer`` directory; whether its order is that of every CPU."""
    c, checkpoint = read_codec_config(folder), Checkpoint.open(folder)
    check(checkpoint, codec_specs(c))
    w = load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c.decoder_config), "decoder.", np.dtype(np.float32))
    arrays: dict[str, Any] = {}
    tree = _tree(CompiledDecoderWeights.pack(w, c.decoder_config, False, WEIGHTS), "", arrays)
    if any(outputs % _WIDEST for outputs in _outputs(tree)):
        return False
    stated = {"version": VERSION, "of": _digest(checkpoint), "weights": tree}
    specs = [TensorSpec(name, array.shape, "", _DTYPES[array.dtype.name]) for name, array in arrays.items()]
    metadata = {METADATA_KEY: json.dumps(stated, separators=(",", ":"))}
    write_safetensors(folder / NAME, specs, lambda spec: [arrays[spec.key]], metadata, LINE)
    return True


def read_packed_decoder(checkpoint: Checkpoint) -> CompiledDecoderWeights | None:
    """The weights in the file beside ``checkpoint``, mapped; None where there is none, or it is of other weights.

    CheckpointError where it is damaged, or was written in another version.
    """
    return read_beside(
        checkpoint.path.with_name(NAME), METADATA_KEY, VERSION, lambda packed: _digest(checkpoint), _decoder, OLDEST
    )


def _decoder(stated: Any, packed: Checkpoint) -> CompiledDecoderWeights:
    weights = _built(stated["weights"], packed)
    if not isinstance(weights, CompiledDecoderWeights):
        raise ValueError("it does not describe a decoder")
    return weights


def _tree(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """``value`` for JSON, its arrays put aside: an array is its name, a tuple a list, an object says its class.

    An empty array, as the scales of float32 weights are, is None.
    """
    if isinstance(value, np.ndarray) and not value.size:
        return None
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return name
    if type(value).__name__ in _CLASSES:
        names = getattr(value, "_fields", None) or [f.name for f in fields(value)]
        inside = {field: _tree(getattr(value, field), f"{name}.{field}".strip("."), arrays) for field in names}
        return {"class": type(value).__name__, **inside}
    if isinstance(value, tuple):
        return [_tree(part, f"{name}.{i}", arrays) for i, part in enumerate(value)]
    return value


def _built(tree: Any, packed: Checkpoint) -> Any:
    """The inverse of :func:`_tree`; ValueError for a convolution whose arrays do not fit what it says."""
    if tree is None:
        return np.zeros(0, np.float32)
    if isinstance(tree, str):
        tensor = packed[tree]
        if tensor.dtype not in _DTYPES.values():
            raise ValueError(f"{tree} is {tensor.dtype}")
        return tensor.data
    if isinstance(tree, list):
        return tuple(_built(part, packed) for part in tree)
    if not isinstance(tree, dict):
        return tree
    cls = _CLASSES[tree["class"]]
    stated = {"scale": None, **tree} if cls is Convolution else tree  # version 1 states none
    value = cls(**{field: _built(part, packed) for field, part in stated.items() if field != "class"})
    if isinstance(value, Convolution | MinimalFilter):
        products = (
            value.taps if isinstance(value, Convolution) else value.weight.size // (value.inputs * len(value.bias))
        )
        if value.weight.size != products * value.inputs * len(value.bias) or not 0 < value.outputs <= len(value.bias):
            raise ValueError(f"{tree['weight']} does not fit its sizes")
    if isinstance(value, Convolution) and value.weight.dtype == np.int16 and len(value.scale) != len(value.bias):
        raise ValueError(f"{tree['weight']} has {len(value.scale)} scales for {len(value.bias)} channels")
    for field in ("scale", "bias", *(() if isinstance(value, Convolution) else ("weight",))):
        found = getattr(value, field, None)
        if isinstance(found, np.ndarray) and found.dtype != np.float32:
            raise ValueError(f"{tree[field]} is {found.dtype}")
    return value


def _outputs(tree: Any) -> Iterator[int]:
    """The channels that each convolution writes."""
    if isinstance(tree, dict):
        if "outputs" in tree:
            yield tree["outputs"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _outputs(part)


def _digest(checkpoint: Checkpoint) -> str:
    """Of names, shapes, and both ends of every tensor of the decoder: all that can be read in a moment."""
    found = hashlib.sha256()
    for name, tensor in checkpoint.items():
        if name.startswith("decoder."):
            ends = tensor.data.reshape(-1)
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            found.update(ends[:16].tobytes() + ends[-16:].tobytes())
    return found.hexdigest()
