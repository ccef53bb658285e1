"""Runs of training: what they learn, what they write, and that a run which was killed is the run that was not."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from training_world import QUICK, content, settings_of, train, write_data

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.adapter import Adapter
from qwen3tts_np.checkpoint.json_file import read_json
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.errors import OutputError, RequestError
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.layout.description import describe
from qwen3tts_np.training import validation
from qwen3tts_np.training.plan import plan
from qwen3tts_np.training.run import run
from qwen3tts_np.training.schedule import Schedule
from qwen3tts_np.training.settings import TrainingSettings
from qwen3tts_np.training.state import RunFolder
from qwen3tts_np.training.trainer import Trainer, TrainingError
from qwen3tts_np.training.validation import validation_losses

ROOT = Path(__file__).parents[1]
ONCE = {"num_epochs": 1}  # two steps


@pytest.fixture
def base(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- what is written ------------------------------------------------------------------------------


def test_a_run_leaves_what_it_says(base, data, tmp_path):
    out = tmp_path / "out"
    state = train(base, data, out)
    assert state.step == 8 and state.checkpoints == [6, 8]
    names = {"best", "last", "checkpoint-6", "checkpoint-8", "state-8", "run.json", "loss.svg"}
    assert {path.name for path in out.iterdir()} == names | {"training_log.jsonl", "validation_log.jsonl"}
    for name in ("best", "last", "checkpoint-6"):
        assert describe(out / name).problems == []
    assert describe(out / "last").config.talker_config.spk_id == {"ada": 1151}
    assert content(out / "last") == content(out / "checkpoint-8")
    assert (out / "last" / "README.md").read_text().startswith("---\nlicense: apache-2.0\nbase_model: tiny-base\n")
    assert (out / "loss.svg").read_text().startswith("<svg")


def test_the_logs_have_the_fields_of_the_reference_pipeline(base, data, tmp_path):
    train(base, data, tmp_path / "out", **ONCE)
    training, validation = (lines(tmp_path / "out" / f"{name}_log.jsonl") for name in ("training", "validation"))
    fields = ["step", "epoch", "loss", "learning_rate", "talker", "sub_talker", "gradient_norm", "frames_per_second"]
    assert list(training[0]) == [*fields, "timestamp"]
    assert [line["step"] for line in training] == [1, 2]
    for line in training:
        assert line["loss"] == pytest.approx(line["talker"] + 0.3 * line["sub_talker"])
    assert list(validation[0]) == ["step", "epoch", "loss", "metrics", "timestamp"]
    metrics = validation[0]["metrics"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["talker"]))


@pytest.mark.parametrize("mode", ["lora", "last:1", "speaker", "full"])
def test_every_mode_learns_what_it_is_to_learn(base, data, tmp_path, mode):
    train(base, data, tmp_path / "out", train=mode, num_epochs=6, learning_rate=2e-2, logging_steps=1)
    losses = [line["loss"] for line in lines(tmp_path / "out" / "training_log.jsonl")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - (0.05 if mode == "speaker" else 1)
    before, after = Checkpoint.open(base), Checkpoint.open(tmp_path / "out" / "last")
    changed = {name for name, tensor in after.items() if not np.array_equal(tensor.data, before[name].data)}
    table = "talker.model.codec_embedding.weight"
    assert table in changed  # the voice
    layers = {name for name in after if name.startswith("talker.model.layers.2.")}
    expected = {
        "lora": {name for name in after if name.endswith("_proj.weight")} | {table},
        "last:1": layers | {table},
        "speaker": {table},
        "full": set(after) - {"talker.model.text_embedding.weight"},
    }
    assert changed == expected[mode]
    rows = np.flatnonzero((after[table].data != before[table].data).any(axis=1))
    assert (rows.tolist() == [1151]) == (mode != "full")


def test_several_voices(base, tmp_path):
    data = write_data(tmp_path, speakers=("Ada", "bob"))
    train(base, data, tmp_path / "out", **ONCE)
    config = read_json(tmp_path / "out" / "last" / "config.json")["talker_config"]
    assert config["spk_id"] == {"ada": 1151, "bob": 1150} and config["spk_is_dialect"] == {"ada": False, "bob": False}
    assert read_json(tmp_path / "out" / "last" / "speaker_config.json")["speakers"] == config["spk_id"]


def test_a_voice_that_the_model_has_goes_on(synthetic, tmp_path):
    data = write_data(tmp_path, speakers=("Vivian",))
    base = synthetic("tiny", "custom_voice")
    train(base, data, tmp_path / "out", **ONCE)
    config = [
        read_json(folder / "config.json")["talker_config"]["spk_id"] for folder in (base, tmp_path / "out" / "last")
    ]
    assert config[0] == config[1]


def test_new_layers_alone_learn(base, data, tmp_path):
    surgery = {"replace_last_n_layers": 1, "add_new_layers": 1}
    train(base, data, tmp_path / "out", train=None, **surgery, **ONCE)
    found = describe(tmp_path / "out" / "last")
    assert found.problems == [] and found.config.talker_config.num_hidden_layers == 4
    before, after = Checkpoint.open(base), Checkpoint.open(tmp_path / "out" / "last")
    for name in before:
        if not name.startswith(("talker.model.layers.2.", "talker.model.codec_embedding", "speaker_encoder.")):
            np.testing.assert_array_equal(before[name].data, after[name].data, err_msg=name)
    assert np.any(after["talker.model.layers.3.mlp.down_proj.weight"].data)  # it began at zero


def test_separate_additions(base, data, tmp_path):
    train(base, data, tmp_path / "out", adapter="separate", **ONCE)
    last = tmp_path / "out" / "last"
    assert {path.name for path in last.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "speaker_config.json",
        "README.md",
    }
    model = Qwen3TTSModel.from_pretrained(base, adapter=last, backend="reference")
    assert model.get_supported_speakers() == ["ada"]


# --- the arithmetic -------------------------------------------------------------------------------


def test_merged_additions_have_the_losses_of_separate_ones(base, data, tmp_path):
    convert(base, tmp_path / "exact", "float32")
    settings = settings_of(tmp_path / "exact", data, tmp_path / "out", learning_rate=1e-2)
    trainer = Trainer(tmp_path / "exact", settings)
    run(trainer)
    separate = validation_losses(trainer.learner.network, trainer.validation_batches())
    again = Trainer(
        tmp_path / "out" / "last", settings_of(tmp_path / "out" / "last", data, tmp_path / "x", train="full")
    )
    merged = validation_losses(again.learner.network, again.validation_batches())
    for name, value in separate.items():
        assert merged[name] == pytest.approx(value, rel=1e-6), name


def test_batches_are_weighted_by_their_labels(base, data, tmp_path):
    """Four rows at once, and one by one: the same step."""
    found = []
    for size, together in ((4, 1), (1, 4)):
        values = {"batch_size": size, "gradient_accumulation_steps": together, "sub_talker_share": 1.0}
        trainer = Trainer(base, settings_of(base, data, tmp_path / "out", train="full", **values))
        trainer.step(next(trainer.schedule.after(0)))
        found.append(trainer.optimiser.first)
    for name, moment in found[0].items():
        assert np.linalg.norm(found[1][name] - moment) <= 1e-5 * np.linalg.norm(moment), name


def test_what_frozen_layers_say_is_kept(base, data, tmp_path, monkeypatch):
    settings = {"train": "last:1", "num_epochs": 3}
    train(base, data, tmp_path / "out", **settings)
    assert len(list((tmp_path / "out" / "frozen").iterdir())) == 5
    monkeypatch.setattr(Trainer, "_frozen", lambda self, batch: None)
    train(base, data, tmp_path / "other", **settings)
    kept, computed = (lines(tmp_path / name / "training_log.jsonl") for name in ("out", "other"))
    for one, other in zip(kept, computed, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("clips", "size", "together", "steps"), [(10, 2, 4, 2), (8, 2, 4, 1), (1, 2, 4, 1), (9, 1, 3, 3)]
)
def test_an_epoch_has_every_row_once(clips, size, together, steps):
    settings = TrainingSettings(batch_size=size, gradient_accumulation_steps=together, num_epochs=2, seed=5)
    schedule = Schedule(clips, settings)
    found = list(schedule.after(0))
    assert len(found) == schedule.steps == 2 * steps
    epochs = [[at for step in found if step.epoch == e for batch in step.batches for at in batch] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(clips))
    assert clips == 1 or epochs[0] != epochs[1]
    assert list(schedule.after(2)) == found[2:]


def test_the_warm_up_is_at_most_a_tenth():
    schedule = Schedule(
        100, TrainingSettings(batch_size=1, gradient_accumulation_steps=1, learning_rate=1.0, num_epochs=1)
    )
    rates = [schedule.rate(step) for step in range(1, 101)]
    assert rates[0] == 0 and rates[10] == 1 == max(rates) and 0 < rates[-1] < 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {"alignment": "official", "schedule": "constant", "decay_all": True, "sub_talker_share": 1.0},
        {"replace_past": 0.5, "recompute": True, "frozen": "float32"},
        {"train": "full", "train_text_embedding": True, "frozen": "bfloat16"},
    ],
)
def test_other_settings_run_too(base, data, tmp_path, values):
    train(base, data, tmp_path / "out", **values, **ONCE)
    assert describe(tmp_path / "out" / "best").problems == []
    changed = Checkpoint.open(tmp_path / "out" / "best")["talker.model.text_embedding.weight"]
    same = np.array_equal(changed.data, Checkpoint.open(base)["talker.model.text_embedding.weight"].data)
    assert same != values.get("train_text_embedding", False)


def test_what_the_talker_reads_is_drawn_anew_at_every_step(base, data, tmp_path):
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", replace_past=0.5))
    clip = trainer.speech.train[0]
    first, again, next_ = (trainer._read(clip, step, 0) for step in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, next_)


def test_the_best_checkpoint_is_that_of_the_least_loss(base, data, tmp_path):
    state = train(base, data, tmp_path / "out", learning_rate=0.3, schedule="constant", save_total_limit=9)
    losses = {line["step"]: line["loss"] for line in lines(tmp_path / "out" / "validation_log.jsonl")}
    assert state.best_step == min(losses, key=losses.__getitem__) and state.best_loss == min(losses.values())
    assert content(tmp_path / "out" / "best") == content(tmp_path / "out" / f"checkpoint-{state.best_step}")


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("mode", "kills"),
    [
        ("lora", [("rename", "9"), ("step", "2"), ("rename", "13", "after")]),
        ("last:1", [("rename", "14"), ("step", "1")]),
    ],
)
def test_a_killed_run_writes_the_same_bytes(base, data, tmp_path, mode, kills):
    train(base, data, tmp_path / "whole", train=mode)
    program = [
        sys.executable,
        str(ROOT / "tests" / "training_world.py"),
        str(base),
        str(data),
        str(tmp_path / "out"),
        mode,
    ]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    for kill in kills:
        assert subprocess.run([*program, *kill], env=environment, check=False).returncode == -9
    assert train(base, data, tmp_path / "out", train=mode).step == 8
    whole, found = content(tmp_path / "whole"), content(tmp_path / "out")
    assert whole.keys() == found.keys()
    assert [name for name in whole if whole[name] != found[name]] == []


def test_a_run_that_is_done_does_nothing(base, data, tmp_path):
    train(base, data, tmp_path / "out", **ONCE)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert train(base, data, tmp_path / "out", **ONCE).step == 2
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}


def test_another_run_does_not_go_on_here(base, data, tmp_path):
    train(base, data, tmp_path / "out", **ONCE)
    with pytest.raises(OutputError, match="holds another run, which differs in rank; name a new folder"):
        train(base, data, tmp_path / "out", **{**ONCE, "rank": 5})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear Ada,")
    with pytest.raises(OutputError, match="holds no run"):
        train(base, data, tmp_path / "mine", **ONCE)


def test_two_do_not_train_in_one_folder(base, data, tmp_path):
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", **ONCE))
    with RunFolder(tmp_path / "out").opened(trainer.identity):
        with pytest.raises(OutputError, match=f"run.json is being written by process {os.getpid()}"):
            run(trainer)
        assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == ["run.json"]
    assert run(trainer).step == 2
    assert not any(name.startswith(".") for name in os.listdir(tmp_path / "out"))


# --- speech ---------------------------------------------------------------------------------------


def test_the_checkpoint_just_written_is_heard(base, data, tmp_path):
    wave = 0.3 * np.sin(np.arange(24000 * 3) * 0.04) * np.sin(np.arange(24000 * 3) * 0.0005)
    soundfile.write(tmp_path / "ada.wav", wave, 24000)
    held = tmp_path / "data.validation.jsonl"
    rows = [{**row, "audio": "ada.wav"} for row in lines(held)]
    held.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    train(base, data, tmp_path / "out", validation_texts=1, **ONCE)
    metrics = lines(tmp_path / "out" / "validation_log.jsonl")[-1]["metrics"]
    assert -1 <= metrics["speaker_embedding_similarity"] <= 1


class Deaf:
    """A recogniser that hears the same words in everything."""

    name = "deaf"

    def __init__(self, heard: str) -> None:
        self.heard, self.asked = heard, list[tuple[int, str]]()

    def hear(self, wave: Any, language: str) -> str:
        self.asked.append((wave.ndim, language))
        return self.heard


def test_the_words_of_the_checkpoint_are_counted(base, data, tmp_path, monkeypatch):
    """Of one text of four words, of which one is heard wrongly and one is not."""
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    held = tmp_path / "data.validation.jsonl"
    row = {**lines(held)[0], "text": "The ferry came late.", "language": "english"}
    held.write_text(f"{json.dumps(row)}\n", encoding="utf-8")
    ears = Deaf("the fairy came")
    monkeypatch.setattr(validation, "HEARING", ("jiwer", "whisper_normalizer"))
    monkeypatch.setattr(validation, "recogniser", lambda name: ears)
    train(base, data, tmp_path / "out", validation_texts=1, **ONCE)
    logged = lines(tmp_path / "out" / "validation_log.jsonl")
    assert logged[-1]["metrics"]["wer"] == 0.5 and ears.asked == [(1, "english")]


def test_words_are_not_counted_where_nobody_can(base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "HEARING", ("no_such_module",))
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", validation_texts=1))
    (told,) = (sentence for sentence in trainer.judge.impossible if sentence.startswith("wer: "))
    assert "no_such_module" in told
    held = tmp_path / "data.validation.jsonl"
    rows = [{**row, "language": "german"} for row in lines(held)]
    held.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(validation, "HEARING", ("json",))
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", validation_texts=1))
    assert "wer: the texts are not English" in trainer.judge.impossible


def test_a_voice_begins_at_its_reference(base, data, tmp_path):
    wave = 0.3 * np.sin(np.arange(24000 * 3) * 0.04) * np.sin(np.arange(24000 * 3) * 0.0005)
    soundfile.write(tmp_path / "ada.wav", wave, 24000)
    (tmp_path / "data.safetensors").unlink()
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", ref_audio=str(tmp_path / "ada.wav")))
    cloner = Qwen3TTSModel.for_prompts(base).cloner
    expected = cloner.voices(str(tmp_path / "ada.wav"), None, True)[0].ref_spk_embedding
    np.testing.assert_array_equal(trainer.learner.vectors["ada"], expected)


# --- refused --------------------------------------------------------------------------------------


def test_the_first_loss_that_is_not_finite_stops_the_run(base, data, tmp_path):
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", train="full"))
    trainer.learner.parameters.arrays["talker.model.norm.weight"][3] = np.nan
    with pytest.raises(
        TrainingError, match=r"step 1: the loss of clip 'clip\d' is not finite; 'talker.model.norm.weight'"
    ):
        run(trainer)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_gradient_that_is_not_finite_stops_the_run(base, data, tmp_path, monkeypatch):
    trainer = Trainer(base, settings_of(base, data, tmp_path / "out", train="full"))
    name = "talker.model.layers.1.mlp.up_proj.weight"
    trainer.learner.parameters.gradients[name][0, 0] = np.inf
    with pytest.raises(TrainingError, match=rf"step 1: the gradient of '{name}' is not finite; its clips are 'clip"):
        run(trainer)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": None}, "there is no text"),
        ({"audio_codes": None}, "there are no audio_codes; 'qwen3tts-np train prepare' makes them"),
        ({"audio_codes": [[128] * 16]}, "code 128 .* is not from 0 to 127"),
        ({"language": "klingon"}, "language 'klingon' is not in this model"),
        ({"speaker": " "}, "' ' cannot be the name of a voice"),
    ],
)
def test_a_row_that_nothing_can_be_learned_from(base, data, tmp_path, row, told):
    data.write_text(json.dumps({**lines(data)[0], **row}) + "\n", encoding="utf-8")
    with pytest.raises(RequestError, match=told):
        Trainer(base, settings_of(base, data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_voice_of_which_nothing_is_known(base, data, tmp_path):
    (tmp_path / "data.safetensors").unlink()
    with pytest.raises(RequestError, match="nothing says what ada sounds like"):
        Trainer(base, settings_of(base, data, tmp_path / "out"))


# --- before the work ------------------------------------------------------------------------------


def test_a_plan_writes_nothing(base, data, tmp_path):
    found = plan(Trainer(base, settings_of(base, data, tmp_path / "out")))
    assert not (tmp_path / "out").exists()
    assert (found.steps, found.clips, found.mode) == (8, 5, "lora")
    adapter = Trainer(base, settings_of(base, data, tmp_path / "out")).learner.adapter
    assert adapter is not None
    additions = sum(a.size + b.size for a, b in adapter.additions.values())
    assert found.trainable == additions + 64
    weights = sum(t.size for name, t in Checkpoint.open(base).items() if name.startswith("talker."))
    assert found.frozen == weights
    assert found.hours > 0 and found.disk > 0


def test_an_adapter_that_was_trained_is_read(base, data, tmp_path):
    train(base, data, tmp_path / "out", **ONCE)
    found = Adapter.open(tmp_path / "out" / "last" / "adapter")
    assert found.rank == QUICK["rank"] and found.speakers == {"ada": 1151}
