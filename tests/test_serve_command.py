"""``serve`` as a program: the requests of README and of its page as printed, a clean start and stop, and refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import tiny_world
from speech_server import client_of

from qwen3tts_np import VoiceClonePromptItem, cli
from qwen3tts_np.cli import serve
from qwen3tts_np.server.voices import VoiceFolder

for _needed in ("fastapi", "uvicorn", "python_multipart", "websockets"):
    pytest.importorskip(_needed)
httpx = pytest.importorskip("httpx")

README = (tiny_world.ROOT / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Server\n.*?(?=^## )", README, re.M | re.S)
assert SECTION is not None
PAGE = (tiny_world.ROOT / "qwen3tts_np" / "server" / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", SECTION[0] + PAGE, re.M | re.S)
LINES = [line for block in SHELL for line in block.replace("\\\n", "").splitlines()]
PYTHON = re.findall(r"^```python\n(.*?)^```", SECTION[0], re.M | re.S)


@contextmanager
def serving(line: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command of one line on a free port, and the URL that it says."""
    path = os.pathsep.join([str(tiny_world.ROOT), str(tiny_world.ROOT / "kernels")])
    command = [sys.executable, "-m", *line.replace("qwen3tts-np", "qwen3tts_np").split(), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        said = ""
        while not (found := re.search(r"^ready: (\S+)/$", said, re.M)):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        assert re.search(r"^\S+: \d+ places of 1024 positions, which take [\d.]+ GB$", said, re.M)
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_the_readme_as_printed_and_a_clean_stop(tmp_path, synthetic):
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("needs curl and openssl")
    tiny_world.build(tmp_path, synthetic)
    commands = [line for line in LINES if line.startswith("qwen3tts-np")]
    for line in commands:
        cli.program_parser("serve").parse_args(line.split()[1:])
    subprocess.run(next(line for line in LINES if line.startswith("openssl")), shell=True, cwd=tmp_path, check=True)
    with serving(commands[0], tmp_path) as (process, url), client_of(url) as client:
        for line in LINES:
            if line.startswith("curl"):
                here = line.replace("localhost:8000", url.removeprefix("http://")).replace("curl", "curl -sS --fail", 1)
                ran = subprocess.run(here, shell=True, cwd=tmp_path, capture_output=True, check=False)
                assert ran.returncode == 0, (line, ran.stderr)
        for name in ("hello.mp3", "hello.wav", "ada.opus"):
            assert (tmp_path / name).stat().st_size > 100
        for program in PYTHON:
            pytest.importorskip("openai")
            (tmp_path / "hello.mp3").unlink()
            code = program.replace("http://localhost:8000", url).replace("hello.mp3", str(tmp_path / "hello.mp3"))
            exec(code, {})
            assert (tmp_path / "hello.mp3").stat().st_size > 100

        answers = []
        body = {"input": "One more sentence. " * 20, "response_format": "pcm", "max_new_tokens": 100, "seed": 1}
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/audio/speech", json=body)))
        asking.start()
        while 'places_in_use{model="Qwen3-TTS-12Hz-0.6B-CustomVoice"} 1' not in client.get("/metrics").text:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1]
        asking.join()
        assert process.returncode == 0, error
        assert "stopping: running answers have 30 s to finish" in error
        assert "Traceback" not in error
        assert answers[0].status_code == 200
        assert len(answers[0].content) > 50_000


def test_a_second_signal_ends_at_once(tmp_path):
    long = {"input": "Hello world. " * 300}
    with (
        serving("qwen3tts-np serve", tmp_path) as (process, url),
        client_of(url) as client,
        client.stream("POST", "/v1/audio/speech", json=long) as response,
    ):
        assert next(response.iter_raw())
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "stopping" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_server_that_is_killed_loses_no_voice(tmp_path):
    voice = VoiceClonePromptItem(None, np.ones(64, np.float32) / 8, True, False)
    voice.save(tmp_path / "ada.safetensors")
    content = (tmp_path / "ada.safetensors").read_bytes()
    kept: list[str] = []

    def register(url: str, names: list[str]) -> None:
        with suppress(httpx.TransportError), client_of(url) as client:
            for name in names:
                done = client.post("/v1/audio/voices", data={"name": name}, files={"voice_file": content})
                assert done.status_code == 200
                kept.append(name)

    with serving("qwen3tts-np serve --voices registered", tmp_path) as (process, url):
        writers = [threading.Thread(target=register, args=(url, [f"{w} {i}" for i in range(99)])) for w in "abc"]
        for writer in writers:
            writer.start()
        while len(kept) < 12:
            time.sleep(0.001)
        process.kill()
        for writer in writers:
            writer.join()
    (tmp_path / "registered" / ".d 0.safetensors.4194305-00000000.partial").touch()  # the kill may not have met a write
    voices = VoiceFolder(tmp_path / "registered")
    assert {path.suffix for path in (tmp_path / "registered").iterdir()} == {".safetensors"}
    assert set(kept) <= set(voices.names())
    for name in voices.names():
        np.testing.assert_array_equal(voices.get(name).item.ref_spk_embedding, voice.ref_spk_embedding)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--places", "0"], "--places 0 must be at least 1"),
        (["--queue", "-1"], "--queue -1 must be at least 0"),
        (["--places", "9" * 400], "--places a whole number of 1329 bits must be at most 1024"),
        (["--port", "9" * 400], "--port a whole number of 1329 bits cannot be had"),
        (["--host", ""], "--host is empty; 0.0.0.0 is every address"),
        (["--host", "\0"], r"--host '\x00' --port 8000 cannot be had"),
        (["--host", "a\ud800"], r"--host 'a\ud800' --port 8000 cannot be had"),
        (["--host", "x" * 100_000], "(100000 characters) --port 8000 cannot be had"),
        (["--voices", "\0"], r"'\x00' cannot be the name of a file: it holds a null byte"),
        (["--voices", "a\ud800"], "it holds half a surrogate pair"),
        (["--api-key", ""], "--api-key is empty; leave it away to ask for none"),
        (["--api-key", "k\n"], "--api-key must be of printable ASCII characters without spaces"),
        (["--api-key", "schlüssel"], "--api-key must be of printable ASCII characters without spaces"),
        (["--api-key", "a\ud800"], "--api-key must be of printable ASCII characters without spaces"),
        (["--ssl-certfile", __file__, "--ssl-keyfile", __file__], "are no certificate and its key"),
        (["--ssl-certfile", "a"], "--ssl-certfile and --ssl-keyfile go together: give both or neither"),
        (["--ssl-certfile", "a", "--ssl-keyfile", "a"], "a cannot be read: No such file or directory"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid --port 8000 cannot be had"),
        (["--port", "70000"], "--port 70000 cannot be had"),
        (["missing", "--port", "0"], "missing"),
    ],
)
def test_refusals(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    assert f"--port {port} cannot be had: Address already in use" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    for name in serve.NEEDED:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["serve"]) == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np serve: serve needs fastapi, uvicorn, python_multipart, websockets, which are not "
        "installed: pip install 'qwen3tts-np[server]'\n"
    )


def test_examples_are_understood():
    for line in serve.EXAMPLES:
        assert cli.program_parser("serve").parse_args(line.split()[1:]).run is serve.run
