"""What every request passes first: the host it names, the page it comes from, the key it brings.

A server on this machine can be called by any page in a browser on it. So a request from a page elsewhere is refused
unless its origin was allowed, and on a loopback address the host must be a name of this machine: a page whose own name
suddenly leads here (DNS rebinding) has neither.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .metrics import Metrics
from .refusal import Refusal
from .settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/", "/health")  # without a key: the page asks for it, and has nothing to hide


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._hosts = {*LOOPBACK, settings.host.lower(), *(urlsplit(origin).hostname for origin in settings.origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in, and count what goes out."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.request(route, message["status"])
            await send(message)

        if refusal is None:
            await self._app(scope, receive, counted)
        elif scope["type"] == "websocket":
            await receive()  # the handshake
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.message[:100]})
        else:
            body = json.dumps(refusal.body).encode()
            sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            if refusal.status == 401:
                sent.append((b"www-authenticate", b"Bearer"))
            await counted({"type": "http.response.start", "status": refusal.status, "headers": sent})
            await counted({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Refusal | None:
        host, origin = _host_of(f"//{headers.get('host', '')}"), headers.get("origin")
        if self._settings.host in LOOPBACK and host not in self._hosts:
            return Refusal(403, f"this server is local and not {host[:100]!r}; --host says where it listens")
        if origin is not None and not {origin, "*"} & {*self._settings.origins}:
            here = f"{self._settings.scheme}://{headers.get('host', '')}"
            if origin.lower() != here.lower():
                return Refusal(403, f"pages of {origin[:100]!r} may not call this server; --cors allows an origin")
        if self._settings.api_key is not None and scope["path"] not in OPEN:
            kind, _, key = headers.get("authorization", "").partition(" ")
            good = hmac.compare_digest(key.strip().encode(), self._settings.api_key.encode())
            if kind.lower() != "bearer" or not good:
                return Refusal(
                    401, "the API key is missing or wrong: send 'Authorization: Bearer KEY'", None, "invalid_api_key"
                )
        return None


def _host_of(address: str) -> str:
    """The name in ``//name:port``; "" where there is none."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
