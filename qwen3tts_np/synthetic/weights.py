"""Checkpoints with random weights, for tests and for ports: the official layout without the official values.

``golden/README.md`` states the rule in words, so that a program in another language can generate the same file. It uses
only integer arithmetic, products, one square root and one exact sum: nothing that two machines with IEEE arithmetic
could round differently, whether or not they fuse multiply-adds.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.bfloat16 import round_ref

from ..checkpoint.config_file import read_codec_config, read_model_config
from ..checkpoint.keys import TensorSpec
from ..checkpoint.published import Like, ModelType
from ..checkpoint.writer import byte_size, write_safetensors
from ..errors import CheckpointError
from ..files.output import output_folder
from ..layout.specs import codec_specs, model_specs
from ..ops import F64
from . import layouts
from .layouts import RELEASED_TEXT, is_tiny
from .text import TextVocabulary, write_tokenizer_files

CHUNK = 1 << 16  # values drawn at a time; a multiple of the four per word


@dataclass(frozen=True)
class Rule:
    """value = centre + amplitude * u, where u is uniform in (-1, 1)."""

    pattern: str  # of the tensor's name; * stands for anything
    gain: float
    # Meaning of the gain: the amplitude itself, or the std of the output for an input of std 1.
    of: Literal["value", "output"] = "output"
    centre: float = 0.0


# The first matching pattern counts. By default (last lines) a weight keeps the scale of its input; lines above it are
# exceptions.
RULES = (
    Rule("talker.model.text_embedding.weight", 1.0, "value"),
    Rule("talker.text_projection.linear_fc1.weight", 2.0),
    Rule("talker.text_projection.linear_fc2.weight", 0.7),
    Rule("*codec_embedding*", 1.0, "value"),
    Rule("talker.codec_head.weight", 3.0),
    Rule("*.lm_head.*", 3.0),
    Rule("*.q_norm.weight", 0.5, "value", 1.6),
    Rule("*.k_norm.weight", 0.5, "value", 1.6),
    Rule("*norm.weight", 0.3, "value", 1.0),
    Rule("speaker_encoder.blocks.0.conv.weight", 1.5),
    Rule("speaker_encoder.fc.weight", 2.5),
    Rule("speaker_encoder.fc.bias", 0.1, "value"),
    Rule("speaker_encoder.*bias", 0.1, "value", -0.3),
    Rule("speaker_encoder.*weight", 1.5),
    Rule("*.cluster_usage", 30.0, "value", 40.0),
    Rule("*.embedding_sum", 0.5, "value"),
    Rule("*.embed_sum", 0.6, "value"),
    Rule("*.initialized", 0.0, "value", 1.0),
    Rule("*_layer_scale.scale", 0.2, "value", 0.3),
    Rule("*.gamma", 0.2, "value", 0.3),
    Rule("*.alpha", 0.5, "value"),
    Rule("*.beta", 0.5, "value", 1.0),
    Rule("decoder.quantizer.*.output_proj.weight", 0.7),
    Rule("decoder.decoder.*.block.1.conv.weight", 0.8),
    Rule("decoder.decoder.*.block.*.conv1.conv.weight", 0.5),
    Rule("decoder.decoder.*.block.*.conv2.conv.weight", 0.5),
    Rule("decoder.decoder.6.conv.weight", 0.04),
    Rule("encoder.encoder.layers.0.conv.weight", 4.0),
    Rule("encoder.encoder.*.weight", 1.2),
    Rule("*bias", 0.1, "value"),
    Rule("*", 1.0),
)
EOS_GAIN = 1.6  # on the row of codec_head that ends the speech: occasionally it is the largest logit
UNUSED_ROWS = (64, 5)  # rows 5, 69, 133, ... of every codebook have cluster_usage 0
USAGE_FLOOR = 1e-5  # a codebook entry is its sum divided by max(usage, floor), in both codecs


def stream_key(name: str, seed: int) -> int:
    """The start of a tensor's stream: the 64-bit FNV-1a hash of ``"{seed} {name}"``."""
    key = 0xCBF29CE484222325
    for byte in f"{seed} {name}".encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    return key


