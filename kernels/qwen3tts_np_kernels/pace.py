"""Whether the calls of a team are faster by all of its threads, or by the first alone: measured from call to call.

Where other programs use the cores as well, a thread that is not running keeps the others waiting at the next barrier.
On two busy cores two threads then take three times as long as one alone. Neither the cores nor the load say so ahead;
the share of a call in which its threads were running gives the suspicion, and a call that is run the other way decides.
"""

from __future__ import annotations

RUNNING = 0.85  # share of the time; below, something else has the cores
BETTER = 0.9  # of the usual time; a trial that takes less changes the way
FEWEST, MOST = 8, 64  # calls between two trials; twice as many after each that changed nothing
_WEIGHT = 0.25  # of the latest call in what is usual


class Pace:
    """The way of the next call, and what the calls so far have shown. Times of different functions do not mix."""

    def __init__(self) -> None:
        self._alone = False
        self._of: object = None  # the function that is called at present
        self._usual: float | None = None  # seconds of its calls
        self._running = 1.0
        self._calls, self._interval = 0, FEWEST

    def alone(self, function: object) -> bool:
        """Whether the next call, of this function, is one of the first thread alone."""
        if function is not self._of:
            self._of, self._usual, self._calls = function, None, 0
        self._calls += 1
        suspicious = self._alone or self._running < RUNNING
        if suspicious and self._usual is not None and self._calls > self._interval:
            self._calls = 0
            return not self._alone
        return self._alone

    def note(self, alone: bool, seconds: float, running: float) -> None:
        """Take note of the call: how it was made, how long it took, and the share of that its threads were running."""
        if alone == self._alone:
            self._usual = seconds if self._usual is None else self._usual + _WEIGHT * (seconds - self._usual)
            if not alone:
                self._running += _WEIGHT * (running - self._running)
        elif self._usual is not None and seconds < BETTER * self._usual:
            self._alone, self._usual, self._interval, self._running = alone, seconds, FEWEST, 1.0
        else:
            self._interval = min(2 * self._interval, MOST)
