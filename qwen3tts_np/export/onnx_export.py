"""A checkpoint as a folder of ONNX graphs, a folder each, and what a program needs besides to speak with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import RequestError
from ..extras import check_installed, install
from ..files.output import check_name, check_new_folder, output_folder
from .onnx_target import OnnxTarget
from .pieces import PIECES, Network
from .source import fixed_lengths, network_of, pieces_of, write_companions
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
    that this checkpoint lacks, OutputError where one is there already, CheckpointError for a damaged checkpoint.
    """
    network = network_of(source)
    chosen = pieces_of(network, only)
    fixed = fixed_lengths(lengths)
    if fixed is not None and fixed["positions"] != 1:
        raise RequestError("with fixed lengths a call reads one position: positions=1")
    check_name(target)
    for name in chosen:
        check_new_folder(target / name)
    check_installed(["onnx"], "export onnx", install("onnx"))
    write_companions(source, target)
    for name in chosen:
        with output_folder(target / name) as folder:
            write_piece(network, name, folder, model_format, fixed)
        yield name, sum(file.stat().st_size for file in (target / name).iterdir())


def write_piece(
    network: Network, name: str, folder: Path, model_format: str, lengths: Mapping[str, int] | None
) -> None:
    """Write one graph and its arrays into ``folder``, which must exist."""
    piece = PIECES[name]
    fixed = None if lengths is None else {**lengths, **piece.lengths(network, lengths)}
    graph = OnnxTarget(network.codec if piece.of_codec else network.model, piece.format_of(model_format), fixed)
    target: Target[str] = graph
    piece.build(target, network)
    graph.save(folder, name)