def uniforms(key: int, start: int, count: int) -> F64:
    """Values ``start`` (a multiple of 4) to ``start + count`` of a stream, uniform in (-1, 1), exact in 17 bits.

    Word n of the stream is output n of SplitMix64 (Steele, Lea and Flood 2014) started at ``key``; each word gives
    four values, its lowest 16 bits the first.
    """
    z = np.arange(start // 4 + 1, (start + count + 3) // 4 + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    lanes = z.astype("<u8", copy=False).view("<u2")[:count]
    return (2.0 * lanes.astype(np.float64) - 65535.0) / 65536.0


def rule_for(name: str) -> Rule:
    """The rule of the tensor ``name``."""
    return next(rule for rule in RULES if fnmatchcase(name, rule.pattern))


def amplitude(rule: Rule, spec: TensorSpec) -> float:
    """Half the width of the tensor's values, a float32. A uniform number in (-a, a) has std a / sqrt(3)."""
    if rule.of == "value":
        return float(np.float32(rule.gain))
    transposed = spec.letters == "in out kernel"  # its stride lets one or two taps of the kernel meet an output
    fan_in = spec.shape[0] if transposed else math.prod(spec.shape[1:])
    return float(np.float32(rule.gain * math.sqrt(3 / fan_in)))


@dataclass(frozen=True)
class SyntheticValues:
    """The values of every tensor for one seed: call it with a tensor to get them as stored, chunk by chunk."""

    seed: int
    eos_row: int  # codec_eos_token_id

    def __call__(self, spec: TensorSpec) -> Iterator[NDArray[Any]]:
        for values in self._exact(spec):
            single = values.astype(np.float32)
            yield round_ref(single) if spec.dtype == "BF16" else single

    def _exact(self, spec: TensorSpec) -> Iterable[F64]:
        if spec.key.endswith(".cluster_usage"):
            return [self._usage(spec)]
        if spec.key.endswith((".embedding_sum", ".embed_sum")):
            return [self._sums(spec)]
        if spec.key == "talker.codec_head.weight":
            return [self._head(spec)]
        if spec.key == "speaker_encoder.blocks.0.conv.weight":
            return [self._paired(spec)]
        starts = range(0, spec.size, CHUNK)
        return (self._plain(spec, start, min(CHUNK, spec.size - start)) for start in starts)

    def _plain(self, spec: TensorSpec, start: int, count: int) -> F64:
        rule = rule_for(spec.key)
        u = uniforms(stream_key(spec.key, self.seed), start, count)
        return float(np.float32(rule.centre)) + amplitude(rule, spec) * u

    def _whole(self, spec: TensorSpec) -> F64:
        return self._plain(spec, 0, spec.size).reshape(spec.shape)

    def _usage(self, spec: TensorSpec) -> F64:
        """Some entries were never used in training, so the floor under the divisor counts."""
        usage = self._whole(spec)  # [C]
        every, first = UNUSED_ROWS
        usage[first::every] = 0
        return usage

    def _sums(self, spec: TensorSpec) -> F64:
        """Sums that give entries of the same scale, used or not."""
        name = spec.key.rpartition(".")[0] + ".cluster_usage"
        usage = self._usage(TensorSpec(name, spec.shape[:1], "C", "F32")).astype(np.float32)
        return self._whole(spec) * np.maximum(usage, np.float32(USAGE_FLOOR))[:, None]  # [C, E]

    def _head(self, spec: TensorSpec) -> F64:
        head = self._whole(spec)  # [V, H]
        head[self.eos_row] *= float(np.float32(EOS_GAIN))
        return head

    def _paired(self, spec: TensorSpec) -> F64:
        """Odd mel bins cancel even ones: the loudness that all clips share would otherwise mask the voices."""
        weight = self._whole(spec)  # [out, mel, kernel]
        weight[:, 1::2] = -weight[:, 0::2]
        return weight


def write_checkpoint(
    directory: Path, like: Like, model_type: ModelType, seed: int = 0, tokenizer: Path | None = None
) -> None:
    """Write a complete checkpoint directory; ``tokenizer`` is a directory with the released tokenizer files.

    Raises CheckpointError if ``directory`` is in use or does not fit on the disk, if ``tokenizer`` lacks a file,
    or for a model that does not exist.
    """
    if like == "0.6b" and model_type == "voice_design":
        raise CheckpointError("there is no 0.6b voice_design model; 1.7b has one, and so do the tiny sizes")
    if tokenizer is not None and is_tiny(like):
        raise CheckpointError(f"{like} has its own small vocabulary; released tokenizer files fit 0.6b and 1.7b only")
    with output_folder(directory) as root:
        codec = root / "speech_tokenizer"
        codec.mkdir()
        text = _write_text(root, like, tokenizer)
        _write_json(root / "config.json", layouts.model_config(like, model_type, text))
        _write_json(root / "generation_config.json", layouts.generation_config())
        _write_json(root / "preprocessor_config.json", layouts.preprocessor_config())
        _write_json(codec / "config.json", layouts.codec_config(like))
        _write_json(codec / "configuration.json", layouts.modelscope_configuration())
        _write_json(codec / "preprocessor_config.json", layouts.codec_preprocessor_config())

        config = read_model_config(root)
        model_tensors, codec_tensors = list(model_specs(config)), list(codec_specs(read_codec_config(codec)))
        require_space(directory, root, sum(byte_size(spec) for spec in (*model_tensors, *codec_tensors)))
        values = SyntheticValues(seed, config.talker_config.codec_eos_token_id)
        metadata = layouts.safetensors_metadata(model_type)
        write_safetensors(root / "model.safetensors", model_tensors, values, metadata)
        write_safetensors(codec / "model.safetensors", codec_tensors, values)


def _write_text(root: Path, like: Like, tokenizer: Path | None) -> TextVocabulary:
    if tokenizer is None:
        text = write_tokenizer_files(root)
        if is_tiny(like):
            return text
        _spread_ids(root)
        return RELEASED_TEXT
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        if not (tokenizer / name).is_file():
            raise CheckpointError(f"{tokenizer} has no {name}")
        shutil.copyfile(tokenizer / name, root / name)
    return RELEASED_TEXT


def _spread_ids(root: Path) -> None:
    """Move the tokens of the small vocabulary that the prompts need to their released ids.

    The ids between get entries that no merge produces: so readers that number the added tokens after ``vocab.json``, as
    the official one does, give them the right ids.
    """
    vocab: dict[str, int] = json.loads((root / "vocab.json").read_text(encoding="utf-8"))
    size = RELEASED_TEXT.im_start_token_id - 1  # <|endoftext|> is the first after the vocabulary
    by_id = {i: token for token, i in vocab.items()}
    for token, i in (("user", layouts.USER_ID), ("assistant", RELEASED_TEXT.assistant_token_id)):
        old = vocab[token]
        if i in by_id:
            by_id[old] = by_id[i]
        else:
            del by_id[old]
        by_id[i] = token
    spread = {by_id.get(i, f"[unused{i}]"): i for i in range(size)}
    config = json.loads((root / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = config["added_tokens_decoder"]
    config["added_tokens_decoder"] = {str(int(i) - len(vocab) + size): token for i, token in added.items()}
    (root / "vocab.json").write_text(json.dumps(spread, ensure_ascii=False), encoding="utf-8", newline="\n")
    _write_json(root / "tokenizer_config.json", config)


def require_space(directory: Path, root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise CheckpointError(f"{directory} needs {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")
