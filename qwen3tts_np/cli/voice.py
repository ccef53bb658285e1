"""``qwen3tts-np voice``: makes, lists and shows saved voices."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from ..audio.files import format_of, write_audio
from ..checkpoint.safetensors import Checkpoint
from ..errors import CheckpointError, RequestError
from ..files.apart import check_outputs
from ..model import Qwen3TTSModel
from ..ops import Wave
from ..request import ClonedVoice
from ..shown import printable
from ..speech.delivery import frame_seconds
from ..speech.plan import seed_of
from ..text.languages import language_name
from ..voice.mix import mixed
from ..voice.prompt_item import SIZES, VoiceClonePromptItem, is_voice
from ..voice.reference_clip import spoken_seconds
from .options import add_json, add_model, add_seed, load_model, new_parser
from .output import print_text, report
from .speech import only_for

DESCRIPTION = (
    "Make voices that any base model of the same size can speak with, from a clip or from a description, and look at "
    "them. A voice is one small file: it can be copied to another machine, and the clip is not needed again."
)
CREATE = 'qwen3tts-np voice create Qwen/Qwen3-TTS-12Hz-0.6B-Base ada.wav --text "What Ada says." -o ada.safetensors'
DESIGN = (
    "qwen3tts-np voice design Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign Qwen/Qwen3-TTS-12Hz-1.7B-Base "
    '"A woman of about sixty, warm and unhurried" --seed 7 -o grandmother.safetensors'
)
SHOW = "qwen3tts-np voice show ada.safetensors"
LIST = "qwen3tts-np voice list"
MIX = "qwen3tts-np voice mix ada.safetensors bob.safetensors --share 0.3 -o between.safetensors"
EXAMPLES = (
    CREATE,
    'qwen3tts-np say Qwen/Qwen3-TTS-12Hz-0.6B-Base "Anything." --voice ada.safetensors',
    DESIGN,
    SHOW,
    LIST,
    MIX,
)
FRAME = 0.08  # s, in all released models; a voice file does not say
TRIES = 3  # attempts of the design model, which sometimes does not stop
SHOWN = 60  # characters of a text in the list

# The sentence of a designed voice for its reference: about 8 s, covering the sounds of the language, neutral.
SENTENCES = {
    "chinese": "渡轮九点半离开港口。如果风向变了，我们就在这里等着，喝杯热茶，改坐傍晚的那班船。",
    "english": "The ferry leaves the harbour at half past nine. If the wind turns, we will wait here, drink our tea, "
    "and take the evening boat instead.",
    "french": "Le ferry quitte le port à neuf heures et demie. Si le vent tourne, nous attendrons ici, nous boirons "
    "un thé et nous prendrons le bateau du soir.",
    "german": "Die Fähre verlässt den Hafen um halb zehn. Dreht der Wind, dann warten wir hier, trinken unseren Tee "
    "und nehmen das Boot am Abend.",
    "italian": "Il traghetto lascia il porto alle nove e mezza. Se il vento cambia, aspetteremo qui, berremo un tè e "
    "prenderemo la barca della sera.",
    "japanese": "フェリーは九時半に港を出ます。風向きが変わったら、ここでお茶を飲みながら待って、"
    "夕方の船に乗りましょう。",
    "korean": "여객선은 아홉 시 반에 항구를 떠납니다. 바람이 바뀌면 여기서 차를 마시며 기다렸다가 "
    "저녁 배를 타겠습니다.",
    "portuguese": "A balsa deixa o porto às nove e meia. Se o vento mudar, esperamos aqui, bebemos um chá e tomamos o "
    "barco da noite.",
    "russian": "Паром уходит из гавани в половине десятого. Если ветер переменится, мы подождём здесь, выпьем чаю и "
    "поедем вечерним рейсом.",
    "spanish": "El ferri sale del puerto a las nueve y media. Si cambia el viento, esperaremos aquí, beberemos un té y "
    "tomaremos el barco de la noche.",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "voice",
        EXAMPLES,
        help="make a voice of a clip or of a description and keep it as a file",
        description=DESCRIPTION,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_create(actions)
    _add_design(actions)
    _add_show(actions)
    _add_list(actions)
    _add_mix(actions)


def _add_create(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "create",
        [CREATE],
        help="make a voice of a clip",
        description="Make a voice of a clip of 10 to 20 s; base models. With the words of the clip the model continues "
        "it, which sounds closer; without, it uses the speaker embedding alone.",
    )
    add_model(parser)
    parser.add_argument("clip", metavar="CLIP", help="any file libsndfile reads, at any rate, stereo too")
    parser.add_argument("--text", metavar="TRANSCRIPT", help="what the clip says, word for word")
    _add_output(parser)
    parser.set_defaults(run=create)


def _add_design(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "design",
        [DESIGN],
        help="make a voice of a description",
        description="The voice-design model speaks one sentence in a voice of the description, and a voice for the "
        "base model is made of that. So the designed voice stays the same in every text, which it does not when the "
        "design model speaks them. The models are loaded one after the other.",
    )
    parser.add_argument("design", type=Path, metavar="DESIGN_MODEL", help="voice-design checkpoint")
    add_model(parser)
    parser.add_argument("description", help="the voice, in words")
    parser.add_argument(
        "--language",
        type=language_name,
        choices=sorted(SENTENCES),
        default="english",
        metavar="NAME",
        help=f"of the sentence: {', '.join(sorted(SENTENCES))}, or a code (%(default)s)",
    )
    parser.add_argument("--sentence", metavar="TEXT", help="another sentence to speak, of 10 to 20 s")
    add_seed(parser)
    parser.add_argument("--clip", type=Path, metavar="FILE", help="keep the spoken sentence, to listen to")
    _add_output(parser)
    parser.set_defaults(run=design)


def _add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "show",
        [SHOW],
        help="the contents of a voice file",
        description="Print what a voice was made of and which models can use it.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="as 'voice create' writes it")
    parser.add_argument("--json", action="store_true", help="for programs, with the embedding and the codes")
    parser.set_defaults(run=show)


def _add_list(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "list",
        [LIST, f"{LIST} voices --json"],
        help="the voices in a directory",
        description="List the voices among the .safetensors files of a directory. Exit status 1 if one is damaged.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", nargs="?", default=Path(), help="(the current one)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=list_voices)


def _add_mix(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "mix",
        [MIX],
        help="a voice between two others",
        description="Mix the speaker embeddings of two voices for models of one size: the direction on the arc between "
        "theirs, the length as far between theirs. Clips and transcripts do not go into a mix.",
    )
    parser.add_argument("first", type=Path, metavar="A", help="a voice file")
    parser.add_argument("second", type=Path, metavar="B", help="another")
    parser.add_argument(
        "--share", type=float, default=0.5, metavar="X", help="of the second voice, 0 to 1 (%(default)s)"
    )
    _add_output(parser)
    parser.set_defaults(run=mix)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default="voice.safetensors", metavar="FILE", help="(%(default)s)")
    add_json(parser)


def create(args: argparse.Namespace) -> None:
    check_outputs({"--output": args.output}, {"MODEL": args.model, "CLIP": args.clip})
    model = load_model(args)
    _save(_voice_of_clip(model, args.clip, args.text), args)


def design(args: argparse.Namespace) -> None:
    check_outputs({"--output": args.output, "--clip": args.clip}, {"MODEL": args.model, "DESIGN_MODEL": args.design})
    if args.clip is not None:
        format_of(args.clip)
    sentence = args.sentence or SENTENCES[args.language]
    clip = speak_design(args, sentence)
    if args.clip is not None:
        write_audio(args.clip, *clip)
    voice = _voice_of_clip(load_model(args), clip, sentence)
    _save(dataclasses.replace(voice, description=args.description), args)


def show(args: argparse.Namespace) -> None:
    voice = VoiceClonePromptItem.load(args.file)
    if args.json:
        codes = None if voice.ref_code is None else voice.ref_code.tolist()
        arrays = {"ref_spk_embedding": voice.ref_spk_embedding.tolist(), "ref_code": codes}
        print(json.dumps(_summary(args.file, voice) | arrays, indent=2))
        return
    print_text(args.file)
    for name, value in _summary(args.file, voice).items():
        if name != "file" and value is not None:
            print_text(f"  {name.replace('_', ' '):<16} {printable(str(value))}")


def mix(args: argparse.Namespace) -> None:
    check_outputs({"--output": args.output}, {"A": args.first, "B": args.second})
    first, second = map(VoiceClonePromptItem.load, (args.first, args.second))
    _save(mixed(first, second, args.share), args)


def list_voices(args: argparse.Namespace) -> int:
    if not os.path.isdir(args.directory):
        raise RequestError(f"{args.directory} is not a directory")
    found, problems = [], []
    for path in sorted(args.directory.glob("*.safetensors")):
        try:
            if is_voice(Checkpoint.open(path).metadata):
                found.append(_summary(path, VoiceClonePromptItem.load(path)))
        except CheckpointError as e:
            problems.append(str(e))
    if args.json:
        print(json.dumps({"voices": found, "problems": problems}, indent=2))
    else:
        print_text("\n".join([*map(_line, found), *problems]) or f"{args.directory}: no voices")
    return int(bool(problems))


def speak_design(args: argparse.Namespace, sentence: str) -> tuple[Wave, int]:
    """The sentence as the design model speaks it: (samples, rate). RequestError if that cannot be the sentence."""
    model = load_model(argparse.Namespace(**{**vars(args), "model": args.design}))
    frame = frame_seconds(model)
    shortest, longest = (int(seconds / frame) for seconds in spoken_seconds(sentence))  # frames
    for attempt in range(TRIES):
        wavs, rate, codes = model.generate_voice_design(
            sentence,
            args.description,
            language=args.language if args.sentence is None else "auto",
            seed=None if args.seed is None else seed_of(args.seed, 0, attempt),
            max_new_tokens=longest + 1,
            return_codes=True,
        )
        if shortest <= len(codes[0]) < longest:
            return wavs[0], rate
    raise RequestError(
        f"the design model stopped after {len(codes[0]) * frame:.1f} s, which cannot be the sentence, and the same "
        f"happened {TRIES} times; try another --seed or --sentence"
    )


def _voice_of_clip(model: Qwen3TTSModel, clip: Any, text: str | None) -> VoiceClonePromptItem:
    only_for(model, "base", "making a voice of a clip")
    voice = model.voice(ref_audio=clip, ref_text=text)
    assert isinstance(voice, ClonedVoice)
    return voice.item


def _save(voice: VoiceClonePromptItem, args: argparse.Namespace) -> None:
    voice.save(args.output)
    summary = _summary(args.output, voice)
    report(args, summary, _line(summary))


def _summary(path: Path, voice: VoiceClonePromptItem) -> dict[str, Any]:
    """A voice as JSON, without its arrays."""
    made = voice.fingerprint
    seconds = None if voice.ref_code is None else round(len(voice.ref_code) * FRAME, 2)
    return {
        "file": str(path),
        "model": None if made is None else SIZES.get(made.model_size, made.model_size),
        "mode": "in context" if voice.icl_mode else "speaker embedding",
        "width": len(voice.ref_spk_embedding),
        "codes_per_frame": None if voice.ref_code is None else voice.ref_code.shape[1],
        "seconds": seconds,
        "transcript": voice.ref_text,
        "description": voice.description or None,
        "speaker_encoder": None if made is None else made.speaker_encoder,
        "codebooks": None if made is None else made.codebooks,
    }


def _line(summary: dict[str, Any]) -> str:
    length = "" if summary["seconds"] is None else f", {summary['seconds']:.1f} s"
    text = summary["description"] or summary["transcript"] or ""
    shown = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    size = f"{summary['model']}, " if summary["model"] else ""
    return f"{summary['file']}: {size}{summary['mode']}{length}" + (f', "{printable(shown)}"' if shown else "")
