"""Typical mistakes in the logits processors: ``talker.scores``, -inf for an excluded token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...ops import AnyArray
from ...talker.sampling import CONTROL_TOKENS
from ..diagnosis import Context, Finding, best, finding

PENALTIES = (1.05, 1.1, 1.2, 1.3)


def suppressed(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """More or fewer tokens are excluded."""
    if not _scores(context) or ours.shape != theirs.shape:
        return None
    out, out_there = (np.flatnonzero(~np.isfinite(x.ravel())) for x in (ours, theirs))
    more, fewer = (np.setdiff1d(a, b) for a, b in ((out_there, out), (out, out_there)))
    if not len(more) and not len(fewer):
        return None
    vocabulary = ours.shape[-1]
    if len(fewer) == 1 and context.call < 2 and not len(more):
        what = f"token {fewer[0]} is not out: the end of speech is for the first two tokens"
    elif len(fewer) and fewer.min() >= vocabulary - CONTROL_TOKENS and not len(more):
        what = f"{len(fewer)} control tokens from {fewer.min()} on are not out: all but the end of speech are"
    elif len(more) == 1 and not len(fewer):
        what = f"token {more[0]} is out and should not be: is it the end of speech?"
    else:
        what = f"{len(more)} tokens more and {len(fewer)} fewer are out: top-k or top-p, or what comes before them"
    return Finding("suppression", what, 0.0)


def repetition(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The repetition penalty is missing, or counts what it should not."""
    if not _scores(context) or ours.shape != theirs.shape or context.call == 0:
        return None
    tokens = [context.sibling("token", call) for call in range(context.call)]
    seen = (
        np.unique(np.concatenate([t for t in tokens if t is not None])) if any(t is not None for t in tokens) else None
    )
    if seen is None:
        return None

    def attempts() -> Iterator[Finding | None]:
        for penalty in PENALTIES:
            undone, doubled = ours.copy(), ours.copy()
            at = ours[..., seen]
            undone[..., seen] = np.where(at < 0, at / penalty, at * penalty)
            doubled[..., seen] = np.where(at < 0, at * penalty, at / penalty)
            message = f"the repetition penalty of {penalty} is not applied to the tokens so far"
            yield finding("repetition penalty", message, ours, theirs, undone, context)
            message = f"the repetition penalty of {penalty} is applied twice to the tokens so far"
            yield finding("repetition penalty", message, ours, theirs, doubled, context)

    return best(attempts())


def _scores(context: Context) -> bool:
    return context.leaf == "scores" and "code_predictor" not in context.module
