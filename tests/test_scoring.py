"""``score``: its numbers are the losses of the frame loop, every fault of a voice is named and nothing else is."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from counting import Counting
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiled import end_of_speech_lost, last_codebook_untrained, spoiled, text_projection_left_out

import qwen3tts_np
from qwen3tts_np import CustomVoice, Qwen3TTSModel, RequestError, cli, trace
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.ops import softmax
from qwen3tts_np.parity.forced import forced
from qwen3tts_np.scoring.diagnosis import ENDING, diagnose
from qwen3tts_np.scoring.readings import LABELS, STATES, Reading, Utterance
from qwen3tts_np.scoring.report import as_json
from qwen3tts_np.scoring.speech import Speech, speech_of
from qwen3tts_np.speech.demo import CHECKPOINT as DEMO
from qwen3tts_np.talker.loss import AFTER_NEXT, BEFORE, NEXT, OF, READ, Judged, judge

HELD_OUT = Path(__file__).parent / "held_out.jsonl"  # sentences of the demo voice, drawn with its own sampling
ROWS = [json.loads(line) for line in HELD_OUT.read_text(encoding="utf-8").splitlines()]
EDITS = (text_projection_left_out, last_codebook_untrained, end_of_speech_lost)


def load(path: Path, **arguments: Any) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(path, **arguments)


# --- faults of weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("weights_format", ["auto", "int4"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole text", "streaming"])
def test_the_sound_voice_has_no_known_fault(weights_format: str, streaming: bool) -> None:
    model = load(DEMO, weights_format=weights_format)
    found = qwen3tts_np.score(model, HELD_OUT, streaming=streaming, limit=8)
    assert found.diagnosis.faults == ()
    assert found.diagnosis.verdict == "no known fault"
    assert all(c.cross_entropy < 0.2 and c.accuracy > 0.9 for c in found.codebooks)


@pytest.mark.parametrize("edits", [c for n in (1, 2, 3) for c in itertools.combinations(EDITS, n)])
def test_every_fault_of_edited_weights_is_named(edits: Any, tmp_path: Path) -> None:
    model = load(spoiled(tmp_path / "voice", *edits))
    found = qwen3tts_np.score(model, HELD_OUT, limit=4)
    assert [fault.name for fault in found.diagnosis.faults] == [edit.__name__ for edit in edits]


def test_nothing_is_said_of_random_weights(synthetic: Callable[..., Path]) -> None:
    model = load(synthetic("tiny", "custom_voice"))
    found = qwen3tts_np.score(model, [_random_speech(model)])
    assert found.diagnosis.faults == ()
    assert found.diagnosis.verdict.startswith("no known fault, but code 0 is predicted no better than by chance")


def _random_speech(model: Qwen3TTSModel) -> Speech:
    c = model.config.talker_config
    codes = np.random.default_rng(0).integers(0, c.code_predictor_config.vocab_size, (30, c.num_code_groups))
    return Speech("random", model.prepare("Hello.", model.voice(), seed=0), codes)


TALKER = {
    NEXT: set(),
    AFTER_NEXT: {"talker_labels_twice"},
    READ: {
        "talker_labels_unshifted",
        "end_of_speech_lost",
    },  # read nowhere
}
PREDICTOR = {
    NEXT: set(),
    AFTER_NEXT: {"sub_talker_labels_twice", "last_codebook_untrained"},  # the last head had no label
    READ: {"sub_talker_labels_unshifted"},
}
COUNTING = [
    *(Counting(talker, predictor) for talker in LABELS for predictor in LABELS),
    *(Counting(talker, reads_state=True) for talker in LABELS),
]


@pytest.mark.parametrize("counting", COUNTING, ids=str)
def test_every_fault_of_an_alignment_is_named(counting: Counting, tmp_path: Path, synthetic: Any) -> None:
    model = load(counting.write(synthetic("tiny", "custom_voice"), tmp_path / "voice"))
    request = model.prepare("count", model.voice(), seed=0)
    found = qwen3tts_np.score(model, [Speech(str(n), request, np.array(counting.codes(n, n))) for n in range(4)])
    wanted = TALKER[counting.talker] | PREDICTOR[counting.predictor]
    wanted |= {"state_of_frame"} if counting.reads_state else set()
    assert {fault.name for fault in found.diagnosis.faults} == wanted


# --- faults of losses -----------------------------------------------------------------------------

ENTRIES, GROUPS, FRAMES, UTTERANCES = 128, 5, 20, 4
LOW, HIGH = 0.3, 9.0  # losses at the alignment that was trained, and at others


def losses(
    label: int = NEXT,
    sub_label: int = NEXT,
    state: int = BEFORE,
    last: bool = True,
    end: bool = True,
    low: float = LOW,
    high: float = HIGH,
    seed: int = 0,
) -> list[Reading]:
    """Readings of a model that was trained so. ``last``, ``end``: whether it has learned the last codebook, and the
    end of speech."""
    draw = np.random.default_rng(seed)

    def judged(level: float, *shape: int) -> Judged:
        return Judged(level * draw.gamma(4, 0.25, shape), np.zeros(shape))

    def reading() -> Reading:
        talker = {one: judged(low if one == label else high, FRAMES + 1) for one in LABELS}
        predictor = {}
        for one, other in itertools.product(STATES, LABELS):
            level = low if other == sub_label else high
            found = judged(level if one == state else (level + high) / 2, FRAMES, GROUPS - 1)
            if other == AFTER_NEXT:
                found.loss[:, -1] = np.nan
            elif not last:
                found.loss[:, -1] = draw.normal(math.log(ENTRIES), 0.2, FRAMES)
            predictor[one, other] = found
        ends = np.full(FRAMES + 1, 1e-6)
        ends[-1 if label == NEXT else -2] = 0.9 if end else 1e-6
        return Reading(talker, predictor, ends, np.arange(FRAMES + 1) == FRAMES)

    return [reading() for _ in range(UTTERANCES)]


def names(generated: list[Reading], raw: list[Reading] | None = None) -> set[str]:
    others: list[Reading | None] = [None] * UTTERANCES if raw is None else list(raw)
    read = [Utterance(str(i), FRAMES, *pair) for i, pair in enumerate(zip(generated, others, strict=True))]
    return {fault.name for fault in diagnose(read, ENTRIES).faults}


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("sub_label", LABELS)
def test_faults_are_named_together(projected: bool, label: int, sub_label: int) -> None:
    for state, last, end in itertools.product(STATES, (True, False), (True, False)):
        check_names(projected, label, sub_label, state, last, end)


def check_names(projected: bool, label: int, sub_label: int, state: int, last: bool, end: bool) -> None:
    trained = losses(label, sub_label, state, last, end)
    wanted = TALKER[label] - {"end_of_speech_lost"} | PREDICTOR[sub_label]
    wanted |= {"state_of_frame"} if state == OF else set()
    wanted |= set() if last else {"last_codebook_untrained"}
    wanted |= set() if end else {"end_of_speech_lost"}
    if projected:
        assert names(trained) == wanted
    else:
        assert names(losses(low=4.0), trained) == wanted | {"text_projection_left_out"}


@settings(max_examples=50)
@given(st.floats(0.01, 12), st.integers(0, 2**32 - 1))
def test_nothing_is_named_where_alignments_differ_by_chance(level: float, seed: int) -> None:
    assert names(losses(AFTER_NEXT, AFTER_NEXT, OF, low=level, high=level, seed=seed)) == set()


def test_a_late_end_in_a_second_of_silence_is_no_fault() -> None:
    """A sound model may end anywhere in the silence after the last word."""
    found = losses()
    for reading in found:
        reading.end[-ENDING:] = 0.02
    assert names(found) == set()
    for reading in found:
        reading.end[-ENDING:] = 0.002
    assert names(found) == {"end_of_speech_lost"}


def test_an_end_that_is_equally_probable_everywhere_is_lost() -> None:
    """What a rate of 3e-2 leaves of the demo voice: P(end) is that of any frame, 1 in 50."""
    found = losses(low=6.0, high=6.0)
    for reading in found:
        reading.end[:] = 0.02 * np.linspace(0.9, 1.1, len(reading.end))
    assert names(found) == {"end_of_speech_lost"}


# --- numbers --------------------------------------------------------------------------------------


def test_a_level_that_all_logits_of_a_row_have_says_nothing() -> None:
    found = judge(np.array([[0, 1], [2000, 2001]], np.float32), np.array([1, 1]))
    np.testing.assert_allclose(found.loss, math.log1p(math.exp(-1)), rtol=1e-12)


def test_losses_are_those_of_the_frame_loop() -> None:
    model = load(DEMO, backend="reference")
    found = qwen3tts_np.score(model, HELD_OUT, limit=1)
    (speech,) = list(speech_of(model, HELD_OUT, None))[:1]
    with trace("talker.codec_head", "talker.code_predictor.lm_head.*") as t:
        list(forced(model, speech.codes).frames([speech.request]))
    for g, codebook in enumerate(found.codebooks):
        name = f"talker.code_predictor.lm_head.{g - 1}" if g else "talker.codec_head"
        p = np.stack([softmax(t[f"{name}@{n}"][0].astype(np.float64)) for n in range(len(speech.codes))])
        expected = -np.log(p[np.arange(len(p)), speech.codes[:, g]])
        assert codebook.cross_entropy == pytest.approx(expected.mean(), rel=1e-4, abs=1e-6)
        assert codebook.perplexity == pytest.approx(math.exp(expected.mean()), rel=1e-4)
        assert codebook.accuracy == (p.argmax(axis=1) == speech.codes[:, g]).mean()
    end = softmax(t[f"talker.codec_head@{len(speech.codes)}"][0].astype(np.float64))
    eos = model.config.talker_config.codec_eos_token_id
    assert found.utterances[0].generated.end[-1] == pytest.approx(end[eos], rel=1e-4)


def test_both_paths_have_the_same_scores() -> None:
    fast, exact = (as_json(qwen3tts_np.score(load(DEMO, backend=b), HELD_OUT, limit=3)) for b in ("auto", "reference"))
    for one, other in zip(_numbers(fast), _numbers(exact), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    assert fast["verdict"] == exact["verdict"]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    if isinstance(value, list):
        return [number for member in value for number in _numbers(member)]
    return [float(value)] if isinstance(value, int | float) else []


def test_raw_text_is_the_stored_rows_on_both_paths(tmp_path: Path) -> None:
    path = spoiled(tmp_path / "voice", text_projection_left_out)
    model, sound = load(path), load(DEMO, backend="reference")
    exact = load(path, backend="reference")
    (speech,) = list(speech_of(model, HELD_OUT, None))[:1]
    found = [_logits(one, speech, project_text=one is sound) for one in (model, exact, sound)]
    assert np.abs(found[0] - found[1]).max() < 1e-4
    assert np.abs(found[1] - found[2]).max() < 1e-4


def _logits(model: Qwen3TTSModel, speech: Speech, project_text: bool) -> Any:
    assert isinstance(model.frame_loop, FrameLoop)
    return model.frame_loop.teacher().read(speech.request, speech.codes, project_text=project_text)[1]


# --- manifests ------------------------------------------------------------------------------------


def _manifest(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


TEXT = "The ferry leaves at nine."
CODES = [[n * 7 % 100] * 16 for n in range(6)]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    t = np.arange(24_000) / 24_000
    soundfile.write(tmp_path / "ada.wav", 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 3 * t) ** 2, 24_000)
    return "ada.wav"


@pytest.mark.parametrize("streaming", [None, False, True])
@pytest.mark.parametrize(
    ("like", "kind", "fields"),
    [
        ("tiny", "custom_voice", {"speaker": "vivian", "language": "english"}),
        ("tiny-1.7b", "custom_voice", {"speaker": "vivian", "instruct": "whispering"}),
        ("tiny-1.7b", "voice_design", {"instruct": "an old sailor"}),
        ("tiny", "base", {"ref_audio": "ada.wav"}),
        ("tiny", "base", {"ref_audio": "ada.wav", "ref_text": "What Ada says."}),
    ],
)
def test_every_kind_of_model_in_both_layouts(
    like: Any, kind: Any, fields: dict[str, str], streaming: Any, tmp_path: Path, clip: str, synthetic: Any
) -> None:
    model = load(synthetic(like, kind))
    path = _manifest(tmp_path, {"text": TEXT, "audio": clip, **fields}, {"text": TEXT, "audio_codes": CODES, **fields})
    found = qwen3tts_np.score(model, path, streaming=streaming)
    assert [u.id for u in found.utterances] == ["line 1", "line 2"]
    assert found.utterances[0].frames == len(model.speech_tokenizer.encode(str(tmp_path / clip)).audio_codes[0])
    assert all(math.isfinite(c.cross_entropy) for c in found.codebooks)


def test_the_layout_is_the_callers_the_rows_or_that_of_generation(tmp_path: Path, synthetic: Any) -> None:
    model = load(synthetic("tiny", "custom_voice"))
    rows = [{"text": TEXT, "audio_codes": CODES, "non_streaming_mode": whole} for whole in (True, False, None)]
    path = _manifest(tmp_path, *rows)

    def waits(streaming: bool | None) -> list[bool]:
        return [bool(speech.request.prompt.trailing) for speech in speech_of(model, path, streaming)]

    assert waits(None) == [False, True, False]
    assert waits(True) == [True] * 3
    assert waits(False) == [False] * 3


def test_fields_of_other_models_are_ignored_with_one_warning(tmp_path: Path, clip: str, synthetic: Any) -> None:
    """The official training file, scored on what was trained with it."""
    model = load(synthetic("tiny", "custom_voice"))
    row = {"text": TEXT, "audio": clip, "ref_audio": clip}
    with pytest.warns(UserWarning, match="ref_audio is ignored: a custom_voice model does not read it") as heard:
        qwen3tts_np.score(model, _manifest(tmp_path, row, row))
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"audio_codes": CODES}, "there is no text"),
        ({"text": TEXT}, "there are neither audio_codes nor audio"),
        ({"text": TEXT, "audio_codes": [[1] * 15]}, "audio_codes are int64 [1, 15], expected integers [frames, 16]"),
        ({"text": TEXT, "audio_codes": [[1] * 15 + [2048]]}, "code 2048 (frame 0, group 15) is not from 0 to"),
        ({"text": TEXT, "audio_codes": CODES, "speaker": "bob"}, "speaker 'bob' is not in this model"),
        ({"text": TEXT, "audio": "gone.wav"}, "gone.wav"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(
    row: dict[str, Any], reason: str, tmp_path: Path, synthetic: Any
) -> None:
    model = load(synthetic("tiny", "custom_voice"))
    path = _manifest(tmp_path, {"text": TEXT, "audio_codes": CODES}, row)
    with pytest.raises(RequestError, match=r"rows\.jsonl:2: .*" + re.escape(reason)):
        qwen3tts_np.score(model, path)


def test_failed_rows_of_results_are_left_out(tmp_path: Path, synthetic: Any) -> None:
    model = load(synthetic("tiny", "custom_voice"))
    failed = {"id": "a", "text": TEXT, "error": "the disk was full"}
    found = qwen3tts_np.score(model, _manifest(tmp_path, failed, {"id": "b", "text": TEXT, "audio_codes": CODES}))
    assert [u.id for u in found.utterances] == ["b"]
    with pytest.raises(RequestError, match="there is nothing to score"):
        qwen3tts_np.score(model, _manifest(tmp_path, failed))


def test_requests_of_prepare_are_scored_too() -> None:
    model = load(DEMO)
    row = ROWS[0]
    request = model.prepare(row["text"], CustomVoice(row["speaker"]), language="english", seed=0)
    seen: list[int] = []
    found = qwen3tts_np.score(model, [Speech("mine", request, np.array(row["audio_codes"]))], progress=seen.append)
    assert seen == [1]
    assert as_json(found)["codebooks"] == as_json(qwen3tts_np.score(model, HELD_OUT, limit=1))["codebooks"]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_tables_and_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", str(DEMO), str(HELD_OUT), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "Codebooks" in out and "Alignments" in out and "Utterances" in out
    assert out.rstrip().endswith("verdict: no known fault")


def test_status_1_and_the_evidence_of_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spoiled(tmp_path / "voice", text_projection_left_out)
    assert cli.main(["score", str(path), str(HELD_OUT), "--limit", "3", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (fault,) = found["faults"]
    assert fault["name"] == found["verdict"] == "text_projection_left_out"
    assert "on text embeddings without text_projection the talker's loss is" in fault["evidence"]
    assert len(found["utterances"]) == 3 and len(found["codebooks"]) == 16
    assert found["without_text_projection"] == ["00", "01", "02"]


def test_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["score", str(DEMO), str(HELD_OUT), "--limit", "1", "--plot", str(tmp_path / "score.svg")]) == 0
    assert "no known fault" in (tmp_path / "score.svg").read_text(encoding="utf-8")
