"""A spoken answer: prepared in the engine, read from its outlet, encoded, and sent as it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from ..audio.encode import encoder
from ..audio.url import is_url
from ..errors import OutputError, QwenTTSError, RequestError
from ..ops import Pcm
from ..speech.live import live_text
from ..speech.script import Script, read_script
from . import sse
from .client import TextClient
from .engine import Engine
from .maker import VoiceMaker
from .metrics import Metrics
from .models import Served, cast_of, choose, kinds_for, voice_arguments
from .outlet import End, Outlet
from .refusal import Refusal
from .schema import SpeechRequest
from .settings import MOST_PACKET, Settings
from .voices import VoiceFolder

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class House:
    """All that answers share."""

    models: dict[str, Served]
    voices: VoiceFolder
    engine: Engine
    maker: VoiceMaker
    metrics: Metrics
    settings: Settings

    async def voice_of(self, served: Served, asked: SpeechRequest) -> tuple[dict[str, Any], list[str]]:
        """What the model takes to find the voice that is asked for, and warnings about it. A clip becomes a voice."""
        read = partial(voice_arguments, served, asked, self.voices, self.settings)
        elsewhere = asked.ref_audio is not None and is_url(asked.ref_audio)
        arguments = await (self.maker.fetched(read) if elsewhere else asyncio.to_thread(read))
        if "ref_audio" not in arguments:
            return arguments, []
        item, notes = await self.maker.voice(served, arguments)
        return {"voice_clone_prompt": item}, notes


@dataclass
class Answer:
    """One answer on its way out."""

    asked: SpeechRequest
    client: TextClient
    input_tokens: int
    notes: list[str]  # warnings about the request
    metrics: Metrics
    began: float
    first: Pcm | End  # what came first

    @property
    def rate(self) -> int:
        """Hz."""
        return self.client.text.sample_rate

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, packet by packet. Leaving it ends the speech."""
        one, outlet = encoder(self.asked.response_format, self.rate), self.client.outlet
        wrap: Callable[[bytes], bytes] = sse.delta if self.asked.sse else bytes
        item, samples, complete = self.first, 0, False
        try:
            while not isinstance(item, End):
                samples += len(item)
                if data := await asyncio.to_thread(one.add, item):
                    yield wrap(data)
                item = await outlet.next()
            if item.error is not None:
                raise item.error
            if data := await asyncio.to_thread(one.finish):
                yield wrap(data)
            if self.asked.sse:
                yield sse.done(self.input_tokens, item)
            complete = True
            cut = sum(not piece.complete for piece in item.pieces)
            self.metrics.answer(time.monotonic() - self.began, samples / self.rate, cut)
        finally:
            outlet.left = True
            if not complete:
                self.metrics.left()


async def begin_answer(house: House, asked: SpeechRequest, gone: Callable[[], Awaitable[None]]) -> Answer:
    """Prepare an answer and wait for its first samples. ``gone`` returns when the client goes away: ClientGone.

    Refusal or QwenTTSError for whatever the model cannot do.
    """
    began = time.monotonic()
    served = choose(house.models, asked.model, kinds_for(asked, house.voices) if asked.model is None else ())
    script = await asyncio.to_thread(readable, served, asked, house)
    outlet = Outlet(house.engine.nudge)

    def prepare(arguments: dict[str, Any]) -> tuple[TextClient, int]:
        client = enter(house, served, asked, script, arguments, outlet)
        return client, len(served.model.text_tokenizer.encode(asked.text))

    try:
        arguments, of_voice = await _unless(gone, house.voice_of(served, asked))
        prepared = asyncio.wrap_future(house.engine.call(lambda: prepare(arguments)))
        (client, tokens), notes = await _unless(gone, prepared)
        first = await _unless(gone, outlet.next())
        if isinstance(first, End) and first.error is not None:
            raise as_refusal(first.error) or first.error
    except BaseException as e:
        outlet.left = True
        house.engine.nudge()
        if isinstance(e, ClientGone):
            house.metrics.left()
        raise
    if not isinstance(first, End):
        house.metrics.first_audio(time.monotonic() - began)
    return Answer(asked, client, tokens, of_voice + notes, house.metrics, began, first)


def enter(
    house: House, served: Served, asked: SpeechRequest, script: Script, arguments: Mapping[str, Any], outlet: Outlet
) -> TextClient:
    """Let a complete text wait for a place, in the engine's thread. ClientGone where nobody waits for it any more."""
    if outlet.left:
        raise ClientGone
    text = live_text(
        served.model,
        script,
        language=served.language(asked.language),
        seed=asked.seed,
        packet_frames=MOST_PACKET,
        runaway_guard=True,
        tempo=asked.speed,
        **arguments,
        **asked.sampling,
    )
    client = TextClient(text, outlet)
    house.engine.rooms[served.name].enter(client)
    return client


def readable(served: Served, asked: SpeechRequest, house: House) -> Script:
    """The text as the model can read it. Refusal for one that says nothing, or that the demo voice cannot say."""
    try:
        script = served.script(read_script(asked.text, asked.markup, lexicon=house.settings.lexicon))
        return replace(script, cast=cast_of(served, script.names, house.voices))
    except RequestError as e:
        raise Refusal(400, str(e), "input") from None


async def _unless(gone: Callable[[], Awaitable[None]], wanted: Awaitable[T]) -> T:
    """What is wanted, or ClientGone."""
    work, watch = asyncio.ensure_future(wanted), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone
        return work.result()
    finally:
        for task in (work, watch):
            task.cancel()


def as_refusal(error: Exception) -> Refusal | None:
    """The refusal that an error of ours is for a client; None for a defect."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, OutputError):  # the disk of the server, not what the client sent
        return Refusal(503, str(error), code="not_written")
    if isinstance(error, QwenTTSError):
        return Refusal(400, str(error))
    if isinstance(error, MemoryError):
        return Refusal(503, "the server has not enough memory for this now", code="no_memory")
    return None
