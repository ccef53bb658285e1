"""Description of a checkpoint directory: its contents and problems, without reading any weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..checkpoint.config_file import (
    CODEC_DIR,
    read_codec_config,
    read_config,
    read_generation_config,
    read_model_config,
)
from ..checkpoint.keys import TensorSpec, problems
from ..checkpoint.published import CODEC_NAME, CODEC_WEIGHTS, MODELS, published_files, sha256_of
from ..checkpoint.safetensors import Checkpoint
from ..config import CodecConfig, GenerationConfig, ModelConfig
from ..errors import QwenTTSError
from .specs import codec_specs, model_specs

_T = TypeVar("_T")

# Block -> the prefixes of its keys.
MODEL_BLOCKS: dict[str, tuple[str, ...]] = {
    "text embedding": ("talker.model.text_embedding.",),
    "text projection": ("talker.text_projection.",),
    "talker codec embedding": ("talker.model.codec_embedding.",),
    "talker layers": ("talker.model.layers.", "talker.model.norm."),
    "talker head": ("talker.codec_head.",),
    "code predictor embeddings": ("talker.code_predictor.model.codec_embedding.",),
    "code predictor projection": ("talker.code_predictor.small_to_mtp_projection.",),
    "code predictor layers": ("talker.code_predictor.model.layers.", "talker.code_predictor.model.norm."),
    "code predictor heads": ("talker.code_predictor.lm_head.",),
    "speaker encoder": ("speaker_encoder.",),
}
CODEC_BLOCKS: dict[str, tuple[str, ...]] = {
    "decoder codebooks": ("decoder.quantizer.",),
    "decoder transformer": ("decoder.pre_conv.", "decoder.pre_transformer."),
    "decoder upsampling": ("decoder.upsample.",),
    "decoder waveform": ("decoder.decoder.",),
    "encoder convolutions": ("encoder.encoder.", "encoder.downsample."),
    "encoder transformer": ("encoder.encoder_transformer.",),
    "encoder codebooks": ("encoder.quantizer.",),
}
# Every other file is read by a reader here, which reports it as missing.
REQUIRED = ("vocab.json", "merges.txt", "tokenizer_config.json")
INSTEAD = "tokenizer.json"  # of all of them, as transformers 5 saves a tokenizer
REQUIRED_OFFICIALLY = ("generation_config.json", f"{CODEC_DIR}/preprocessor_config.json")


@dataclass(frozen=True)
class WeightsSummary:
    """One safetensors file, or one set of shards."""

    file: str  # relative to the directory; of shards their index
    data_bytes: int  # excluding the header
    tensors: int
    parameters: int
    dtypes: dict[str, int]  # stored type -> tensors
    blocks: dict[str, int]  # block -> parameters; they add up to ``parameters``

    def as_packed(self) -> str:
        """One line about a file that is packed."""
        types = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        return f"{self.file}: packed for the kernels ({types}), {self.data_bytes:,} bytes"


@dataclass(frozen=True)
class Description:
    """A checkpoint directory, or a ``speech_tokenizer`` directory on its own (then ``config`` is None).

    ``released`` is the published model that has this layout: the same type, tensors and parameters.
    """

    directory: str
    released: str | None
    config: ModelConfig | None
    generation_config: GenerationConfig | None
    codec_config: CodecConfig | None
    weights: list[WeightsSummary]
    packed: list[WeightsSummary]  # beside them, in the order of the kernels
    files: dict[str, int]  # relative name -> bytes
    problems: list[str]


def describe(directory: Path) -> Description:
    """Describe ``directory``. Raises ``ConfigError`` only if there is no config.json at all."""
    found: list[str] = []
    config, generation, codec = None, None, None
    weights: list[WeightsSummary | None] = []

    def attempt(read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except QwenTTSError as e:
            found.append(str(e))
            return None

    if read_config(directory).get("model_type") == CodecConfig.FIXED["model_type"]:
        codec_dir, required = directory, [Path(name).name for name in REQUIRED_OFFICIALLY if CODEC_DIR in name]
    else:
        codec_dir, required = directory / CODEC_DIR, [*REQUIRED, *REQUIRED_OFFICIALLY]
        config = attempt(lambda: read_model_config(directory))
        generation = attempt(lambda: read_generation_config(directory))
        wanted = None if config is None else list(model_specs(config))
        weights.append(attempt(lambda: _summary(directory, "", MODEL_BLOCKS, wanted, found)))
    codec = attempt(lambda: read_codec_config(codec_dir))
    inside = "" if codec_dir == directory else f"{CODEC_DIR}/"
    codec_wanted = None if codec is None else list(codec_specs(codec))
    weights.append(attempt(lambda: _summary(codec_dir, inside, CODEC_BLOCKS, codec_wanted, found)))

    if config is not None and codec is not None:
        found += mismatches(config, codec)
    files = _files(directory)
    packed = packed_summaries(directory, found)
    found += [f"{name} is missing" + _who_needs(name) for name in required if not is_there(name, files)]
    summaries = [summary for summary in weights if summary is not None]
    released = _released(config, summaries)
    return Description(str(directory), released, config, generation, codec, summaries, packed, files, found)


def mismatches(config: ModelConfig, codec: CodecConfig) -> list[str]:
    """Mismatches by which the talker would write codes that the codec cannot read."""
    talker, decoder = config.talker_config, codec.decoder_config
    pairs = {
        "codes per frame": (talker.num_code_groups, decoder.num_quantizers),
        "codes from the code predictor": (talker.code_predictor_config.vocab_size, decoder.codebook_size),
    }
    return [
        f"the talker writes {writes} {what}, {CODEC_DIR} reads {reads}"
        for what, (writes, reads) in pairs.items()
        if writes != reads
    ]


def unpublished_files(description: Description) -> list[str]:
    """The files that differ from those of the published model of this layout. Reads every one of them."""
    if description.released is None:
        return ["this is not the layout of a published model, so there is nothing to verify it against"]
    root, wrong = Path(description.directory), []
    model = next((model for model in MODELS if model.name == description.released), None)
    for name, published in published_files(model).items():
        size = description.files.get(name)
        if size is None:
            wrong.append(f"{name} is missing")
        elif size != published.bytes:
            wrong.append(f"{name}: {size} bytes, published {published.bytes}")
        elif (digest := sha256_of(root / name)) != published.sha256:
            wrong.append(f"{name}: sha256 {digest}, published {published.sha256}")
    return wrong


def packed_summaries(directory: Path, found: list[str]) -> list[WeightsSummary]:
    """Of the files that hold, in the order of the kernels, what others do; adds to ``found`` what is wrong with one."""
    summaries = []
    for name in _files(directory):
        if name.endswith(".packed.safetensors"):
            try:
                summaries.append(_packed(directory, name))
            except QwenTTSError as e:
                found.append(str(e))
    return summaries


def _packed(directory: Path, name: str) -> WeightsSummary:
    tensors = Checkpoint.open(directory / name).values()
    return WeightsSummary(
        file=name,
        data_bytes=sum(stored.nbytes for stored in tensors),
        tensors=len(tensors),
        parameters=0,
        dtypes=dict(Counter(stored.dtype for stored in tensors)),
        blocks={},
    )


def _summary(
    directory: Path, inside: str, blocks: dict[str, tuple[str, ...]], wanted: list[TensorSpec] | None, found: list[str]
) -> WeightsSummary:
    checkpoint = Checkpoint.open(directory)
    file = inside + checkpoint.path.name
    if wanted is not None:
        found += [f"{file}: {problem}" for problem in problems(checkpoint, wanted)]
    counts = dict.fromkeys(blocks, 0)
    for name, stored in checkpoint.items():
        block = next((block for block, prefixes in blocks.items() if name.startswith(prefixes)), "others")
        counts[block] = counts.get(block, 0) + stored.size
    return WeightsSummary(
        file=file,
        data_bytes=sum(stored.nbytes for stored in checkpoint.values()),
        tensors=len(checkpoint),
        parameters=sum(stored.size for stored in checkpoint.values()),
        dtypes=dict(Counter(stored.dtype for stored in checkpoint.values())),
        blocks={block: count for block, count in counts.items() if count},
    )


def _files(directory: Path) -> dict[str, int]:
    paths: Iterable[Path] = sorted([*directory.iterdir(), *directory.glob(f"{CODEC_DIR}/*")])
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in paths if path.is_file()}


def is_there(name: str, files: Container[str]) -> bool:
    """Whether ``files`` have ``name``, or what stands in its place."""
    return name in files or (name in REQUIRED and INSTEAD in files)


def _who_needs(name: str) -> str:
    return "; the official package does not load without it" if name in REQUIRED_OFFICIALLY else ""


def _released(config: ModelConfig | None, summaries: list[WeightsSummary]) -> str | None:
    counts = [(summary.tensors, summary.parameters) for summary in summaries]
    codec = (CODEC_WEIGHTS.tensors, CODEC_WEIGHTS.parameters)
    if config is None:
        return CODEC_NAME if counts == [codec] else None
    for model in MODELS:
        layout = [(model.weights.tensors, model.weights.parameters), codec]
        if model.model_type == config.tts_model_type and counts == layout:
            return model.name
    return None
