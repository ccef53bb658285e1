"""What happens around the program: streams that fail, signals in every phase, memory that is short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_np import cli, start
from qwen3tts_np.cli.streams import standard_streams
from qwen3tts_np.errors import OutputError

ROOT = Path(__file__).parents[1]
FULL = Path("/dev/full")
posix = pytest.mark.skipif(os.name != "posix", reason="these are POSIX's signals and streams")
full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def command(*arguments: str | Path, first: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own; modules in the folder ``first`` come before others."""
    path = [*([str(first)] if first else []), str(ROOT), str(ROOT / "kernels")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **options.pop("env", {})}
    words = [sys.executable, "-m", "qwen3tts_np", *map(str, arguments)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False, **options)


# --- standard streams -----------------------------------------------------------------------------


@posix
def test_no_standard_streams_at_all(tmp_path):
    """The work is done, and what is written is not what was meant for a stream that is not there."""

    def close() -> None:
        for number in range(3):
            os.close(number)

    made = tmp_path / "m"
    words = [sys.executable, "-m", "qwen3tts_np", "synth", "--like", "tiny", "--type", "base", str(made)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    assert subprocess.run(words, env=env, preexec_fn=close, timeout=60, check=False).returncode == 0
    assert sorted(os.listdir(made))[0] == "config.json"


def test_closed_streams_are_the_null_device(monkeypatch, capsys):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert cli.main(["say", "m", "-"]) == 2  # there is nothing to read


@full
def test_full_output_is_one_sentence(synthetic, capsys):
    model = str(synthetic("tiny", "base"))
    with FULL.open("w") as disk:
        monkey = pytest.MonkeyPatch()
        monkey.setattr(sys, "stdout", disk)
        try:
            assert cli.main(["info", model]) == 2
        finally:
            monkey.undo()
    sentence = "standard output cannot be written: No space left on device"
    assert capsys.readouterr().err == f"qwen3tts-np info: {sentence}\n"


@full
def test_full_output_is_silent_from_the_second_time_on(monkeypatch):
    with FULL.open("w") as disk:
        monkeypatch.setattr(sys, "stdout", disk)
        with standard_streams():
            print("some")
            with pytest.raises(OutputError):
                sys.stdout.flush()
            print("more", flush=True)
        assert sys.stdout is disk


@full
def test_messages_that_nobody_takes_cost_no_work(synthetic, monkeypatch, capsys):
    with FULL.open("w") as disk:
        monkeypatch.setattr(sys, "stderr", disk)
        monkeypatch.setattr(cli.info, "run", lambda _: print("lost", file=sys.stderr, flush=True) or 0)
        assert cli.main(["info", "m"]) == 0


def test_warnings_are_lines_even_where_python_makes_errors_of_them(monkeypatch, capsys):
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    monkeypatch.setattr(cli.info, "run", lambda _: warnings.warn("the clip is short", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning, match="the clip is short"):
            assert cli.main(["info", "m"]) == 0


# --- signals --------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", start.SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_the_program_is_loaded(tmp_path, number):
    """In the middle of an import: no traceback out of it."""
    (tmp_path / "numpy.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(20)\n")
    done = command("info", "m", first=tmp_path, preexec_fn=as_in_a_terminal)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def as_in_a_terminal() -> None:
    """A shell starts jobs in the background with SIGINT ignored, and children inherit that."""
    for number in start.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@posix
@pytest.mark.parametrize("number", start.SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_a_command_runs(monkeypatch, number):
    """Also where the signal's handler is that of the time before, which would end the process here."""
    before = signal.signal(number, start.end_at_once)
    monkeypatch.setattr(cli.info, "run", lambda _: signal.raise_signal(number))
    try:
        if number == signal.SIGINT:
            assert cli.main(["info", "m"]) == 130
        else:
            with pytest.raises(SystemExit) as ended:
                cli.main(["info", "m"])
            assert ended.value.code == 128 + number
        assert signal.getsignal(number) is start.end_at_once
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("name", "words", "ours"),
    [
        ("-m", ["python", "-m", "qwen3tts_np", "info"], True),
        ("-m", ["python", "-W", "error", "-m", "qwen3tts_np"], True),
        ("/usr/bin/qwen3tts-np", ["python", "/usr/bin/qwen3tts-np"], True),
        ("-m", ["python", "-m", "server", "-m", "qwen3tts_np"], False),
        ("-c", ["python", "-c", "import qwen3tts_np"], False),
        ("server.py", ["python", "server.py", "qwen3tts-np"], False),
        ("", ["python"], False),
    ],
)
def test_whose_process_it_is(monkeypatch, name, words, ours):
    """A program that imports the package keeps its Ctrl-C."""
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(sys, "orig_argv", words)
    assert start.is_command_line() == ours


# --- memory ---------------------------------------------------------------------------------------


def test_no_memory_is_one_sentence(monkeypatch, capsys):
    def run(_: Any) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    monkeypatch.setattr(cli.info, "run", run)
    assert cli.main(["info", "m"]) == 2
    assert capsys.readouterr().err.startswith("qwen3tts-np info: there is not enough memory: Unable to allocate 8.00")
