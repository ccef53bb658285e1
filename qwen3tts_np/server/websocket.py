"""Speech of a text that is still being written, over a WebSocket; messages as vllm-omni names them.

One utterance is what comes between ``session.config`` (or the end of the last utterance) and ``input.done``. It is one
token-level session (``model.open``): speech begins as soon as the text has settled, and does not wait for sentences.
With ``markup`` it is the text of an answer of the endpoint, spoken once it is complete: voices and pauses make it a
text of several pieces, and a mark can change what is before it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from ..audio.encode import encoder
from ..shown import shortened
from .answer import House, as_refusal, enter, readable
from .client import ArrivingClient
from .models import Served, choose, kinds_for
from .outlet import End, Outlet
from .refusal import Refusal
from .schema import SpeechRequest, check_text, parse_speech, read_json
from .settings import READ_SECONDS

MESSAGES = ("session.config", "input.text", "input.done", "input.cancel", "session.close")


async def speak_while_written(socket: WebSocket, house: House) -> None:
    """Serve one connection."""
    await socket.accept()
    session = Session(socket, house)
    try:
        more = True
        while more:
            try:
                more = await session.message(await asyncio.wait_for(_next_text(socket), READ_SECONDS))
            except asyncio.TimeoutError:
                more = session.speaks  # it is our turn
        await socket.close()
    except WebSocketDisconnect:
        if session.speaks:
            house.metrics.left()
    finally:
        await session.cancel()


@dataclass
class Utterance:
    """A text that is arriving, and the task that sends its speech."""

    served: Served
    arguments: Mapping[str, Any]  # that name its voice
    outlet: Outlet
    client: ArrivingClient | None  # None with markup
    began: float
    complete: asyncio.Event  # set when the text is
    text: str = ""
    entered: bool = False
    sending: asyncio.Task[None] | None = None


async def _next_text(socket: WebSocket) -> str:
    """The next message, which some clients send as bytes. Trap: ``receive_text`` fails for those."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    return text if isinstance(text, str) else message["bytes"].decode("utf-8", errors="replace")


