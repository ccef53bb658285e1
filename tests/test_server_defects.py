"""A defect of ours in a server: 500 without a word of it for the client, a traceback in the log, and on it goes."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speech_server import Running, client_of, running

from qwen3tts_np import Qwen3TTSModel, RequestError, generate
from qwen3tts_np.server.client import TextClient

httpx = pytest.importorskip("httpx")
for _needed in ("fastapi", "uvicorn", "python_multipart", "websockets"):
    pytest.importorskip(_needed)


@pytest.fixture(scope="module")
def server(synthetic: Callable[..., Path]) -> Iterator[Running]:
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference")
    with running({"custom_voice": model}, places=2) as one:
        yield one


def broken(*_: Any, **__: Any) -> Any:
    return 1 / 0  # in a line that names /this/machine


def test_in_the_frame_loop(server: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with client_of(server.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr(generate.Item, "read_frame", broken)
            answer = client.post("/v1/audio/speech", json=server.body())
        after = client.post("/v1/audio/speech", json=server.body())
    assert np.array_equal(np.frombuffer(after.content, "<i2"), server.alone())
    told = capfd.readouterr().err
    assert answer.status_code == 500
    assert set(answer.json()) == {"error"}
    for secret in ("Traceback", "ZeroDivision", "division", ".py", "machine"):
        assert secret not in answer.text
    assert "Traceback" in told
    assert "ZeroDivisionError: division by zero" in told


def test_no_memory_is_no_defect(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(generate.Item, "read_frame", full)
    with client_of(server.url) as client:
        answer = client.post("/v1/audio/speech", json=server.body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_memory")


def test_in_a_route(server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("qwen3tts_np.server.app.list_voices", broken)
    with client_of(server.url) as client:
        answer = client.get("/v1/audio/voices")
        assert client.get("/health").status_code == 200
    assert answer.status_code == 500
    assert "division" not in answer.text
    assert "Traceback" not in answer.text
    assert "ZeroDivisionError: division by zero" in caplog.text  # of uvicorn, which prints it


# --- mistakes of clients, which are none ----------------------------------------------------------


def test_a_client_that_leaves_while_it_sends(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    with client_of(server.url) as client:
        while '"499"' not in (numbers := client.get("/metrics").text) and "499" not in numbers:
            time.sleep(0.01)
    assert not caplog.records


def test_a_mistake_that_is_found_when_the_answer_has_begun(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hear, count = TextClient.hear, itertools.count()

    def late(client: TextClient, wave: Any) -> None:
        if next(count):
            raise RequestError("use values nearer to 1")
        hear(client, wave)

    monkeypatch.setattr(TextClient, "hear", late)
    with client_of(server.url) as client, pytest.raises(httpx.RemoteProtocolError):
        client.post("/v1/audio/speech", json=server.body())
    assert "an answer was broken off: use values nearer to 1" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_message_of_bytes(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    connect = pytest.importorskip("websockets.sync.client").connect
    with connect(f"{server.url.replace('http', 'ws')}/v1/audio/speech/stream") as socket:
        for message in (b"\xff\xfe", b'{"type": 5}'):
            socket.send(message)
            assert json.loads(socket.recv(timeout=30))["type"] == "error"
    assert not caplog.records
