"""The precision ladder: our tiny rungs measured again, and what its tables and plots must say."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from programs import program

ROOT = Path(__file__).parents[1]
LADDER = ROOT / "golden" / "ladder"
COMMITTED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(LADDER.glob("*.json"))}
OFFICIAL = ("official float64", "official float32", "official bfloat16")
# float32 adds in another order on another machine: errors of rounding are of the same size, not the same. Those of
# quantised weights are a property of the weights; rounding touches their fourth digit.
ALLOWED = {"float32": 4.0, "bfloat16 weights": 4.0, "int8 weights": 1.02, "int4 weights": 1.02}


ladder, report = (program(ROOT / "benchmarks" / f"{name}.py") for name in ("ladder", "ladder_report"))


def test_our_tiny_rungs_are_what_is_committed(synthetic, tmp_path):
    request, codes = ladder.recorded_request("tiny")
    assert codes.tolist() == COMMITTED["tiny"]["codes"]
    _, errors = ladder.own_ladder(synthetic("tiny", "custom_voice"), request, codes, tmp_path)
    assert errors.keys() == ALLOWED.keys()
    for rung, factor in ALLOWED.items():
        committed = COMMITTED["tiny"]["errors"][rung]
        assert errors[rung].keys() == committed.keys()
        for point, error in errors[rung].items():
            of_weights = factor if error > 1e-4 else 4.0  # what no quantised weight has touched yet is float32
            assert committed[point] / of_weights <= error <= committed[point] * of_weights, (rung, point)


def test_the_rungs_lie_where_the_introduction_says():
    for content in COMMITTED.values():
        errors = content["errors"]
        assert set(errors) == set(report.LINES)
        assert errors["bfloat16 weights"] == errors["float32"]  # the checkpoint is bfloat16: nothing is lost
        for point in errors["float32"]:
            if not point.endswith(("input", "choices")):
                exact, ours, single, brain = (errors[r][point] for r in (OFFICIAL[0], "float32", *OFFICIAL[1:]))
                assert exact < ours < 1e-5
                assert ours / 3 < single < ours * 3
                assert 1e3 < brain / single < 1e5
                assert single < errors["int8 weights"][point] < errors["int4 weights"][point]
        assert errors["float32"]["choices"] == errors["official float32"]["choices"] == 0


@pytest.mark.parametrize("like", COMMITTED)
def test_the_plot_is_the_one_of_the_numbers(like):
    drawn = (LADDER / f"{like}.svg").read_text(encoding="utf-8")
    assert drawn == report.plot(COMMITTED[like]), "run: python benchmarks/ladder.py"
    words = [element.text for element in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert {"relative RMS error", "layer", *report.LINES, *report.STAGES.values()} <= set(words)
    colours = {part for element in ET.fromstring(drawn).iter() for part in (element.get("stroke"), element.get("fill"))}
    assert colours <= {None, "none", "#000", "#444", "#777", "#ddd", "#fff"}  # grey: it prints as it is
    assert len(drawn) < 50_000


def test_the_table_is_the_one_of_the_numbers():
    sizes = {like: COMMITTED[like] for like in ladder.LIKES}
    assert (LADDER / "README.md").read_text(encoding="utf-8") == report.table(sizes)


def test_an_error_of_a_thousandth_reads_so():
    import numpy as np

    x = np.array([3.0, -4.0])
    assert ladder.relative_rms(x * 1.001, x) == pytest.approx(1e-3)
    assert ladder.relative_rms(x, x) == 0
