"""The server: every answer is the speech of its request alone, and every mistake is one sentence."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_server import FRAMES, TEXT, Running, client_of, models, running
from test_encode import RATE, decoded

from qwen3tts_np.errors import RequestError
from qwen3tts_np.ops import Pcm
from qwen3tts_np.server import client as client_module
from qwen3tts_np.server import models as models_module
from qwen3tts_np.server.answer import begin_answer
from qwen3tts_np.server.outlet import End, Outlet
from qwen3tts_np.server.refusal import Refusal
from qwen3tts_np.server.schema import parse_speech
from qwen3tts_np.speech import live
from qwen3tts_np.speech.script import read_script

pytest.importorskip("httpx")
for _needed in ("fastapi", "uvicorn", "python_multipart", "websockets"):
    pytest.importorskip(_needed)

SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"
LONG = "One more sentence, which is said to take some time. " * 12


@pytest.fixture(scope="module")
def server(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    voices = tmp_path_factory.mktemp("registered")
    with running(models(synthetic), places=3, queue=4, max_text=5000, voices=voices) as one:
        yield one


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[Any]:
    with client_of(server.url) as client:
        yield client


def clip(seconds: float = 4.0) -> bytes:
    rng = np.random.default_rng(1)
    t = np.arange(round(16_000 * seconds)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(2 * np.pi * 3 * t)) + rng.normal(0, 0.01, len(t))
    content = io.BytesIO()
    soundfile.write(content, wave, 16_000, format="WAV")
    return content.getvalue()


def samples_of(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return np.frombuffer(response.content, "<i2")


# --- answers --------------------------------------------------------------------------------------


def test_an_answer_is_the_speech_of_the_request_alone(server, http):
    for arguments in ({}, {"voice": "ryan"}, {"seed": 8, "temperature": 0.7}, {"do_sample": False, "language": "en"}):
        response = http.post(SPEECH, json=server.body(**arguments))
        np.testing.assert_array_equal(samples_of(response), server.alone(**arguments))
    assert response.headers["x-seed"] == "7"
    assert response.headers["x-sample-rate"] == str(RATE)
    assert response.headers["transfer-encoding"] == "chunked"


def test_a_drawn_seed_says_it_again(server, http):
    first = http.post(SPEECH, json={**server.body(), "seed": None})
    again = http.post(SPEECH, json=server.body(seed=int(first.headers["x-seed"])))
    assert first.content == again.content


def test_a_text_of_several_pieces(server, http):
    arguments = {"input": LONG, "max_new_tokens": 6}
    response = http.post(SPEECH, json=server.body(**arguments))
    np.testing.assert_array_equal(samples_of(response), server.alone(**arguments))


def test_marks_are_read_where_that_is_asked_for(server, http):
    text = "Hello [pause 0.2s] there. [voice vivian] Yes."
    body = server.body(input=text, markup=True, voice="ryan")
    samples = samples_of(http.post(SPEECH, json=body))
    model = server.house.models["custom_voice"].model
    script = read_script(text, markup=True)
    expected = live.stream(model, script, seed=7, speaker="ryan", runaway_guard=True, max_new_tokens=FRAMES + 1)
    np.testing.assert_array_equal(samples, np.concatenate(list(expected)))


def test_speed_is_the_tempo_of_the_command_line(server, http):
    pytest.importorskip("av")
    samples = samples_of(http.post(SPEECH, json=server.body(speed=2)))
    np.testing.assert_array_equal(samples, server.alone(tempo=2))


def test_without_the_library_another_speed_is_refused(server, http, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    answer = http.post(SPEECH, json=server.body(speed=2))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"].endswith("needs av, which is not installed: pip install 'qwen3tts-np[tempo]'")
    assert error["param"] == "speed"


@pytest.mark.parametrize("name", ["mp3", "opus", "flac", "wav", None])
def test_formats(server, http, name):
    response = http.post(SPEECH, json={**server.body(response_format=name)})
    if response.status_code == 400:
        pytest.skip(response.text)
    kind = {"opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav"}.get(name, "audio/mpeg")
    assert response.headers["content-type"] == kind
    alone = server.alone()
    heard = decoded(name or "mp3", response.content, len(alone))
    if name in ("wav", "flac"):
        np.testing.assert_array_equal(heard, alone)
    else:
        assert abs(len(heard) - len(alone)) <= 4000


def test_many_at_once_get_what_they_would_have_had_alone(server):
    asked = [{"seed": seed, "input": text} for seed in range(3) for text in ("So.", "Hello there.")]
    expected = [server.alone(**arguments) for arguments in asked]
    with ThreadPoolExecutor(6) as pool, client_of(server.url) as client:
        responses = list(pool.map(lambda a: client.post(SPEECH, json=server.body(**a)), asked))
    for response, samples in zip(responses, expected, strict=True):
        np.testing.assert_array_equal(samples_of(response), samples)


def test_a_short_request_is_finished_while_a_long_one_runs(server, http):
    ends = {}

    def ask(name: str, **arguments: Any) -> None:
        assert http.post(SPEECH, json=server.body(**arguments)).status_code == 200
        ends[name] = time.monotonic()

    long = threading.Thread(target=ask, args=("long",), kwargs={"input": LONG, "max_new_tokens": 40})
    long.start()
    while not server.house.engine.rooms["custom_voice"].speaking:
        time.sleep(0.001)
    ask("short", input="So.", max_new_tokens=4)
    long.join()
    assert ends["short"] < ends["long"]


@pytest.mark.parametrize("name", ["mp3", "opus", "flac"])
def test_the_first_byte_comes_before_a_fifth_of_the_speech_is_read(server, monkeypatch, name):
    """Counted in samples that the encoder has got: in time, the whole speech of a tiny model is a moment."""
    try:
        asked = parse_speech(server.body(input=LONG, max_new_tokens=120, response_format=name), server.house.settings)
    except Refusal as e:
        pytest.skip(str(e))
    lengths, read = [], Outlet.next

    async def counted(outlet: Outlet) -> Pcm | End:
        item = await read(outlet)
        lengths.append(0 if isinstance(item, End) else len(item))
        return item

    async def samples_before_the_first_byte() -> int:
        answer = await begin_answer(server.house, asked, asyncio.Event().wait)
        blocks = answer.chunks()
        assert await anext(blocks)
        first = sum(lengths)
        async for _ in blocks:
            continue
        return first

    monkeypatch.setattr(Outlet, "next", counted)
    assert 0 < asyncio.run(samples_before_the_first_byte()) < sum(lengths) / 5


def test_events(server, http):
    response = http.post(SPEECH, json=server.body(stream_format="sse"))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds == ["speech.audio.delta"] * (len(kinds) - 1) + ["speech.audio.done"]
    assert len(kinds) > 3
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    np.testing.assert_array_equal(np.frombuffer(audio, "<i2"), server.alone())
    usage = events[-1]["usage"]
    assert usage["output_tokens"] == FRAMES
    assert usage["total_tokens"] == usage["input_tokens"] + FRAMES
    assert f"event: {kinds[-1]}\n" in response.text


def test_one_who_goes_away_frees_the_place(server, http):
    room = server.house.engine.rooms["custom_voice"]
    body = server.body(input=LONG * 7, max_new_tokens=100)
    before = disconnections(http)
    with http.stream("POST", SPEECH, json=body) as response:
        next(response.iter_raw())
    until = time.monotonic() + 10
    while disconnections(http) == before or room.speaking or room.between or room.waiting:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert disconnections(http) == before + 1
    assert room.batch.free == 3


def disconnections(http: Any) -> int:
    found = re.search(r"^qwen3tts_np_disconnections_total (\d+)$", http.get("/metrics").text, re.M)
    assert found
    return int(found[1])


def test_the_official_client_works_unchanged(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked = {"model": "custom_voice", "voice": "ryan", "input": TEXT, "response_format": "pcm"}
    extra = {"seed": 7, "max_new_tokens": FRAMES + 1}
    alone = server.alone(voice="ryan").tobytes()
    assert client.audio.speech.create(**asked, extra_body=extra).read() == alone
    with client.audio.speech.with_streaming_response.create(**asked, extra_body=extra) as response:
        assert b"".join(response.iter_bytes()) == alone
    sse = {**asked, "stream_format": "sse"}
    with client.audio.speech.with_streaming_response.create(**sse, extra_body=extra) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == alone
    with pytest.raises(openai.BadRequestError, match="speaker 'alloy' is not in this model") as refused:
        client.audio.speech.create(**{**asked, "voice": "alloy"})
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="model 'tts-1' is not served here"):
        client.audio.speech.create(**{**asked, "model": "tts-1"})
    assert [model.id for model in client.models.list()] == ["custom_voice", "base"]


def test_a_reader_who_falls_behind_waits_without_a_place(server, http, monkeypatch):
    """Its next piece is spoken when it has read, and it holds up nobody meanwhile."""
    monkeypatch.setattr(client_module, "UNREAD_SECONDS", 0.01)
    house, arguments = server.house, {"input": LONG, "max_new_tokens": 6}
    room, given = house.engine.rooms["custom_voice"], server.body(**arguments)
    asked = parse_speech(given, house.settings)

    async def read_late() -> bytes:
        answer = await begin_answer(house, asked, asyncio.Event().wait)
        while not (room.between and room.resting):
            await asyncio.sleep(0.005)
        assert room.batch.free == 3
        assert len(answer.client.pieces) == 1
        assert http.post(SPEECH, json=server.body()).status_code == 200
        return b"".join([block async for block in answer.chunks()])

    assert asyncio.run(asyncio.wait_for(read_late(), 60)) == server.alone(**arguments).tobytes()


def test_a_reader_who_reads_no_more_is_given_up(server, monkeypatch):
    monkeypatch.setattr(client_module, "UNREAD_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "READ_SECONDS", 0.05)
    house, room = server.house, server.house.engine.rooms["custom_voice"]
    asked = parse_speech(server.body(input=LONG, max_new_tokens=6), house.settings)

    async def never_read() -> None:
        await begin_answer(house, asked, asyncio.Event().wait)
        while not room.between:
            await asyncio.sleep(0.005)
        while room.between:
            await asyncio.sleep(0.06)
            house.engine.nudge()

    asyncio.run(asyncio.wait_for(never_read(), 60))
    assert not (room.speaking or room.waiting)


def test_nobody_waits_for_clips_that_others_fetch(synthetic, monkeypatch):
    """More of them than the event loop has threads, which encode what is spoken."""
    answered, base = threading.Event(), models(synthetic)["base"]

    def slow(url: str, public: bool) -> bytes:
        assert answered.wait(60)
        raise RequestError(f"{url} is gone")

    monkeypatch.setattr(models_module, "read_url", slow)
    with running({"base": base}, allow_fetch=True) as open_server, client_of(open_server.url) as client:
        inline = {"ref_audio": base64.b64encode(clip(1.0)).decode(), "x_vector_only_mode": True}
        far = {"ref_audio": "http://clips.example/a.wav", "x_vector_only_mode": True}
        with ThreadPoolExecutor(40) as pool:
            fetching = [
                pool.submit(client.post, SPEECH, json=open_server.body(model="base", voice=None, **far))
                for _ in range(40)
            ]
            try:
                spoken = client.post(SPEECH, json=open_server.body(model="base", voice=None, **inline), timeout=30)
            finally:
                answered.set()
            assert spoken.status_code == 200, spoken.text
            assert {response.result().status_code for response in fetching} == {400}


def test_those_who_speak_do_not_wait_for_a_voice_that_is_made(server, http):
    voice = {"name": "from a long clip", "ref_text": "What Ada says in a clip that is long."}
    content, took = clip(20.0), []
    with ThreadPoolExecutor(1) as pool, client_of(server.url) as other:
        began = time.monotonic()
        making = pool.submit(other.post, VOICES, data=voice, files={"audio_sample": content})
        while not making.done():
            start = time.monotonic()
            samples_of(http.post(SPEECH, json=server.body(max_new_tokens=3)))
            took.append(time.monotonic() - start)
        made = time.monotonic() - began
    making.result().raise_for_status()
    assert len(took) > 1
    assert max(took) < made / 2
    # Its reference of 250 frames is decoded in slices, before its first sound.
    arguments = {"model": "base", "max_new_tokens": 9}
    heard = samples_of(http.post(SPEECH, json=server.body(**arguments, voice=voice["name"])))
    item = server.house.voices.get(voice["name"]).item
    np.testing.assert_array_equal(heard, server.alone(**arguments, voice_clone_prompt=item))
    http.delete(f"{VOICES}/{voice['name']}").raise_for_status()


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "param", "told"),
    [
        ({"input": None}, 400, "input", "there is no 'input', the text to speak"),
        ({"input": 3}, 400, "input", "input=3 must be a string"),
        ({"input": "..."}, 400, "input", "there is nothing to say: the text has neither letters nor digits"),
        ({"input": "a" * 5001}, 422, "input", r"the text has 5001 characters and this server speaks at most 5000"),
        ({"model": "tts-1"}, 404, "model", "model 'tts-1' is not served here; there is custom_voice, base"),
        ({"voice": "bob"}, 400, None, "speaker 'bob' is not in this model; it has "),
        ({"voice": 3}, 400, "voice", r'voice=3 must be a name, or \{"id": name\}'),
        ({"response_format": "aac"}, 400, "response_format", "'aac' cannot be made: libsndfile has no encoder"),
        ({"speed": 5}, 400, "speed", r"speed=5 must be a number from 0\.25 to 4"),
        ({"speed": True}, 400, "speed", "speed=True must be a number"),
        ({"markup": "yes"}, 400, "markup", "markup='yes' must be true or false"),
        ({"markup": True, "input": "Hi [pause 1h]."}, 400, "input", "a pause lasts 0 to 60 s"),
        ({"markup": True, "input": "[voice bob] Hi."}, 400, None, "voice 'bob' is not known; there is "),
        ({"markup": True, "input": "<speak><audio/>Hi</speak>"}, 400, "input", "has <audio>; <speak>, <p>, <s>"),
        ({"stream_format": "x"}, 400, "stream_format", "stream_format='x' must be 'audio' or 'sse'"),
        ({"volume": 1}, 400, "'volume'", "there is no argument 'volume'; the arguments are input, model, voice,"),
        ({"seed": 1.5}, 400, "seed", "seed=1.5 must be a whole number"),
        ({"temperature": -1}, 400, None, "temperature=-1.* must be a finite number above 0"),
        ({"do_sample": "no"}, 400, "do_sample", "do_sample='no' must be true or false"),
        ({"language": "klingon"}, 400, None, "klingon"),
        ({"ref_audio": "AAAA"}, 400, "ref_audio", "ref_audio needs a base model; custom_voice is a custom_voice model"),
        ({"model": "base"}, 400, "voice", "a base model has no voice of its own: give a registered 'voice'"),
        ({"model": "base", "voice": "ada"}, 404, "voice", "voice 'ada' is not registered; there is "),
        ({"model": "base", "instructions": "x"}, 400, "instructions", "follows no instructions"),
        ({"model": "base", "ref_audio": "!"}, 400, "ref_audio", "ref_audio is neither base64 nor a data URL of audio"),
        ({"model": "base", "ref_audio": "AAAA"}, 400, None, "the audio file cannot be read: libsndfile says"),
        ({"model": "base", "ref_audio": "http://127.0.0.1/a"}, 400, "ref_audio", "this server fetches nothing"),
    ],
)
def test_a_mistake_is_one_sentence(server, http, arguments, status, param, told):
    response = http.post(SPEECH, json=server.body(**arguments))
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert re.search(told, error["message"]), error
    assert error["param"] == param
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is a JSON list; expected an object"),
        (b'{"input": NaN}', "NaN is not a number in JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "the body is not JSON"),
        (b'{"input": [' + b"[]," * 1_000_001 + b"0]}", "more than 1000000 values"),
        (b'{"input": "\xff"}', "the body is not JSON"),
    ],
)
def test_what_is_no_request(http, content, told):
    response = http.post(SPEECH, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]


def test_too_large_and_of_another_type(http):
    headers = {"Content-Type": "application/json"}
    for body in (b" " * (15 << 20), iter([b" " * (1 << 20)] * 15)):  # announced, and in chunks
        response = http.post(SPEECH, content=body, headers=headers)
        assert response.status_code == 413, response.text
    response = http.post(SPEECH, content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert http.get("/nothing").json()["error"]["type"] == "not_found_error"
    assert http.get(SPEECH).status_code == 405


def test_a_full_queue_asks_to_come_again(server, http):
    room = server.house.engine.rooms["custom_voice"]
    body = server.body(input=LONG, max_new_tokens=100)
    with ThreadPoolExecutor(7) as pool, client_of(server.url) as client:
        opened = [client.send(client.build_request("POST", SPEECH, json=body), stream=True) for _ in range(3)]
        waiting = [pool.submit(client.post, SPEECH, json=server.body(max_new_tokens=3)) for _ in range(4)]
        while len(room.waiting) < 4:
            time.sleep(0.005)
        refused = http.post(SPEECH, json=server.body())
        for response in opened:
            response.close()
        assert [future.result().status_code for future in waiting] == [200] * 4
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")


# --- voices ---------------------------------------------------------------------------------------


def test_voices_are_registered_spoken_with_handed_out_and_deleted(server, http):
    data = {"name": "Ada L.", "ref_text": "What Ada says.", "speaker_description": "calm", "consent": "hers"}
    response = http.post(VOICES, data=data, files={"audio_sample": ("ada.wav", clip())})
    assert response.status_code == 400  # a name ends with a letter or a digit
    data["name"] = "Ada 2"
    response = http.post(VOICES, data={**data, "name": "Ada 2"}, files={"audio_sample": ("ada.wav", clip())})
    assert response.status_code == 200, response.text
    voice = response.json()["voice"]
    assert (voice["name"], voice["ref_text"], voice["speaker_description"]) == ("Ada 2", "What Ada says.", "calm")
    listed = http.get(VOICES).json()
    assert "Ada 2" in listed["voices"]
    assert [voice["name"] for voice in listed["uploaded_voices"]] == ["Ada 2"]

    spoken = http.post(SPEECH, json={**server.body(voice={"id": "Ada 2"}), "model": None})
    item = server.house.voices.get("Ada 2").item
    alone = server.alone(model="base", voice_clone_prompt=item)
    np.testing.assert_array_equal(samples_of(spoken), alone)
    encoded = base64.b64encode(clip()).decode()
    inline = {"model": None, "ref_audio": f"data:audio/wav;base64,{encoded}", "ref_text": "What Ada says."}
    np.testing.assert_array_equal(samples_of(http.post(SPEECH, json=server.body(**inline))), alone)

    again = http.post(VOICES, data=data, files={"audio_sample": ("ada.wav", clip())})
    assert again.status_code == 409
    saved = http.get(f"{VOICES}/Ada 2")
    assert http.post(VOICES, data={"name": "copy"}, files={"voice_file": saved.content}).status_code == 200
    assert http.get(f"{VOICES}/copy").content == saved.content
    for name in ("Ada 2", "copy"):
        assert http.delete(f"{VOICES}/{name}").json()["success"]
        assert http.delete(f"{VOICES}/{name}").status_code == 404
    assert http.get(VOICES).json()["uploaded_voices"] == []


@pytest.mark.parametrize(
    "name",
    ["default", "CON", "nul.txt", "", "../x", "a/b", "a\\b", ".a", "a.", "x" * 65, "a\0b", "ryan", "a\nb", "a:b"],
)
def test_a_name_stays_in_the_folder(http, name):
    response = http.post(VOICES, data={"name": name}, files={"audio_sample": clip(1.0)})
    assert response.status_code in (400, 409), response.text
    assert http.get(VOICES).json()["uploaded_voices"] == []


@pytest.mark.parametrize(
    ("data", "files", "status", "told"),
    [
        ({}, {"audio_sample": b"x"}, 400, "there is no 'name' for the voice"),
        ({"name": "a"}, {"other": b"x"}, 400, "there is no field 'other'; the fields are name, audio_sample"),
        ({"name": "a"}, {"audio_sample": b"x", "voice_file": b"x"}, 400, "give one of 'audio_sample', a clip, and"),
        ({"name": "a"}, {"audio_sample": b"no sound"}, 400, "the audio file cannot be read"),
        ({"name": "a"}, {"voice_file": b"no voice"}, 400, "voice_file"),
        ({"name": "a", "model": "custom_voice"}, {"audio_sample": clip(1.0)}, 400, "a voice of a clip needs a base"),
        ({"name": "a"}, {"audio_sample": bytes((10 << 20) + 1)}, 413, "the clip has 10485761 bytes and the limit is"),
        ({"name": "a"}, {"audio_sample": clip(121.0)}, 422, "the clip lasts more than 120 s, which is the limit"),
    ],
)
def test_what_cannot_be_registered(http, data, files, status, told):
    response = http.post(VOICES, data=data, files=files)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]["message"]
    assert http.get(VOICES).json()["uploaded_voices"] == []


def test_a_folder_of_voices_that_others_have_changed(server, http):
    """Names that no voice can have are none, and no voices are there where the folder has gone; it may come again."""
    folder = server.house.voices._folder
    assert http.post(VOICES, data={"name": "stays"}, files={"audio_sample": clip()}).status_code == 200
    content = (folder / "stays.safetensors").read_bytes()
    for name in (b"\xff\xfe", b"a!", b".b", b"c\n"):
        with suppress(OSError):  # some systems have no such names
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".safetensors")).write_bytes(content)
    (folder / "folder.safetensors").mkdir()
    (folder / "damaged.safetensors").write_bytes(content[:50])
    listed = http.get(VOICES).json()
    assert [voice["name"] for voice in listed["uploaded_voices"]] == ["stays"]
    refused = http.post(SPEECH, json=server.body(voice="nobody", model="base"))
    assert refused.status_code == 404 and "there is damaged, folder, stays" in refused.json()["error"]["message"]
    gone = folder.with_name("elsewhere")
    folder.rename(gone)
    try:
        assert http.get(VOICES).json()["uploaded_voices"] == []
        assert http.get(f"{VOICES}/stays").status_code == http.delete(f"{VOICES}/stays").status_code == 404
        assert http.post(SPEECH, json=server.body(voice="stays", model="base")).status_code == 404
        told = http.post(VOICES, data={"name": "new"}, files={"audio_sample": clip()})
        assert told.status_code == 503 and "cannot be written" in told.json()["error"]["message"]
    finally:
        gone.rename(folder)
    shutil.rmtree(folder)
    folder.mkdir()


# --- about ----------------------------------------------------------------------------------------


def test_models_health_and_metrics(server, http):
    listed = http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["custom_voice", "base"]
    assert http.get("/v1/models/base").json()["kind"] == "base"
    assert http.get("/v1/models/other").status_code == 404
    assert http.get("/health").json() == {"status": "ok"}
    text = http.get("/metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) qwen3tts_np_\w+ .+|qwen3tts_np_\w+(\{.*\})? [\d.e+-]+", line), line
    assert 'qwen3tts_np_places{model="base"} 3' in text
    assert 'qwen3tts_np_requests_total{path="/v1/audio/speech",status="200"}' in text
    assert http.get("/").headers["content-type"] == "text/html; charset=utf-8"


def test_keys_hosts_and_origins(server, synthetic):
    served = {"custom_voice": server.house.models["custom_voice"].model}
    with running(served, places=1, api_key="secret", origins=("https://page.example",)) as guarded:
        with client_of(guarded.url) as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get("/v1/models", headers={"Authorization": "Basic secret"}).status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            assert client.get("/v1/models").status_code == 200
            assert client.get("/v1/models", headers={"Origin": guarded.url}).status_code == 200
            allowed = client.get("/v1/models", headers={"Origin": "https://page.example"})
            assert allowed.headers["access-control-allow-origin"] == "https://page.example"
            assert client.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403
            assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
            asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
            assert client.options(SPEECH, headers=asked).status_code == 200
            response = client.post(VOICES, data={"name": "a"})
            assert response.status_code == 415  # an empty form is none
            kept = client.post(VOICES, data={"name": "a"}, files={"audio_sample": b"x"})
            del client.headers["Authorization"]
            assert client.get("/health").status_code == 200
            assert client.get("/").status_code == 200
        assert kept.json()["error"]["message"] == "this server keeps no voices: start it with --voices DIR"


def test_a_request_that_is_broken_off_in_its_head(server, http):
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
    assert http.get("/health").status_code == 200


def test_what_can_be_read_has_a_head(http):
    for path in ("/", "/health", "/metrics", "/v1/models", "/v1/models/base", VOICES):
        answer = http.head(path)
        assert answer.status_code == 200 and not answer.content
        assert answer.headers["content-type"] == http.get(path).headers["content-type"]
    assert http.head(SPEECH).status_code == 405


def test_a_body_that_stops_coming_is_given_up(server, monkeypatch):
    monkeypatch.setattr("qwen3tts_np.server.app.READ_SECONDS", 0.2)
    head = "POST /v1/audio/speech HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 99"
    begun = "\r\n".join([*head, "", "{"]).encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.settimeout(30)
        connection.sendall(begun)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"nothing of the body has come for 0 s" in answer