class Session:
    """The state of one connection."""

    def __init__(self, socket: WebSocket, house: House) -> None:
        self._socket, self._house = socket, house
        self._asked: SpeechRequest | None = None
        self._utterance: Utterance | None = None
        self._number = 0  # of the utterance

    @property
    def speaks(self) -> bool:
        """Whether the text of an utterance is complete and its speech is not."""
        return self._utterance is not None and self._utterance.complete.is_set()

    async def message(self, text: str) -> bool:
        """Act on one message; whether more may come. A mistake is an ``error`` message, and the connection goes on."""
        try:
            message = read_json(text.encode("utf-8", errors="surrogatepass"))
            return await self._act(message.pop("type", None), message)
        except Exception as e:
            refusal = as_refusal(e)
            if refusal is None:
                raise
            await self._send_error(refusal)
            return True

    async def cancel(self) -> None:
        """End what is being spoken."""
        utterance, self._utterance = self._utterance, None
        if utterance is None:
            return
        utterance.outlet.left = True
        self._house.engine.nudge()
        if utterance.sending is not None:
            utterance.sending.cancel()
            await asyncio.wait({utterance.sending})

    async def _act(self, kind: Any, message: Mapping[str, Any]) -> bool:
        if kind == "session.config":
            await self._configure(message)
        elif kind == "input.text":
            await self._add(message)
        elif kind == "input.done":
            await self._finish()
        elif kind == "input.cancel":
            await self.cancel()
            await self._end(total_sentences=0, cancelled=True)
        elif kind == "session.close":
            return False
        else:
            raise Refusal(400, f"type={shortened(kind)} is none of {', '.join(MESSAGES)}", "type")
        return True

    async def _configure(self, message: Mapping[str, Any]) -> None:
        if self._utterance is not None:
            raise Refusal(400, "an utterance is being spoken: send input.done or input.cancel before session.config")
        asked = parse_speech({"input": "", "response_format": "pcm", **message}, self._house.settings)
        if asked.text:
            raise Refusal(400, "session.config takes no 'input': send it as input.text", "input")
        self._asked = asked

    async def _add(self, message: Mapping[str, Any]) -> None:
        text = message.get("text")
        if not isinstance(text, str) or len(message) != 1:
            raise Refusal(400, "input.text takes 'text', a string, and nothing else", "text")
        if self.speaks:
            raise Refusal(400, "the last utterance is still being spoken: wait for session.done, or send input.cancel")
        utterance = self._utterance or await self._open()
        complete = utterance.text + text
        check_text(complete, self._house.settings)
        utterance.text = complete
        if (client := utterance.client) is not None:
            await self._in_engine(lambda: client.feed(text), utterance, client)

    async def _finish(self) -> None:
        utterance = self._utterance
        if utterance is None:
            await self._end(total_sentences=0)
            return
        if self.speaks:
            raise Refusal(400, "input.done came twice")

        if (client := utterance.client) is not None:
            await self._in_engine(client.finish, utterance, client)
        else:
            await self._enter_complete(utterance)
        utterance.complete.set()

    async def _in_engine(self, act: Callable[[], None], utterance: Utterance, client: ArrivingClient) -> None:
        """Act in the engine's thread, and wait for a place there as soon as there is something to say."""

        def run() -> None:
            act()
            if not utterance.entered and client.ready:
                self._house.engine.rooms[utterance.served.name].enter(client)
                utterance.entered = True

        await asyncio.wrap_future(self._house.engine.call(run))

    async def _enter_complete(self, utterance: Utterance) -> None:
        """A text with marks waits for a place; where it cannot be spoken it is over."""
        assert self._asked is not None
        asked, house, served = replace(self._asked, text=utterance.text), self._house, utterance.served
        utterance.began = time.monotonic()
        try:
            script = await asyncio.to_thread(readable, served, asked, house)
            entered = house.engine.call(
                lambda: enter(house, served, asked, script, utterance.arguments, utterance.outlet)
            )
            await asyncio.wrap_future(entered)
        except Exception as e:
            refusal = as_refusal(e)
            if refusal is None:
                raise
            await self.cancel()
            await self._send_error(refusal)
            await self._end(total_sentences=0)

    async def _open(self) -> Utterance:
        """Begin an utterance."""
        asked, house = self._asked, self._house
        if asked is None:
            raise Refusal(400, "send session.config first; it may be empty but for its type")
        served = choose(house.models, asked.model, kinds_for(asked, house.voices))
        if served.of_demo and not asked.markup:
            raise Refusal(400, "the demo voice reads complete sentences only: POST /v1/audio/speech speaks them")
        arguments, _ = await house.voice_of(served, asked)
        outlet = Outlet(house.engine.nudge)
        sampling = {name: value for name, value in asked.sampling.items() if name != "non_streaming_mode"}

        def prepare() -> ArrivingClient:
            voice = served.model.voice(**arguments)
            text = served.model.arriving(voice, language=asked.language, seed=asked.seed, **sampling)
            return ArrivingClient(served.model, text, outlet, asked.speed, house.settings.lexicon)

        client = None if asked.markup else (await asyncio.wrap_future(house.engine.call(prepare)))[0]
        rate = served.model.speech_tokenizer.get_output_sample_rate()
        utterance = Utterance(served, arguments, outlet, client, time.monotonic(), asyncio.Event())
        utterance.sending = asyncio.create_task(self._speak(utterance, asked.response_format, rate))
        self._utterance = utterance
        return utterance

    async def _speak(self, utterance: Utterance, audio_format: str, rate: int) -> None:
        """Send the speech of an utterance as it is made."""
        one, outlet, metrics = encoder(audio_format, rate), utterance.outlet, self._house.metrics
        of = {"utterance_index": self._number, "sentence_index": 0}
        sent = samples = 0
        try:
            await self._send("audio.start", **of, format=audio_format, sample_rate=rate)
            while not isinstance(item := await outlet.next(), End):
                if not samples:
                    metrics.first_audio(time.monotonic() - utterance.began)
                samples += len(item)
                sent += await self._send_bytes(await asyncio.to_thread(one.add, item))
            if item.error is not None:
                refusal = as_refusal(item.error) or Refusal(500, "a defect of the server; its log has the details")
                await self._send_error(refusal)
            else:
                sent += await self._send_bytes(await asyncio.to_thread(one.finish))
                cut = sum(not piece.complete for piece in item.pieces)
                metrics.answer(time.monotonic() - utterance.began, samples / rate, cut)
            complete = item.error is None and all(piece.complete for piece in item.pieces)
            await self._send("audio.done", **of, total_bytes=sent, error=item.error is not None, complete=complete)
            await utterance.complete.wait()  # what is written after the end of the speech is not spoken
            self._utterance = None
            await self._end(total_sentences=1)
        except WebSocketDisconnect:
            outlet.left = True

    async def _end(self, **fields: Any) -> None:
        """The utterance is over."""
        number, self._number = self._number, self._number + 1
        await self._send("session.done", utterance_index=number, **fields)

    async def _send_error(self, refusal: Refusal) -> None:
        await self._send("error", message=refusal.message, param=refusal.param, code=refusal.code)

    async def _send_bytes(self, content: bytes) -> int:
        if content:
            await self._socket.send_bytes(content)
        return len(content)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_text(json.dumps({"type": kind, **fields}))
