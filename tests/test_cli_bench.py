"""``bench``: that it ends, and that its numbers belong together. How fast a machine is, no test can say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import Qwen3TTSModel, cli
from qwen3tts_np.cli import bench

needs_compiler = pytest.mark.skipif(not compiled(), reason="measures compiled kernels (NUMBA_DISABLE_JIT is set)")


@needs_compiler
@pytest.mark.parametrize("kind", ["base", "custom_voice", "voice_design"])
def test_bench_measures_every_kind_of_model(synthetic, kind, capsys):
    model = str(synthetic("tiny", kind))
    assert cli.main(["bench", model, "--seconds", "0.2", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["model_type"], found["threads"]) == (model, kind, 1)
    assert (found["backend"], found["format"], found["frame_ms"]) == ("compiled", "bfloat16", 80)
    assert found["rtf"] == pytest.approx((found["talker_ms"] + found["codec_ms"]) / 80, abs=1e-3)
    assert min(found["load_seconds"], found["first_frame_ms"], found["peak_memory_mb"]) > 0
    assert found["frames"] >= bench.FEWEST


@needs_compiler
def test_bench_prints_a_line_for_each(synthetic, capsys):
    assert cli.main(["bench", str(synthetic("tiny", "base")), "--seconds", "0.1", "--format", "int4"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert ", int4, " in first
    names = ["load", "first frame", "talker + predictor", "codec", "real-time factor", "peak memory"]
    assert [line[2:22].strip() for line in lines] == names


def test_frames_are_timed_one_by_one(synthetic, monkeypatch):
    """A clock that moves 10 ms at every look: then a frame takes as much."""
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference", threads=1)
    now = iter(np.arange(1e6) / 100)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(now)))
    found = bench.talk(model, 0.05)
    assert len(found.frames) >= bench.FEWEST
    np.testing.assert_allclose(found.frames + found.first, 0.01)


def test_bench_needs_some_time(synthetic, capsys):
    assert cli.main(["bench", str(synthetic("tiny", "base")), "--seconds", "0"]) == 2
    assert capsys.readouterr().err == "qwen3tts-np bench: --seconds 0 must be above 0 and at most 3600\n"


@needs_compiler
def test_numbers_of_threads_are_compared(synthetic, monkeypatch, capsys):
    monkeypatch.setattr(bench, "usable_cores", lambda: 3)
    assert bench.numbers_of_threads("each") == [1, 2, 3]
    command = ["bench", str(synthetic("tiny", "base")), "--seconds", "0.1", "--threads", "1,2"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["threads"] for result in found["results"]] == [1, 2]
    assert found["fastest"] == min(found["results"], key=lambda result: result["rtf"])["threads"]
    assert cli.main(command) == 0
    header, _, *rows, note = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "threads"
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert note.startswith("The fastest here: --threads ")


@pytest.mark.parametrize("word", ["", "1,", "two", "1.5"])
def test_what_is_no_number_of_threads(synthetic, word, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", str(synthetic("tiny", "base")), "--threads", word])
    assert f"{word!r} is no number, nor several as in 1,2,4, nor each" in capsys.readouterr().err
