"""Models by name from servers of our own: the hub of Hugging Face, asked by its library, and ModelScope."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hub_process import answering, command

from qwen3tts_np import CheckpointError, Qwen3TTSModel
from qwen3tts_np.checkpoint import modelscope, pretrained

NAME, PUBLISHED = "ada/fine-tuned", "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of one folder under every name, as both hubs do."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self.asked: list[str] = []
        self.breaks: set[str] = set()  # files whose connection breaks once, in the middle
        self.spoilt: set[str] = set()  # files that are not what the list says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Server
    revision = COMMIT

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts = urlsplit(unquote(self.path))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path.endswith("/repo/files"):
            files = [self.entry(name) for name in self.server.files]
            self.send({"Code": 200, "Data": {"Files": [*files, {"Path": "speech_tokenizer", "Type": "tree"}]}})
        elif parts.path.endswith("/repo"):
            self.send_file(query["FilePath"])
        elif "/resolve/" in parts.path:
            self.revision, _, name = parts.path.partition("/resolve/")[2].partition("/")
            self.send_file(name)
        elif parts.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.server.files]
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.server.files]
            revision = parts.path.rpartition("/")[2]
            sha = COMMIT if revision == "main" else revision
            self.send(tree if "/tree/" in parts.path else {"id": NAME, "sha": sha, "siblings": siblings})
        else:
            self.send_error(404)

    def entry(self, name: str) -> dict[str, object]:
        content = self.server.files[name].read_bytes()
        return {"Path": name, "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest(), "Type": "blob"}

    def send_file(self, name: str) -> None:
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name].read_bytes()
        if name in self.server.spoilt:
            content = bytes(len(content))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.revision)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET" and name in self.server.breaks:
            self.server.breaks.remove(name)
            self.wfile.write(content[start : len(content) // 2])
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(content[start:])

    def send(self, found: object) -> None:
        content = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def server(synthetic: Callable[..., Path]) -> Iterator[Server]:
    running = Server(synthetic("tiny", "custom_voice"))
    with answering(running):
        yield running


# --- the hub of Hugging Face ----------------------------------------------------------------------


@pytest.fixture
def info(server: Server, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``qwen3tts-np info`` in a process of its own."""
    pytest.importorskip("huggingface_hub")
    return command(server.url, tmp_path, "info")


def test_a_mirror_is_asked_once_and_nobody_offline(server, info):
    done = info(NAME)
    assert done.returncode == 0 and "custom_voice, 0.6B" in done.stdout
    downloading, unverified = done.stderr.splitlines()  # no bar, no advice of the library
    assert downloading == f"qwen3tts-np info: downloading {NAME}"
    assert unverified.startswith(f"qwen3tts-np info: warning: {NAME} is none of the published models")
    assert any(f"/{NAME}/resolve/{COMMIT}/model.safetensors" in path for path in server.asked)
    for words, variables in (([NAME, "--offline"], {}), ([NAME], {"HF_HUB_OFFLINE": "1"})):
        server.asked.clear()
        again = info(*words, **variables)
        assert (again.returncode, again.stdout) == (0, done.stdout)
        assert server.asked == []


def test_a_published_name_is_held_against_its_hashes_and_offline_is_a_sentence(server, info):
    done = info(PUBLISHED, "--offline")
    sentence = f"qwen3tts-np info: {PUBLISHED} is not on this machine, and the network may not be used\n"
    assert (done.returncode, done.stderr, server.asked) == (2, sentence, [])
    done = info(PUBLISHED)
    assert done.returncode == 2
    assert "bytes instead of" in done.stderr and f"downloading {PUBLISHED} did not change that" in done.stderr
    assert server.asked


# --- ModelScope -----------------------------------------------------------------------------------


@pytest.fixture
def scope(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("QWEN3TTS_NP_HUB", "modelscope")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", server.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return server


@pytest.mark.filterwarnings("ignore:.* is none of the published models")
def test_a_model_of_modelscope_is_downloaded_once(scope, tmp_path):
    scope.breaks = {"model.safetensors"}
    folder = pretrained.directory(NAME)
    assert folder == tmp_path / "cache" / "models" / "ada" / "fine-tuned"
    for name, path in scope.files.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    assert Qwen3TTSModel.for_prompts(folder).config.tts_model_type == "custom_voice"
    scope.asked.clear()
    assert pretrained.directory(NAME) == folder
    assert [path for path in scope.asked if "repo?" in path] == []  # the list alone: a branch may have moved
    scope.asked.clear()
    assert pretrained.directory(NAME, local_files_only=True) == folder
    assert scope.asked == []


@pytest.mark.filterwarnings("ignore:.* is none of the published models")
def test_what_modelscope_may_do_wrong_is_one_sentence(scope, monkeypatch):
    with pytest.raises(FileNotFoundError, match=f"{NAME} is not in .*, and the network may not be used"):
        pretrained.directory(NAME, local_files_only=True)
    assert scope.asked == []
    scope.spoilt = {"vocab.json"}
    with pytest.raises(CheckpointError, match=f"{NAME}: vocab.json arrives with the sha256 "):
        pretrained.directory(NAME)
    with pytest.raises(CheckpointError, match=f"{PUBLISHED} cannot be downloaded: the server sent .* of .* bytes"):
        pretrained.directory(PUBLISHED)  # published hashes are known, whoever serves the files
    monkeypatch.setattr(Answers, "send", lambda self, _: self.send_error(500))
    with pytest.raises(CheckpointError, match=f"{NAME} cannot be downloaded from .*: Internal Server Error"):
        pretrained.directory(NAME)
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=f"{NAME} cannot be downloaded from .*: .*refused"):
        pretrained.directory(NAME)


def test_folders_and_the_choice_of_a_hub(monkeypatch, tmp_path):
    assert modelscope.folder_of(PUBLISHED, tmp_path) == (
        tmp_path / "models" / "Qwen" / "Qwen3-TTS-12Hz-0___6B-CustomVoice"  # as ModelScope's own package
    )
    monkeypatch.setenv("QWEN3TTS_NP_HUB", "elsewhere")
    with pytest.raises(CheckpointError, match="QWEN3TTS_NP_HUB='elsewhere' is neither 'huggingface' nor 'modelscope'"):
        pretrained.directory(NAME)
