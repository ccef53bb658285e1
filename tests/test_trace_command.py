"""A request from inside: what the trace writes is what the model computed, and it never waits in memory."""

from __future__ import annotations

import csv
import json
import sys
import tracemalloc

import numpy as np
import pytest
from fine_tuned import fine_tuned
from parity import CASES
from safetensors.numpy import load_file

from qwen3tts_np import Qwen3TTSModel, cli
from qwen3tts_np.errors import QwenTTSError
from qwen3tts_np.inspect.arrays_on_disk import ArraysOnDisk
from qwen3tts_np.inspect.attention_maps import Head, heads_of
from qwen3tts_np.inspect.collector import StreamedTrace, block_of, seconds_by_block
from qwen3tts_np.inspect.golden import Golden
from qwen3tts_np.inspect.request import WrittenRequest
from qwen3tts_np.inspect.request_file import read_request
from qwen3tts_np.inspect.tracing import Options, first_outside, trace_request
from qwen3tts_np.ops import softmax
from qwen3tts_np.report.plots import why_no_plots
from qwen3tts_np.trace import Scope, collect_into, record, trace

REQUEST = WrittenRequest({"text": "Hello.", "speaker": "vivian", "max_new_tokens": 5}, seed=1)


@pytest.fixture(scope="module")
def model(synthetic) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference")


@pytest.fixture(scope="module")
def traced(model, tmp_path_factory):
    """(folder, result, the whole trace in memory, codes) of one request."""
    folder = tmp_path_factory.mktemp("traced")
    options = Options((Head(0, 0), Head(2, 2)), keep=("talker.model.layers.*.self_attn.[vc]*",), top=3)
    found = trace_request(model, REQUEST, folder, options)
    with trace() as whole:
        _, _, codes = model.generate_custom_voice(**REQUEST.arguments, seed=1, return_codes=True)
    return folder, found, whole, codes[0]


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- what is written ------------------------------------------------------------------------------


def test_statistics_are_those_of_the_activations(traced):
    folder, found, whole, _ = traced
    table = rows(folder / "statistics.csv")
    assert [f"{row['name']}@{row['call']}" for row in table] == list(whole)
    for row, x in zip(table, whole.values(), strict=True):
        assert row["shape"] == "x".join(map(str, x.shape))
        wide = x.astype(np.float64)
        wanted = (wide.mean(), wide.std(), wide.min(), wide.max(), np.sqrt(np.mean(wide**2)))
        stated = [float(row[c]) for c in ("mean", "std", "min", "max", "rms")]
        np.testing.assert_allclose(stated, wanted, rtol=1e-9, atol=1e-12)
    name = "talker.code_predictor.model.layers.1.mlp"
    calls = [x.astype(np.float64) for n, x in whole.items() if n.startswith(f"{name}.down_proj@")]
    total = found.totals[f"{name}.down_proj"]
    assert total.calls == len(calls) == 15 * len(found.codes)
    together = np.concatenate([x.ravel() for x in calls])
    assert total.mean == pytest.approx(together.mean())
    assert total.std == pytest.approx(together.std())
    assert (total.lowest, total.highest) == (together.min(), together.max())


def test_the_residual_stream_and_its_growth(traced):
    folder, _, whole, _ = traced
    stream = json.loads((folder / "summary.json").read_text())["residual_stream"]
    assert [s["name"].rpartition(".")[2] for s in stream] == ["inputs_embeds", "0", "1", "2"]
    for s in stream:
        calls = [x for name, x in whole.items() if name.startswith(f"{s['name']}@")]
        assert s["rms"] == pytest.approx(np.sqrt(np.mean(np.concatenate(calls) ** 2)), rel=1e-6)
    assert stream[2]["growth"] == pytest.approx(stream[2]["rms"] / stream[1]["rms"])


def test_kept_activations_are_a_safetensors_file(traced):
    folder, _, whole, _ = traced
    kept = load_file(folder / "activations.safetensors")
    assert {name.split("@")[0] for name in kept} >= {"talker.codec_head", "talker.model.layers.2.self_attn.k_rot"}
    assert "talker.model.layers.1.self_attn.k_rot@0" not in kept  # no head of this layer was asked for
    for name, x in kept.items():
        np.testing.assert_array_equal(x, whole[name])


