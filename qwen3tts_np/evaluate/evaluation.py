"""A manifest measured: values of every utterance, their means, and the comparison of two such runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qwen3tts_np_kernels.system import usable_cores

from ..checkpoint.json_file import read_json
from ..errors import RequestError
from ..extras import imported
from ..files.name import shown_name
from ..manifest import Row
from ..report.values import finite
from ..shown import shortened
from . import codec_quality, dnsmos, resemblyzer, word_errors
from .judge import Judge, Judges, Utterance
from .measures import MEASURES, Measure, measure
from .statistics import Difference, Mean, Value, difference, mean
from .wheels import INSTALL

FORMAT = "qwen3tts-np evaluation 1"


@dataclass(frozen=True)
class Evaluation:
    """``missing``: rows without audio; ``left_out``: groups that were not measured; each with the reason."""

    name: str
    judges: Mapping[str, str]
    utterances: Sequence[Utterance]
    missing: Sequence[str] = ()
    left_out: Sequence[str] = ()

    @cached_property
    def means(self) -> dict[str, Mean]:
        """By name of measure, in the order of the table."""
        found = {}
        for name in measured(self.utterances):
            if (one := mean([u.values[name] for u in self.utterances if name in u.values])) is not None:
                found[name] = one
        return found

    def as_json(self) -> dict[str, Any]:
        """What :func:`load` reads; values are ``[value, weight]``, and what is not finite is null."""
        means = {
            name: {"mean": m.value, "low": m.low, "high": m.high, "count": m.count} for name, m in self.means.items()
        }
        utterances = [
            {
                **{
                    key: value
                    for key in ("id", "audio", "text", "language", "said", "heard")
                    if (value := getattr(u, key)) is not None
                },
                "values": {name: [v.value, v.weight] for name, v in u.values.items()},
            }
            for u in self.utterances
        ]
        return finite(
            {
                "format": FORMAT,
                "name": self.name,
                "judges": dict(self.judges),
                "means": means,
                "missing": list(self.missing),
                "left_out": list(self.left_out),
                "utterances": utterances,
            }
        )


def measured(utterances: Iterable[Utterance]) -> list[str]:
    """Names of what was measured, in the order of the table, then those of commands."""
    names = {name for u in utterances for name in u.values}
    return [*(name for name in MEASURES if name in names), *sorted(names - MEASURES.keys())]


def evaluate(
    rows: Iterable[Row],
    judges: Judges,
    name: str,
    left_out: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure every row that has audio. RequestError if none has, or two have one id."""
    spoken: dict[str, Row] = {}
    missing = []
    for row in rows:
        key = row.id if row.id is not None else str(row.line)
        if row.audio is None:
            missing.append(f"{key}: {row.error or 'it has no audio'}")
        elif key in spoken:
            raise RequestError(f"the id {shortened(key)} is of two rows, in lines {spoken[key].line} and {row.line}")
        else:
            spoken[key] = row
    if not spoken:
        raise RequestError(f"none of {len(missing)} rows has audio: {missing[0] if missing else 'there are none'}")
    judge = Judge(judges)
    with ThreadPoolExecutor(usable_cores()) as pool:
        tasks = [pool.submit(judge.measure, row, key) for key, row in spoken.items()]
        try:
            utterances = []
            for task in tasks:
                utterances.append(task.result())
                if progress is not None:
                    progress(len(utterances))
        finally:
            pool.shutdown(cancel_futures=True)
    return Evaluation(name, judges.described(), utterances, missing, left_out)


NEEDS: dict[str, Callable[[], object]] = {
    "words": lambda: imported("jiwer", word_errors.PURPOSE, INSTALL),
    "speaker": resemblyzer.check,
    "dnsmos": dnsmos.sessions,
    "codec": lambda: [imported(name, codec_quality.PURPOSE, INSTALL) for name in ("pesq", "pystoi")],
    "sound": lambda: None,
    "level": lambda: imported("pyloudnorm", "the level", INSTALL),
}


def obstacle(group: str) -> str | None:
    """Why the measures of a group, or ``level``, cannot be taken here, in a sentence; None if they can."""
    try:
        NEEDS[group]()
    except RequestError as e:
        return str(e)
    return None


