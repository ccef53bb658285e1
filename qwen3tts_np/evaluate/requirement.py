"""Requirements such as ``wer<=0.25``, for scripts: the exit status says whether they are met."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import RequestError
from ..shown import shortened
from .measures import MEASURES, measure
from .statistics import Mean

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(r"\s*([a-z]\w*)\s*(<=|>=|<|>)\s*([-+.\w]+)\s*")


@dataclass(frozen=True)
class Requirement:
    """The mean of a measure, compared with a limit."""

    name: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str, plugged: tuple[str, ...] = ()) -> Requirement:
        """``text`` such as ``wer<=0.25``. RequestError if it is none, or of no measure."""
        form = _FORM.fullmatch(text)
        if form is None:
            raise RequestError(
                f"--require {shortened(text)} must be a measure, one of {' '.join(OPERATORS)}, and a number: wer<=0.25"
            )
        name, sign, number = form.groups()
        if name not in MEASURES and name not in plugged:
            known = ", ".join([*MEASURES, *plugged])
            raise RequestError(f"--require {shortened(text)}: there is no measure {name}; there are {known}")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not math.isfinite(limit):
            raise RequestError(f"--require {shortened(text)}: {shortened(number)} is no number")
        return cls(name, sign, limit)

    def problem(self, means: Mapping[str, Mean]) -> str | None:
        """Why it is not met, in a sentence; None if it is. RequestError if the measure was not taken."""
        found = means.get(self.name)
        if found is None:
            raise RequestError(f"--require {self}: {self.name} was not measured")
        if OPERATORS[self.sign](found.value, self.limit):
            return None
        return f"{self.name} is {found.value:.{measure(self.name).digits + 1}f}, required {self.sign} {self.limit:g}"

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.limit:g}"
