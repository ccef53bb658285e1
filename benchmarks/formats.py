"""What each weight format costs in speech, on the one checkpoint here that really speaks: the demo voice.

    pip install -e '.[evaluate,plot]'
    python benchmarks/formats.py                       half an hour on two cores; writes formats.json, .md and .png
    python benchmarks/formats.py --count 20 --judged 5 --out /tmp/formats

Every format speaks the 200 sentences of demo_sentences.txt, which are in no training text, greedy and with the
checkpoint's sampling (the seed of a sentence is its number, for all formats). ``evaluate`` measures them with the
demo's words and grammar; each format is compared with float32 sentence by sentence. DNSMOS takes seconds a sentence, so
it judges the first 12; ``fidelity`` lets each format read float32's own codes of the first 2. Sounds that are equal to
the last sample are judged once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine

from qwen3tts_np import CustomVoice, Qwen3TTSModel
from qwen3tts_np.audio.files import write_audio
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS
from qwen3tts_np.evaluate.evaluation import Comparison, Evaluation, compared, evaluate
from qwen3tts_np.evaluate.judge import Judges, Utterance
from qwen3tts_np.evaluate.recogniser import recogniser
from qwen3tts_np.files.output import scratch_folder, write_text
from qwen3tts_np.manifest import Row
from qwen3tts_np.parity.fidelity import Fidelity, fidelity
from qwen3tts_np.report.plots import figure
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.request import Request
from qwen3tts_np.speech.demo import CHECKPOINT

HERE = Path(__file__).resolve().parent
SENTENCES = HERE / "demo_sentences.txt"
GRAMMAR = HERE.parent / "golden" / "demo_voice" / "bigrams.arpa"
EXACT = "float32"
MODES: dict[str, dict[str, Any]] = {"greedy": {"do_sample": False, "subtalker_dosample": False}, "sampled": {}}
TOGETHER = 25  # sentences
MOST = 100  # frames; the longest sentence has 44
PICTURE = "![word error rate, DNSMOS and divergence of each format](formats.png)"
REAL_WEIGHTS = (
    "Real weights may behave otherwise: other projects report a WER of 0.12 to 0.18 at 4 bits, against 0.07 at 8, on "
    "released ones. `qwen3tts-np evaluate` and `qwen3tts-np fidelity` tell for yours."
)

Spoken = dict[str, dict[str, list[tuple[str, np.ndarray[Any, Any]]]]]  # mode -> format -> (hash of the sound, codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", default=list(WEIGHT_FORMATS), choices=WEIGHT_FORMATS)
    parser.add_argument("--count", type=int, default=200, help="sentences")
    parser.add_argument("--judged", type=int, default=12, help="of them by DNSMOS")
    parser.add_argument("--read", type=int, default=2, help="of them by fidelity")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[: args.count]
    formats = [EXACT, *(name for name in args.formats if name != EXACT)]
    with scratch_folder() as folder:
        spoken = speak_all(formats, texts, folder)
        measured = measure(spoken, texts, args.judged, folder)
    print("measured", flush=True)
    read = readings(formats, texts[: args.read])
    report = make_report(spoken, measured, read, texts, args.judged, args.read)
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "formats.json", json.dumps(report, indent=1) + "\n")
    write_text(args.out / "formats.md", markdown(report))
    plot(report, args.out / "formats.png")
    print(markdown(report))


# --- speech ---


def speak_all(formats: Sequence[str], texts: Sequence[str], folder: Path) -> Spoken:
    """Every sentence in every format and mode; a sound is a file in ``folder`` with its hash for a name."""
    spoken: Spoken = {mode: {} for mode in MODES}
    for name in formats:
        model = Qwen3TTSModel.from_pretrained(CHECKPOINT, weights_format=name)
        for mode, sampling in MODES.items():
            requests = [request(model, text, n, sampling) for n, text in enumerate(texts)]
            spoken[mode][name] = []
            for first in range(0, len(requests), TOGETHER):
                for wave, codes in model.generate(requests[first : first + TOGETHER]):
                    key = sha256(wave.tobytes()).hexdigest()
                    if not (folder / f"{key}.flac").exists():
                        write_audio(folder / f"{key}.flac", wave, model.speech_tokenizer.get_output_sample_rate())
                    spoken[mode][name].append((key, codes))
        print(f"spoken in {name}", flush=True)
    return spoken


def request(model: Qwen3TTSModel, text: str, number: int, sampling: dict[str, Any]) -> Request:
    speakers = model.get_supported_speakers()
    voice = CustomVoice(speakers[number % len(speakers)])
    return model.prepare(text, voice, language="english", seed=number, max_new_tokens=MOST + 1, **sampling)


# --- judges ---


def measure(spoken: Spoken, texts: Sequence[str], judged: int, folder: Path) -> dict[str, dict[str, Evaluation]]:
    """mode -> format -> what ``evaluate`` finds."""
    words = recogniser("pocketsphinx", CHECKPOINT / "words.txt", GRAMMAR)
    heard = once(spoken, texts, folder, Judges(("words", "sound"), words, "plain"))
    liked = once(spoken, texts[:judged], folder, Judges(("dnsmos",)))
    found: dict[str, dict[str, Evaluation]] = {}
    for mode, formats in spoken.items():
        found[mode] = {}
        for name, sounds in formats.items():
            utterances = []
            for n, (text, (key, _)) in enumerate(zip(texts, sounds, strict=True)):
                utterance = heard[text, key]
                values = dict(utterance.values) | (dict(liked[text, key].values) if n < judged else {})
                utterances.append(replace(utterance, id=str(n), values=values))
            found[mode][name] = Evaluation(name, {}, utterances)
    return found


def once(spoken: Spoken, texts: Sequence[str], folder: Path, judges: Judges) -> dict[tuple[str, str], Utterance]:
    """(text, hash of the sound) -> what was measured, each once."""
    sounds = [each for formats in spoken.values() for each in formats.values()]
    pairs = dict.fromkeys((text, key) for each in sounds for text, (key, _) in zip(texts, each, strict=False))
    rows = [Row(n, str(n), str(n), text=text, audio=str(folder / f"{key}.flac")) for n, (text, key) in enumerate(pairs)]
    return dict(zip(pairs, evaluate(rows, judges, "all").utterances, strict=True))


def readings(formats: Sequence[str], texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Of each format that reads float32's codes: the share of equal best codes, and divergences in nats."""
    found = [fidelity(CHECKPOINT, formats, frames=MOST, text=text) for text in texts]
    return {name: pooled([each[n] for each in found]) for n, name in enumerate(formats)}


