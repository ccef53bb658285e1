"""The routes. Whatever is not about HTTP is in the files beside this one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..audio.encode import MEDIA_TYPES
from ..checkpoint.published import VOICES
from ..errors import QwenTTSError
from . import metrics, sse
from .answer import Answer, ClientGone, House, as_refusal, begin_answer
from .guard import App, Guard
from .models import Served
from .refusal import Refusal, error_object
from .registration import delete_voice, list_voices, register_voice, voice_file
from .schema import parse_speech, read_json
from .settings import BODY_BYTES, READ_SECONDS
from .websocket import speak_while_written

READ = ["GET", "HEAD"]  # as every server of HTTP takes them; trap: FastAPI's GET alone refuses HEAD
CLIENT_CLOSED = 499  # as nginx logs it; nobody reads it


def make_app(house: House) -> App:
    """The application, with what every request passes around it."""
    app = FastAPI(title="qwen3tts-np", docs_url=None, redoc_url=None, openapi_url=None)
    for handler in (_routes_of_speech, _routes_of_voices, _routes_about):
        handler(app, house)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(QwenTTSError, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Exception, _defect)
    guarded: App = Guard(app, house.settings, house.metrics)
    if house.settings.origins:
        exposed = ["X-Seed", "X-Sample-Rate", "X-Expected-Seconds", "X-Notes", "Retry-After"]
        allowed = list(house.settings.origins)
        guarded = CORSMiddleware(
            guarded, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    return guarded


def _routes_of_speech(app: FastAPI, house: House) -> None:
    async def speech(request: Request) -> Response:
        require_type(request, "application/json")
        asked = parse_speech(read_json(await read_body(request)), house.settings)
        try:
            answer = await begin_answer(house, asked, _gone(request))
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED)
        media_type = sse.MEDIA_TYPE if asked.sse else MEDIA_TYPES[asked.response_format]
        return StreamingResponse(answer.chunks(), media_type=media_type, headers=_headers(answer))

    async def stream(socket: WebSocket) -> None:
        await speak_while_written(socket, house)

    app.add_api_route("/v1/audio/speech", speech, methods=["POST"], response_model=None)
    app.add_api_websocket_route("/v1/audio/speech/stream", stream)


def _routes_of_voices(app: FastAPI, house: House) -> None:
    async def all_voices() -> Any:
        return await asyncio.to_thread(list_voices, house)

    async def register(request: Request) -> Any:
        require_type(request, "multipart/form-data")
        body = await read_body(request)
        async with Request(request.scope, _replay(body)).form(max_files=2, max_fields=20) as form:
            return await register_voice(house, form)

    async def one_file(name: str) -> Response:
        content = await asyncio.to_thread(voice_file, house, name)
        attached = {"Content-Disposition": "attachment"}
        return Response(content, media_type="application/octet-stream", headers=attached)

    async def delete(name: str) -> Any:
        return await asyncio.to_thread(delete_voice, house, name)

    app.add_api_route("/v1/audio/voices", all_voices, methods=READ)
    app.add_api_route("/v1/audio/voices", register, methods=["POST"])
    app.add_api_route("/v1/audio/voices/{name}", one_file, methods=READ, response_model=None)
    app.add_api_route("/v1/audio/voices/{name}", delete, methods=["DELETE"])


def _routes_about(app: FastAPI, house: House) -> None:
    page = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")

    async def index() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"})

    async def models() -> Any:
        return {"object": "list", "data": [model_object(served) for served in house.models.values()]}

    async def model(name: str) -> Any:
        if name not in house.models:
            raise Refusal(404, f"model {name[:100]!r} is not served here", "model", "model_not_found")
        return model_object(house.models[name])

    async def health() -> Response:
        alive = house.engine.alive
        return JSONResponse({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    async def numbers() -> Response:
        return PlainTextResponse(house.metrics.text(house.engine.gauges()), media_type=metrics.MEDIA_TYPE)

    app.add_api_route("/", index, methods=READ, response_model=None)
    app.add_api_route("/v1/models", models, methods=READ)
    app.add_api_route("/v1/models/{name:path}", model, methods=READ)
    app.add_api_route("/health", health, methods=READ, response_model=None)
    app.add_api_route("/metrics", numbers, methods=READ, response_model=None)


# The page is one file: its script and style are in it, and it talks to this server alone.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; media-src blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def model_object(served: Served) -> dict[str, Any]:
    """A model as OpenAI lists it, and what the page wants to know of it."""
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "qwen3tts-np",
        "kind": served.kind,
        "languages": served.model.get_supported_languages(),
        "voices": [_voice_object(name) for name in served.model.get_supported_speakers()],
    }


def _voice_object(name: str) -> dict[str, str]:
    """A voice of a model's table; of the published ones, with what their model card says."""
    voice = VOICES.get(name)
    if voice is None:
        return {"name": name}
    return {"name": name, "description": voice.description, "native_language": voice.language}


# --- requests -------------------------------------------------------------------------------------


def require_type(request: Request, media_type: str) -> None:
    """Refusal for another type of content. A page elsewhere cannot send JSON without asking first (CORS)."""
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != media_type:
        raise Refusal(415, f"the body is {found[:100] or 'of no type'}; send {media_type} (Content-Type)")


async def read_body(request: Request, most: int = BODY_BYTES) -> bytes:
    """The whole body. Refusal for one that is too large, before all of it has come, or that stops coming."""
    announced = request.headers.get("content-length", "")
    content = bytearray()
    too_large = Refusal(413, f"the body has more than {most} bytes, the most that is read", code="body_too_large")
    if announced.isdecimal() and (len(announced) > len(str(most)) or int(announced) > most):
        raise too_large
    blocks = request.stream()
    while True:
        try:
            content += await asyncio.wait_for(anext(blocks), READ_SECONDS)
        except StopAsyncIteration:
            return bytes(content)
        except asyncio.TimeoutError:
            late = f"nothing of the body has come for {READ_SECONDS:.0f} s"
            raise Refusal(408, late, headers={"Connection": "close"}) from None
        if len(content) > most:
            raise too_large


def _replay(body: bytes) -> Callable[[], Any]:
    """``receive`` of a body that has been read."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _gone(request: Request) -> Callable[[], Any]:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    return gone


def _headers(answer: Answer) -> dict[str, str]:
    """The seed that says it again, and what a page shows before the end is known."""
    text = answer.client.text
    headers = {
        "X-Seed": str(text.seed),
        "X-Sample-Rate": str(answer.rate),
        "X-Expected-Seconds": f"{text.usual_seconds:.2f}",
    }
    if answer.notes:
        headers["X-Notes"] = json.dumps(answer.notes)  # ASCII
    return headers


# --- errors ---------------------------------------------------------------------------------------


async def _refused(_: Request, error: Exception) -> Response:
    refusal = as_refusal(error)
    assert refusal is not None
    return JSONResponse(refusal.body, refusal.status, headers=dict(refusal.headers))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return JSONResponse(error_object(error.status_code, message), error.status_code, headers=error.headers)


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)


async def _defect(_: Request, __: Exception) -> Response:
    told = error_object(500, "a defect of the server; its log has the details")
    return JSONResponse(told, 500, headers={"Connection": "close"})  # as uvicorn does after an exception
