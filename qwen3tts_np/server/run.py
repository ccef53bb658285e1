"""A server from its first line to its last: it binds, speaks, and stops when a signal asks it to."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn
from qwen3tts_np_kernels import system

from ..errors import QwenTTSError, RequestError
from ..files.name import shown_name
from ..shown import shortened
from .answer import House
from .app import make_app
from .engine import Engine
from .maker import VoiceMaker
from .metrics import Metrics
from .models import Served
from .settings import GRACE_SECONDS, Settings
from .voices import VoiceFolder


def bind(settings: Settings) -> socket.socket:
    """The address, taken before models are loaded: who connects early waits. RequestError where it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family)
    except (OSError, OverflowError, UnicodeError, TypeError) as e:  # TypeError: of a null byte, or half a character
        reason = getattr(e, "strerror", None) or str(e)
        host = shown_name(settings.host) if settings.host else "''"
        raise RequestError(f"--host {host} --port {shortened(settings.port)} cannot be had: {reason}") from None


def make_house(models: list[Served], settings: Settings) -> House:
    """All that answers share; models are warm and the engine has begun. RequestError for two models of one name."""
    by_name = {served.name: served for served in models}
    if len(by_name) < len(models):
        raise RequestError(f"two models have one name; the names are {', '.join(served.name for served in models)}")
    for served in models:
        served.warm_up()
    metrics = Metrics()
    rooms = {name: served.model for name, served in by_name.items()}
    engine = Engine(rooms, settings.places, settings.queue, metrics)
    house = House(by_name, VoiceFolder(settings.voices), engine, VoiceMaker(), metrics, settings)
    engine.start()
    return house


def serve(house: House, listening: socket.socket) -> None:
    """Answer until a signal asks to stop: then running answers have GRACE_SECONDS. A second signal ends at once."""
    server = new_server(house)
    house.engine.on_failure = lambda: setattr(server, "should_exit", True)
    try:
        with _signals(server):
            server.run([listening])
        failed = not house.engine.alive  # its thread has printed the traceback of the defect
    finally:
        house.maker.close()
        house.engine.close()
    if failed:
        raise SystemExit(1)


def new_server(house: House) -> uvicorn.Server:
    """The server of a house, not yet running."""
    settings = house.settings
    logging.getLogger("uvicorn.error").addFilter(_in_one_line)
    config = uvicorn.Config(
        make_app(house),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        h11_max_incomplete_event_size=1 << 16,
        ws_max_size=1 << 20,
    )
    return _Server(config)


def _in_one_line(record: logging.LogRecord) -> bool:
    """A client's mistake that is found when its answer has begun is logged in one line: a traceback is a defect."""
    cause = record.exc_info[1] if record.exc_info else None
    while cause is not None and not isinstance(cause, QwenTTSError):
        cause = cause.__cause__
    if cause is not None:
        record.exc_info, record.msg, record.args = None, "an answer was broken off: %s", (str(cause),)
    return True


def url_of(settings: Settings, listening: socket.socket) -> str:
    """Where the page is."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(host, host)
    return f"{settings.scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}/"


class _Server(uvicorn.Server):
    """With the signals of :func:`_signals`: uvicorn's own would be raised again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are."""
        yield


@contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """Stop at the first signal, end at the second."""

    def stop(number: int, _: FrameType | None) -> None:
        if server.should_exit:
            os._exit(128 + number)
        server.should_exit = True  # before anything is said: the second signal may come while it is
        with suppress(OSError):
            os.write(sys.stderr.fileno(), b"stopping: running answers have %d s to finish\n" % GRACE_SECONDS)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, *system.stop_signals())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