def pooled(found: Sequence[Fidelity]) -> dict[str, float]:
    """Means over all codes of several texts."""
    talker, predictor = [f.talker for f in found], [f.code_predictor for f in found]
    count = {"talker": sum(a.codes for a in talker), "code_predictor": sum(a.codes for a in predictor)}
    pooled = {
        f"{part}_kl": sum(a.divergence * a.codes for a in each) / count[part]
        for part, each in (("talker", talker), ("code_predictor", predictor))
    }
    same = sum(a.top1 * a.codes for a in (*talker, *predictor))
    return {**pooled, "equal_best_codes": same / sum(count.values())}


# --- report ---


def make_report(
    spoken: Spoken,
    measured: dict[str, dict[str, Evaluation]],
    read: dict[str, dict[str, float]],
    texts: Sequence[str],
    judged: int,
    count_read: int,
) -> dict[str, Any]:
    rows = []
    for mode, formats in measured.items():
        exact = formats[EXACT]
        for name, run in formats.items():
            against = compared(exact, run)
            rows.append(
                {
                    "format": name,
                    "mode": mode,
                    "sentences_equal": equal_sentences(spoken[mode][EXACT], spoken[mode][name]),
                    **{key: interval(run, key) for key in ("wer", "dnsmos", "runaway", "seconds")},
                    **{f"{key}_off": differences(against, key) for key in ("wer", "dnsmos")},
                }
            )
    return {
        "machine": describe_machine(),
        "sentences": len(texts),
        "judged": judged,
        "read": count_read,
        "rows": rows,
        "reading": read,
    }


def equal_sentences(exact: Sequence[tuple[str, Any]], other: Sequence[tuple[str, Any]]) -> float:
    """The share of sentences whose codes are all equal."""
    return float(np.mean([np.array_equal(a, b) for (_, a), (_, b) in zip(exact, other, strict=True)]))


