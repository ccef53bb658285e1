"""``qwen3tts-np serve``: speech over HTTP, for many at once."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..extras import check_installed, install
from ..files.input import read_bytes
from ..files.output import check_name
from ..model import MOST_PLACES
from ..shown import shortened
from ..speech import demo
from ..speech.cast import read_lexicon
from .options import add_format, add_hub, add_threads, load_demo, load_model, new_parser
from .output import print_text

if TYPE_CHECKING:
    from ..server.models import Served
    from ..server.settings import Settings

EXAMPLES = (
    "qwen3tts-np serve",
    "qwen3tts-np serve Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --format int4 --places 8",
    "qwen3tts-np serve Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice Qwen/Qwen3-TTS-12Hz-0.6B-Base --voices voices",
    "qwen3tts-np serve small --host 0.0.0.0 --api-key SECRET --ssl-certfile cert.pem --ssl-keyfile key.pem",
)
NEEDED = ("fastapi", "uvicorn", "python_multipart", "websockets")  # of the extra, as they are imported
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "serve",
        EXAMPLES,
        help="speak over HTTP, for many at once",
        usage="%(prog)s [MODEL ...] [options]",
        description="Serve the speech endpoint of OpenAI's API, a WebSocket for text that is still being written, and "
        "a page to try it all. Several people speak at once with one model. Several models answer by their names. "
        "Without a model the demo voice answers.",
    )
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help="checkpoint directory, or a name to download"
    )
    add_hub(parser)
    add_threads(parser)
    add_format(parser)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen at (%(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help="what clients have to send as 'Authorization: Bearer KEY'")
    parser.add_argument("--places", type=int, default=4, metavar="N", help="answers of a model at once (%(default)s)")
    parser.add_argument(
        "--queue", type=int, default=32, metavar="N", help="answers of a model that wait for a place (%(default)s)"
    )
    parser.add_argument(
        "--max-text", type=int, default=20_000, metavar="N", help="characters of a request (%(default)s)"
    )
    parser.add_argument("--voices", type=Path, metavar="DIR", help="keep registered voices here (default: none are)")
    parser.add_argument("--lexicon", type=Path, metavar="FILE", help="words and how to read them in every text, JSON")
    parser.add_argument(
        "--allow-fetch", action="store_true", help="read clips from http(s) URLs of public addresses, too"
    )
    parser.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN", help="let pages of this origin call (repeatable)"
    )
    parser.add_argument("--ssl-certfile", type=Path, metavar="FILE", help="certificate: serve https")
    parser.add_argument("--ssl-keyfile", type=Path, metavar="FILE", help="its key")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_installed(NEEDED, "serve", install("server"))
    from ..server.run import bind, make_house, serve, url_of

    settings = _settings(args)
    with bind(settings) as listening:
        house = make_house(_models(args), settings)
        for room in house.engine.rooms.values():
            batch, gigabytes = room.batch, (room.batch.nbytes or 0) / 1e9
            print_text(
                f"{room.name}: {batch.places} places of {batch.positions} positions, which take {gigabytes:.2f} GB"
            )
        if settings.host not in LOOPBACK and settings.api_key is None:
            open_to_all = f"everybody who reaches {settings.host} can speak here; --api-key asks for a key"
            print(f"qwen3tts-np serve: warning: {open_to_all}", file=sys.stderr)
        print_text(f"ready: {url_of(settings, listening)}")
        sys.stdout.flush()
        serve(house, listening)


def _settings(args: argparse.Namespace) -> Settings:
    from ..server.settings import Settings

    for name, least in {"places": 1, "queue": 0, "max_text": 1, "port": 0}.items():
        if getattr(args, name) < least:
            raise RequestError(f"--{name.replace('_', '-')} {shortened(getattr(args, name))} must be at least {least}")
    if args.places > MOST_PLACES:
        raise RequestError(f"--places {shortened(args.places)} must be at most {MOST_PLACES}")
    if args.host == "":
        raise RequestError("--host is empty; 0.0.0.0 is every address of this machine")
    if args.api_key == "":
        raise RequestError("--api-key is empty; leave it away to ask for none")
    if not (args.api_key or "").isprintable() or not (args.api_key or "").isascii() or " " in (args.api_key or ""):
        raise RequestError(
            "--api-key must be of printable ASCII characters without spaces, which every client can send"
        )
    if args.voices is not None:
        check_name(args.voices)
    if (args.ssl_certfile is None) != (args.ssl_keyfile is None):
        raise RequestError("--ssl-certfile and --ssl-keyfile go together: give both or neither")
    if args.ssl_certfile is not None:
        _check_certificate(args.ssl_certfile, args.ssl_keyfile)
    return Settings(
        host=args.host,
        port=args.port,
        api_key=args.api_key,
        places=args.places,
        queue=args.queue,
        max_text=args.max_text,
        voices=args.voices,
        lexicon=None if args.lexicon is None else read_lexicon(args.lexicon),
        allow_fetch=args.allow_fetch,
        origins=tuple(origin.rstrip("/") for origin in args.cors),
        certificate=args.ssl_certfile,
        key=args.ssl_keyfile,
    )


def _check_certificate(certificate: Path, key: Path) -> None:
    """RequestError for files that no server can use, before a model is loaded."""
    for path in (certificate, key):
        read_bytes(path)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as e:  # ValueError: a key that asks for a password
        reason = getattr(e, "reason", None) or str(e)
        raise RequestError(
            f"{certificate} and {key} are no certificate and its key, without a password: {reason}"
        ) from None


def _models(args: argparse.Namespace) -> list[Served]:
    from ..server.models import Served

    if not args.models:
        print(f"qwen3tts-np serve: {demo.notice()}", file=sys.stderr)
        return [Served("demo", load_demo(args), of_demo=True)]
    served = []
    for name in args.models:
        args.model = name
        served.append(Served(Path(os.path.abspath(name)).name, load_model(args)))
    return served
