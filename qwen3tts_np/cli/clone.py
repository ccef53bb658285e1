"""``qwen3tts-np clone``: speak with the voice of a clip."""

from __future__ import annotations

import argparse

from ..checkpoint.adapter import Adapter
from ..errors import RequestError
from ..request import ClonedVoice
from ..voice.prompt_item import VoiceClonePromptItem
from .options import add_adapter, load_model, new_parser
from .speech import add_speech, only_for, read_request, speak

EXAMPLES = (
    'qwen3tts-np clone Qwen/Qwen3-TTS-12Hz-0.6B-Base "Good morning." --ref-audio ada.wav --ref-text "What Ada says."',
    'qwen3tts-np clone Qwen/Qwen3-TTS-12Hz-0.6B-Base "Good morning." --ref-audio ada.wav --seed 7 -o morning.flac',
    "qwen3tts-np clone Qwen/Qwen3-TTS-12Hz-0.6B-Base --file book.txt --voice ada.safetensors -o book.flac",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "clone",
        EXAMPLES,
        help="speak with the voice of a clip",
        usage="%(prog)s MODEL [TEXT] --ref-audio CLIP [--ref-text TEXT] [-o FILE] [options]",
        description="Speak a text, which may be a book, with the voice of a reference clip; base models. With the "
        "clip's transcript the model continues the clip, which sounds closer; without, it uses the speaker embedding "
        "alone.",
    )
    parser.add_argument("--ref-audio", metavar="CLIP", help="10 to 20 s of one voice, in any file libsndfile reads")
    parser.add_argument("--ref-text", metavar="TEXT", help="what the clip says, word for word")
    parser.add_argument("--voice", metavar="FILE", help="in place of a clip: a voice that 'voice create' has saved")
    add_adapter(parser)
    add_speech(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if (args.ref_audio is None) == (args.voice is None):
        raise RequestError("give the voice, once: --ref-audio CLIP, or --voice FILE")
    if args.voice and args.ref_text:
        raise RequestError("--ref-text goes with --ref-audio; a saved voice has its own")
    script = read_request(args)
    voice = VoiceClonePromptItem.load(args.voice) if args.voice else None
    model = load_model(args, Adapter.open(args.adapter).only_weights if args.adapter else None)
    only_for(model, "base", "clone")
    made = model.voice(ref_audio=args.ref_audio, ref_text=args.ref_text, voice_clone_prompt=voice)
    assert isinstance(made, ClonedVoice)
    speak(model, script, args, {"voice_clone_prompt": made.item})
