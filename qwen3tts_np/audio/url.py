"""The bytes behind an http(s) URL, from a server that is not trusted.

Whatever it does, reading ends: after 60 s for everything together, a limit in bytes, a few redirects to http(s) alone.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..errors import RequestError

SCHEMES = ("http", "https")
SECONDS = 60  # for name, connection, redirects and content together
MOST = 64 << 20  # bytes: an hour of MP3, six minutes of CD sound
MOST_REDIRECTS = 5
BLOCK = 1 << 16  # bytes
LONGEST = 100  # characters of a URL, or of what a server says, in a sentence
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # variables of huggingface_hub
TRUE = ("1", "ON", "YES", "TRUE")  # as there

_forbidden = False


@contextmanager
def without_network() -> Iterator[None]:
    """In the block :func:`read_url` asks nobody, as where a variable of the hub forbids it."""
    global _forbidden
    before, _forbidden = _forbidden, True
    try:
        yield
    finally:
        _forbidden = before


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def read_url(url: str, *, public: bool = False) -> bytes:
    """The body of the response to ``url``. Raises RequestError, without user name and password in its sentence.

    ``public``: for URLs of strangers. Addresses of this machine and its networks are refused, after every redirect and
    before the connection, and proxies of the environment are not used.
    """
    what, until = f"audio {without_password(url)!r}", time.monotonic() + SECONDS
    _check(url)
    if _forbidden or any(os.environ.get(name, "").upper() in TRUE for name in OFFLINE):
        raise RequestError(f"{what} is not read: --offline or HF_HUB_OFFLINE forbids the network")
    try:
        with _connections_that_end() as connections:
            opener = _opener(connections, public)
            with opener.open(url, timeout=SECONDS) as response:
                return _content(response, until)
    except RequestError:  # a ValueError too
        raise
    except urllib.error.HTTPError as e:
        reason = f"the server answers {e.code} {str(e.reason)[:LONGEST]!r}"
    except urllib.error.URLError as e:
        reason = str(getattr(e.reason, "strerror", None) or e.reason)
    except (OSError, http.client.HTTPException, ValueError) as e:  # ValueError: a host or a length that is none
        reason = getattr(e, "strerror", None) or f"{type(e).__name__} of the connection"
    if time.monotonic() >= until:
        reason = f"it took more than {SECONDS} s"
    raise RequestError(f"{what} cannot be read: {reason[: 2 * LONGEST]}") from None


def without_password(url: str) -> str:
    """``url`` for a sentence: without user name, password, query and fragment, and cut where it is long."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#\\]", rest)[0]
    if "@" in authority or ":" in authority:  # trap: a password may hold what ends it
        rest = rest.rpartition("@")[2]
    shown = f"{scheme}://{rest}".partition("?")[0].partition("#")[0]
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _check(url: str) -> None:
    """RequestError unless it is http(s), without a password, which the standard library would take for a port."""
    try:
        parts = urlsplit(url)
    except ValueError as e:
        raise RequestError(f"audio {without_password(url)!r} cannot be read: {e}") from None
    if parts.scheme.lower() not in SCHEMES:
        raise RequestError(f"audio is read from http and https, not from {parts.scheme[:LONGEST]!r}")
    if "@" in parts.netloc:
        raise RequestError(f"audio {without_password(url)!r} has a user name or password in its URL; download it first")


def _content(response: Any, until: float) -> bytes:
    claimed = response.length  # of Content-Length; None without one
    if claimed is not None and claimed > MOST:
        raise RequestError(f"the server announces {claimed} bytes of audio; the most that is read is {MOST}")
    content = bytearray()
    block = b"more"
    while block:
        block = response.read1(BLOCK)
        content += block
        if time.monotonic() >= until:  # also where it was shut for that, which looks like an end
            raise TimeoutError
        if len(content) > MOST:
            raise RequestError(f"the server sends more than {MOST} bytes of audio, the most that is read")
    if claimed is not None and len(content) < claimed:
        raise ConnectionError(0, f"the server sent {len(content)} of {claimed} bytes")
    return bytes(content)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS
    max_repeats = MOST_REDIRECTS
    inf_msg = f"redirects in a circle, or more than {MOST_REDIRECTS}: "  # before what the server says

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        if location := headers.get("location"):
            _check(urljoin(req.full_url, location))
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _connect_publicly(address: tuple[str, int], timeout: float, *_: Any) -> socket.socket:
    """A connection to one of the addresses of a host, checked before it is made. Trap: a name that is looked up again
    for the connection may have another address by then."""
    places = [(str(found[4][0]), address[1]) for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM)]
    for place in places:
        if not ipaddress.ip_address(place[0].partition("%")[0]).is_global:
            raise RequestError(f"audio is not read from {address[0][:LONGEST]!r}: its address is not a public one")
    for place in places[:-1]:
        with suppress(OSError):
            return socket.create_connection(place, timeout)
    return socket.create_connection(places[-1], timeout)


def _opener(connections: list[Any], public: bool) -> urllib.request.OpenerDirector:
    """http and https, with the proxies of the environment, and nothing else: no files, no ftp, no data."""
    connect = _connect_publicly if public else socket.create_connection

    class Http(http.client.HTTPConnection):
        def connect(self) -> None:
            self._create_connection = connect
            super().connect()
            connections.append(self.sock)

    class Https(http.client.HTTPSConnection):
        def connect(self) -> None:
            self._create_connection = connect
            super().connect()
            connections.append(self.sock)

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(Http, req)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(Https, req, context=ssl.create_default_context())

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if public else None),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        HttpHandler(),
        HttpsHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _connections_that_end() -> Iterator[list[Any]]:
    """A list whose connections are shut after SECONDS. Trap: the timeout of a socket counts from byte to byte, so a
    server that sends its headers one byte a second would be read for hours."""
    connections: list[Any] = []

    def shut() -> None:
        for connection in connections:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # beneath TLS, whose own waits for the other side

    timer = threading.Timer(SECONDS, shut)
    timer.daemon = True
    timer.start()
    try:
        yield connections
    finally:
        timer.cancel()
