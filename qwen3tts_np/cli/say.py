"""``qwen3tts-np say``: text becomes a WAV."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from .. import demo
from ..errors import RequestError
from ..model import Qwen3TTSModel, Speech
from ..voice import VoiceClonePromptItem
from .long_text import add_text, is_long, read_text, speak_long
from .options import add_model, add_speech, load_model, sampling, save_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "say",
        help="speak a text",
        description="Speak a text with a custom-voice model (--speaker), a voice-design model (--instruct) or a base "
        "model (--voice). A text of more than a few sentences is spoken in pieces: it may be a book, and run again "
        "after an interruption the command goes on where it was. Without a model a demo voice speaks, which knows "
        "about a hundred words.",
    )
    add_model(parser)
    add_text(parser)
    parser.add_argument("--speaker", help="a voice of the model's table (default: its first); custom-voice models")
    parser.add_argument("--instruct", default="", help="how to say it, or the voice to design")
    parser.add_argument("--voice", metavar="FILE", help="a voice that 'voice create' has saved; base models")
    add_speech(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    of_demo = args.text is None and args.file is None and demo.is_meant(args.model)
    text = demo_text(args) if of_demo else read_text(args)
    voice = VoiceClonePromptItem.load(args.voice) if args.voice else None
    model = load_demo(args) if of_demo else load_model(args)
    kind = model.config.tts_model_type
    speak: Callable[..., Speech]
    how: dict[str, Any]
    if voice and kind != "base":
        raise RequestError(f"--voice needs a base model; this is a {kind} model")
    if kind == "custom_voice":
        speak, how = model.generate_custom_voice, {"instruct": args.instruct}
        how["speaker"] = args.speaker or model.get_supported_speakers()[0]
    elif kind == "voice_design":
        if args.speaker:
            raise RequestError("a voice-design model has no speakers; describe the voice with --instruct")
        speak, how = model.generate_voice_design, {"instruct": args.instruct}
    elif voice:
        speak, how = model.generate_voice_clone, {"voice_clone_prompt": voice}
    else:
        raise RequestError("a base model has no voice of its own: give --voice, or a clip to 'qwen3tts-np clone'")
    if is_long(text, args):
        speak_long(model, text, args, {**how, **sampling(args)})
    else:
        save_speech(speak(text, **how, **sampling(args)), args.output)


def demo_text(args: argparse.Namespace) -> str:
    """``say TEXT``: make it a request to the demo voice, which only reads its own words."""
    args.model, args.text = demo.CHECKPOINT, str(args.model)
    text = demo.readable(read_text(args))
    if args.language == "auto":
        args.language = "english"
    print(f"qwen3tts-np say: {demo.notice()}", file=sys.stderr)
    return text


def load_demo(args: argparse.Namespace) -> Qwen3TTSModel:
    """In plain NumPy: so small a model speaks faster than its kernels are compiled the first time."""
    return Qwen3TTSModel.from_pretrained(args.model, threads=args.threads, backend="reference")
