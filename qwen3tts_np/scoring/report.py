"""The score as tables, as JSON, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..report import plots
from ..report.tables import Table
from ..report.values import finite
from ..talker.loss import AFTER_NEXT, BEFORE, NEXT, OF, READ, mean
from .diagnosis import ENDING, end_within
from .readings import LABELS, STATES, Reading, Utterance
from .score import CodebookScore, Score, codebook_scores, end_profile

NAME_OF_LABEL = {READ: "read", NEXT: "next", AFTER_NEXT: "after_next"}
NAME_OF_STATE = {BEFORE: "before", OF: "of"}
LABEL = {READ: "the one just read", NEXT: "the next: right", AFTER_NEXT: "the one after"}
STATE = {BEFORE: "code predictor, state before the frame: right", OF: "code predictor, state of the frame"}


def tables(score: Score) -> Iterator[Table]:
    """Codebooks, alignments, utterances."""
    yield _codebooks(score)
    yield _alignments(score)
    yield _utterances(score)


def _codebooks(score: Score) -> Table:
    rows = [[str(g), *_cells(found)] for g, found in enumerate(score.codebooks)]
    note = f"{sum(u.frames for u in score.utterances)} frames of {len(score.utterances)} utterances, each code given "
    note += f"all before it. Cross-entropy in nats; equal probabilities would have {math.log(score.entries):.2f}."
    return Table("Codebooks", ["codebook", "cross-entropy", "perplexity", "accuracy"], "rrrr", rows, note)


def _cells(found: CodebookScore) -> list[str]:
    return [f"{found.cross_entropy:.3f}", f"{found.perplexity:.4g}", f"{found.accuracy:.1%}"]


def _alignments(score: Score) -> Table:
    talker, predictor = score.talker, score.predictor
    rows = [["talker", *(f"{talker[label]:.3f}" for label in LABELS)]]
    raw = [u.raw for u in score.utterances if u.raw is not None]
    if raw:
        found = [mean(np.concatenate([r.talker[label].loss for r in raw])) for label in LABELS]
        name = f"talker, text without its projection ({len(raw)} utterances)"
        rows.append([name, *(f"{value:.3f}" for value in found)])
    rows += [[STATE[state], *(f"{predictor[state, label]:.3f}" for label in LABELS)] for state in STATES]
    note = "Cross-entropy of the code that each position is compared with. A model fits best where it was trained."
    return Table("Alignments", ["", *LABEL.values()], "lrrr", rows, note)


def _utterances(score: Score) -> Table:
    rows = []
    for u in score.utterances:
        judged = u.generated.codebooks
        rows.append(
            [
                u.id,
                str(u.frames),
                f"{mean(judged.loss[:, 0]):.3f}",
                f"{mean(judged.right[:, 0]):.1%}",
                f"{mean(judged.loss[:, 1:]):.3f}",
                f"{mean(judged.right[:, 1:]):.1%}",
                f"{u.generated.end[-1]:.3f}",
                f"{end_within(u.generated.end):.3f}",
            ]
        )
    headers = ["utterance", "frames", "code 0", "right", "codes 1..", "right", "P(end)", f"in the last {ENDING}"]
    note = "P(end): probability of the end of speech at the true end, and at one of the last places before it or there."
    return Table("Utterances", headers, "lrrrrrrr", rows, note)


def as_json(score: Score) -> dict[str, Any]:
    """Everything, for programs. Losses in nats; NaN, which JSON lacks, is null."""
    together = score.together
    content = {
        "utterances": [_utterance(u) for u in score.utterances],
        "frames": sum(u.frames for u in score.utterances),
        "chance": math.log(score.entries),
        "codebooks": _as_json(score.codebooks),
        "alignments": _alignments_as_json(together),
        "without_text_projection": [u.id for u in score.utterances if u.raw is not None],
        "end_of_speech": [_rounded(row) for row in end_profile(score.utterances, ENDING)],
        "faults": [{"name": fault.name, "evidence": fault.sentence} for fault in score.diagnosis.faults],
        "verdict": score.diagnosis.verdict,
    }
    return {name: finite(value) for name, value in content.items()}


def _utterance(u: Utterance) -> dict[str, Any]:
    found = {"id": u.id, "frames": u.frames, "codebooks": _as_json(codebook_scores(u.generated))}
    found |= {"alignments": _alignments_as_json(u.generated), "end_of_speech": _rounded(u.generated.end)}
    if u.raw is not None:
        found["alignments_without_text_projection"] = _alignments_as_json(u.raw)
    return found


def _as_json(scores: list[CodebookScore]) -> list[dict[str, float]]:
    return [{"cross_entropy": s.cross_entropy, "perplexity": s.perplexity, "accuracy": s.accuracy} for s in scores]


def _alignments_as_json(reading: Reading) -> dict[str, Any]:
    """Mean losses: of the talker by label, of the code predictor by state and label, a number for each head."""
    return {
        "talker": {NAME_OF_LABEL[label]: mean(reading.talker[label].loss) for label in LABELS},
        "code_predictor": {
            NAME_OF_STATE[state]: {
                NAME_OF_LABEL[label]: [mean(head) for head in reading.predictor[state, label].loss.T]
                for label in LABELS
            }
            for state in STATES
        },
    }


def _rounded(probabilities: Any) -> list[float]:
    return [float(f"{p:.6g}") for p in probabilities]


def draw(score: Score, path: Path) -> None:
    """Losses of every codebook at each alignment, and P(end) around the true end, as a .png or .svg file."""
    together, groups = score.together, len(score.codebooks)
    series = {
        "as generated": _of_codebooks(together, BEFORE, NEXT),
        "state of the frame": _of_codebooks(together, OF, NEXT),
        "against the code just read": _of_codebooks(together, BEFORE, READ),
        "against the code after the next": _of_codebooks(together, BEFORE, AFTER_NEXT),
    }
    series["chance"] = np.full(groups, math.log(score.entries))
    profile = end_profile(score.utterances, ENDING)
    ends = {
        "mean of the utterances": np.nanmean(profile, axis=0),
        "lowest": np.nanmin(profile, axis=0),
        "highest": np.nanmax(profile, axis=0),
    }
    title = f"Teacher-forced losses of {len(score.utterances)} utterances: {score.diagnosis.verdict}"
    with plots.figure(path, title, 2, (9, 8)) as axes:
        plots.lines(axes[0], series, "Cross-entropy of every codebook", "codebook", "nats")
        plots.lines(axes[1], ends, "End of speech", "frames to the true end", "probability")
        axes[1].set_xticks(range(ENDING), [str(i - ENDING + 1) for i in range(ENDING)])


def _of_codebooks(reading: Reading, state: int, label: int) -> Any:
    """[G]: code 0 by the talker, which has no state to choose, and the others."""
    others = [mean(head) for head in reading.predictor[state, label].loss.T]
    return np.array([mean(reading.talker[label].loss), *others])
