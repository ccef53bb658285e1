"""A run as one HTML page: tables, and every utterance with a player, its spectrogram and what was heard."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterator

import numpy as np

from ..audio.encode import MEDIA_TYPES, check_streamed, encoder
from ..audio.files import pcm16, resample
from ..errors import RequestError
from ..inspect.comparison import DECIBELS
from ..ops import Wave
from ..report.html import page
from ..report.markup import Markup, element, lines
from ..report.png import png
from ..report.tables import Table, as_html
from ..speaker.mel import PAD, SAMPLE_RATE, log_mel
from .clip import Clip
from .evaluation import Comparison, Evaluation
from .judge import Utterance
from .text import comparison_table, number, tables

RANGE = 80  # dB of a spectrogram, from black to white
PLAYED = ("mp3", "wav")  # the first that can be made here: every browser plays both
WIDTH = 240  # pixels of a second; a frame of the spectrogram is wider than one
SHOWN = ("mixed", "similarity", "similarity_own", "dnsmos", "pesq_wb", "stoi", "rate", "level", "runaway", "clicks")
STYLE = Markup("""
.utterance { border-top: 1px solid #ddd; padding: 0.6em 0 } .utterance p { margin: 0.2em 0; max-width: none }
.utterance img { height: 96px; image-rendering: auto; display: block; max-width: 100%; border: 1px solid #ccc }
.utterance audio { height: 32px; vertical-align: middle; margin-right: 1em } .id { font-weight: 600 }
.values { color: #333; font-variant-numeric: tabular-nums } ins { background: #fdecd9; text-decoration: none }
del { background: #fbe0dd } .label { color: #666 }
""")


def html(run: Evaluation, compared: Comparison | None = None) -> str:
    """The page; the worst heard first. RequestError if audio has gone since it was measured."""
    about = [comparison_table(compared)] if compared is not None else []
    shown: list[Table] = [*about, *tables(run)]
    order = sorted(run.utterances, key=lambda u: -_errors(u))
    parts = [element("style", STYLE), *map(as_html, shown), element("h2", "Utterances"), *map(_utterance, order)]
    return page(f"Evaluation of {run.name}", *parts)


def _errors(utterance: Utterance) -> float:
    found = utterance.values.get("mixed")
    return found.value * found.weight if found is not None else 0.0


def _utterance(u: Utterance) -> Markup:
    clip = Clip.read(u.audio)
    values = [f"{name} {number(u.values[name].value, name)}" for name in SHOWN if name in u.values]
    heading = element("p", element("span", u.id, class_="id"), " ", element("span", u.text or "", lang=None))
    parts = [heading]
    if u.heard is not None and u.said is not None and u.heard != u.said:
        parts.append(element("p", element("span", "heard: ", class_="label"), *marked(u.said, u.heard)))
    parts.append(element("p", player(clip), element("span", ", ".join(values), class_="values")))
    parts.append(spectrogram(clip, u.text or u.id))
    return element("div", lines(["", *parts, ""]), class_="utterance")


def marked(said: str, heard: str) -> Iterator[Markup | str]:
    """What was heard, with the words that were left out struck and those that were added marked."""
    unit = " " if " " in said else ""
    a, b = (said.split(), heard.split()) if unit else (list(said), list(heard))
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            yield unit.join(b[b0:b1]) + unit
            continue
        if a1 > a0:
            yield element("del", unit.join(a[a0:a1]))
            yield unit
        if b1 > b0:
            yield element("ins", unit.join(b[b0:b1]))
            yield unit


def player(clip: Clip) -> Markup:
    """Controls that play it, with the sound inside the page."""
    name = _format()
    made = encoder(name, SAMPLE_RATE)
    content = made.add(pcm16(resample(clip.wave, clip.rate, SAMPLE_RATE))) + made.finish()
    return element("audio", "", controls="", preload="none", src=data_url(content, MEDIA_TYPES[name]))


def _format() -> str:
    for name in PLAYED:
        try:
            return check_streamed(name)
        except RequestError:
            continue
    return PLAYED[-1]


def spectrogram(clip: Clip, alternative: str) -> Markup:
    """The speaker encoder's log-mel spectrogram, low frequencies below, black is loud."""
    wave: Wave = resample(clip.wave, clip.rate, SAMPLE_RATE)
    if len(wave) <= PAD:
        return Markup("")
    levels = log_mel(wave) * DECIBELS  # [T, mels]
    grey = np.clip((levels.max() - levels) / RANGE, 0, 1)
    content = png(np.rint(255 * grey.T[::-1]).astype(np.uint8))
    width = max(1, round(clip.seconds * WIDTH))
    return element(
        "img", src=data_url(content, "image/png"), alt=f"spectrogram: {alternative}", style=f"width: {width}px"
    )


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
