"""A server of tiny models in a thread of this process, for the tests of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.ops import Pcm
from qwen3tts_np.speech import live

TEXT = "Hello there, how are you? I am fine."
FRAMES = 12


def models(synthetic: Callable[..., Path]) -> dict[str, Qwen3TTSModel]:
    """A custom-voice and a base model."""
    return {
        kind: Qwen3TTSModel.from_pretrained(synthetic("tiny", kind), threads=1) for kind in ("custom_voice", "base")
    }


def client_of(url: str) -> Any:
    """Of a server. It reads no certificates, which takes 18 ms a client and is of no use without https."""
    import httpx

    return httpx.Client(base_url=url, timeout=60, verify=False)


@contextmanager
def running(served: dict[str, Qwen3TTSModel], **options: Any) -> Iterator[Running]:
    """A server on a free port."""
    from qwen3tts_np.server.models import Served
    from qwen3tts_np.server.run import bind, make_house, new_server
    from qwen3tts_np.server.settings import Settings

    settings = Settings(port=0, **options)
    with bind(settings) as listening:
        house = make_house([Served(name, model) for name, model in served.items()], settings)
        server = new_server(house)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        while not server.started:
            time.sleep(0.01)
        try:
            yield Running(f"http://127.0.0.1:{port}", house, server)
        finally:
            server.should_exit = True
            thread.join(20)
            house.maker.close()
            house.engine.close()
            assert not thread.is_alive()


class Running:
    """A server that runs."""

    def __init__(self, url: str, house: Any, server: Any) -> None:
        self.url, self.house, self.server = url, house, server

    def body(self, **arguments: Any) -> dict[str, Any]:
        """A short request, with these arguments."""
        return {
            "input": TEXT,
            "response_format": "pcm",
            "seed": 7,
            "max_new_tokens": FRAMES + 1,
            "model": "custom_voice",
            **arguments,
        }

    def alone(self, **arguments: Any) -> Pcm:
        """What the command line would say to it: the samples of the request alone."""
        given = self.body(**arguments)
        names = {"voice": "speaker", "instructions": "instruct"}
        model = self.house.models[given.pop("model")].model
        text = given.pop("input")
        for name in ("response_format", "stream_format"):
            given.pop(name, None)
        speech = {names.get(name, name): value for name, value in given.items()}
        return np.concatenate(list(live.stream(model, text, runaway_guard=True, **speech)))
