"""``qwen3tts-np train``: its settings from options and files, what it prints, and what it refuses."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_world import content, write_data

from qwen3tts_np import cli
from qwen3tts_np.training.settings import KINDS

SHORT = ("--num-epochs", "1", "--rank", "2", "--validation-texts", "0")


@pytest.fixture
def base(synthetic: Callable[..., Path]) -> str:
    return str(synthetic("tiny", "base"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(write_data(tmp_path))


def test_a_run_and_its_report(base, data, tmp_path, capsys):
    assert cli.main(["train", base, data, "ada", *SHORT]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ada: 1 steps, best at step 1 with a loss of ")
    assert out.endswith("try: qwen3tts-np say ada/best TEXT --speaker ada\n")
    assert "step 1/1: loss " in err and "validation at step 1: loss " in err
    assert cli.main(["train", base, data, "ada", *SHORT, "--json"]) == 0  # it is done
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 1 and found["speakers"] == {"ada": 1151}
    assert cli.main(["say", "ada/best", "It rained.", "--speaker", "Ada", "--max-new-tokens", "4"]) == 0


def test_options_of_the_official_script(base, data, tmp_path, capsys):
    words = ["--init_model_path", base, "--train_jsonl", data, "--output_model_path", "one", "--lr", "1e-3"]
    assert cli.main(["train", *words, "--num_epochs", "1", "--batch_size", "5", *SHORT[2:]]) == 0
    same = ["--learning-rate", "1e-3", "--num-epochs", "1", "--batch-size", "5", *SHORT[2:]]
    assert cli.main(["train", base, data, "other", *same]) == 0
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_a_file_of_settings_and_options_over_it(base, data, tmp_path, capsys):
    lines = [f"INIT_MODEL_PATH={base}", f"TRAIN_JSONL={data}", "OUTPUT_DIR=ada", "NUM_EPOCHS=9", "BATCH_SIZE=1"]
    (tmp_path / "train.env").write_text("\n".join([*lines, "HF_TOKEN=hf_secret"]), encoding="utf-8")
    assert cli.main(["train", "--config", "train.env", *SHORT]) == 0
    stated = json.loads((tmp_path / "ada" / "run.json").read_text())
    assert (stated["num_epochs"], stated["batch_size"]) == (1, 1)
    printed = "".join(capsys.readouterr())
    assert "hf_secret" not in printed
    assert not any(b"hf_secret" in kept for kept in content(tmp_path / "ada").values())


def test_a_dry_run(base, data, tmp_path, capsys):
    assert cli.main(["train", base, data, "ada", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:6]] == [
        "trains",
        "learns",
        "voices",
        "takes",
        "memory",
        "disk",
    ]
    assert not (tmp_path / "ada").exists()
    assert cli.main(["train", base, data, "ada", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mode"] == "lora" and found["steps"] == 3 and found["trainable"] > 0


def test_what_has_no_effect_is_said_once(base, data):
    with pytest.warns(UserWarning, match="--freeze-speaker-encoder has no effect here") as said:
        assert cli.main(["train", base, data, "ada", "--no-freeze-speaker-encoder", "--dry-run"]) == 0
    assert len(said) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{base}"], "DATA is missing: qwen3tts-np train MODEL DATA OUT"),
        (["{base}", "{data}", "ada", "--train", "all"], "train='all' is none of lora, last:N, speaker or full"),
        (["{base}", "{data}", "ada", "--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["{base}", "{data}", "ada", "--train", "last:9"], "the last 9 layers are to be trained, and the talker has 3"),
        (["{base}", "{data}", "ada", "--rank", "100000"], "rank=100000 must be at most 64"),
        (["{base}", "no.jsonl", "ada"], "no.jsonl cannot be read"),
        (["{base}", "{data}", "ada", "--train-jsonl", "x"], "DATA is given twice"),
        (["{base}", "{data}", "{data}"], "is not a directory"),
        (["{base}", "{data}", "ada", "--config", "no.env"], "no.env cannot be read"),
    ],
)
def test_a_wrong_request_is_one_sentence(base, data, tmp_path, capsys, words, told):
    assert cli.main(["train", *(word.format(base=base, data=data) for word in words)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not (tmp_path / "ada").exists()


def test_the_codec_by_its_name_is_the_one_that_the_model_has(base, data, tmp_path):
    words = ["train", base, data, "ada", *SHORT, "--codec", "Qwen/Qwen3-TTS-Tokenizer-12Hz"]
    assert cli.main(words) == 0
    assert cli.main([*words[:3], "other", *SHORT, "--codec", f"{base}/speech_tokenizer"]) == 0
    assert content(tmp_path / "ada" / "best") == content(tmp_path / "other" / "best")
    codec = "speech_tokenizer/model.safetensors"
    assert (tmp_path / "ada" / "best" / codec).read_bytes() == (Path(base) / codec).read_bytes()


def test_a_data_set_is_prepared_first(base, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"INIT_MODEL_PATH={base}\nDATASET_NAME=owner/name\nOUTPUT_DIR=out\n")
    assert cli.main(["train", "--config", ".env"]) == 2
    assert "qwen3tts-np train prepare hub:owner/name data.jsonl --split train; then" in capsys.readouterr().err
    with open(".env", "a", encoding="utf-8") as file:
        file.write("VALIDATION_SPLIT=test\n")
    assert cli.main(["train", "--config", ".env"]) == 2
    assert "--split train, and held.jsonl of --split test for --validation; then" in capsys.readouterr().err


def test_every_setting_has_an_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    help_ = capsys.readouterr().out
    for name in KINDS.keys() - {"model", "data", "output"}:
        assert f"--{name.replace('_', '-')}" in help_


# --- what leaves the machine ----------------------------------------------------------------------


def module(name: str, monkeypatch: pytest.MonkeyPatch, **members: Any) -> None:
    found = types.ModuleType(name)
    found.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
    for key, value in members.items():
        setattr(found, key, value)
    monkeypatch.setitem(sys.modules, name, found)


def test_weights_and_biases(base, data, tmp_path, monkeypatch):
    logged: list[tuple[dict[str, float], int]] = []
    asked: dict[str, Any] = {}

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((values, step))

    def init(**arguments: Any) -> Run:
        asked.update(arguments)
        return Run()

    module("wandb", monkeypatch, init=init)
    words = ["--use-wandb", "--wandb-project", "p", "--wandb-run-name", "r"]
    assert cli.main(["train", base, data, "ada", *SHORT, *words]) == 0
    assert (asked["project"], asked["name"]) == ("p", "r") and asked["config"]["rank"] == 2
    assert logged[0][1] == 1 and {"training/loss", "training/learning_rate"} <= logged[0][0].keys()
    assert "validation/perplexity" in logged[1][0]


def test_weights_and_biases_that_are_missing(base, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.warns(UserWarning, match="use_wandb needs wandb, which is not installed: pip install") as said:
        assert cli.main(["train", base, data, "ada", *SHORT, "--use-wandb"]) == 0
    assert len(said) == 1


def test_uploads(base, data, tmp_path, monkeypatch, capsys):
    calls: list[Any] = []

    class HfApi:
        def __init__(self, token: str | None) -> None:
            calls.append(token)

        def create_repo(self, name: str, **more: Any) -> None:
            calls.append((name, more["private"]))

        def upload_folder(self, **arguments: str) -> None:
            calls.append((arguments["repo_id"], sorted(path.name for path in Path(arguments["folder_path"]).iterdir())))

    module("huggingface_hub", monkeypatch, HfApi=HfApi)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    words = ["--upload-to-hub", "--hub-model-id-best", "ada/best"]
    assert cli.main(["train", base, data, "ada", *SHORT, *words]) == 0
    assert calls[:2] == ["hf_secret", ("ada/best", True)] and "model.safetensors" in calls[2][1]
    assert "uploaded to ada/best" in capsys.readouterr().out
    assert not any(b"hf_secret" in kept for kept in content(tmp_path / "ada").values())


def test_uploads_are_refused_before_the_work(base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    words = ["--upload-to-hub", "--hub-model-id-last", "ada/last"]
    assert cli.main(["train", base, data, "ada", *SHORT, *words]) == 2
    assert "pip install 'qwen3tts-np[hub]'" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for name in ("../x", "best", "a/b/c", "a b/c", "a/b."):
        assert cli.main(["train", base, data, "ada", *SHORT, *words[:2], name]) == 2
        assert f"hub_model_id_last={name!r} must be OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "ada").exists()


def test_a_hub_that_cannot_be_reached(base, data, tmp_path, monkeypatch, capsys):
    """The error is that of whichever HTTP library there is. What was learned is there, and is uploaded by and by."""

    class HfApi:
        def __init__(self, token: str | None) -> None:
            pass

        def create_repo(self, name: str, **_: Any) -> None:
            raise Exception("a library's own") from OSError("Name or service not known")

    module("huggingface_hub", monkeypatch, HfApi=HfApi)
    words = ["--upload-to-hub", "--hub-model-id-best", "ada/best"]
    assert cli.main(["train", base, data, "ada", *SHORT, *words]) == 2
    told = (
        "ada/best was not uploaded: Name or service not known; ada/best is complete, and the same command tries again"
    )
    assert told in capsys.readouterr().err
    assert (tmp_path / "ada" / "best" / "model.safetensors").exists()