def load(path: Path) -> Evaluation:
    """A run that was written as JSON. RequestError, or ConfigError, if the file holds none."""
    found = read_json(path, "run")
    if found.get("format") != FORMAT:
        raise RequestError(f"{shown_name(path)} is no run of evaluate: its format is {shortened(found.get('format'))}")
    try:
        utterances = [
            Utterance(
                **{key: one.get(key) for key in ("id", "audio", "text", "language", "said", "heard")},
                values={name: Value(float(v[0]), float(v[1])) for name, v in one["values"].items()},
            )
            for one in found["utterances"]
        ]
        return Evaluation(str(found["name"]), dict(found["judges"]), utterances, found["missing"], found["left_out"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise RequestError(f"{shown_name(path)} is no run of evaluate: {e}") from None


@dataclass(frozen=True)
class Compared:
    """One measure of two runs. ``verdict`` is that of :meth:`Difference.verdict`."""

    measure: Measure
    difference: Difference
    margin: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Run B against run A, over the utterances that both have."""

    a: str
    b: str
    pairs: int
    measures: Sequence[Compared]

    def sentence(self) -> str:
        """What has been measured, in one sentence."""
        judged = [c for c in self.measures if c.measure.better]
        if all(c.verdict == "same" for c in self.measures):
            return f"{self.b} and {self.a} do not differ in anything that was measured ({self.pairs} pairs)"

        def named(*verdicts: str) -> str:
            return ", ".join(c.measure.name for c in judged if c.verdict in verdicts)

        good, better, worse, open_ = (
            named("same", "as good"),
            named("better"),
            named("worse"),
            named("undecided"),
        )
        parts = []
        if worse:
            parts.append(f"worse than {self.a} in {worse}")
        if better:
            parts.append(f"better in {better}" if parts else f"better than {self.a} in {better}")
        if good:
            parts.append(f"as good in {good}" if parts else f"as good as {self.a} here, in {good}")
        if open_:
            parts.append(f"undecided in {open_} (more utterances would tell)")
        return f"{self.b} is {'; '.join(parts)} ({self.pairs} pairs)"

    def as_json(self) -> dict[str, Any]:
        """By name of measure: both means, their difference with its interval, and the verdict."""
        measures = {
            c.measure.name: {
                "a": c.difference.a,
                "b": c.difference.b,
                "difference": c.difference.value,
                "low": c.difference.low,
                "high": c.difference.high,
                "p": c.difference.p,
                "count": c.difference.count,
                "margin": c.margin,
                "verdict": c.verdict,
            }
            for c in self.measures
        }
        return finite(
            {"a": self.a, "b": self.b, "pairs": self.pairs, "sentence": self.sentence(), "measures": measures}
        )


def compared(a: Evaluation, b: Evaluation, margins: Mapping[str, float] | None = None) -> Comparison:
    """B against A. RequestError if they have no utterance in common, other texts under one id, or other judges."""
    for key in a.judges.keys() & b.judges.keys():
        if a.judges[key] != b.judges[key]:
            raise RequestError(
                f"two runs are compared by the same judges: the {key} of {a.name} is {shortened(a.judges[key])}, "
                f"that of {b.name} {shortened(b.judges[key])}"
            )
    by_id = {u.id: u for u in a.utterances}
    pairs = [(by_id[u.id], u) for u in b.utterances if u.id in by_id]
    if not pairs:
        raise RequestError(f"{a.name} and {b.name} have no id in common")
    for one, other in pairs:
        if one.text != other.text:
            raise RequestError(f"the id {shortened(one.id)} has another text in {b.name} than in {a.name}")
    found = []
    for name in measured([u for pair in pairs for u in pair]):
        both = [(x.values[name], y.values[name]) for x, y in pairs if name in x.values and name in y.values]
        off = difference([x for x, _ in both], [y for _, y in both]) if both else None
        if off is not None:
            kind = measure(name)
            margin = (margins or {}).get(name, kind.margin)
            found.append(Compared(kind, off, margin, off.verdict(kind, margin)))
    return Comparison(a.name, b.name, len(pairs), found)
