"""A checkpoint as Core ML packages: a folder for each weight format, in it one package for each piece."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..extras import check_installed, install
from ..files.output import check_name, check_new_folder, output_folder
from ..ops import AnyArray
from ..shown import shortened
from .coreml_target import CoreMLTarget, Declarations, coremltools
from .pieces import PIECES, Network
from .source import check_companions, check_lengths, companions, fixed_lengths, network_of, pieces_of, write_companions

COREML_FORMATS = ("float16", "int8", "int6", "int4")
PACKAGE = "model.mlpackage"
PROMPT = "prompt"  # the function of the talker's package that reads many positions
NOT_THERE = {
    "int5": "Core ML has no 5-bit weights: it has 4 and 8 bits, and tables of 1, 2, 3, 4, 6 and 8",
    "float32": "states of Core ML are float16, so the talker, the code predictor and the codec's decoder are",
}


def export_coreml(
    source: Path,
    target: Path,
    formats: Sequence[str] = COREML_FORMATS,
    only: Sequence[str] = (),
    lengths: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, str, int]]:
    """Write the pieces of ``source`` in each of ``formats``; yields format, piece and bytes of each.

    Each format is a folder of ``target`` with everything a program needs. ``lengths``: numbers other than those of
    ``LENGTHS``. A package is complete or not there, and what is finished stays when a later one fails. Raises
    RequestError for a format or piece that there is not, OutputError where a package is there already.
    """
    check_formats(formats)
    network = network_of(source)
    chosen, fixed = pieces_of(network, only), fixed_lengths(lengths or {})
    assert fixed is not None
    check_lengths(lengths, network, chosen)
    check_name(target)
    beside = companions(source)
    for model_format in formats:
        for name in chosen:
            check_new_folder(target / model_format / name)
        check_companions(beside, source, target / model_format)
    check_installed(["coremltools"], "export coreml", install("coreml"))
    for model_format in formats:
        write_companions(beside, target / model_format)
        for name in chosen:
            place = target / model_format / name
            with output_folder(place) as folder:
                write_package(network, name, folder / PACKAGE, model_format, fixed)
            yield model_format, name, sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def check_formats(formats: Sequence[str]) -> None:
    """RequestError for a format that Core ML has not."""
    for name in formats:
        if name in NOT_THERE:
            raise RequestError(f"format {name}: {NOT_THERE[name]}")
        if name not in COREML_FORMATS:
            raise RequestError(f"format {shortened(name)} is none of {', '.join(COREML_FORMATS)}")


def write_package(network: Network, name: str, package: Path, model_format: str, lengths: Mapping[str, int]) -> None:
    """Write one piece as the package ``package``, whose folder must exist: ``main``, and perhaps ``prompt``."""
    piece = PIECES[name]
    fixed = {**lengths, **piece.lengths(network, lengths)}
    tensors = network.codec if piece.of_codec else network.model
    builds = {"main": (piece.build, fixed)}
    if piece.build_prompt is not None:
        builds[PROMPT] = piece.build_prompt, {**fixed, "positions": fixed["prompt"]}
    program, arrays = coremltools(".converters.mil.mil").Program(), dict[str, AnyArray]()
    for function, (build, numbers) in builds.items():
        declared = Declarations(numbers)
        build(declared, network)
        # What is compared or chosen by, and carries nothing, stays float32; what carries a state is float16 with it.
        narrow = bool(declared.states) or not piece.exact
        graph = CoreMLTarget(tensors, "float16" if piece.exact else model_format, numbers, narrow, arrays)
        program.add_function(function, graph.function(partial(_build, build, network), declared))
    program.export_as_multifunction = len(builds) > 1
    _save(program, package)


def _build(build: Callable[[Any, Network], None], network: Network, target: CoreMLTarget) -> None:
    build(target, network)


def _save(program: Any, package: Path) -> None:
    """Convert a program without running or changing it. The progress bars of coremltools are not shown."""
    ct = coremltools()
    passes = ct.PassPipeline.EMPTY
    passes.append_pass("common::dead_code_elimination")
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            pass_pipeline=passes,
            skip_model_load=True,
            package_dir=str(package),
        )
