"""``benchmarks/compare.py``: here this checkout against itself, with a tiny model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import program
from qwen3tts_np_kernels.cpu import compiled

ROOT = Path(__file__).parents[1]
compare = program(ROOT / "benchmarks" / "compare.py")


def cell(old, new, cpu="AVX2", **case):
    """One whose pairs have these times."""
    fields = {"model": "folder/small", "format": "int8", "threads": 2, "items": 1, "prompt": False, **case}
    pairs = [[[a, 2 * a], [b, b]] for a, b in zip(old, new, strict=True)]
    return compare.Cell(cpu, compare.Case(**fields), pairs)


def test_a_ratio_is_the_median_of_those_of_the_pairs():
    found = cell([10, 30, 21], [10, 10, 20])
    assert (found.ratio(), found.ratio(1)) == (1.05, 2.1)
    assert (found.milliseconds(0), found.milliseconds(1)) == (21, 10)


def test_the_table_has_a_row_for_each_number_of_threads_and_lists_what_is_too_low():
    cells = [cell([12], [10]), cell([9], [10], items=4), cell([30], [20], prompt=True), cell([8], [10], threads=1)]
    assert compare.table(cells, 0.97).splitlines() == [
        "| CPU | model | format | threads | batch of 1 | batch of 4 | prompt and frame |",
        "|---|---|---|--:|--:|--:|--:|",
        "| AVX2 | small | int8 | 2 | 1.20 (10.0 ms) | 0.90 (10.0 ms) | 1.50 (20.0 ms) |",
        "| AVX2 | small | int8 | 1 | 0.80 (10.0 ms) |  |  |",
        "",
        "2 of 4 ratios are below 0.97",
        "- AVX2, small, int8, 1 threads, batch of 1: 8.0 / 10.0 ms = 0.800, CPU 1.600, 1 pairs",
        "- AVX2, small, int8, 2 threads, batch of 4: 9.0 / 10.0 ms = 0.900, CPU 1.800, 1 pairs",
    ]


def test_finished_cells_are_those_of_their_checkouts(tmp_path):
    file = tmp_path / "cells.json"
    compare.Cells(file, ["a", "b"]).add(cell([12], [10]))
    assert compare.Cells(file, ["a", "b"]).all == [cell([12], [10])]
    with pytest.raises(SystemExit, match="and these are"):
        compare.Cells(file, ["a", "c"])


def test_a_low_cell_is_measured_again_and_its_pairs_are_added():
    cells, case = compare.Cells(None, []), cell([1], [1]).case
    assert cells.are_wanted("AVX2", case, 0, 0.97)
    cells.add(cell([8], [10]))
    wanted = {
        (cpu, tries) for cpu in ("AVX2", "here") for tries in range(3) if cells.are_wanted(cpu, case, tries, 0.97)
    }
    assert wanted == {("AVX2", 1), ("here", 0)}
    cells.add(cell([12, 11], [10, 10]))
    assert (cells.all[0].ratio(), cells.all[0].tries, len(cells.all)) == (1.1, 2, 1)
    assert not any(cells.are_wanted("AVX2", case, tries, 0.97) for tries in range(3))


@pytest.mark.skipif(not compiled(), reason="measures compiled kernels (NUMBA_DISABLE_JIT is set)")
@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout of git")
def test_both_are_measured_in_turn_and_a_stopped_run_is_taken_up(synthetic, tmp_path):
    model, cells = str(synthetic("tiny", "custom_voice")), tmp_path / "cells.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(ROOT), model]
    command += f"--formats int4 --batches 2 --threads 1 --seconds 0 --cells {cells}".split()
    command += ["--converted", str(tmp_path / "converted")]
    stopped = subprocess.run([*command, "--minutes", "0"], capture_output=True, text=True)
    assert (stopped.returncode, stopped.stderr) == (1, "2 cells are missing: the same command goes on\n")
    for _ in range(2):  # the second finds all
        subprocess.run(command, check=True, capture_output=True)
    found = json.loads(cells.read_text())["cells"]
    assert [(cpu, case, len(pairs)) for cpu, case, pairs, _ in found] == [
        ("here", [model, "int4", 1, 2, False], 3),
        ("here", [model, "int4", 1, 1, True], 3),
    ]
    assert len(list(tmp_path.glob("converted/*/*"))) == 1  # it is the same checkout


def test_checkouts_whose_converted_files_have_the_same_bytes_read_one_file(tmp_path):
    files = [tmp_path / commit / "model-int8" / "model.safetensors" for commit in ("old", "new", "other")]
    for file, content in zip(files, (b"same", b"same", b"else"), strict=True):
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        compare.share_equal(file)
    assert files[0].samefile(files[1]) and not files[0].samefile(files[2])
    assert [file.read_bytes() for file in files] == [b"same", b"same", b"else"]
