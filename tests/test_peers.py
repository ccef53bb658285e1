"""``benchmarks/peers.py``: other programs beside ours, here a program that writes silence."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from programs import program

peers = program(Path(__file__).parents[1] / "benchmarks" / "peers.py")

SILENCE = """
import sys, numpy, soundfile
text, out, frames = sys.argv[1:]
assert text == "A text."
soundfile.write(out, numpy.zeros(1920 * int(frames)), 24000)
"""


def run(command, frames):
    return peers.run_once(command, "A text.", frames, argparse.Namespace(threads=1))


def test_a_program_is_run_with_what_its_command_names():
    found = run([sys.executable, "-c", SILENCE, "{text}", "{out}", "{frames}"], 25)
    assert found.audio == 2.0
    assert min(found.wall, found.cpu, found.memory) > 0


def test_a_program_that_fails_ends_it_with_its_last_words():
    with pytest.raises(SystemExit, match=r"status 3(?s:.*)no such model"):
        run([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], 25)
    with pytest.raises(SystemExit, match="status 0"):
        run([sys.executable, "-c", "print('nothing written')"], 25)


def test_a_second_of_speech_and_what_is_before_it():
    pair = peers.Pair(short=peers.Run(5.0, 9.0, 1, 2.0), long=peers.Run(8.0, 15.0, 1, 6.0))
    assert (pair.per_second, pair.before) == (0.75, 3.5)


def test_commands_have_names():
    assert peers.named_command("other=program --out {out} 'a b'") == ("other", ["program", "--out", "{out}", "a b"])
    for text in ("program", "=program", "other=", "ours=program"):
        with pytest.raises(SystemExit, match="NAME=COMMAND"):
            peers.named_command(text)
