"""The generated parts of the model's README: ``python -m qwen3tts_np.inspect.readme`` regenerates them.

They describe the released base models, from the key tables and the released configurations; no checkpoint is needed.
A part is between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the diagram is in a file beside it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ..checkpoint.config_file import read_codec_config, read_model_config
from ..checkpoint.published import Like
from ..config import CodecConfig, ModelConfig
from ..errors import ConfigError
from ..files.output import write_text
from ..report.tables import Table, as_markdown
from ..synthetic.layouts import RELEASED_TEXT, codec_config, model_config
from .architecture import Block
from .diagram import draw, shown_blocks
from .inspection import Inspection, inspect_configs, share_of_reads
from .receptive import Field
from .report import attention, decoder_table, encoder_table, totals

FOLDER = Path(__file__).parents[1]
README, DIAGRAM = "README.md", "architecture.svg"
CONTEXT = 10.0  # s
CODEC = ("decoder", "encoder")  # the blocks of speech_tokenizer/model.safetensors
SIZES: dict[str, Like] = {"0.6B": "0.6b", "1.7B": "1.7b"}


def generated() -> dict[str, str]:
    """The parts by name, in Markdown."""
    small, large = (inspect_released(name) for name in SIZES)
    return {
        "sizes": as_markdown(_sizes(small, large)) + "\n\n" + as_markdown(_widths(small, large)),
        "costs": "\n\n".join(f"{i.directory}:\n\n{as_markdown(totals(i))}" for i in (small, large)),
        "caches": as_markdown(attention(small)),
        "fields": "\n\n".join(as_markdown(table) for table in _fields(small)),
    }


def diagram() -> str:
    """The picture of the smaller model."""
    return draw(inspect_released("0.6B"))


def rewritten(text: str) -> str:
    """A README with its generated parts replaced. Raises ConfigError for a part without its marks."""
    for name, part in generated().items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ConfigError(f"{README} must have {begin} and {end} once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
    return text


def stale(folder: Path = FOLDER) -> list[str]:
    """The files in ``folder`` that differ from what the current tables generate."""
    readme, picture = folder / README, folder / DIAGRAM
    text = readme.read_text(encoding="utf-8")
    current = picture.read_text(encoding="utf-8") if picture.exists() else ""
    return [name for name, same in ((README, text == rewritten(text)), (DIAGRAM, current == diagram())) if not same]


def inspect_released(name: str) -> Inspection:
    """The released base model of that size, from its configuration."""
    config, codec = _configs(SIZES[name])
    return inspect_configs(config, codec, CONTEXT, f"Qwen3-TTS-12Hz-{name}-Base")


def _configs(like: Like) -> tuple[ModelConfig, CodecConfig]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(model_config(like, "base", RELEASED_TEXT)), encoding="utf-8")
        config = read_model_config(path.parent)
        path.write_text(json.dumps(codec_config(like)), encoding="utf-8")
        return config, read_codec_config(path.parent)


def _sizes(small: Inspection, large: Inspection) -> Table:
    """Parameters of every block, and how often it is read per frame."""
    rows = []
    for block in large.blocks:
        twin = next(b for b in small.blocks if b.path == block.path)
        inner = {b.path: b for b in shown_blocks(twin)}
        for b in shown_blocks(block):
            rows.append([f"`{b.path}`", _official(b), *_parameters(inner.get(b.path), b), _read(b)])
            rows[-1] += [_share(inner.get(b.path), small), _share(b, large)]
        rows.append([f"**{block.path}**", f"**`{block.official}`**", *_parameters(twin, block, "**"), ""])
        rows[-1] += [_share(twin, small), _share(block, large)]
    for file, inside in (("model.safetensors", False), ("speech_tokenizer/model.safetensors", True)):
        sums = [sum(b.parameters for b in i.blocks if (b.path in CODEC) == inside) for i in (small, large)]
        rows.append([f"**{file}**", "", *(f"**{parameters:,}**" for parameters in sums), "", "", ""])
    headers = ["block", "official class or shape", *SIZES, "read", *(f"{name}: share of reads" for name in SIZES)]
    note = (
        "Parameters. read: how often one frame reads the complete block; the shares are of the bytes of weights that a "
        "frame of speech reads, the codec included, where frames are made one by one. Shapes are those of the 1.7B."
    )
    return Table("", headers, "llrrlrr", rows, note)


def _official(block: Block) -> str:
    tensor = block.tensor
    return f"`{block.official}`" if block.official else "" if tensor is None else str(list(tensor.shape or ()))


def _parameters(small: Block | None, large: Block, mark: str = "") -> list[str]:
    return [f"{mark}{b.parameters:,}{mark}" if b else "-" for b in (small, large)]


def _read(block: Block) -> str:
    for when, cost in block.cost.items():
        times = cost.bytes_read / block.bytes
        if when == "text":
            return "one row per token" if times < 0.5 else "once per token"
        if when == "reference":
            return "once per clip"
        if times < 0.01:
            return "one row each"
        return "once" if times < 1.5 else f"**{times:.0f} times**"
    return "never"


def _share(block: Block | None, i: Inspection) -> str:
    return "" if block is None or "frame" not in block.cost else f"{share_of_reads(block, i):.1%}"


def _widths(small: Inspection, large: Inspection) -> Table:
    """The transformers, from the configurations."""
    assert small.config is not None and large.config is not None and small.codec is not None
    all_of = {
        "talker 0.6B": small.config.talker_config,
        "talker 1.7B": large.config.talker_config,
        "code predictor": small.config.talker_config.code_predictor_config,
        "codec decoder": small.codec.decoder_config,
        "codec encoder": small.codec.encoder_config,
    }
    fields = {
        "layers": "num_hidden_layers",
        "width H": "hidden_size",
        "query heads N": "num_attention_heads",
        "key/value heads K": "num_key_value_heads",
        "width of a head D": "head_dim",
        "feed-forward F": "intermediate_size",
    }
    rows = [[name, *(f"{getattr(c, key):,}" for c in all_of.values())] for name, key in fields.items()]
    return Table("", ["", *all_of], "l" + "r" * len(all_of), rows)


def _fields(i: Inspection) -> Iterator[Table]:
    """The receptive fields at the end of each stage."""
    short = dataclasses.replace(
        i, decoder_fields=list(_ends(i.decoder_fields)), encoder_fields=list(_ends(i.encoder_fields))
    )
    yield decoder_table(short)
    yield encoder_table(short)


def _ends(fields: list[Field]) -> Iterator[Field]:
    def stage(f: Field) -> str:
        return re.sub(r"(layers|block)\.\d+$", "", f.layer.name)

    for f, following in zip(fields, [*fields[1:], None], strict=True):
        convolution = f.layer.name.startswith("speech_tokenizer.encoder.encoder.")
        if following is None or convolution or stage(f) != stage(following):
            yield f


def main() -> None:
    """Regenerate README and diagram."""
    readme = FOLDER / README
    write_text(readme, rewritten(readme.read_text(encoding="utf-8")))
    write_text(FOLDER / DIAGRAM, diagram())
    print(f"{readme} and {DIAGRAM}: written")


if __name__ == "__main__":
    main()
