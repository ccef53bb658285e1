"""``qwen3tts-np say``: text to speech."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..checkpoint.adapter import Adapter
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..speech import demo
from ..speech.cast import first_saved
from ..voice.prompt_item import VoiceClonePromptItem
from .options import add_adapter, load_demo, load_model, new_parser
from .speech import add_speech, only_for, read_request, speak

EXAMPLES = (
    'qwen3tts-np say "Hello world, this is a test of my voice."',
    'qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice "Good morning." --speaker ryan',
    'qwen3tts-np say Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign "Good morning." --instruct "An old sailor, hoarse" -o a.mp3',
    'qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-Base "Good morning." --voice ada.safetensors --seed 7',
    'qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-Base "Good morning." --adapter ada-lora',
    "qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --file book.txt -o book.flac --srt book.srt",
    "qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --file play.txt --cast cast.json -o play.flac",
    "cat book.txt | qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice - --format int4 --stream -o - | aplay",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "say",
        EXAMPLES,
        help="speak a text",
        usage="%(prog)s [MODEL] [TEXT] [-o FILE] [options]",
        description="Speak a text with a custom-voice model (--speaker), a voice-design model (--instruct) or a base "
        "model (--voice). A text of more than a few sentences is spoken in pieces: it may be a book, and after an "
        "interruption the same command continues where it was. Without a model a demo voice speaks, which knows "
        "about a hundred words.",
    )
    parser.add_argument("--speaker", help="a voice of the model's table (default: its first); custom-voice models")
    parser.add_argument("--instruct", default="", help="how to say it, or the voice to design")
    parser.add_argument("--voice", metavar="FILE", help="a voice that 'voice create' has saved; base models")
    add_adapter(parser)
    add_speech(parser, model_required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    of_demo = args.model is None or (args.text is None and args.file is None and demo.is_meant(args.model))
    if of_demo:
        args.model, args.text = demo.CHECKPOINT, args.text if args.model is None else str(args.model)
    script = read_request(args)
    if of_demo:
        script = script.rewritten(demo.readable)
        args.language = "english" if args.language == "auto" else args.language
        print(f"qwen3tts-np say: {demo.notice()}", file=sys.stderr)
    _check_voice(args)
    voice = VoiceClonePromptItem.load(args.voice) if args.voice else None
    adapter = Adapter.open(args.adapter) if args.adapter else None
    model = load_demo(args) if of_demo and adapter is None else load_model(args, adapter)
    if voice is None and model.config.tts_model_type == "base":
        voice = first_saved(script.cast)
    speak(model, script, args, _voice(model, args, voice))


def _check_voice(args: argparse.Namespace) -> None:
    """RequestError for options that have no effect beside a saved voice; called before the model is loaded."""
    for option in ("speaker", "instruct"):
        if args.voice and getattr(args, option):
            raise RequestError(f"--{option} does not go with --voice: a base model speaks as its voice does")


def _voice(model: Qwen3TTSModel, args: argparse.Namespace, voice: VoiceClonePromptItem | None) -> dict[str, Any]:
    """The arguments that select the voice."""
    kind = model.config.tts_model_type
    if voice is not None:
        only_for(model, "base", "--voice")
        return {"voice_clone_prompt": voice}
    if kind == "base":
        raise RequestError("a base model has no voice of its own: give --voice, or a clip to 'qwen3tts-np clone'")
    if kind == "custom_voice":
        return {"instruct": args.instruct, "speaker": args.speaker}
    if args.speaker:
        raise RequestError("a voice-design model has no speakers; describe the voice with --instruct")
    return {"instruct": args.instruct}
