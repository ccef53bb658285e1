"""Text in pieces over a WebSocket, speech out meanwhile: the speech of the complete text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speech_server import FRAMES, TEXT, Running, running

from qwen3tts_np import CustomVoice, Qwen3TTSModel
from qwen3tts_np.audio.files import pcm16
from qwen3tts_np.audio.tempo import at_tempo
from qwen3tts_np.speech.live import stream
from qwen3tts_np.speech.script import read_script
from qwen3tts_np.text.clean import clean
from qwen3tts_np.text.lexicon import Lexicon

for _needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(_needed)
client = pytest.importorskip("websockets.sync.client")

CONFIG = {"type": "session.config", "voice": "ryan", "seed": 7, "max_new_tokens": FRAMES + 1}


@pytest.fixture(scope="module")
def server(synthetic: Callable[..., Path]) -> Iterator[Running]:
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)
    with running({"custom_voice": model}, places=2, queue=1, max_text=2000) as one:
        yield one


@pytest.fixture
def socket(server: Running) -> Iterator[Any]:
    with client.connect(f"{server.url.replace('http', 'ws')}/v1/audio/speech/stream") as one:
        yield one


def say(socket: Any, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def hear(socket: Any, last: str = "session.done") -> tuple[bytes, list[dict[str, Any]]]:
    """All audio and messages up to one of kind ``last``."""
    audio, messages = b"", []
    while not messages or messages[-1]["type"] != last:
        received = socket.recv(timeout=30)
        if isinstance(received, bytes):
            audio += received
        else:
            messages.append(json.loads(received))
    return audio, messages


def alone(server: Running, text: str, **options: Any) -> bytes:
    model = server.house.models["custom_voice"].model
    given = {"seed": 7, "max_new_tokens": FRAMES + 1, **options}
    request = model.prepare(text, CustomVoice("ryan"), streaming=True, **given)
    return b"".join(pcm16(wave).tobytes() for wave in model.stream(request))


def test_words_of_the_lexicon_are_respelled_however_they_arrive(server):
    model, words = server.house.models["custom_voice"].model, Lexicon({"are you": "is he", "fine": "well"})
    with (
        running({"custom_voice": model}, places=1, queue=1, lexicon=words) as other,
        client.connect(f"{other.url.replace('http', 'ws')}/v1/audio/speech/stream") as socket,
    ):
        socket.send(json.dumps(CONFIG))
        for first in range(0, len(TEXT), 5):
            say(socket, "input.text", text=TEXT[first : first + 5])
        say(socket, "input.done")
        assert hear(socket)[0] == alone(server, TEXT.replace("are you", "is he").replace("fine", "well"))


def test_an_utterance_at_another_speed(server, socket):
    pytest.importorskip("av")
    socket.send(json.dumps({**CONFIG, "speed": 2}))
    say(socket, "input.text", text=TEXT)
    say(socket, "input.done")
    model = server.house.models["custom_voice"].model
    request = model.prepare(TEXT, CustomVoice("ryan"), streaming=True, seed=7, max_new_tokens=FRAMES + 1)
    usual = np.concatenate(list(model.stream(request)))
    assert hear(socket)[0] == pcm16(at_tempo(usual, 2, 24000)).tobytes()


def test_marks_are_read_in_a_complete_text(server, socket):
    text = "Ready? [pause 300ms] Go. [voice vivian] At last!"
    socket.send(json.dumps({**CONFIG, "markup": True}))
    for first in range(0, len(text), 9):
        say(socket, "input.text", text=text[first : first + 9])
    say(socket, "input.done")
    model, script = server.house.models["custom_voice"].model, read_script(text, markup=True)
    wanted = stream(model, script, seed=7, speaker="ryan", runaway_guard=True, max_new_tokens=FRAMES + 1)
    audio, messages = hear(socket)
    assert audio == b"".join(packet.tobytes() for packet in wanted)
    assert [message["type"] for message in messages] == ["audio.start", "audio.done", "session.done"]
    for wrong, told in (("Hi [pause 1h].", "a pause lasts 0 to 60 s"), ("[voice bob] Hi.", "'bob' is not known")):
        say(socket, "input.text", text=wrong)
        say(socket, "input.done")
        _, messages = hear(socket)
        assert told in messages[-2]["message"]
        assert messages[-1] == {**messages[-1], "type": "session.done", "total_sentences": 0}
    say(socket, "input.text", text=text)
    say(socket, "input.done")
    assert hear(socket)[0] == audio


@pytest.mark.parametrize("size", [1, 4, 100])
def test_an_utterance_in_pieces_is_the_complete_text(server, socket, size):
    socket.send(json.dumps(CONFIG))
    for first in range(0, len(TEXT), size):
        say(socket, "input.text", text=TEXT[first : first + size])
    say(socket, "input.done")
    audio, messages = hear(socket)
    assert [message["type"] for message in messages] == ["audio.start", "audio.done", "session.done"]
    assert audio == alone(server, TEXT)
    assert messages[0] == {
        "type": "audio.start",
        "utterance_index": 0,
        "sentence_index": 0,
        "format": "pcm",
        "sample_rate": 24000,
    }
    assert messages[1]["total_bytes"] == len(audio)
    assert messages[2]["total_sentences"] == 1


def test_speech_begins_before_the_text_is_complete_and_utterances_follow(server, socket):
    long = {**CONFIG, "max_new_tokens": 200}
    socket.send(json.dumps(long))
    say(socket, "input.text", text=TEXT + " ")
    audio, _ = hear(socket, "audio.start")
    first = socket.recv(timeout=30)
    assert isinstance(first, bytes)
    say(socket, "input.text", text="And more.")
    say(socket, "input.done")
    audio, messages = hear(socket)
    assert first + audio == alone(server, f"{TEXT} And more.", max_new_tokens=200)
    say(socket, "input.done")  # nothing was written
    assert hear(socket)[1][-1] == {"type": "session.done", "utterance_index": 1, "total_sentences": 0}
    socket.send(json.dumps({**CONFIG, "seed": 8}))
    say(socket, "input.text", text=TEXT)
    say(socket, "input.done")
    audio, messages = hear(socket)
    assert audio == alone(server, TEXT, seed=8)
    assert messages[-1]["utterance_index"] == 2


def test_cancel_in_mid_sentence(server, socket):
    room = server.house.engine.rooms["custom_voice"]
    socket.send(json.dumps({**CONFIG, "max_new_tokens": 900}))
    for when in ("before", "after"):
        say(socket, "input.text", text=f"{TEXT} " * 20)
        if when == "after":
            say(socket, "input.done")
        hear(socket, "audio.start")
        assert isinstance(socket.recv(timeout=30), bytes)
        say(socket, "input.cancel")
        _, messages = hear(socket)
        assert messages[-1]["cancelled"] is True
        until = time.monotonic() + 10
        while room.speaking and time.monotonic() < until:
            time.sleep(0.005)
        assert room.batch.free == 2
    socket.send(json.dumps(CONFIG))
    say(socket, "input.text", text=TEXT)
    say(socket, "input.done")
    assert hear(socket)[0] == alone(server, TEXT)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (["no json"], "the body is not JSON"),
        ([{"type": "input.text", "text": "a"}], "send session.config first"),
        ([{"type": "hello"}], "type='hello' is none of session.config, input.text, input.done"),
        ([{"type": "session.config", "volume": 3}], "there is no argument 'volume'"),
        ([{"type": "session.config", "input": "a"}], "session.config takes no 'input'"),
        ([CONFIG, {"type": "input.text", "text": 3}], "input.text takes 'text', a string"),
        ([CONFIG, {"type": "input.text", "text": "G\0o\0"}], "the text has a NUL character at position 1"),
        ([CONFIG, {"type": "input.text", "text": "a" * 2001}], "the text has 2001 characters"),
        ([{**CONFIG, "voice": "bob"}, {"type": "input.text", "text": "a"}], "speaker 'bob' is not in this model"),
        ([CONFIG, {"type": "input.text", "text": TEXT}, CONFIG], "an utterance is being spoken"),
    ],
)
def test_a_mistake_is_a_message_and_the_connection_goes_on(server, socket, messages, told):
    for message in messages:
        socket.send(message if isinstance(message, str) else json.dumps(message))
    _, heard = hear(socket, "error")
    assert told in heard[-1]["message"]
    say(socket, "input.cancel")
    hear(socket)
    socket.send(json.dumps(CONFIG))
    say(socket, "input.text", text=TEXT)
    say(socket, "input.done")
    assert hear(socket)[0] == alone(server, TEXT)


def test_text_beyond_the_limit_is_not_kept(server, socket):
    socket.send(json.dumps(CONFIG))
    say(socket, "input.text", text="Good ")
    audio = b""
    for _ in range(3):
        say(socket, "input.text", text="x" * 1997)
        heard, messages = hear(socket, "error")
        audio += heard
        assert messages[-1]["code"] == "text_too_long" and "has 2002 characters" in messages[-1]["message"]
    say(socket, "x" * 5000)
    heard, messages = hear(socket, "error")
    assert "5000 characters" in messages[-1]["message"]
    say(socket, "input.text", text="morning.")
    say(socket, "input.done")
    assert audio + heard + hear(socket)[0] == alone(server, "Good morning.")


def test_a_client_that_goes_away(server):
    room = server.house.engine.rooms["custom_voice"]
    with client.connect(f"{server.url.replace('http', 'ws')}/v1/audio/speech/stream") as one:
        one.send(json.dumps({**CONFIG, "max_new_tokens": 900}))
        say(one, "input.text", text=f"{TEXT} " * 20)
        hear(one, "audio.start")
        assert isinstance(one.recv(timeout=30), bytes)
        assert room.speaking
    until = time.monotonic() + 10
    while room.speaking and time.monotonic() < until:
        time.sleep(0.005)
    assert room.batch.free == 2


def test_a_page_elsewhere_may_not_connect(server):
    with pytest.raises(Exception, match="403"):
        client.connect(f"{server.url.replace('http', 'ws')}/v1/audio/speech/stream", origin="https://evil.example")


UGLY = (
    "\ufeffIs \u2067it\u2069 won\u00ad\r\n derful,\r\n\u200b my 🎉\ufe0e👩\u200d💻 frie\u200cnd\u00ad?\tYes\x07.\u200e"
)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_what_nobody_sees_is_not_spoken_wherever_it_is_cut(server, socket, size):
    """Characters outside the first plane are cut in two as well, as a page's script does that counts in UTF-16."""
    units = UGLY.encode("utf-16-le")
    socket.send(json.dumps(CONFIG))
    for first in range(0, len(units), 2 * size):
        say(socket, "input.text", text=units[first : first + 2 * size].decode("utf-16-le", "surrogatepass"))
    say(socket, "input.done")
    audio, messages = hear(socket)
    assert [message["type"] for message in messages] == ["audio.start", "audio.done", "session.done"]
    assert audio == alone(server, clean(UGLY))


@pytest.mark.parametrize("text", ["", " \n", "...", "🎉", "\u200b", "\ud83c"])
def test_a_text_without_words_is_not_spoken(server, socket, text):
    socket.send(json.dumps(CONFIG))
    say(socket, "input.text", text=text)
    say(socket, "input.done")
    audio, messages = hear(socket)
    assert not audio and "there is nothing to say" in messages[1]["message"]
    assert [message["type"] for message in messages] == ["audio.start", "error", "audio.done", "session.done"]
    say(socket, "input.text", text="... ")  # and these wait for a word
    say(socket, "input.text", text=TEXT)
    say(socket, "input.done")
    assert hear(socket)[0] == alone(server, f"... {TEXT}")