def test_choices_are_those_of_the_logits(traced):
    folder, found, whole, codes = traced
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(np.load(folder / "codes.npy"), codes)
    table = rows(folder / "choices.csv")
    assert len(table) == 16 * len(codes) + 1  # one choice of the talker more than there are frames
    for row in table:
        frame, g = int(row["frame"]), int(row["codebook"])
        name = "talker.codec_head" if g == 0 else f"talker.code_predictor.lm_head.{g - 1}"
        p = softmax(whole[f"{name}@{frame}"][0].astype(np.float64))
        assert float(row["entropy_bits"]) == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-4)
        best = list(map(int, row["best_codes"].split()))
        assert best == np.argsort(-p, kind="stable")[:3].tolist()
        if frame < len(codes):
            assert int(row["code"]) == codes[frame, g]
            assert float(row["probability"]) == pytest.approx(p[codes[frame, g]], abs=1e-6)
            assert int(row["rank"]) == (p > p[codes[frame, g]]).sum()
        else:
            assert row["code"] == ""
    assert np.isnan(found.entropies[-1, 1:]).all()


def test_the_end_of_speech_is_in_the_table_and_the_summary(traced, model):
    folder, found, whole, codes = traced
    eos = model.config.talker_config.codec_eos_token_id
    p = [softmax(whole[f"talker.codec_head@{t}"][0].astype(np.float64))[eos] for t in range(len(codes) + 1)]
    np.testing.assert_allclose(found.end, p, rtol=1e-9)
    table = [row["end_of_speech"] for row in rows(folder / "choices.csv")]
    np.testing.assert_allclose([float(end) for end in table if end], p, rtol=1e-5)
    assert table.count("") == 15 * len(codes)
    stated = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["end_of_speech"]
    np.testing.assert_allclose(stated, p, rtol=1e-5)


def test_a_greedy_code_predictor_takes_the_first(model, tmp_path):
    greedy = {"do_sample": False, "subtalker_dosample": False}
    found = trace_request(model, REQUEST.updated(greedy, None), tmp_path, Options())
    ranks = [row["rank"] for row in rows(tmp_path / "choices.csv") if row["codebook"] != "0"]
    assert set(ranks) == {"0"} and len(ranks) == 15 * len(found.codes)


def test_attention_maps_are_what_attention_did(traced):
    """Each row is a distribution over the past, and with the values it gives the recorded context."""
    folder, found, whole, _ = traced
    assert list(found.maps) == ["layer 0, head 0", "layer 2, head 2"]
    for layer, head in ((0, 0), (2, 2)):
        weights = np.load(folder / f"attention-{layer}-{head}.npy")
        name = f"talker.model.layers.{layer}.self_attn"

        def all_calls(part, name=name):
            return np.concatenate([x for n, x in whole.items() if n.startswith(f"{name}.{part}@")])

        context, v = all_calls("context"), all_calls("v_proj")
        assert weights.shape == (len(v), len(v))
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        assert not np.triu(weights, 1).any()
        kv = head // 2  # 4 query heads on 2 key/value heads of 32
        wanted = context[:, 32 * head : 32 * head + 32]
        np.testing.assert_allclose(weights @ v[:, 32 * kv : 32 * kv + 32], wanted, atol=1e-5)


def test_the_histogram_counts_every_code(traced):
    folder, found, _, codes = traced
    summary = json.loads((folder / "summary.json").read_text())
    assert found.histogram.shape == (16, 128)
    for g in range(16):
        assert summary["histogram"][g] == {str(c): int((codes[:, g] == c).sum()) for c in np.unique(codes[:, g])}
        assert summary["codebooks"][g]["different_codes"] == len(np.unique(codes[:, g]))


# --- time -----------------------------------------------------------------------------------------


def test_time_is_from_one_activation_to_the_next_without_the_trace(tmp_path):
    """The model takes 1, 2 and 5 s for its activations, the trace 100 s for each."""
    now = 0.0

    class Slow:
        def compare(self, name, array):
            nonlocal now
            now += 100

    with StreamedTrace(tmp_path, golden=Slow(), clock=lambda: now) as stream, collect_into(stream):
        for layer in (0, 1):
            for seconds, part in ((1, "self_attn.q_proj"), (2, "self_attn.context"), (5, "mlp.up_proj")):
                now += seconds
                record(f"talker.model.layers.{layer}.{part}", np.ones(3))
    assert seconds_by_block(stream.totals) == {
        "talker.model.layers.*.mlp": 10.0,
        "talker.model.layers.*.self_attn": 6.0,
    }


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("talker.codec_head", "talker.codec_head"),
        ("talker.model.layers.12", "talker.model.layers.*"),
        ("talker.code_predictor.lm_head.3", "talker.code_predictor.lm_head"),
        ("speech_tokenizer.decoder.decoder.2.block.1.conv", "speech_tokenizer.decoder.decoder.*"),
        ("speech_tokenizer.decoder.pre_transformer.layers.0.mlp.up_proj", None),
    ],
)
def test_blocks_of_names(name, block):
    assert block_of(name) == (block or "speech_tokenizer.decoder.pre_transformer.layers.*.mlp")


