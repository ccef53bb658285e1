"""The fuzzer of ``fuzz.py``, for a moment: readers cope with what it makes, and a planted fault is found."""

from __future__ import annotations

import sys

import fuzz
import pytest

pytestmark = pytest.mark.skipif(not hasattr(fuzz.signal, "setitimer"), reason="a system without timers")
INPUTS = 60  # of each reader
ENOUGH = 1500  # to find a planted fault: several times what it takes


@pytest.mark.parametrize("name", fuzz.READERS)
def test_readers_refuse_what_is_damaged(name: str) -> None:
    assert fuzz.own_engine(name, sys.maxsize, plant=False, most=INPUTS) is None


@pytest.mark.parametrize("name", ["weights", "codes", "request"])
def test_a_planted_fault_is_found(name: str) -> None:
    found = fuzz.own_engine(name, sys.maxsize, plant=True, most=ENOUGH)
    assert found is not None and found.startswith("ZeroDivisionError")


def test_an_input_that_takes_too_long_or_too_much_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = fuzz.READERS["codes"]
    for fault in (lambda folder: bytearray(fuzz.CONSTANT + 10_000), lambda folder: [None for _ in iter(int, 1)]):
        monkeypatch.setattr(fuzz, "SECONDS", 0.1)
        slow = fuzz.Reader(codes.name, codes.seeds, fault, codes.function, codes.reached)
        monkeypatch.setitem(fuzz.READERS, "codes", slow)
        assert (fuzz.own_engine("codes", sys.maxsize, plant=False, most=1) or "").startswith("Finding")
