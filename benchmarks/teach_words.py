"""Teach the demo voice words of your own, and hear how well it says them: before, after, and through the codec alone.

    python benchmarks/teach_words.py
    python benchmarks/teach_words.py water winter ticket --out taught

Needs espeakng-loader (pip install --no-deps espeakng-loader), which speaks the new words in the two voices of the
recipe, and the extra evaluate, whose pocketsphinx listens. The commands are those that any voice is trained with, and
are printed: ``train prepare``, ``train``, ``batch``, ``evaluate``. The taught checkpoint is OUT/taught/last.

What makes it work, in the order of its weight:

- **Words are spliced.** On the frame grid of this voice every word is whole frames, so a few recordings of each word
  make any number of sentences. Every row has another order of words, and every word is heard in both voices.
- **A past it cannot rely on**: the augmentation "exchange" (``--replace-past``).
- **The old words are its own.** The codes of what it says already come from itself, so there is nothing to forget;
  codes that the encoder makes of recordings differ from them in the fine groups.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "golden" / "demo_voice"
sys.path.insert(0, str(RECIPE))

import grammar  # noqa: E402
from recogniser import arpa  # noqa: E402

from qwen3tts_np import Qwen3TTSModel  # noqa: E402
from qwen3tts_np.manifest import Manifest  # noqa: E402
from qwen3tts_np.speech.demo import CHECKPOINT  # noqa: E402

WORDS = "basket birthday dinner floor market planet reason season summer ticket tiger water wine winter".split()
RECORDINGS = 500  # sentences with new words, spoken by espeak-ng: about 18 minutes
OWN = 700  # sentences with known words, spoken by the voice itself
HELD = 40  # sentences of each kind that are in no training text
STEPS, BATCH = 950, 16
RATE = "1.5e-3"
WHOLE = {"own": 0.15, "recorded": 0.08}  # shares of rows that somebody has said as they are; others are spliced
SENTENCES = 0.45  # share of grammatical texts in those
NEW = 0.5  # share of new words where they may stand
GREEDY = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 90}
SAMPLE_RATE = 24000
AT_ONCE = 100  # texts that the voice says at a time
END = ""  # the silent frame behind the last word

Row = dict[str, Any]
Segments = dict[tuple[str, str], list[list[list[int]]]]  # (word, voice) -> codes [frames][G] of each time it was said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=WORDS, help="new words, in lower case, that pocketsphinx can spell")
    parser.add_argument("--out", type=Path, default=Path("taught"), help="a new folder")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    if known := sorted({*args.words} & {*grammar.VOCABULARY}):
        parser.error(f"it says these already: {' '.join(known)}")
    args.out.mkdir(parents=True)
    start = time.monotonic()
    held = texts_held_out(args.words)
    espeak = Espeak(args.out / "espeak")
    record(espeak, args.out, args.words, held)
    for name in ("recorded", *held):
        run("train", "prepare", args.out / f"{name}.raw.jsonl", args.out / f"{name}.jsonl", *PREPARE)
    write(
        args.out / "train.jsonl", rows_of(args.words, recorded(espeak, args.out), own(espeak, held), args.steps * BATCH)
    )
    prepared = time.monotonic()
    run("train", CHECKPOINT, args.out / "train.jsonl", args.out / "taught", *training(args.steps))
    trained = time.monotonic()
    rates = {name: hear(args.out, name, args.words, held) for name in held}
    print(f"\n{prepared - start:.0f} s to record, prepare and splice, {trained - prepared:.0f} s to train")
    for name, found in rates.items():
        print(f"{name} words: " + ", ".join(f"{who} {rate:.1%}" for who, rate in found.items()))
    (args.out / "result.json").write_text(json.dumps({"words": args.words, "word_error_rate": rates}, indent=1) + "\n")


PREPARE = ("--model", CHECKPOINT, "--validation", "0%", "--round-trips", "0")


def training(steps: int) -> tuple[str, ...]:
    """Options of ``train``: every row once, all weights, the embeddings of words that it has never read too."""
    once = f"--batch-size {BATCH} --gradient-accumulation-steps 1 --num-epochs 1 --warmup-steps 30"
    kept = f"--save-steps {steps} --eval-steps {steps} --save-total-limit 1"
    how = f"--train full --train-text-embedding --learning-rate {RATE} --replace-past 0.5"
    return tuple(f"{how} {once} {kept}".split())


class Espeak:
    """espeak-ng in the two voices of the recipe, every word on the frame grid; started once."""

    def __init__(self, folder: Path) -> None:
        from corpus import VOICES, Speaker

        self.voices = [voice.name for voice in VOICES]
        self._speaker = Speaker(folder)

    def say(self, text: str, voice: str) -> Any:
        """Its ``wave`` [samples], and ``word_of_frame`` [frames]."""
        return self._speaker.say(text, self.voices.index(voice))


def texts_held_out(words: list[str]) -> dict[str, list[str]]:
    """Sentences to be measured on: with new words, and without."""
    draw, chosen = Random("held out, new words"), dict[str, None]()
    while len(chosen) < HELD:
        text = with_new(draw, words)
        if {*text.split()} & {*words}:
            chosen[text] = None
    return {"new": list(chosen), "old": grammar.held_out(200, 0)[:HELD]}


def with_new(draw: Random, words: list[str]) -> str:
    """A text with new words: a sentence where one may stand, or any words."""
    kinds = (
        lambda: f"{draw.choice(grammar.VERBS)} the {draw.choice(grammar.COLOURS)} {draw.choice(words)}",
        lambda: f"the {draw.choice(words)} is in the {draw.choice(grammar.ROOMS)}",
        lambda: f"i see {grammar.number(draw)} {draw.choice(words)} and {grammar.number(draw)} {draw.choice(words)}",
        lambda: f"meet my {draw.choice(words)} on {draw.choice(grammar.DAYS)} at {grammar.number(draw)}",
        lambda: " ".join(draw.choice([*words, *grammar.VOCABULARY]) for _ in range(draw.randrange(2, 6))),
        lambda: " ".join(draw.choice(words) for _ in range(draw.randrange(1, 4))),
    )
    return draw.choice(kinds)()


def record(espeak: Espeak, out: Path, words: list[str], held: dict[str, list[str]]) -> None:
    """Speak the texts of training and of the measures with espeak-ng: WAV files, and a manifest of each kind."""
    draw, forbidden = Random("recorded"), {text for texts in held.values() for text in texts}
    texts = dict.fromkeys(text for _ in range(4 * RECORDINGS) if (text := with_new(draw, words)) not in forbidden)
    for name, spoken in (("recorded", [*texts][:RECORDINGS]), *held.items()):
        (out / name).mkdir()
        rows = []
        for i, text in enumerate(spoken):
            voice, file = espeak.voices[i % len(espeak.voices)], f"{name}/{i:04}.wav"
            soundfile.write(out / file, espeak.say(text, voice).wave, SAMPLE_RATE, subtype="PCM_16")
            rows.append({"id": f"{name}{i}", "audio": file, "text": text, "speaker": voice})
        write(out / f"{name}.raw.jsonl", rows)


@dataclass(frozen=True)
class Said:
    """An utterance whose words are known frame by frame."""

    text: str
    voice: str
    codes: list[list[int]]  # [frames][G]
    word: Any  # [frames] the number of the word that is spoken, or whose silence follows

    def row(self) -> Row:
        return {"text": self.text, "speaker": self.voice, "audio_codes": self.codes}


def recorded(espeak: Espeak, out: Path) -> list[Said]:
    """The recordings, as ``train prepare`` has encoded them."""
    found = []
    for row in Manifest(out / "recorded.jsonl").rows():
        assert row.text is not None and row.speaker is not None and isinstance(row.audio_codes, list)
        found.append(Said(row.text, row.speaker, row.audio_codes, espeak.say(row.text, row.speaker).word_of_frame))
    return found


def own(espeak: Espeak, held: dict[str, list[str]]) -> list[Said]:
    """What the voice says of texts that it knows; where it takes other lengths than espeak-ng, nobody says which word
    is where, and it is left out."""
    forbidden = {text for texts in held.values() for text in texts}
    texts = [grammar.training_text(i, forbidden, 7) for i in range(OWN)]
    voices = [espeak.voices[i // 2 % len(espeak.voices)] for i in range(OWN)]
    model, found = Qwen3TTSModel.from_pretrained(CHECKPOINT), []
    for i in range(0, OWN, AT_ONCE):
        together, who = texts[i : i + AT_ONCE], voices[i : i + AT_ONCE]
        made = model.generate_custom_voice(together, who, language="english", return_codes=True, **GREEDY)[2]
        for text, voice, codes in zip(together, who, made, strict=True):
            word = espeak.say(text, voice).word_of_frame
            if len(word) == len(codes):
                found.append(Said(text, voice, codes.tolist(), word))
    return found


def rows_of(words: list[str], recordings: list[Said], known: list[Said], count: int) -> list[Row]:
    """Rows to learn from: some that somebody has said as they are, and others of words that somebody has said."""
    found: Segments = defaultdict(list)
    for said, wanted in ((recordings, {*words, END}), (known, {*grammar.VOCABULARY, END})):
        for one in said:
            cut(found, one, wanted)
    voices = sorted({voice for _, voice in found})
    there = {word for word, _ in found if all(found.get((word, voice)) for voice in voices)}
    new = sorted(there & {*words})
    rows = []
    for i in range(count):
        draw = Random(f"row {i}")
        kind = draw.random()
        if kind < WHOLE["own"]:
            row = draw.choice(known).row()
        elif kind < WHOLE["own"] + WHOLE["recorded"]:
            row = draw.choice(recordings).row()
        else:
            text = [word for word in text_of(draw, words) if word in there] or [draw.choice(new)]
            voice = draw.choice(voices)
            frames = [frame for word in (*text, END) for frame in draw.choice(found[word, voice])]
            row = {"text": " ".join(text), "speaker": voice, "audio_codes": frames}
        layout = {"non_streaming_mode": draw.random() > 0.2, "language": "english" if draw.random() < 0.8 else "auto"}
        rows.append(row | layout)
    return rows


def cut(found: Segments, said: Said, wanted: set[str]) -> None:
    """Add those words of an utterance that are wanted."""
    words = said.text.split()
    for i, word in enumerate(words):
        frames = [said.codes[at] for at in np.flatnonzero(said.word == i)]
        if i == len(words) - 1:
            frames, end = frames[:-1], frames[-1:]
            found[END, said.voice].append(end)
        if frames and word in wanted:
            found[word, said.voice].append(frames)


def text_of(draw: Random, words: list[str]) -> list[str]:
    """A sentence, in which new words may stand where nouns, colours and days do; or any words."""
    kind = draw.random()
    if kind > SENTENCES:
        return [draw.choice(words if draw.random() < NEW else grammar.VOCABULARY) for _ in range(draw.randrange(1, 8))]
    text = grammar.sentence(draw).split()
    if kind > SENTENCES / 3:
        places = {*grammar.THINGS, *grammar.ROOMS, *grammar.COLOURS, *grammar.DAYS}
        text = [draw.choice(words) if word in places and draw.random() < NEW else word for word in text]
    return text


def hear(out: Path, name: str, words: list[str], held: dict[str, list[str]]) -> dict[str, float]:
    """Word error rates on the held-out texts: the recordings, these through the codec, the voice before and after."""
    rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    heard = {"recordings": out / f"{name}.raw.jsonl", "codec alone": through_codec(out, name, rows)}
    asked = [{key: row[key] for key in ("id", "text", "speaker")} | {"language": "english"} | GREEDY for row in rows]
    write(out / f"{name}.asked.jsonl", asked)
    for who, model in (("before", CHECKPOINT), ("after", out / "taught" / "last")):
        run("batch", model, out / f"{name}.asked.jsonl", out / f"{name}.{who}")
        heard[who] = out / f"{name}.{who}" / "results.jsonl"
    vocabulary = sorted({*grammar.VOCABULARY, *words})
    (out / "words.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    draw, forbidden = Random("grammar"), {text for texts in held.values() for text in texts}
    texts = [
        *(grammar.training_text(i, forbidden, 0) for i in range(0, 4000, 2)),
        *(with_new(draw, words) for _ in range(2000)),
    ]
    (out / "bigrams.arpa").write_text(arpa(vocabulary, texts), encoding="utf-8")
    rates = {}
    for who, manifest in heard.items():
        result = out / f"{name}.{who.replace(' ', '-')}.json"
        options = ("--measure", "words", "--words", out / "words.txt", "--grammar", out / "bigrams.arpa")
        run("evaluate", manifest, *options, "--name", who, "-o", result)
        rates[who] = json.loads(result.read_text(encoding="utf-8"))["means"]["wer"]["mean"]
    return rates


def through_codec(out: Path, name: str, rows: list[Row]) -> Path:
    """The held-out recordings, encoded and decoded: as well as any voice with this codec can speak."""
    folder = out / f"{name}.codec"
    folder.mkdir()
    codec = Qwen3TTSModel.from_pretrained(CHECKPOINT).speech_tokenizer
    for row in rows:
        (wave,), rate = codec.decode([np.array(row["audio_codes"])])
        soundfile.write(folder / f"{row['id']}.wav", wave, rate, subtype="PCM_16")
    manifest = folder / "heard.jsonl"
    write(manifest, [{"id": row["id"], "text": row["text"], "audio": f"{row['id']}.wav"} for row in rows])
    return manifest


def write(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def run(*words: Any) -> None:
    """One command of the package."""
    command = [str(word) for word in words]
    print(f"qwen3tts-np {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "qwen3tts_np", *command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
