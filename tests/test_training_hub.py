"""``train prepare hub:OWNER/NAME`` as huggingface_hub itself asks for it, from a server of our own."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
import soundfile
from hub_process import answering, command

NAME, COMMIT = "ada/speech", "0123456789abcdef0123456789abcdef01234567"
CONVERTED = "refs/convert/parquet"
RATE = 24000


class Server(http.server.ThreadingHTTPServer):
    """A data set whose files are those of the branch where the hub keeps what it has converted."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.branches = {"main": {"README.md": b"speech"}, CONVERTED: files}
        self.sent: dict[str, int] = {}  # bytes of each file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        branch = self._branch(urlsplit(unquote(self.path)).path.partition("/paths-info/")[2])
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        self._json([self._entry(branch, name) for name in wanted if name in self.server.branches[branch]])

    def do_GET(self) -> None:
        path = urlsplit(unquote(self.path)).path
        if f"/datasets/{NAME}" not in path:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in path:
            branch = self._branch(path.partition("/resolve/")[2])
            self._file(path.partition("/resolve/")[2].partition("/" if branch == "main" else "parquet/")[2], branch)
        elif "/tree/" in path:
            branch = self._branch(path.partition("/tree/")[2])
            self._json([self._entry(branch, name) for name in self.server.branches[branch]])
        else:
            self._json({"id": NAME, "sha": COMMIT, "siblings": []})

    def _branch(self, path: str) -> str:
        return CONVERTED if path.startswith((CONVERTED, COMMIT)) else "main"

    def _entry(self, branch: str, name: str) -> dict[str, object]:
        content = self.server.branches[branch][name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _file(self, name: str, branch: str) -> None:
        content = self.server.branches[branch][name]
        first, last = 0, len(content) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.command == "GET":
            part = content[first : last + 1]
            self.server.sent[name] = self.server.sent.get(name, 0) + len(part)
            self.wfile.write(part)

    def _json(self, found: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _clip(seed: int) -> bytes:
    draw, t, content = np.random.default_rng(seed), np.arange(RATE) / RATE, io.BytesIO()
    wave = 0.2 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * (2 + draw.random()) * t) ** 2
    soundfile.write(content, wave + 1e-4 * draw.standard_normal(RATE), RATE, format="WAV")
    return content.getvalue()


def _table(first: int, rows: int) -> bytes:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers, content = range(first, first + rows), io.BytesIO()
    columns = {
        "audio": [{"bytes": _clip(i), "path": f"{i}.wav"} for i in numbers],
        "sentence": [f"one two three {i}" for i in numbers],
        "duration": [1.0] * rows,
        "notes": [np.random.default_rng(i).bytes(200_000) for i in numbers],  # a column that nobody reads
    }
    parquet.write_table(pyarrow.table(columns), content, row_group_size=2)
    return content.getvalue()


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("huggingface_hub")
    files = {f"{subset}/train/000{i}.parquet": _table(8 * i, 8) for subset in ("en", "de") for i in (0, 1)}
    running = Server(files)
    with answering(running):
        yield running


@pytest.fixture
def prepare(server: Server, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``qwen3tts-np train prepare`` in a process of its own."""
    return command(server.url, tmp_path, "train", "prepare")


def test_a_data_set_is_read_as_the_hub_has_it(server, prepare, tmp_path, synthetic):
    done = prepare(f"hub:{NAME}/en", "--info", "--json")
    info = json.loads(done.stdout)
    assert done.stderr == "" and info["rows"] == 16 and info["hours"] == pytest.approx(16 / 3600)
    total = sum(map(len, server.branches[CONVERTED].values()))
    assert sum(server.sent.values()) < total / 10  # footers and durations, no audio
    server.sent.clear()
    words = (f"hub:{NAME}/en", "o.jsonl", "--model", synthetic("tiny", "base"), "--round-trips", "0")
    done = prepare(*words, "--validation", "0%", "--max-samples", "3")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"one two three {i}" for i in range(3)]
    assert set(server.sent) == {"en/train/0000.parquet"}


def test_what_a_hub_may_answer_is_one_sentence(prepare):
    for words, told in (
        ((f"hub:{NAME}",), "has the subsets de, en; name one"),
        ((f"hub:{NAME}/en", "--split", "test"), "has no split 'test'; it has train"),
        (("hub:bob/none",), "hub:bob/none cannot be read: "),
        (("hub:ada/../x",), "hub:ada/../x cannot be read: Repo id must use"),
    ):
        done = prepare(*words, "--info")
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
