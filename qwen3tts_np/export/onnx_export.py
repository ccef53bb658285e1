"""A checkpoint as a folder of ONNX graphs, a folder each, and what a program needs besides to speak with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..extras import check_installed, install
from ..files.output import check_name, check_new_folder, output_folder
from .onnx_target import MODEL, PROMPT, OnnxTarget
from .pieces import PIECES, Network
from .source import check_companions, check_lengths, companions, fixed_lengths, network_of, pieces_of, write_companions
from .target import Target


def export_onnx(
    source: Path,
    target: Path,
    model_format: str = "float32",
    only: Sequence[str] = (),
    lengths: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, int]]:
    """Write the pieces of ``source``, all or ``only`` some, into ``target``; yields name and bytes of each.

    ``lengths`` fixes all lengths, those of ``LENGTHS`` where it names no other; None leaves them symbolic. A piece is a
    folder, complete or not there, and what is finished stays when a later one fails. Raises RequestError for a piece
    that this checkpoint lacks, OutputError where one is there already or ``target`` is a folder of something else,
    CheckpointError for a damaged checkpoint.
    """
    network = network_of(source)
    chosen = pieces_of(network, only)
    fixed = fixed_lengths(lengths)
    check_lengths(lengths, network, chosen)
    check_name(target)
    for name in chosen:
        check_new_folder(target / name)
    beside = companions(source)
    check_companions(beside, source, target)
    check_installed(["onnx"], "export onnx", install("onnx"))
    write_companions(beside, target)
    for name in chosen:
        with output_folder(target / name) as folder:
            write_piece(network, name, folder, model_format, fixed)
        yield name, sum(file.stat().st_size for file in (target / name).iterdir())


def write_piece(
    network: Network, name: str, folder: Path, model_format: str, lengths: Mapping[str, int] | None
) -> None:
    """Write one piece and its arrays into ``folder``, which must exist: a graph, or where lengths are fixed that of a
    step and that of a prompt, on the same arrays."""
    piece = PIECES[name]
    fixed = None if lengths is None else {**lengths, **piece.lengths(network, lengths)}

    def graph(build: Callable[[Target[Any], Network], None], fixed: Mapping[str, int] | None) -> OnnxTarget:
        tensors = network.codec if piece.of_codec else network.model
        target = OnnxTarget(tensors, piece.format_of(model_format), fixed)
        build(target, network)
        return target

    written = graph(piece.build, fixed).save(folder, name, MODEL)
    if fixed is not None and piece.build_prompt is not None:
        of_prompt = graph(piece.build_prompt, {**fixed, "positions": fixed["prompt"]})
        of_prompt.save(folder, f"{name} of a prompt", PROMPT, written)
