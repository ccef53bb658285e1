"""An inspection as tables: for the terminal, for HTML, and some of them for the README."""

from __future__ import annotations

from collections.abc import Iterator

from ..report.html import page, paragraph
from ..report.tables import Table, as_html, as_text
from ..report.values import listed, si
from .architecture import Block, Cost
from .diagram import draw
from .inspection import Inspection, share_of_reads
from .receptive import Field, frames_of_a_sample

NEVER = "-"


def to_text(i: Inspection, depth: int) -> str:
    """As text. ``depth``: levels of the tree shown below each network."""
    head = [i.directory, *checks(i)]
    return "\n\n".join(["\n".join(head), *(as_text(table) for table in tables(i, depth))])


def to_html(i: Inspection) -> str:
    """One self-contained page: the diagram, every table, the complete tree."""
    found = map(paragraph, checks(i))
    return page(f"{i.directory}: architecture", *found, draw(i), *map(as_html, tables(i, depth=99)))


def checks(i: Inspection) -> Iterator[str]:
    """The result of the key table checks, one line per file."""
    for check in i.checks:
        if check.problems is None:
            yield f"{check.file}: not there; sizes are those of the key table ({check.tensors} tensors)"
        elif not check.problems:
            yield f"{check.file}: {check.tensors} tensors, as in the key table: none missing, unexpected or misshapen"
        else:
            yield f"{check.file}: {len(check.problems)} problems"
            yield from (f"  {problem}" for problem in listed(check.problems))
    yield from (f"{packed.as_packed()}; what follows counts the official weights" for packed in i.packed)
    yield from (f"problem: {problem}" for problem in i.problems)


def tables(i: Inspection, depth: int) -> Iterator[Table]:
    yield totals(i)
    yield blocks(i, depth)
    if i.attention:
        yield attention(i)
    if i.codec is not None:
        yield decoder_table(i)
        yield encoder_table(i)


def totals(i: Inspection) -> Table:
    """The cost of each network."""
    rows = [_total_row(block.path, block, i) for block in i.blocks]
    if len(rows) > 1:
        cost = i.total("frame")
        parameters, stored = sum(b.parameters for b in i.blocks), sum(b.bytes for b in i.blocks)
        rows.append(["all", f"{parameters:,}", f"{stored:,}", "100 %", *_costs(cost), *_costs_a_second(cost, i)])
    headers = "network parameters bytes reads bytes/frame FLOPs/frame bytes/s FLOPs/s".split()
    note = (
        f"A frame is {1000 / i.frame_rate:g} ms of speech. bytes/frame and FLOPs/frame are of weights read and "
        "multiplied for one frame when frames are made one by one; reads is the share of all bytes read. The speaker "
        "and codec encoders have none: they run once, over a reference clip. The codec decoder reads its weights once "
        "for all frames that it takes at a time, officially up to 300."
    )
    return Table("Cost of speech", headers, "lrrrrrrr", rows, note)


def _total_row(name: str, block: Block, i: Inspection) -> list[str]:
    cost = block.cost.get("frame")
    share = NEVER if cost is None else f"{share_of_reads(block, i):.1%}"
    return [name, f"{block.parameters:,}", f"{block.bytes:,}", share, *_costs(cost), *_costs_a_second(cost, i)]


def _costs(cost: Cost | None) -> list[str]:
    return [NEVER, NEVER] if cost is None else [si(cost.bytes_read, "B"), si(cost.flops)]


def _costs_a_second(cost: Cost | None, i: Inspection) -> list[str]:
    return _costs(cost if cost is None else Cost(cost.bytes_read * i.frame_rate, cost.flops * i.frame_rate))


def blocks(i: Inspection, depth: int) -> Table:
    """The tree."""
    rows = [row for block in i.blocks for row in _block_rows(block, i, 0, depth)]
    headers = ["block", "shape", "type", "parameters", "bytes", "reads", "bytes/frame", "FLOPs/frame", "per", "class"]
    note = (
        "per: what a 'frame' of the two columns before is: a frame of speech, a text token, or a frame of a reference "
        "clip; '-' is stored and never used. Alike blocks are one line, with sums over all of them."
    )
    return Table("Blocks", headers, "lllrrrrrll", rows, note)


def _block_rows(block: Block, i: Inspection, level: int, depth: int) -> Iterator[list[str]]:
    name = "  " * level + block.name + (f"  x{block.count}" if block.count > 1 and block.shape is None else "")
    tensor = block.tensor
    shape = "" if tensor is None else str(list(tensor.shape or ()))
    first = next(iter(block.cost.items()), None)
    share = f"{share_of_reads(block, i):.1%}" if "frame" in block.cost else ""
    cost = ["", ""] if first is None else _costs(first[1])
    when = NEVER if first is None else first[0]
    if "frame" in block.cost:
        cost, when = _costs(block.cost["frame"]), "frame"
    sizes = [f"{block.parameters:,}", f"{block.bytes:,}"]
    yield [name, shape, tensor.dtype if tensor else "", *sizes, share, *cost, when, block.official]
    if level < depth and (tensor is None or len(block.children) > 1):  # a weight alone is on its module's line
        for child in block.children:
            yield from _block_rows(child, i, level + 1, depth)


def attention(i: Inspection) -> Table:
    rows = [
        [
            a.component,
            str(a.layers),
            "{} / {} of {}".format(*a.heads),
            a.sees,
            si(a.flops),
            si(a.bytes_read, "B"),
            si(a.bytes_held, "B"),
            si(a.bytes_a_second, "B") if a.bytes_a_second else NEVER,
        ]
        for a in i.attention
    ]
    headers = "network,layers,heads q / kv,a position sees,FLOPs/frame,bytes/frame,cache,growth/s".split(",")
    note = (
        f"After {i.context:g} s of speech (or of reference), which is {round(i.context * i.frame_rate)} frames; keys "
        "and values in float32. Cache is what is held then; growth is for each second of speech."
    )
    return Table("Attention and its caches", headers, "lrllrrrr", rows, note)


def decoder_table(i: Inspection) -> Table:
    assert i.codec is not None
    note = (
        "reach: steps of the layer's output that one frame of codes can change, the first at its own time. So a sample "
        f"depends on at most {frames_of_a_sample(i.codec)} frames of codes; by convolutions alone it would be "
        f"{frames_of_a_sample(i.codec, attention=False)}."
    )
    return _fields("Codec decoder: reach of one frame of codes", i.decoder_fields, ["reach", "s"], note)


def encoder_table(i: Inspection) -> Table:
    note = "field: samples that one step of the layer's output depends on, none of them after its end."
    return _fields("Codec encoder: how far back a step hears", i.encoder_fields, ["field", "s"], note)


def _fields(title: str, fields: list[Field], last: list[str], note: str) -> Table:
    rows = []
    for f in fields:
        layer = f.layer
        steps = ["everything", ""] if f.steps is None or f.seconds is None else [f"{f.steps:,}", f"{f.seconds:.4g}"]
        taps = "all" if not layer.taps else str(layer.taps)
        name = layer.name.removeprefix("speech_tokenizer.")
        rows.append([name, layer.kind, taps, str(layer.stride), str(layer.dilation), f"{f.rate:,.5g}", *steps])
    headers = ["layer", "kind", "taps", "stride", "dilation", "steps/s", *last]
    return Table(title, headers, "llrrrrrr", rows, note)
