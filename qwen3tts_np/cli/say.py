"""``qwen3tts-np say``: text becomes a WAV."""

from __future__ import annotations

import argparse

from ..errors import RequestError
from .options import add_model, add_speech, load_model, sampling, save_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "say",
        help="speak a text",
        description="Speak a text with a custom-voice model (--speaker) or a voice-design model (--instruct).",
    )
    add_model(parser)
    parser.add_argument("text", help="what to say")
    parser.add_argument("--speaker", help="a voice of the model's table (default: its first); custom-voice models")
    parser.add_argument("--instruct", default="", help="how to say it, or the voice to design")
    add_speech(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = load_model(args)
    kind = model.config.tts_model_type
    if kind == "custom_voice":
        speaker = args.speaker or model.get_supported_speakers()[0]
        speech = model.generate_custom_voice(args.text, speaker, instruct=args.instruct, **sampling(args))
    elif kind == "voice_design":
        if args.speaker:
            raise RequestError("a voice-design model has no speakers; describe the voice with --instruct")
        speech = model.generate_voice_design(args.text, args.instruct, **sampling(args))
    else:
        raise RequestError("a base model speaks with the voice of a clip: use 'qwen3tts-np clone'")
    save_speech(speech, args.output)