def test_what_is_recorded_is_returned():
    x, y = np.zeros(2), np.ones(3)

    def block():
        t = Scope("block")
        assert t("part", x) is x
        assert t.output(y) is y
        assert record("alone", x) is x

    block()  # outside a trace too
    with trace() as found:
        block()
    block()
    assert list(found) == ["block.part@0", "block@0", "alone@0"]
    assert [len(value) for value in found.values()] == [2, 3, 2]


# --- memory ---------------------------------------------------------------------------------------


def test_a_long_trace_stays_out_of_memory(tmp_path):
    """20 MB of activations through a buffer of 4 kB: what Python holds at any time is a small part of it."""
    calls, size = 500, 10_000
    x = np.arange(size, dtype=np.float32)
    tracemalloc.start()
    with StreamedTrace(tmp_path, keep=("x",), buffer=4096) as stream, collect_into(stream):
        for n in range(calls):
            x[0] = n
            record("x", x)
            assert stream.arrays.waiting <= 4096
        _, peak = tracemalloc.get_traced_memory()
    _, at_end = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < calls * x.nbytes / 10
    assert at_end < 2_000_000  # the table of contents of the file
    kept = load_file(tmp_path / "activations.safetensors")
    assert len(kept) == calls
    assert all(kept[f"x@{n}"][0] == n and kept[f"x@{n}"][-1] == size - 1 for n in range(calls))


