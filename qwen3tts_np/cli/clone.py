"""``qwen3tts-np clone``: speak with the voice of a clip."""

from __future__ import annotations

import argparse

from .options import add_model, add_speech, load_model, sampling, save_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "clone",
        help="speak with the voice of a clip",
        description="Speak a text with the voice of a reference clip; base models. With the clip's transcript the "
        "model continues the clip, which sounds closer; without, it uses the speaker embedding alone.",
    )
    add_model(parser)
    parser.add_argument("text", help="what to say")
    parser.add_argument("--ref-audio", required=True, metavar="FILE", help="the reference clip")
    parser.add_argument("--ref-text", metavar="TEXT", help="what the clip says")
    add_speech(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = load_model(args)
    speech = model.generate_voice_clone(
        args.text,
        ref_audio=args.ref_audio,
        ref_text=args.ref_text,
        x_vector_only_mode=args.ref_text is None,
        **sampling(args),
    )
    save_speech(speech, args.output)
