"""Settings of training: every name that other pipelines document is honoured, or said once to be without effect."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_np.errors import InputError, RequestError
from qwen3tts_np.training import names
from qwen3tts_np.training.names import read_settings
from qwen3tts_np.training.settings import TrainingSettings, defaults_table

# Of the reference pipeline's documentation: name, a value, and what it sets here; a sentence's words where it sets
# nothing, "" where nothing is said.
REFERENCE: list[tuple[str, str, dict[str, Any] | str]] = [
    ("INIT_MODEL_PATH", "Qwen/Qwen3-TTS-12Hz-1.7B-Base", {"model": "Qwen/Qwen3-TTS-12Hz-1.7B-Base"}),
    ("TOKENIZER_PATH", "codec", {"codec": "codec"}),
    ("OUTPUT_MODEL_PATH", "./output", {"output": "./output"}),
    ("OUTPUT_DIR", "./output", {"output": "./output"}),
    ("DATA_MODE", "jsonl", ""),
    ("DATA_MODE", "none", ""),
    (
        "DATA_MODE",
        "direct",
        "DATA_MODE='direct' has no effect here: codes are made once, by 'train prepare', and not in every epoch",
    ),
    ("DATASET_NAME", "owner/name", {"dataset": "owner/name"}),
    ("TRAIN_SPLIT", "train", {"split": "train"}),
    ("VALIDATION_SPLIT", "validation", {"validation_split": "validation"}),
    ("TRAIN_JSONL", "./data/train.jsonl", {"data": "./data/train.jsonl"}),
    ("VALIDATION_JSONL", "./data/validation.jsonl", {"validation": "./data/validation.jsonl"}),
    ("MAX_TRAIN_SAMPLES", "100", {"max_train_samples": 100}),
    ("MAX_EVAL_SAMPLES", "10", {"max_eval_samples": 10}),
    ("REF_AUDIO_PATH", "ada.wav", {"ref_audio": "ada.wav"}),
    ("SPEAKER_NAME", "reference_speaker", {"speaker_name": "reference_speaker"}),
    ("BATCH_SIZE", "3", {"batch_size": 3}),
    ("LR", "2e-5", {"learning_rate": 2e-5}),
    ("LEARNING_RATE", "2e-5", {"learning_rate": 2e-5}),
    ("NUM_EPOCHS", "4", {"num_epochs": 4}),
    ("GRADIENT_ACCUMULATION_STEPS", "8", {"gradient_accumulation_steps": 8}),
    ("WEIGHT_DECAY", "0.02", {"weight_decay": 0.02}),
    ("WARMUP_STEPS", "50", {"warmup_steps": 50}),
    ("MAX_GRAD_NORM", "0.5", {"max_grad_norm": 0.5}),
    ("SUB_TALKER_LOSS_WEIGHT", "0.2", {"sub_talker_loss_weight": 0.2}),
    ("REPLACE_LAST_N_LAYERS", "2", {"replace_last_n_layers": 2}),
    ("ADD_NEW_LAYERS", "4", {"add_new_layers": 4}),
    ("FREEZE_ORIGINAL_LAYERS", "false", {"freeze_original_layers": False}),
    ("LOGGING_STEPS", "1", {"logging_steps": 1}),
    ("SAVE_STEPS", "20", {"save_steps": 20}),
    ("EVAL_STEPS", "30", {"eval_steps": 30}),
    ("SAVE_TOTAL_LIMIT", "2", {"save_total_limit": 2}),
    ("NUM_WORKERS", "4", "NUM_WORKERS has no effect here: rows are read by the process that trains"),
    ("DEVICE", "cuda", "DEVICE='cuda': training runs on the CPU here"),
    ("DEVICE", "cpu", ""),
    ("MIXED_PRECISION", "bf16", {"frozen": "bfloat16"}),
    ("MIXED_PRECISION", "no", {"frozen": "float32"}),
    ("USE_WANDB", "true", {"use_wandb": True}),
    ("WANDB_PROJECT", "p", {"wandb_project": "p"}),
    ("WANDB_RUN_NAME", "r", {"wandb_run_name": "r"}),
    ("WANDB_ENTITY", "e", {"wandb_entity": "e"}),
    ("UPLOAD_TO_HUB", "false", {"upload_to_hub": False}),
    ("UPLOAD_TO_HF", "false", {"upload_to_hub": False}),
    ("HUB_MODEL_ID_BEST", "o/best", {"hub_model_id_best": "o/best"}),
    ("HF_BEST_MODEL_REPO", "o/best", {"hub_model_id_best": "o/best"}),
    ("HUB_MODEL_ID_LAST", "o/last", {"hub_model_id_last": "o/last"}),
    ("HF_LAST_MODEL_REPO", "o/last", {"hub_model_id_last": "o/last"}),
    ("PREPARE_ONLY", "true", {"dry_run": True}),
    ("OMP_NUM_THREADS", "2", {"threads": 2}),
    ("CUDA_VISIBLE_DEVICES", "0,1", ""),
    ("NCCL_P2P_DISABLE", "1", ""),
]
# Options of its single-file script, and of the official one; --freeze_speaker_encoder is in the parser alone.
OPTIONS = {
    "init_model_path": "model",
    "output_model_path": "output",
    "train_jsonl": "data",
    "batch_size": "batch_size",
    "lr": "learning_rate",
    "num_epochs": "num_epochs",
    "speaker_name": "speaker_name",
    "replace_last_n_layers": "replace_last_n_layers",
    "add_new_layers": "add_new_layers",
    "freeze_original_layers": "freeze_original_layers",
}


def env(folder: Path, *lines: str) -> Path:
    path = folder / ".env"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "value", "expected"), REFERENCE, ids=lambda value: str(value)[:24])
def test_a_name_of_the_reference_pipeline(tmp_path, name, value, expected):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        given = read_settings(env(tmp_path, f"{name}={value}"))
    sets = {**given.values, **given.preparation}
    assert sets == (expected if isinstance(expected, dict) else {})
    assert [str(w.message) for w in said] == ([expected] if isinstance(expected, str) and expected else [])
    TrainingSettings().updated(given.values)  # its values are ones that a run can have


def test_the_table_of_names_is_complete():
    assert {name for name, _, _ in REFERENCE} >= {
        *names.FIELD_OF,
        *names.SPECIAL,
        *names.PREPARED,
        *(name for name in names.WITHOUT_EFFECT if name != "FREEZE_SPEAKER_ENCODER"),
    }


def test_options_of_other_scripts():
    known = {spec.name: spec.metadata["also"] for spec in fields(TrainingSettings)}
    for option, setting in OPTIONS.items():
        assert option == setting or option.replace("_", "-") in known[setting], option


def test_the_token_is_kept_apart(tmp_path):
    given = read_settings(env(tmp_path, "HF_TOKEN=hf_secret", "BATCH_SIZE=3"))
    assert given.token == "hf_secret"
    assert "hf_secret" not in repr(given) and "hf_secret" not in repr(TrainingSettings().updated(given.values))


def test_an_env_file_as_shells_have_it(tmp_path):
    lines = ["# settings", "", "export BATCH_SIZE=3", "SPEAKER_NAME='Ada L.'  # hers", 'REF_AUDIO_PATH="a # b.wav"']
    given = read_settings(env(tmp_path, *lines, "LR = 1e-4 # high", "MAX_TRAIN_SAMPLES="))
    assert given.values == {
        "batch_size": 3,
        "speaker_name": "Ada L.",
        "ref_audio": "a # b.wav",
        "learning_rate": 1e-4,
    }


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("BATCH_SIZE=two", "BATCH_SIZE='two' must be a whole number"),
        ("LR=fast", "LR='fast' must be a number"),
        ("USE_WANDB=perhaps", "USE_WANDB='perhaps' must be true or false"),
        ("MIXED_PRECISION=int8", "MIXED_PRECISION='int8' is none of bf16, no, fp16"),
        ("DATA_MODE=stream", "DATA_MODE='stream' is none of jsonl, direct, none"),
        ("batch size 3", ":1: 'batch size 3' is not NAME=value"),
        ("LR=1e-5\nLEARNING_RATE=2e-5", "LR and LEARNING_RATE are one setting, and differ"),
    ],
)
def test_a_wrong_env_file(tmp_path, line, told):
    with pytest.raises(RequestError, match=re.escape(told)):
        read_settings(env(tmp_path, line))


def test_two_spellings_that_agree(tmp_path):
    assert read_settings(env(tmp_path, "LR=2e-5", "LEARNING_RATE=0.00002")).values == {"learning_rate": 2e-5}


def test_an_unknown_name_is_said_once(tmp_path):
    with pytest.warns(UserWarning, match="'COLOUR' is no setting of training, so it is ignored") as said:
        read_settings(env(tmp_path, "COLOUR=blue"))
    assert len(said) == 1


def test_toml(tmp_path):
    pytest.importorskip("tomllib")
    path = tmp_path / "train.toml"
    path.write_text('train = "last:2"\nlearning-rate = 1e-4\nnum_epochs = 7\n', encoding="utf-8")
    settings = TrainingSettings().updated(read_settings(path).values)
    assert (settings.mode, settings.last, settings.rate, settings.num_epochs) == ("last:2", 2, 1e-4, 7)
    path.write_text("colour = 1\n", encoding="utf-8")
    with pytest.raises(RequestError, match="there is no setting 'colour'; there are"):
        TrainingSettings().updated(read_settings(path).values)
    path.write_text("colour\n", encoding="utf-8")
    for damaged in ("colour\n", f"rank = {'[' * 100_000}", f"rank = {'9' * 5000}", "rank = 1\nrank = 2"):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RequestError, match=r"train\.toml is not TOML") as refused:
            read_settings(path)
        assert len(str(refused.value)) < 300
    path.write_text("\ufeffrank = 2\n", encoding="utf-8")  # as editors of Windows begin a file
    assert read_settings(path).values == {"rank": 2}


def test_numbers_that_are_too_large():
    for value in (2**63, 10**400):
        with pytest.raises(RequestError, match=r"save_steps=.* must be a whole number below 9223372036854775808"):
            TrainingSettings(save_steps=value)
    for value in (math.inf, math.nan, 10**400):
        with pytest.raises(RequestError, match=r"alpha=.* must be a number"):
            TrainingSettings(alpha=value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError):
        read_settings(tmp_path / "no.env")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 2.0}, "batch_size=2.0 must be a whole number"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a number"),
        ({"learning_rate": -1}, "learning_rate=-1 must be at least 0"),
        ({"sub_talker_share": 1.5}, "sub_talker_share=1.5 must be at most 1"),
        ({"decay_all": 1}, "decay_all=1 must be true or false"),
        ({"alignment": "left"}, "alignment='left' is none of inference, official"),
        ({"train": "last:0"}, "train='last:0' is none of lora, last:N, speaker or full"),
        ({"train": "all"}, "train='all' is none of"),
        ({"train": "lora", "add_new_layers": 2}, "train=lora trains no layer"),
        ({"speaker_name": 3}, "speaker_name must be a string"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"upload_to_hub": True}, "upload_to_hub needs"),
    ],
)
def test_values_that_no_run_can_have(values, told):
    with pytest.raises(RequestError, match=re.escape(told)):
        TrainingSettings(**values)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "lora"),
        ({"replace_last_n_layers": 2, "add_new_layers": 4}, "last:6"),
        ({"add_new_layers": 4, "freeze_original_layers": False}, "full"),
        ({"add_new_layers": 4, "train": "last:8"}, "last:8"),
        ({"train": "speaker"}, "speaker"),
    ],
)
def test_what_is_trained(values, mode):
    settings = TrainingSettings(**values)
    assert settings.mode == mode and settings.rate > 0


def test_every_default_that_was_chosen_has_its_reason():
    plain = {str, type(None)}
    for spec in fields(TrainingSettings):
        assert spec.metadata["help"], spec.name
        if (
            type(spec.default) not in plain
            and not spec.metadata["env"]
            and spec.name not in ("rank", "max_eval_samples")
        ):
            assert spec.metadata["why"], spec.name


def test_the_page_gives_the_reasons():
    page = Path(__file__).parents[1] / "qwen3tts_np" / "training" / "README.md"
    assert defaults_table() in page.read_text(encoding="utf-8")
