"""The architecture as one SVG picture, drawn from the trees of blocks of the key tables.

One lane per network, one box per block in the order of its key table, and a bar in each box for its share of the bytes
read per frame of speech. Only the connections between the lanes are defined here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..report import svg
from ..report.markup import Markup, element
from ..report.values import si
from .architecture import Block, Cost
from .inspection import Inspection, share_of_reads

BOX, HEIGHT, GAP = 236, 50, 12  # pixels: a box, and between boxes
BETWEEN = {"talker": 84, "code predictor": 50, "codec decoder": 50}  # before a lane; 28 before others
TOP = 116  # of the first box
INK, FAINT, PAPER, LANE = "#111", "#666", "#fff", "#f1f1f1"

ORDER = ("encoder", "speaker_encoder", "talker", "talker.code_predictor", "decoder")
TITLES = {
    "encoder": ("codec encoder", "reference clip, 24 kHz", "codes of the clip, 16 per frame"),
    "speaker_encoder": ("speaker encoder", "log-mel of the reference clip", "x-vector, as wide as the talker"),
    "talker": ("talker", "prompt, then frame by frame", "hidden state, code 0"),
    "talker.code_predictor": ("code predictor", "hidden state, then code by code", "codes 1 to G-1"),
    "decoder": ("codec decoder", "G codes per frame", "waveform, 24 kHz"),
}


# Blocks that do not follow the one above them: they read the same input; the label says how the outputs are combined.
BESIDE = {"codec_embedding": "+", "rvq_rest": "+", "acoustic_residual_vector_quantizer": "and"}
DETAILED = ("talker", "code predictor")  # the lanes under which one of the layers is shown in detail
LINE = 15  # pixels from line to line there


@dataclass(frozen=True)
class Lane:
    block: Block
    boxes: list[Block]
    x: float

    @property
    def title(self) -> str:
        return TITLES[self.block.path][0]

    @property
    def bottom(self) -> float:
        return TOP + len(self.boxes) * (HEIGHT + GAP)

    @property
    def detail(self) -> list[Block]:
        """The modules of one of the repeated layers."""
        layers = [box for box in self.boxes if box.count > 1 and box.tensor is None]
        return list(_modules(layers[0])) if layers and self.title in DETAILED else []

    @property
    def foot(self) -> float:
        return self.bottom + (46 + LINE * (len(self.detail) + 1) if self.detail else 0)

    @property
    def middle(self) -> float:
        return self.x + BOX / 2


def draw(i: Inspection) -> Markup:
    """The picture, valid as an element of a page and as a separate file."""
    lanes = list(_lanes(i))
    width = lanes[-1].x + BOX + 24
    height = max(lane.foot for lane in lanes) + 96
    return svg.document(
        width,
        height,
        svg.title(f"Architecture of {i.directory}"),
        element("defs", _arrowhead()),
        svg.background(PAPER),
        *(part for lane in lanes for part in _draw_lane(lane, i)),
        *_joins({lane.title: lane for lane in lanes}),
        _text(24, height - 12, _legend(i), 11, FAINT),
        width=width,
        height=height,
        font_family="DejaVu Sans, Verdana, sans-serif",
        role="img",
    )


def _lanes(i: Inspection) -> Iterator[Lane]:
    found = {block.path: block for block in i.blocks}
    x = 24.0
    for path in (path for path in ORDER if path in found):
        if x > 24:
            x += BETWEEN.get(TITLES[path][0], 28)
        elif path == "talker":
            x += 40  # space for the way back on the left
        yield Lane(found[path], shown_blocks(found[path]), x)
        x += BOX


def shown_blocks(block: Block) -> list[Block]:
    """The blocks of a network that get a box, in the order of its key table."""
    return sorted(_boxes(block), key=lambda box: box.place)


def _boxes(block: Block) -> Iterator[Block]:
    """The blocks below one that are shown: with a class, repeated, or with tensors of their own."""
    for child in block.children:
        container = child.shape is None and not child.official and child.count == 1
        if container and all(grandchild.shape is None for grandchild in child.children):
            yield from _boxes(child)
        else:
            yield child


def _modules(block: Block) -> Iterator[Block]:
    """The modules below a block that have tensors of their own."""
    for child in block.children:
        if child.tensor is None:
            yield from _modules(child)
        else:
            yield child


def _draw_lane(lane: Lane, i: Inspection) -> Iterator[Markup]:
    _, arrives, leaves = TITLES[lane.block.path]
    dashes = None if "frame" in lane.block.cost else "6 4"
    wide, high = BOX + 20, lane.bottom - 22
    yield svg.rectangle(lane.x - 10, 34, wide, high, rx=8, fill=LANE, stroke=FAINT, stroke_dasharray=dashes)
    yield _text(lane.x, 56, lane.title, 15, INK, bold=True)
    yield _text(lane.x, 73, f"{si(lane.block.parameters)} parameters, {si(lane.block.bytes, 'B')}", 11, INK)
    yield _text(lane.x, 96, arrives, 11, FAINT)
    for n, box in enumerate(lane.boxes):
        y = TOP + n * (HEIGHT + GAP)
        yield from _draw_box(box, lane, y, i)
        beside = BESIDE.get(re.split(r"\.(?=\D)", box.path)[-1])
        if n and beside:
            yield _text(lane.middle - 6 * len(beside), y - 2, beside, 12, INK, bold=True)
        elif n:
            yield _arrow(f"M{lane.middle:g} {y - GAP:g}V{y:g}")
    yield _text(lane.x, lane.bottom + 2, leaves, 11, FAINT)
    yield from _draw_detail(lane)


def _draw_detail(lane: Lane) -> Iterator[Markup]:
    """The contents of one of the repeated layers, one line per module."""
    if not lane.detail:
        return
    y = lane.bottom + 56
    yield _text(lane.x, y, "one of these layers", 11, INK, bold=True)
    for n, module in enumerate(lane.detail, start=1):
        name = re.sub(r"^.*layers\.[\d-]+\.", "", module.path)
        yield _text(lane.x, y + LINE * n, name, 10, INK)
        yield _text(lane.x + BOX - 74, y + LINE * n, _shape(module), 10, FAINT)


def _draw_box(box: Block, lane: Lane, y: float, i: Inspection) -> Iterator[Markup]:
    name = box.path.removeprefix(f"{lane.block.path}.")
    times = f"{box.count} x " if box.count > 1 else ""
    yield svg.rectangle(lane.x, y, BOX, HEIGHT, rx=4, fill=PAPER, stroke=INK)
    yield _text(lane.x + 8, y + 15, times + name, 12, INK, bold=True, room=BOX - 16)
    yield _text(lane.x + 8, y + 28, box.official or _shape(box), 10, FAINT, room=BOX - 16)
    yield _text(lane.x + 8, y + 41, _numbers(box), 10, INK, room=BOX - 16)
    share = share_of_reads(box, i)
    if share:
        wide = f"{share * (BOX - 2):.1f}"
        yield element("rect", x=lane.x + 1, y=y + HEIGHT - 5, width=wide, height=4, fill=INK)


def _shape(box: Block) -> str:
    """The largest tensor, which gives a block without a class its character."""
    tensor = box.tensor
    return "" if tensor is None else str(list(tensor.shape or ()))


def _numbers(box: Block) -> str:
    parameters = f"{si(box.parameters)} param."
    for when, cost in box.cost.items():
        work = f", {si(cost.flops)} FLOP" if cost.flops else ""
        unit = {"frame": "frame", "text": "token", "reference": "frame of clip"}[when]
        return f"{parameters}, reads {si(cost.bytes_read, 'B')}{work} a {unit}"
    return parameters


def _joins(lanes: dict[str, Lane]) -> Iterator[Markup]:
    """From the end of a lane round to the beginning of the next."""
    talker, predictor = lanes.get("talker"), lanes.get("code predictor")
    decoder = lanes.get("codec decoder")
    if talker is None or predictor is None:
        return
    gutter = talker.x - 10
    floor = max(talker.foot, predictor.foot) + 34
    references = [lane for lane in lanes.values() if "frame" not in lane.block.cost]
    below = max((lane.bottom for lane in references), default=0)
    for offset, name in ((34, "codec encoder"), (50, "speaker encoder")):
        if name in lanes:
            yield _arrow(_round(lanes[name], below + 60 - offset / 2, gutter - offset, talker, 86))
    yield _arrow(_round(talker, talker.bottom + 22, predictor.x - 30, predictor, 86))
    back = f"M{predictor.middle:g} {predictor.bottom + 22:g}H{predictor.x - 18:g}V{floor:g}H{gutter - 18:g}V104"
    yield _arrow(f"{back}H{gutter:g}")
    yield _text(talker.x, floor - 6, "sum of G embeddings + next text", 11, INK)
    if decoder is not None:
        yield _arrow(_round(predictor, predictor.bottom + 22, decoder.x - 30, decoder, 86))
        yield _arrow(f"M{decoder.middle:g} {decoder.bottom + 12:g}V{decoder.bottom + 34:g}")


def _round(start: Lane, y: float, x: float, end: Lane, at: float) -> str:
    """Down from the foot of a lane to ``y``, along to ``x``, up, and into the side of another at height ``at``."""
    return f"M{start.middle:g} {start.bottom + 12:g}V{y:g}H{x:g}V{at:g}H{end.x - 10:g}"


def _legend(i: Inspection) -> str:
    total = i.total("frame") if i.blocks else Cost()
    return (
        f"Bars: share of the {si(total.bytes_read, 'B')} of weights that one frame ({1000 / i.frame_rate:g} ms) of "
        "speech reads. Dashed: once, over a reference clip."
    )


def _text(x: float, y: float, text: str, size: int, color: str, bold: bool = False, room: float = 0) -> Markup:
    """``room``: compress the text to this many pixels if it would be wider."""
    wide = room and len(text) * size * (0.66 if bold else 0.61) > room
    return svg.text(
        x,
        y,
        text,
        font_size=size,
        fill=color,
        font_weight="bold" if bold else None,
        textLength=room if wide else None,
        lengthAdjust="spacingAndGlyphs" if wide else None,
    )


def _arrow(path: str) -> Markup:
    return svg.path(path, fill="none", stroke=INK, marker_end="url(#head)")


def _arrowhead() -> Markup:
    head = svg.path("M0 0L8 4L0 8z", fill=INK)
    return element(
        "marker", head, id="head", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=8, markerHeight=8, orient="auto"
    )
