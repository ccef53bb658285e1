"""What happens around the program: streams and disks that fail, signals in every phase, memory that is short."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import cli, start
from qwen3tts_np.audio.files import write_audio
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.cli import signals
from qwen3tts_np.cli.streams import standard_streams
from qwen3tts_np.errors import CheckpointError, OutputError
from qwen3tts_np.files import output
from qwen3tts_np.files.output import output_folder, write_bytes
from qwen3tts_np.layout.convert import convert

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
        monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: print("lost", file=sys.stderr, flush=True) or 0)
        assert cli.main(["info", "m"]) == 0


def test_warnings_are_lines_even_where_python_makes_errors_of_them(monkeypatch, capsys):
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: warnings.warn("the clip is short", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning, match="the clip is short"):
            assert cli.main(["info", "m"]) == 0


@posix
def test_standard_input_that_cannot_be_read_is_one_sentence(tmp_path):
    with (tmp_path / "written").open("w") as written:
        done = command("say", "m", "-", stdin=written)
    sentence = "qwen3tts-np say: standard input cannot be read: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (2, sentence)


@pytest.mark.parametrize("number", sorted(cli.EXHAUSTED), ids=errno.errorcode.get)
def test_what_the_system_has_run_out_of_is_one_sentence_wherever_it_happens(monkeypatch, capsys, number):
    def run(_: Any) -> None:
        raise OSError(number, os.strerror(number), "somewhere\x1b")

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    assert cli.main(["info", "m"]) == 2
    assert capsys.readouterr().err == f"qwen3tts-np info: {os.strerror(number)}: somewhere\\x1b\n"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file"), OSError("of no number"), ValueError()]
)
def test_a_defect_shows_its_traceback(monkeypatch, error):
    def run(_: Any) -> None:
        raise error

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    with pytest.raises(type(error)):
        cli.main(["info", "m"])


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
    monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: signal.raise_signal(number))
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


@posix
@pytest.mark.parametrize("number", start.SIGNALS, ids=lambda number: number.name)
def test_a_signal_inside_a_function_that_c_has_called_is_not_lost(monkeypatch, capsys, number):
    """Python reports the exception and goes on; so it is raised again, outside."""
    inside = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))

    def run(_: Any) -> None:
        inside()
        inside()
        time.sleep(20)

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    assert ended_with() == 128 + number
    assert capsys.readouterr() == ("", "")


@posix
def test_other_exceptions_there_are_reported_as_always(monkeypatch):
    inside, seen = ctypes.CFUNCTYPE(None)(lambda: 1 / 0), []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: inside())
    assert cli.main(["info", "m"]) == 0
    assert [found.exc_type for found in seen] == [ZeroDivisionError]


@posix
def test_a_second_signal_ends_at_once_unless_it_is_a_copy(monkeypatch):
    """A terminal that closes sends SIGHUP, and so may the shell in it; Ctrl-C comes twice through a wrapper."""
    ended: list[int] = []
    monkeypatch.setattr(signals, "end_at_once", ended.append)

    def run(_: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)
            monkeypatch.setattr(signals, "COPIES", -1.0)
            with suppress(SystemExit):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    assert ended_with() == 143
    assert ended == [signal.SIGINT]


def ended_with() -> int:
    """The exit status of ``info`` where a signal ends it."""
    try:
        return cli.main(["info", "m"])
    except SystemExit as e:
        return int(e.code or 0)


@posix
def test_a_signal_when_all_is_done_does_not_change_the_exit_status():
    """Python gives handlers up before it has ended."""
    before = signal.signal(signal.SIGTERM, start.end_at_once)
    try:
        start.let_it_end()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


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

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    assert cli.main(["info", "m"]) == 2
    assert capsys.readouterr().err.startswith("qwen3tts-np info: there is not enough memory: Unable to allocate 8.00")


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say how much is in use")
@pytest.mark.parametrize("megabytes", [80, 300, 900])
def test_a_limit_on_address_space_that_is_too_low_is_one_sentence(megabytes):
    """Below it NumPy cannot be imported, OpenBLAS hangs, or LLVM aborts."""

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = command("info", "m", preexec_fn=limited)
    assert (done.returncode, done.stdout) == (2, "")
    told = r"qwen3tts-np: \d+ MB of address space are free \(ulimit -v\), and 900 are needed at least\n"
    assert re.fullmatch(told, done.stderr)


def test_weights_that_cannot_be_mapped_are_one_sentence(synthetic, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(CheckpointError, match=r"^\S+: its \d+ bytes cannot be mapped: Cannot allocate memory$"):
        Checkpoint.open(synthetic("tiny", "base"))


# --- the gate of everything that is written -------------------------------------------------------


class Node(io.FileIO):
    """A file of the gate, whose every write is a step of its own, as are its fsync and its rename."""

    steps: Callable[[], None]

    def write(self, data: Any, /) -> int:
        Node.steps()
        written = super().write(data[: max(1, len(data) // 2)])
        Node.steps()
        return written


def write_anew(kind: str, target: Path) -> None:
    if kind == "file":
        write_bytes(target, b"new" * 100)
    elif kind == "audio":
        write_audio(target, np.full(200, 0.5, np.float32), 24000)
    else:
        with output_folder(target) as partial:
            (partial / "part").write_bytes(b"new")


def fails_at(step: int, fail: Callable[[], None], kind: str, target: Path) -> None:
    """Write ``target``; ``fail`` is called instead of the ``step``-th step, and at those that follow."""
    count = 0

    def steps() -> None:
        nonlocal count
        count += 1
        if count >= step:
            fail()

    def first(call: Callable[..., Any]) -> Callable[..., Any]:
        def after_a_step(*args: Any) -> Any:
            steps()
            return call(*args)

        return after_a_step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "steps", staticmethod(steps), raising=False)
        patch.setattr(output, "new_file", lambda partial: io.BufferedWriter(Node(partial, "xb"), 64))
        for name in ("fsync", "replace"):
            patch.setattr(os, name, first(getattr(os, name)))
        write_anew(kind, target)


def content(target: Path) -> bytes | None:
    """Of a file, or of the one file in a folder; None where nothing is."""
    file = target / "part" if target.is_dir() else target
    return file.read_bytes() if file.exists() else None


@pytest.fixture(params=["file", "audio", "folder"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, bytes | None, bytes | None]:
    """A kind, its path, what was there before, and what is there when all goes well."""
    target = tmp_path / "x" / ("t.wav" if request.param == "audio" else "t")
    target.parent.mkdir()
    write_anew(request.param, target)
    new = content(target)
    old = None if request.param == "folder" else b"old"
    if old is None:
        shutil.rmtree(target)
    else:
        target.write_bytes(old)
    return request.param, target, old, new


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_killed_at_every_step_leaves_the_old_or_the_new(written):
    kind, target, old, new = written
    for step in range(1, 100):
        child = os.fork()
        if not child:
            fails_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL), kind, target)
            os._exit(0)
        if not os.waitpid(child, 0)[1]:
            break
        assert content(target) == old
    assert content(target) == new
    assert step > 2
    if kind == "folder":
        shutil.rmtree(target)
    write_anew(kind, target)  # the next that writes there removes what the others have left
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_disk_that_fails_at_every_step_leaves_the_old_or_the_new(written, number):
    kind, target, old, new = written

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for step in range(1, 100):
        said = ""
        try:
            fails_at(step, fail, kind, target)
        except OutputError as e:
            said = str(e)
        if not said:
            break
        assert said == f"{target} cannot be written: {os.strerror(number)}"
        assert os.listdir(target.parent) == ([] if old is None else [target.name])
        assert content(target) == old
    assert content(target) == new
    assert step > 2


def test_converting_on_a_full_disk_is_one_sentence(synthetic, tmp_path, monkeypatch):
    def copy(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", copy)
    with pytest.raises(OutputError, match=r"^\S+ cannot be copied: No space left on device$"):
        convert(synthetic("tiny", "base"), tmp_path / "c", "int8")
    assert os.listdir(tmp_path) == []
