"""Models by name: what is downloaded, what is checked, and that a directory never touches the network.

``Hub`` stands in for huggingface_hub: it serves one directory and keeps what it served in another.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_np import CheckpointError, Qwen3TTSModel, Qwen3TTSTokenizer, cli
from qwen3tts_np.checkpoint import hub, pretrained
from qwen3tts_np.checkpoint.hub import VERIFIED, Repository, published_names, repository, snapshot
from qwen3tts_np.checkpoint.published import CODEC_NAME, MODELS, PublishedFile, sha256_of

NAME = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(types.ModuleType):
    """A stand-in for the module huggingface_hub."""

    def __init__(self, served: Path, cache: Path) -> None:
        super().__init__("huggingface_hub")
        self.served, self.cache = served, cache
        self.calls: list[dict[str, Any]] = []
        self.online = True
        self.spoil: set[str] = set()  # files that arrive damaged

    def snapshot_download(
        self,
        repo_id: str,
        *,
        revision: str,
        allow_patterns: list[str],
        local_files_only: bool = False,
        force_download: bool = False,
        cache_dir: Path | None = None,
    ) -> str:
        assert (repo_id, revision) == (NAME, REVISION)
        folder = (self.cache if cache_dir is None else cache_dir) / revision
        if local_files_only:
            if not folder.is_dir():
                raise FileNotFoundError("Cannot find an appropriate cached snapshot folder")
            return str(folder)
        self.calls.append({"files": sorted(allow_patterns), "force": force_download})
        if not self.online:
            try:
                raise ConnectionError("Name or service not known\nand a second line")
            except ConnectionError as e:
                raise OSError("failed due to the above error") from e
        for name in allow_patterns:
            target = folder / name
            if (self.served / name).is_file() and (force_download or not target.exists()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.served / name, target)
                if name in self.spoil:
                    target.write_bytes(bytes(target.stat().st_size))
        return str(folder)


@pytest.fixture
def served(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture
def published(served: Path) -> Repository:
    names = [path.relative_to(served).as_posix() for path in sorted(served.rglob("*")) if path.is_file()]
    files = {name: PublishedFile((served / name).stat().st_size, sha256_of(served / name)) for name in names}
    return Repository(NAME, REVISION, files)


@pytest.fixture
def fake(served, published, tmp_path, monkeypatch) -> Hub:
    fake = Hub(served, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setattr(pretrained, "repository", lambda name: published if name == NAME else None)
    return fake


@pytest.fixture
def hashes(monkeypatch) -> list[str]:
    """The names of the files that are hashed from now on."""
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(hub, "sha256_of", counted)
    return hashed


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- names ----------------------------------------------------------------------------------------


def test_every_published_model_has_its_name():
    assert published_names() == [*(f"Qwen/{model.name}" for model in MODELS), f"Qwen/{CODEC_NAME}"]
    for name in published_names():
        found = repository(name)
        assert found is not None and found.name == name
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= found.files.keys()
        assert len(found.revision) == 40
    codec, model = repository(f"Qwen/{CODEC_NAME}"), repository(NAME)
    assert codec is not None and model is not None
    assert set(codec.files) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert all(codec.files[name] == model.files[f"speech_tokenizer/{name}"] for name in codec.files)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-TTS", "Qwen3-TTS-12Hz-0.6B-Base", "someone/model", "Qwen", ""])
def test_other_names_are_none(name):
    assert repository(name) is None


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("Qwen/Qwen3-TTS-0.6B", "is neither a directory nor a published model; those are Qwen/Qwen3-TTS-12Hz-0.6B-B"),
        ("Qwen3-TTS-12Hz-0.6B-Base", "those are Qwen/"),
        ("a" * 60 + "/" + "b" * 60, "is not a directory"),
        ("nowhere/at/all", r"is not a directory; give the folder .* or a name such as Qwen/Qwen3-TTS-12Hz-0.6B-Base"),
    ],
)
def test_what_is_neither_name_nor_directory(path, sentence, no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        Qwen3TTSModel.from_pretrained(path)


def test_a_directory_never_touches_the_network(served, no_network, tmp_path, monkeypatch):
    """Not even one with the name of a published model."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it would fail
    shutil.copytree(served, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert Qwen3TTSModel.from_pretrained(NAME).config.tts_model_type == "base"
    assert not (tmp_path / NAME / VERIFIED).exists()


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(["say", NAME, "Hello."]) == 2
    assert capsys.readouterr().err == (
        f"qwen3tts-np say: {NAME} is a name, not a directory, and downloading it needs huggingface_hub: "
        "pip install 'qwen3tts-np[hub]'\n"
    )


# --- downloading and checking ---------------------------------------------------------------------


def test_the_first_start_downloads_the_files_of_the_model_and_checks_them(fake, published, hashes):
    model = Qwen3TTSModel.from_pretrained(NAME)
    assert model.config.tts_model_type == "base"
    assert fake.calls == [{"files": sorted(published.files), "force": False}]
    assert sorted(hashes) == sorted(Path(name).name for name in published.files)


def test_the_next_start_asks_nobody_and_hashes_nothing(fake, hashes):
    first = pretrained.directory(NAME)
    fake.online = False
    hashes.clear(), fake.calls.clear()
    assert pretrained.directory(Path(NAME)) == first
    assert Qwen3TTSTokenizer.from_pretrained(NAME).get_output_sample_rate() == 24000
    assert hashes == fake.calls == []


def test_a_file_that_was_touched_is_hashed_again(fake, hashes):
    folder = pretrained.directory(NAME)
    hashes.clear()
    os.utime(folder / "model.safetensors", ns=(1, 1))
    pretrained.directory(NAME)
    assert hashes == ["model.safetensors"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model.safetensors": 3}'])
def test_a_broken_memory_only_costs_time(fake, hashes, published, content):
    folder = pretrained.directory(NAME)
    (folder / VERIFIED).write_text(content)
    hashes.clear()
    assert pretrained.directory(NAME) == folder
    assert len(hashes) == len(published.files)
    assert len(fake.calls) == 1


def test_a_cache_that_cannot_be_written_is_hashed_every_time(fake, hashes, published, monkeypatch):
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    for _ in range(2):
        folder = pretrained.directory(NAME)
    assert len(hashes) == 2 * len(published.files)
    assert not [path for path in folder.iterdir() if path.name.startswith(VERIFIED)]


def test_an_interrupted_download_goes_on(fake, published):
    """What has arrived is kept; huggingface_hub is asked for the rest and takes up half a file by itself."""
    folder = pretrained.directory(NAME)
    (folder / "model.safetensors").unlink()
    fake.calls.clear()
    assert pretrained.directory(NAME) == folder
    assert fake.calls == [{"files": sorted(published.files), "force": False}]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_fetched_again_and_no_other(fake, damage, hashes):
    folder = pretrained.directory(NAME)
    path = folder / "speech_tokenizer" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    fake.calls.clear()
    pretrained.directory(NAME)
    assert [call["force"] for call in fake.calls] == [False, True]
    assert fake.calls[1]["files"] == ["speech_tokenizer/model.safetensors"]
    assert path.read_bytes() == content


def test_a_file_that_stays_wrong_is_refused(fake, published, capsys):
    fake.spoil = {"model.safetensors"}
    assert cli.main(["say", NAME, "Hello.", "--voice", str(save_voice(fake))]) == 2
    *downloading, err = capsys.readouterr().err.splitlines(keepends=True)
    again = [f"qwen3tts-np say: downloading {NAME}{rest}\n" for rest in ("", ", what is missing or wrong")]
    assert downloading == again
    assert err.startswith(f"qwen3tts-np say: {fake.cache / REVISION / 'model.safetensors'} has the sha256 ")
    assert err.endswith(
        f"instead of {published.files['model.safetensors'].sha256}, and downloading {NAME} did not change that\n"
    )
    assert err.count("\n") == 1


def save_voice(fake: Hub) -> Path:
    import numpy as np

    from qwen3tts_np import VoiceClonePromptItem

    path = fake.cache.parent / "v.safetensors"
    VoiceClonePromptItem(None, np.zeros(64, np.float32), True, False).save(path)
    return path


def test_a_file_that_is_published_no_more_is_missing(fake, published, tmp_path):
    more = Repository(NAME, REVISION, {**published.files, "extra.json": PublishedFile(3, "0" * 64)})
    with pytest.raises(CheckpointError, match=r"extra\.json is missing, and downloading"):
        snapshot(more)


def test_no_connection_is_one_sentence(fake):
    fake.online = False
    with pytest.raises(CheckpointError) as error:
        pretrained.directory(NAME)
    assert str(error.value) == f"{NAME} cannot be downloaded: Name or service not known"
    fake.online = True
    (pretrained.directory(NAME) / "vocab.json").write_text("{}")
    fake.online = False
    with pytest.raises(CheckpointError, match=rf"^vocab\.json has 2 bytes instead of \d+, and {NAME} cannot be downl"):
        pretrained.directory(NAME)


# --- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--cache-dir", "kept"]])
def test_every_command_takes_a_name(fake, options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    voice, short = str(save_voice(fake)), ["--max-new-tokens", "3"]
    commands = [
        ["info", NAME],
        ["say", NAME, "Hello.", "--voice", voice, *short],
        ["clone", NAME, "Hello.", "--ref-audio", "speech.wav", "-o", "cloned.wav", *short],
        ["voice", "create", NAME, "speech.wav"],
        ["encode", NAME, "speech.wav"],
        ["decode", NAME, "codes.npy"],
        ["convert", "--format", "int8", NAME, "small"],
    ]
    for command in commands:
        assert cli.main([*command, *options]) == 0, capsys.readouterr().err
    assert len(fake.calls) == 1
    assert (tmp_path / "kept" / REVISION / "model.safetensors").exists() == bool(options)
    assert cli.main(["info", "small"]) == 0


def test_offline_takes_what_is_here_and_downloads_nothing(fake, capsys):
    assert cli.main(["info", NAME, "--offline"]) == 2
    assert capsys.readouterr().err.endswith(f"{NAME} is not on this machine, and the network may not be used\n")
    assert fake.calls == []
    pretrained.directory(NAME)
    fake.calls.clear()
    assert cli.main(["info", NAME, "--offline"]) == 0
    assert fake.calls == []


def test_a_cache_dir_of_ones_own(fake, tmp_path):
    for load in (Qwen3TTSModel.from_pretrained, Qwen3TTSTokenizer.from_pretrained):
        load(NAME, cache_dir=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [REVISION]
    assert not fake.cache.exists()


@pytest.mark.parametrize("command", [["info"], ["convert", "--format", "int8"]])
def test_commands_that_only_look_say_how_to_get_the_extra_too(command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main([*command, NAME, *(["small"] if command[0] == "convert" else [])]) == 2
    assert capsys.readouterr().err.endswith("downloading it needs huggingface_hub: pip install 'qwen3tts-np[hub]'\n")
    assert list(tmp_path.iterdir()) == []


# --- the real huggingface_hub ---------------------------------------------------------------------


def test_a_cache_of_the_real_library_is_used_without_the_network(served, published, tmp_path, monkeypatch, no_network):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / f"models--{NAME.replace('/', '--')}" / "snapshots" / REVISION
    shutil.copytree(served, folder)
    assert snapshot(published) == folder
    assert json.loads((folder / VERIFIED).read_text()).keys() == published.files.keys()


def test_an_incomplete_cache_of_the_real_library_without_the_network(served, published, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / f"models--{NAME.replace('/', '--')}" / "snapshots" / REVISION
    shutil.copytree(served, folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"vocab\.json is missing|cannot be downloaded") as error:
        snapshot(published)
    assert "\n" not in str(error.value)


# --- models of others -----------------------------------------------------------------------------


@pytest.fixture
def asked(served, monkeypatch, tmp_path) -> list[dict[str, Any]]:
    """What the hub is asked for; it has one model, of somebody else."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        calls.append({"name": repo_id, **options})
        if repo_id != "ada/fine-tuned":
            raise OSError("no such repository")
        return str(served)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.chdir(tmp_path)
    return calls


def test_a_model_of_somebody_else_is_downloaded_and_said_to_be_unverified(asked, served, tmp_path):
    with pytest.warns(UserWarning, match="ada/fine-tuned is none of the published models: .* used unverified"):
        found = pretrained.directory("ada/fine-tuned", tmp_path, revision="v2", local_files_only=True, token="t")
    assert found == served
    (call,) = asked
    assert (call["revision"], call["local_files_only"], call["token"]) == ("v2", True, "t")
    assert call["cache_dir"] == tmp_path and "speech_tokenizer/*.safetensors" in call["allow_patterns"]
    with pytest.raises(CheckpointError, match="bob/none cannot be downloaded: no such repository"):
        pretrained.directory("bob/none")


def test_a_name_in_a_folder_that_is_here_is_a_mistyped_path(asked, tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(FileNotFoundError, match="models/tiny is not a directory"):
        pretrained.directory("models/tiny")
    with pytest.raises(FileNotFoundError, match="nor a published model"):
        pretrained.directory("Qwen/Qwen3-TTS-25Hz-0.6B-Base")
    assert asked == []


def test_local_files_only_asks_nobody_for_a_published_model(fake):
    with pytest.raises(FileNotFoundError, match="is not on this machine, and the network may not be used"):
        pretrained.directory(NAME, local_files_only=True)
    assert fake.calls == []
    first = pretrained.directory(NAME)
    fake.calls.clear()
    assert pretrained.directory(NAME, local_files_only=True) == first
    (first / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing, and the network may not be used"):
        pretrained.directory(NAME, local_files_only=True)
    assert fake.calls == []