@pytest.mark.parametrize("buffer", [2, 300, 1 << 20])
def test_a_tiny_buffer_changes_nothing(model, traced, tmp_path, buffer):
    folder, *_ = traced
    options = Options((Head(0, 0), Head(2, 2)), ("talker.model.layers.*.self_attn.[vc]*",), 3, buffer=buffer)
    trace_request(model, REQUEST, tmp_path, options)
    for name in ("activations.safetensors", "choices.csv", "codes.npy", "attention-2-2.npy", "speech.wav"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_arrays_of_every_kind_survive_the_disk(tmp_path):
    arrays = {
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float64(3.5).reshape(()),
        "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "codes": np.arange(4, dtype=np.int64),
    }
    with ArraysOnDisk(tmp_path / "x.safetensors", buffer=16) as disk:
        for name, array in arrays.items():
            disk.add(name, array)
    kept = load_file(tmp_path / "x.safetensors")
    for name, array in arrays.items():
        assert kept[name].dtype == array.dtype
        np.testing.assert_array_equal(kept[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_an_interrupted_trace_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), ArraysOnDisk(tmp_path / "x.safetensors") as disk:
        disk.add("a", np.array(["no number"]))
    assert list(tmp_path.iterdir()) == []


# --- golden ---------------------------------------------------------------------------------------


def test_a_golden_case_is_met_within_its_tolerances(synthetic, tmp_path, capsys):
    case, out = str(CASES / "activations_custom_voice"), tmp_path / "out"
    arguments = ["trace", str(synthetic("tiny", "custom_voice")), case, "-o", str(out), "--plots", "none"]
    assert cli.main([*arguments, "--golden", case]) == 0
    assert "all within their tolerances" in capsys.readouterr().out
    golden = json.loads((out / "summary.json").read_text())["golden"]
    assert golden["compared"] > 250 and golden["first_outside_tolerance"] is None


def test_one_matrix_off_by_a_thousandth_is_named(synthetic, tmp_path):
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference")
    model.frame_loop.weights.talker.layers[1].mlp.up_proj[...] *= 1.001
    case = CASES / "activations_custom_voice"
    found = trace_request(model, read_request(case), tmp_path, Options(golden=Golden(case)))
    assert first_outside(found.totals) == "talker.model.layers.1.mlp.up_proj"


def test_another_architecture_is_outside_at_once(synthetic, tmp_path, capsys):
    case = str(CASES / "activations_custom_voice")
    wrong = ["trace", str(synthetic("tiny-1.7b", "custom_voice")), case, "-o", str(tmp_path / "wrong")]
    assert cli.main([*wrong, "--plots", "none", "--golden", case]) == 0
    assert "the first outside its tolerance is talker." in capsys.readouterr().out


def test_a_trace_is_a_golden_for_another(traced, model, tmp_path, capsys, synthetic):
    folder, *_ = traced
    arguments = ["--text", "Hello.", "--speaker", "vivian", "--max-new-tokens", "5", "--seed", "1", "--plots", "none"]
    command = ["trace", str(synthetic("tiny", "custom_voice")), *arguments]
    golden = str(folder / "activations.safetensors")
    assert cli.main([*command, "-o", str(tmp_path / "same"), "--golden", golden]) == 0
    errors = json.loads((tmp_path / "same" / "summary.json").read_text())["golden"]["errors"]
    assert errors and all(e["error"] == 0 for e in errors.values())
    assert cli.main([*command, "-o", str(tmp_path / "f64"), "--golden", golden, "--dtype", "float64"]) == 0
    errors = json.loads((tmp_path / "f64" / "summary.json").read_text())["golden"]["errors"]
    assert 0 < max(e["relative"] for e in errors.values()) < 1e-4  # float32 rounding, and nothing else


# --- the command ----------------------------------------------------------------------------------


def run_trace(directory, out, *arguments) -> int:
    command = ["trace", str(directory), "--text", "Hello.", "--max-new-tokens", "4", "--seed", "1", "-o", str(out)]
    return cli.main([*command, *arguments])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plots(synthetic, tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    assert run_trace(synthetic("tiny", "custom_voice"), tmp_path / "out", "--plots", suffix, "--heads", "1:2") == 0
    names = {path.name for path in (tmp_path / "out").glob(f"*.{suffix}")}
    assert names == {f"{n}.{suffix}" for n in ("sound", "codes", "entropy", "residual", "time", "attention-1-2")}
    out = capsys.readouterr().out
    for title in ("Talker, layer by layer", "Codes", "Time by block"):
        assert title in out


def test_titles_and_units_are_on_every_plot(synthetic, tmp_path):
    pytest.importorskip("matplotlib")
    assert run_trace(synthetic("tiny", "custom_voice"), tmp_path / "out", "--plots", "svg") == 0
    words = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.svg")}
    for name, wanted in {
        "sound": ("Waveform", "time (s)", "amplitude (full scale = 1)", "frequency (Hz, mel scale)", "level (dB)"),
        "codes": ("Codes of each frame", "frame (80 ms)", "codebook"),
        "entropy": ("entropy (bits)", "frame (80 ms)", "End of speech", "probability"),
        "residual": ("Talker: growth of the residual stream", "layers passed (0: the input)"),
        "time": ("Time by block", "time (s)"),
        "attention-0-0": ("position looked at", "position that looks"),
    }.items():
        for text in wanted:
            assert f"<!-- {text}" in words[name], (name, text)  # matplotlib notes each text beside its outlines


def test_without_matplotlib(synthetic, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    directory = synthetic("tiny", "custom_voice")
    assert run_trace(directory, tmp_path / "out") == 0
    assert capsys.readouterr().out.endswith(f"{why_no_plots()}\n")
    assert not list((tmp_path / "out").glob("*.png"))
    assert run_trace(directory, tmp_path / "asked", "--plots", "png") == 2
    assert capsys.readouterr().err == f"qwen3tts-np trace: {why_no_plots()}\n"
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("kind", ["base", "voice_design", "fine-tuned"])
@pytest.mark.filterwarnings("ignore:the reference clip")
def test_every_kind_of_model(synthetic, tmp_path, capsys, kind):
    if kind == "fine-tuned":
        directory, arguments = fine_tuned(synthetic("tiny", "base"), tmp_path / "tuned"), []
    elif kind == "voice_design":
        directory, arguments = synthetic("tiny", kind), ["--instruct", "Old."]
    else:
        rate, clip = 24000, str(tmp_path / "clip.wav")
        from qwen3tts_np.audio.files import write_audio

        write_audio(clip, 0.1 * np.sin(np.arange(rate) / 20), rate)
        directory, arguments = synthetic("tiny", kind), ["--ref-audio", clip, "--ref-text", "One."]
    assert run_trace(directory, tmp_path / "out", "--plots", "none", *arguments) == 0
    activations = json.loads((tmp_path / "out" / "summary.json").read_text())["activations"]
    assert ("speaker_encoder" in activations) is (kind == "base")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--heads", "x"], "'x' is not LAYER:HEAD"),
        (["--heads", "3:0"], "'3:0' is not a head of this talker, whose last is layer 2, head 3"),
        (["--top", "0"], "--top 0 must be at least 1"),
        (["--golden", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--speaker", "Bob"], "speaker 'Bob' is not in this model"),
    ],
)
def test_refused_in_one_sentence_and_nothing_is_left(synthetic, tmp_path, capsys, arguments, told):
    assert run_trace(synthetic("tiny", "custom_voice"), tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_trace_does_not_overwrite(synthetic, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    assert run_trace(synthetic("tiny", "custom_voice"), tmp_path, "--plots", "none") == 2
    assert "exists already" in capsys.readouterr().err


def test_heads_that_are_shown_by_default(model):
    c = model.config.talker_config
    assert heads_of(None, c) == [Head(0, 0), Head(1, 0), Head(2, 0)]
    assert heads_of("0:3, 2:1", c) == [Head(0, 3), Head(2, 1)]
    with pytest.raises(QwenTTSError):
        heads_of("0:4", c)
