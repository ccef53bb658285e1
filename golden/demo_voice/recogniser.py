"""An independent listener: pocketsphinx with its own acoustic model and a bigram model of the grammar."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16000
FLOOR = 3e-4  # of noise: the acoustic model was not trained on digital silence
BACKOFF = 0.1


class Recogniser:
    def __init__(self, folder: Path, vocabulary: list[str], sentences: list[str]) -> None:
        from pocketsphinx import Decoder, get_model_path

        model = Path(get_model_path()) / "en-us"
        dictionary, grammar = folder / "words.dict", folder / "bigrams.arpa"
        known = (model / "cmudict-en-us.dict").read_text(encoding="utf-8").splitlines()
        kept = [line for line in known if line.split()[0].partition("(")[0] in set(vocabulary)]
        dictionary.write_text("\n".join(kept) + "\n", encoding="utf-8")
        grammar.write_text(arpa(vocabulary, sentences), encoding="utf-8")
        self._decoder = Decoder(
            hmm=str(model / "en-us"), dict=str(dictionary), lm=str(grammar), samprate=RATE, loglevel="FATAL", lw=6.5
        )

    def hear(self, wave: NDArray[np.float32], rate: int) -> str:
        quiet = np.zeros(RATE // 5, np.float32)
        wave = np.concatenate([quiet, soxr.resample(wave, rate, RATE), quiet])
        wave = wave + FLOOR * np.random.default_rng(0).standard_normal(len(wave))
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(wave, -1, 1) * 32000).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


def arpa(vocabulary: list[str], sentences: list[str]) -> str:
    """A bigram model with absolute counts and a fixed share for backing off, as an ARPA file."""
    words = ["<s>", "</s>", *vocabulary]
    lines = [["<s>", *text.split(), "</s>"] for text in sentences]
    single = Counter(word for line in lines for word in line[1:])
    pairs = Counter(pair for line in lines for pair in pairwise(line))
    before = Counter(first for first, _ in pairs.elements())
    total = sum(single.values()) + 0.5 * len(words)
    out = ["\\data\\", f"ngram 1={len(words)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    for word in words:
        share = -99 if word == "<s>" else math.log10((single[word] + 0.5) / total)
        out.append(f"{share:.4f} {word} {math.log10(BACKOFF):.4f}")
    out += ["", "\\2-grams:"]
    for (first, second), count in sorted(pairs.items()):
        out.append(f"{math.log10((1 - BACKOFF) * count / before[first]):.4f} {first} {second}")
    return "\n".join([*out, "", "\\end\\", ""])


def word_errors(said: str, heard: str) -> int:
    """Levenshtein distance in words."""
    wanted, found = said.split(), heard.split()
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        above, row[0] = row.copy(), i
        for j, other in enumerate(found, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1]


def word_error_rate(pairs: list[tuple[str, str]]) -> float:
    return sum(word_errors(said, heard) for said, heard in pairs) / sum(len(said.split()) for said, _ in pairs)