def interval(run: Evaluation, name: str) -> list[float]:
    mean = run.means[name]
    return [mean.value, mean.low, mean.high]


def differences(against: Comparison, name: str) -> dict[str, Any]:
    """From float32, sentence by sentence: the difference, its interval, p, and the verdict of ``evaluate``."""
    (found,) = [c for c in against.measures if c.measure.name == name]
    d = found.difference
    return {"value": d.value, "low": d.low, "high": d.high, "p": d.p, "verdict": found.verdict}


def markdown(report: dict[str, Any]) -> str:
    parts = ["# What each weight format costs", about(report), as_markdown(speech_table(report)), PICTURE]
    return "\n\n".join([*parts, as_markdown(reading_table(report)), REAL_WEIGHTS]) + "\n"


def about(report: dict[str, Any]) -> str:
    return (
        f"The demo voice, {report['sentences']} sentences that are in no training text, in two voices. Heard by "
        f"pocketsphinx with the demo's words and grammar; DNSMOS of the first {report['judged']}; codes of the first "
        f"{report['read']} read by each format. Intervals are of 95 %. Equal: sentences whose codes are all those of "
        "float32."
    )


def speech_table(report: dict[str, Any]) -> Table:
    rows = []
    for row in report["rows"]:
        rate, low, high = row["wer"]
        off, liked = row["wer_off"], row["dnsmos"]
        verdict = "" if row["format"] == EXACT else off["verdict"]
        change = "" if row["format"] == EXACT else f"{off['value']:+.1%} ({off['low']:+.1%} to {off['high']:+.1%})"
        rows.append(
            [
                row["format"],
                row["mode"],
                f"{row['sentences_equal']:.0%}",
                f"{rate:.1%} ({low:.1%} to {high:.1%})",
                change,
                verdict,
                f"{liked[0]:.2f} ({liked[1]:.2f} to {liked[2]:.2f})",
                f"{row['runaway'][0]:.1%}",
            ]
        )
    headers = ["format", "", "equal", "WER", "against float32", "verdict", "DNSMOS", "runaways"]
    return Table("", headers, "llrrrlrr", rows)


def reading_table(report: dict[str, Any]) -> Table:
    rows = [
        [name, f"{r['equal_best_codes']:.2%}", f"{r['talker_kl']:.2g}", f"{r['code_predictor_kl']:.2g}"]
        for name, r in report["reading"].items()
    ]
    return Table("", ["format", "equal best codes", "KL of code 0, nats", "KL of the others, nats"], "lrrr", rows)


def plot(report: dict[str, Any], path: Path) -> None:
    formats = list(report["reading"])
    with figure(path, f"The demo voice in each weight format, {report['sentences']} sentences", 3, (8, 8)) as axes:
        for axis, key, label in ((axes[0], "wer", "word error rate"), (axes[1], "dnsmos", "DNSMOS overall")):
            for shift, mark, mode in ((-0.1, "o", "greedy"), (0.1, "s", "sampled")):
                rows = [row for row in report["rows"] if row["mode"] == mode]
                mean, low, high = np.array([row[key] for row in rows]).T
                at = np.arange(len(rows)) + shift
                colour = "black" if mode == "greedy" else "0.55"
                axis.errorbar(at, mean, [mean - low, high - mean], fmt=mark, color=colour, capsize=3, label=mode)
            axis.set(title=f"{label}, 95 % intervals", ylabel=label)
            axis.legend(fontsize=8)
        axes[0].set_ylim(bottom=0)
        for style, key, label in (("o-", "talker_kl", "code 0"), ("s--", "code_predictor_kl", "codes 1 to 15")):
            values = [max(report["reading"][name][key], 1e-12) for name in formats]
            axes[2].plot(range(len(formats)), values, style, color="black" if style == "o-" else "0.55", label=label)
        axes[2].set(title="divergence from float32, same codes read", ylabel="KL (nats)", yscale="log")
        axes[2].legend(fontsize=8)
        for axis in axes:
            axis.set_xticks(range(len(formats)), formats)
            axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
