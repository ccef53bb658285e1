"""Voices of clips, fetched and made beside those who speak.

A thread of its own makes them, one after another. It shares the models' thread team, whose runs take turns: the encoder
gives it back after a tenth of a second (``compiled/codec/pipeline.py``), so nobody who speaks waits for a whole clip.
Clips are fetched by other threads than those of the event loop, of which there are few: they encode what is spoken, and
a slow server would hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..notices import heard
from ..request import ClonedVoice
from ..voice.prompt_item import VoiceClonePromptItem
from .models import Served

FETCHED = 8  # clips at once; others wait

T = TypeVar("T")


class VoiceMaker:
    """The thread that makes voices, and those that fetch clips."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="voices")
        self._fetching = ThreadPoolExecutor(FETCHED, thread_name_prefix="clips")

    async def fetched(self, read: Callable[[], T]) -> T:
        """What ``read`` returns, which waits for another server."""
        return await asyncio.wrap_future(self._fetching.submit(read))

    async def voice(self, served: Served, clip: Mapping[str, Any]) -> tuple[VoiceClonePromptItem, list[str]]:
        """The voice of a clip, and what there is to say about it; arguments and errors are those of ``model.voice``."""

        def make() -> tuple[VoiceClonePromptItem, list[str]]:
            with heard() as notes:
                voice = served.model.voice(**clip)
            assert isinstance(voice, ClonedVoice)
            return voice.item, notes

        return await asyncio.wrap_future(self._thread.submit(make))

    def close(self) -> None:
        """Make no more."""
        for threads in (self._thread, self._fetching):
            threads.shutdown(wait=False, cancel_futures=True)
