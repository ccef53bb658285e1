"""Clips that somebody else made or serves: headers that lie, and servers that do not end."""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from qwen3tts_np import cli
from qwen3tts_np.audio import decode, url
from qwen3tts_np.audio.files import read_audio
from qwen3tts_np.errors import AudioTooLong, RequestError

SAMPLES = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)


def wav(samples: np.ndarray = SAMPLES, kind: str = "WAV") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, 24000, format=kind)
    return content.getvalue()


class BadServer(http.server.BaseHTTPRequestHandler):
    ftp_port = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        with suppress(OSError):  # the other side has gone
            getattr(self, "do_" + self.path[1:].partition("?")[0])()

    def start(self, length: int | None = None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def to(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.end_headers()

    def do_good(self) -> None:
        self.start(len(wav()))
        self.wfile.write(wav())

    def do_moved(self) -> None:
        self.to("/good")

    def do_home(self) -> None:
        self.to(f"http://home.example:{self.server.server_port}/good")

    def do_loop(self) -> None:
        self.to("/loop")

    def do_ftp(self) -> None:
        self.to("ftp://127.0.0.1/x.wav")

    def do_file(self) -> None:
        self.to("file:///etc/passwd")

    def do_secret(self) -> None:
        self.to("http://eve:hunter2@127.0.0.1/x.wav")

    def do_big(self) -> None:
        self.start(10**15)

    def do_short(self) -> None:
        self.start(len(wav()) + 1)
        self.wfile.write(wav())

    def do_gone(self) -> None:
        self.send_response(404, "\x1b[31mgone" + "x" * 10_000)
        self.end_headers()

    def do_nonsense(self) -> None:
        self.wfile.write(b"\x1b[31m nonsense\r\n")

    def do_endless(self) -> None:
        self.start()
        for _ in range(100):
            self.wfile.write(bytes(1 << 16))

    def do_slow(self) -> None:
        self.start(100_000)
        self.drip()

    def do_slow_headers(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        self.drip()

    def drip(self) -> None:
        for _ in range(60):
            self.wfile.write(b"0")
            self.wfile.flush()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BadServer)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(url, "SECONDS", 0.5)
    monkeypatch.setattr(url, "MOST", 1 << 20)


@pytest.mark.parametrize("path", ["good", "moved", "good?token=1"])
def test_an_honest_server_is_read(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "SECONDS", 20)
    samples, rate = read_audio(f"{server}/{path}")
    assert rate == 24000 and len(samples) == len(SAMPLES)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("loop", "redirects in a circle, or more than 5"),
        ("ftp", "http and https, not from 'ftp'"),
        ("file", "http and https, not from 'file'"),
        ("secret", "user name or password"),
        ("big", "announces 1000000000000000 bytes"),
        ("short", "of"),
        ("gone", "404"),
        ("nonsense", "BadStatusLine"),
        ("endless", "sends more than 1048576 bytes"),
        ("slow", "more than 0.5 s"),
        ("slow_headers", "more than 0.5 s"),
    ],
)
def test_a_bad_server_is_refused_in_time(server: str, path: str, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(RequestError) as refused:
        read_audio(f"{server}/{path}?token=tell")
    said = str(refused.value)
    assert words in said, said
    assert time.monotonic() - started < 5
    assert len(said) < 500 and not any(part in said for part in ("\x1b", "hunter2", "token", "\n"))


@pytest.mark.parametrize(
    "address",
    [
        *("http://eve:hunter2@127.0.0.1/x.wav", "HTTP://eve:hunter2@h/x", "http://eve:hunter2@[::1/x", "http://"),
        *("http:\\\\eve:hunter2@h/", "http:/eve:hunter2@h", "http:eve:hunter2@h", "https//eve:hunter2@h/x"),
        *("http://eve:a/hunter2@h/x", "http://eve:a@hunter2/x@h/", "http:///eve:hunter2@h", " http://eve:hunter2@h"),
        *("http://eve:a hunter2@h/", "http://eve:a'hunter2@h/", "http://eve:a?hunter2@h/", "http://h/a?b=hunter2@h"),
    ],
)
def test_a_password_is_not_repeated(address: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_audio(address)
    assert "hunter2" not in str(refused.value) and "audio 'http" in str(refused.value).lower().replace("' ", "'")


@pytest.mark.parametrize("name", ["http://h/@eve/a.wav", "C:\\users\\eve@h\\a.wav", "a/b@c.wav", "eve:hunter2@h"])
def test_what_is_no_password_is_shown(name: str) -> None:
    assert str(RequestError(f"{name} it is")) == f"{name} it is"


@pytest.mark.parametrize("part", ["x", "http://", "http:", "a@", ":/", "x-"])
def test_sentences_are_made_in_a_moment(part: str) -> None:
    """However long the value is: no search for passwords starts again at every character."""
    start = time.process_time()
    str(RequestError(f"{part * 100_000}@"))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("good", None),
        ("home", "audio is not read from 'home.example': its address is not a public one"),
    ],
)
def test_addresses_of_one_s_own_networks_are_refused(
    server: str, path: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the connection, and after every redirect: 'public.example' stands for an address that is none of ours."""
    port = int(server.rpartition(":")[2])
    addresses = {"public.example": "93.184.215.14", "home.example": "10.0.0.7"}
    connect = socket.create_connection
    asked: list[str] = []

    def looked_up(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses.get(host, host), port))]

    def connected(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address[0])
        return connect(("127.0.0.1", port), timeout)

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not used
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(socket, "create_connection", connected)
    if told is None:
        assert url.read_url(f"http://public.example:{port}/{path}", public=True) == wav()
    else:
        with pytest.raises(RequestError, match=told):
            url.read_url(f"http://public.example:{port}/{path}", public=True)
    assert asked == ["93.184.215.14"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.7", "169.254.169.254", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_a_private_address_is_refused_before_the_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(RequestError, match="its address is not a public one"):
        url.read_url(f"http://{host}:1/x.wav", public=True)


@pytest.mark.parametrize("name", url.OFFLINE)
def test_offline_nobody_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", None)
    monkeypatch.setenv(name, "true")
    with pytest.raises(RequestError, match="forbids the network"):
        read_audio("http://127.0.0.1:1/a.wav")


def test_offline_no_command_reads_a_clip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(socket, "create_connection", None)
    monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: read_audio("http://127.0.0.1:1/a.wav"))
    monkeypatch.setattr(url, "_forbidden", False)
    assert cli.main(["info", "m", "--offline"]) == 2
    assert "audio 'http://127.0.0.1:1/a.wav' is not read: --offline or HF_HUB_OFFLINE" in capsys.readouterr().err
    assert not url._forbidden


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RequestError, match="refused"):
        read_audio(f"http://127.0.0.1:{port}/a.wav")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU"])
@pytest.mark.parametrize("shape", [(30_000,), (30_000, 2), (5, 8), (1, 8)])
def test_blocks_are_the_file(kind: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "MP3" and shape[-1] == 8:
        pytest.skip("MP3 has two channels at most")
    content = wav(np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32), kind)
    whole, _ = decode.decode(content, "clip")
    expected = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].mean(axis=1)
    # Trap: mpg123 itself rounds as the memory that it writes to is aligned.
    np.testing.assert_allclose(whole, expected, rtol=0, atol=3e-7 if kind == "MP3" else 0)
    if kind in ("WAV", "FLAC", "AIFF", "AU"):
        monkeypatch.setattr(decode, "AT_ONCE", 0)
        monkeypatch.setattr(decode, "BLOCK", 7000)
        np.testing.assert_array_equal(decode.decode(content, "clip")[0], whole)


def claiming(kind: str) -> bytes:
    """A file of 1,000 samples whose header claims as many as it can."""
    content = bytearray(wav(kind=kind))
    if kind == "FLAC":  # STREAMINFO: 36 bits of samples, of which the last four bytes
        content[21] |= 0x0F
        content[22:26] = b"\xff" * 4
    elif kind == "WAV":
        at = content.index(b"data") + 4
        content[at : at + 4] = b"\xff\xff\xff\x7f"
        content[4:8] = b"\xff\xff\xff\x7f"
    else:  # AU: bytes of data
        content[8:12] = b"\x7f\xff\xff\xff"
    return bytes(content)


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "AU"])
def test_a_header_that_claims_billions(kind: str, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(claiming(kind))
    tracemalloc.start()
    with suppress(RequestError):
        assert len(read_audio(tmp_path / "clip")[0]) == len(SAMPLES)
    assert tracemalloc.get_traced_memory()[1] < 600 << 20
    tracemalloc.stop()


def test_lengths_that_were_never_written(tmp_path: Path) -> None:
    for length in (b"\xff\xff\xff\xff", bytes(4)):
        content = bytearray(wav())
        at = content.index(b"data") + 4
        content[at : at + 4] = content[4:8] = length
        (tmp_path / "clip.wav").write_bytes(content)
        if length == bytes(4):  # as empty files have it
            with pytest.raises(RequestError, match="is empty"):
                read_audio(tmp_path / "clip.wav")
        else:
            assert len(read_audio(tmp_path / "clip.wav")[0]) == len(SAMPLES)


def test_a_compressed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "AT_ONCE", 1 << 10)
    monkeypatch.setattr(decode, "BLOCK", 1 << 12)
    monkeypatch.setattr(decode, "MOST", 1 << 16)
    content = wav(np.zeros(1 << 20, np.float32), "FLAC")
    (tmp_path / "bomb.flac").write_bytes(content)
    with pytest.raises(RequestError, match="more than 65536 samples"):
        read_audio(tmp_path / "bomb.flac")


def test_no_more_is_decoded_than_a_clip_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute of eight channels of silence are some kilobytes; of these one block is decoded."""
    monkeypatch.setattr(decode, "AT_ONCE", 1 << 10)
    monkeypatch.setattr(decode, "BLOCK", 1 << 18)
    bomb = tmp_path / "bomb.flac"
    soundfile.write(bomb, np.zeros((48_000 * 30, 8), np.int16), 48_000)
    decoded = []

    def counted(samples: Any) -> Any:
        decoded.append(len(samples))
        return mono(samples)

    mono = decode._mono
    monkeypatch.setattr(decode, "_mono", counted)
    with pytest.raises(
        AudioTooLong, match=r"bomb\.flac' lasts more than 0 s, which are the most; cut it to 10 to 20 s"
    ):
        read_audio(bomb, longest=0.1)
    assert decoded == [(1 << 18) // 8]
    assert len(read_audio(bomb, longest=30)[0]) == 48_000 * 30
