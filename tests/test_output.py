"""What is written is complete or not there, nobody's file is harmed, and nothing is left behind."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from qwen3tts_np_kernels import system

from qwen3tts_np import CheckpointError, RequestError, cli
from qwen3tts_np.audio.files import open_audio, write_audio
from qwen3tts_np.checkpoint.keys import TensorSpec
from qwen3tts_np.checkpoint.writer import write_safetensors
from qwen3tts_np.errors import OutputError
from qwen3tts_np.files import output
from qwen3tts_np.files.apart import check_outputs
from qwen3tts_np.files.output import (
    check_new_folder,
    check_writable,
    npy_of,
    output_file,
    output_folder,
    scratch_folder,
    write_bytes,
    write_text,
)
from qwen3tts_np.layout.convert import convert

ROOT = Path(__file__).parents[1]
NODES = hasattr(os, "mkfifo")
posix = pytest.mark.skipif(not NODES, reason="this system has no FIFOs")
WAVE = (0.1 * np.sin(np.arange(2400) * 0.05)).astype(np.float32)


def write_weights(path: Path) -> None:
    write_safetensors(path, [TensorSpec("x", (2,), "", "F32")], lambda _: [np.zeros(2, np.float32)])


# Every kind of writer that there is; the others are made of these.
WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "codes": lambda path: write_bytes(path, npy_of(np.zeros((2, 16), np.int64))),
    "weights": write_weights,
    "wav": lambda path: write_audio(path, WAVE, 24000),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    return WRITERS[request.param]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is there already ------------------------------------------------------------------------


def test_a_new_file_has_the_permissions_of_any(write, tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "o.wav")
    assert (tmp_path / "o.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert names(tmp_path) == ["o.wav", "plain"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777])
def test_permissions_stay(write, tmp_path, mode):
    path = tmp_path / "o.wav"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_a_private_file_is_private_while_it_grows(tmp_path):
    path = tmp_path / "o.txt"
    path.touch()
    path.chmod(0o600)
    with output_file(path):
        assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}


@posix
@pytest.mark.skipif(not NODES or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(write, tmp_path):
    path = tmp_path / "o.wav"
    path.touch()
    os.chown(path, 1234, 2345)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_a_protected_file_is_refused(write, tmp_path):
    path = tmp_path / "o.wav"
    path.write_text("old")
    path.chmod(0o444)
    for attempt in (write, check_writable):
        with pytest.raises(OutputError, match=r"o\.wav cannot be written: it is write-protected$"):
            attempt(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["o.wav"]


def test_another_users_file_is_refused(write, tmp_path, monkeypatch):
    path = tmp_path / "o.wav"
    path.write_text("old")
    monkeypatch.setattr(system, "may_own", lambda _: False)
    with pytest.raises(OutputError, match="it belongs to another user"):
        write(path)
    assert path.read_text() == "old"


@posix
def test_a_link_stays_and_its_file_is_written(write, tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.wav", tmp_path / "o.wav"
    link.symlink_to(real)
    for _ in range(2):  # the file is not there yet, then it is
        write(link)
        assert link.is_symlink() and real.is_file() and not real.is_symlink()
        assert names(tmp_path / "far") == ["real.wav"]
    assert real.read_bytes()


@posix
def test_links_in_a_circle_are_refused(write, tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    with pytest.raises(OutputError, match="Too many levels of symbolic links"):
        write(tmp_path / "a.wav")


@posix
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("keep")
    monkeypatch.setattr(output.secrets, "token_hex", lambda _: "0" * 8)
    planted = output.private_name(tmp_path / "o.txt")
    planted.symlink_to(victim)
    with pytest.raises(OutputError, match="File exists"):
        write_text(tmp_path / "o.txt", "new")
    assert victim.read_text() == "keep"
    assert not (tmp_path / "o.txt").exists()


# --- nodes ----------------------------------------------------------------------------------------


@posix
def test_a_fifo_gets_the_bytes_and_stays(write, tmp_path):
    write(tmp_path / "plain.wav")
    fifo = tmp_path / "o.wav"
    os.mkfifo(fifo)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    check_writable(fifo)
    write(fifo)
    reader.join(20)
    assert received == [(tmp_path / "plain.wav").read_bytes()]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert names(tmp_path) == ["o.wav", "plain.wav"]


@posix
def test_a_reader_that_leaves_a_fifo_is_no_mistake_of_the_path(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDONLY)))
    reader.start()
    with pytest.raises(BrokenPipeError):
        write_bytes(fifo, bytes(1 << 20))
    reader.join(20)


@posix
def test_no_file_is_made_where_a_node_has_just_gone(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OutputError, match="cannot be written: No such file"), output_file(fifo):
        fifo.unlink()
    assert names(tmp_path) == []


@posix
@pytest.mark.skipif(not NODES or os.geteuid() != 0, reason="only root makes nodes")
def test_a_device_stays(write, tmp_path):
    device = tmp_path / "o.wav"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
    (tmp_path / "link.wav").symlink_to(device)
    with suppress(OutputError):  # of a file system that takes no devices
        write(device)
        write(tmp_path / "link.wav")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert (tmp_path / "link.wav").is_symlink()


@posix
def test_a_socket_is_refused(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("o.wav")
        for attempt in (check_writable, write):
            with pytest.raises(OutputError, match=r"^o\.wav cannot be written: it is a socket$"):
                attempt(Path("o.wav"))
        assert stat.S_ISSOCK(os.stat("o.wav").st_mode)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "names no file"),
        (".", "it is a directory"),
        ("..", "it is a directory"),
        ("/", "it is a directory"),
        ("folder", "it is a directory"),
        ("no/o.txt", "cannot be written: (no is no directory|No such file)"),
        ("file/o.txt", "cannot be written: Not a directory"),
        ("a\0b", "holds a null byte"),
        ("half \ud800", "holds half a surrogate pair"),
        ("x" * 256, "cannot be written: File name too long"),
        ("x/" * 3000 + "o", "cannot be written: File name too long"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_before_the_work(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    for attempt in (check_writable, lambda path: write_text(path, "new")):
        with pytest.raises(OutputError, match=reason):
            attempt(name)
    assert names(tmp_path) == ["file", "folder"]


def test_a_link_into_a_folder_that_is_not_there_names_it(tmp_path):
    (tmp_path / "o.txt").symlink_to(tmp_path / "gone" / "real.txt")
    with pytest.raises(OutputError, match=r"o\.txt cannot be written: \S+gone is no directory"):
        check_writable(tmp_path / "o.txt")


@pytest.mark.parametrize("name", ["x" * 255, "x" * 231, "é" * 127, "." * 250, "-o", "a b\nc", "*?[]", ".partial"])
def test_any_other_name_will_do(tmp_path, name):
    check_writable(tmp_path / name)
    write_text(tmp_path / name, "new")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"


def test_a_folder_that_takes_nothing_is_known_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(OutputError, match=rf"o.txt cannot be written: nothing can be written in {tmp_path}"):
        check_writable(tmp_path / "o.txt")


# --- the disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_refuses_leaves_the_old_file(write, tmp_path, monkeypatch, call, number, reason):
    path = tmp_path / "o.wav"
    path.write_text("old")

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match=rf"o\.wav cannot be written: {reason}"):
        write(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["o.wav"]


def test_a_clean_up_that_fails_does_not_hide_the_reason(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"o\.txt cannot be written: Read-only file system"):
        write_text(tmp_path / "o.txt", "new")


@posix
def test_a_full_disk_is_named_for_audio_too(tmp_path):
    """A limit on the size of files stands for the disk; libsndfile says "System error." or nothing."""
    program = (
        "import resource, signal, sys, numpy as np\n"
        "sys.dont_write_bytecode = True\n"  # Python 3.11 keeps what it could write of it, for others to find
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from qwen3tts_np.audio.files import write_audio\n"
        "from qwen3tts_np.errors import OutputError\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        write_audio(name, np.random.RandomState(0).rand(100000) - 0.5, 24000)\n"
        "    except OutputError as e:\n"
        "        print(e)\n"
    )
    command = [sys.executable, "-c", program, "a.wav", "a.flac", "a.ogg"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{name} cannot be written: File too large\n" for name in command[3:])
    assert names(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_what_stops_the_work_passes_and_nothing_is_left(tmp_path, stop):
    (tmp_path / "o.wav").write_text("old")

    def fail(*_: Any) -> None:
        raise stop

    with pytest.raises(stop), open_audio(tmp_path / "o.wav", 24000) as file:
        fail(file.write(WAVE))
    with pytest.raises(stop), output_folder(tmp_path / "folder") as folder:
        fail((folder / "a").touch())
    assert names(tmp_path) == ["o.wav"]
    assert (tmp_path / "o.wav").read_text() == "old"


def test_what_an_interrupted_clean_up_leaves_is_removed_at_the_end_of_the_process(write, tmp_path, monkeypatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        patch.setattr(Path, "is_dir", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "o.wav")
    assert len(names(tmp_path)) == 1
    monkeypatch.setattr(os, "getpid", lambda: 1)  # a forked child leaves it alone
    output.drop_unfinished()
    assert len(names(tmp_path)) == 1
    monkeypatch.undo()
    output.drop_unfinished()
    assert names(tmp_path) == []
    assert not output.unfinished


def test_outputs_of_another_process_may_go_while_they_are_looked_at(tmp_path, monkeypatch):
    """It has just finished, and its file has its final name."""
    theirs = tmp_path / f".o.{os.getpid()}-0123abcd.partial"
    theirs.touch()
    monkeypatch.setattr(system, "lock", lambda _: theirs.unlink(missing_ok=True) is None)
    monkeypatch.setattr(output, "_partials", lambda _: iter([(theirs, os.getpid())]))
    for _ in range(2):  # it goes after it was found to exist, then before
        write_text(tmp_path / "o", "new")
    assert names(tmp_path) == ["o"]


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_complete_or_not_there(tmp_path):
    with output_folder(tmp_path / "new" / "folder") as folder:
        write_text(folder / "a.txt", "a")
        (folder / "inside").mkdir()
        write_text(folder / "inside" / "b.txt", "b")
        assert not (tmp_path / "new" / "folder").exists()
    assert names(tmp_path / "new") == ["folder"]
    assert names(tmp_path / "new" / "folder") == ["a.txt", "inside"]
    assert (tmp_path / "new" / "folder" / "inside" / "b.txt").read_text() == "b"


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    with output_folder(tmp_path / "folder") as folder:
        (folder / "a").write_bytes(bytes(11))
        (folder / "inside").mkdir()
        (folder / "inside" / "b").write_bytes(bytes(22))
    assert {11, 22} <= set(synced)


@posix
def test_an_empty_folder_keeps_its_permissions(tmp_path):
    (tmp_path / "folder").mkdir(mode=0o700)
    with output_folder(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


def test_a_folder_in_use_is_refused_before_the_work(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").touch()
    (tmp_path / "file").touch()
    for name in ("used", "file", "used/mine", "."):
        with pytest.raises(OutputError, match="exists already and is not an empty directory"):
            check_new_folder(tmp_path / name)
    assert issubclass(OutputError, CheckpointError) and issubclass(OutputError, RequestError)


def test_a_folder_that_another_process_fills_meanwhile_stays(tmp_path):
    with ExitStack() as ours:
        ours.enter_context(output_folder(tmp_path / "folder"))
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "theirs").touch()
        with pytest.raises(OutputError, match="folder exists already and is not an empty directory"):
            ours.close()
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["theirs"]


@posix
def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch):
    """Whoever is in it would be nowhere."""
    monkeypatch.chdir(tmp_path)
    for name in (".", tmp_path):
        with pytest.raises(OutputError, match="is the current directory, which cannot be replaced"):
            check_new_folder(name)


@posix
@pytest.mark.parametrize("gate", [output_file, output_folder])
def test_a_umask_that_forbids_everything_leaves_nothing(tmp_path, monkeypatch, gate):
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may open anything
    with pytest.raises(OutputError, match="Permission denied"), gate(tmp_path / "o"):
        pass
    assert names(tmp_path) == []


def test_a_temporary_folder_that_cannot_be_made_or_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        (folder / "a").touch()
        monkeypatch.setattr("tempfile.tempdir", str(folder / "a"))
        with pytest.raises(OutputError, match="no temporary folder can be made: Not a directory"), scratch_folder():
            pass
        monkeypatch.setattr(os, "unlink", None)
        monkeypatch.setattr("shutil.os.scandir", lambda _: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))


def test_errors_inside_a_folder_name_the_folder(tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", refuse)
    told = rf"^{tmp_path}/folder cannot be written: No space left on device$"
    with pytest.raises(OutputError, match=told), output_folder(tmp_path / "folder") as folder:
        write_audio(folder / "speech.wav", WAVE, 24000)


def test_a_checkpoint_is_not_converted_into_itself(synthetic):
    source = synthetic("tiny", "base")
    before = names(source)
    with pytest.raises(OutputError, match=r"it is inside .*, which is read$"):
        convert(source, source / "small", "int8")
    assert names(source) == before


# --- one holder -----------------------------------------------------------------------------------


HOLD = """
import sys, time
from qwen3tts_np.files.output import output_file, output_folder
with {gate}(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}


@pytest.fixture(params=["output_file", "output_folder"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing ``o``."""
    command = [sys.executable, "-c", HOLD.format(gate=request.param), str(tmp_path / "o")]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_says_who_has_it(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "PAUSE", 0.001)
    for attempt in (check_writable, lambda path: write_text(path, "new")):
        with pytest.raises(OutputError, match=rf"o is being written by process {holder.pid};"):
            attempt(tmp_path / "o")
    assert len(names(tmp_path)) == 1
    write_text(tmp_path / "other", "new")
    write_text(tmp_path / "o.txt", "new")
    holder.kill()
    holder.wait()
    write_text(tmp_path / "o", "new")  # the lock has ended with its process, and its leftover is gone
    assert names(tmp_path) == ["o", "o.txt", "other"]


def test_the_second_waits_for_one_that_is_soon_done(tmp_path):
    def hold() -> None:
        with output_file(tmp_path / "o") as file:
            held.set()
            time.sleep(0.1)
            file.write(b"first")

    held = threading.Event()
    first = threading.Thread(target=hold)
    first.start()
    held.wait()
    write_text(tmp_path / "o", "second")
    first.join()
    assert (tmp_path / "o").read_text() == "second"
    assert names(tmp_path) == ["o"]


def test_many_at_once_write_whole_files(tmp_path):
    refused: list[OutputError] = []

    def run(number: int) -> None:
        for _ in range(4):
            try:
                write_bytes(tmp_path / "o", b"%d" % number * 100_000)
            except OutputError as e:
                refused.append(e)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "o").read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1
    assert all("is being written by process" in str(e) for e in refused)
    assert names(tmp_path) == ["o"]


def test_what_is_not_ours_is_left_alone(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, folder = f".o.{dead.pid}-0123abcd.partial", f".o.{dead.pid}-0123abce.partial"
    others = [
        f".o.{dead.pid}.partial",
        ".o.partial",
        f".oo.{dead.pid}-0123abcd.partial",
        f".o.{dead.pid}-0123abcd.part",
    ]
    others.append(f".o.{os.getpid()}-0123abcd.partial")  # of a process that is alive, and may be about to lock it
    for name in (ours, *others):
        (tmp_path / name).touch()
    (tmp_path / folder / "inside").mkdir(parents=True)
    others.append(f".o.{dead.pid}-0123abcf.partial")
    (tmp_path / others[-1]).symlink_to(tmp_path)  # planted: none of ours is a link
    write_text(tmp_path / "o", "new")
    assert names(tmp_path) == sorted([*others, "o"])
    old = time.time() - 60
    os.utime(tmp_path / others.pop(4), (old, old))  # of a process that had the same number, then
    write_text(tmp_path / "o", "new")
    assert names(tmp_path) == sorted([*others, "o"])


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(_: Any) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(system, "lock", refuse)
    monkeypatch.setattr(output, "PAUSE", 0.001)
    write_text(tmp_path / "o", "first")
    with output_file(tmp_path / "o"), pytest.raises(OutputError, match=f"process {os.getpid()}"):
        write_text(tmp_path / "o", "second")


# --- commands -------------------------------------------------------------------------------------


def test_inputs_and_outputs_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model/inside").mkdir(parents=True)
    for name in ("a.wav", "model/config.json", "model/inside/model.safetensors", "model/page.html"):
        Path(name).write_text("old")
    Path("here").symlink_to(".")
    os.link("a.wav", "hard.wav")
    for path in ("a.wav", "./a.wav", "here/a.wav", str(tmp_path / "a.wav"), "hard.wav"):
        with pytest.raises(OutputError, match=rf"^-o {Path(path)} would overwrite what --clip a.wav reads$"):
            check_outputs({"-o": path}, {"--clip": "a.wav"})
    for path in ("model/config.json", "here/model/inside/model.safetensors"):
        with pytest.raises(OutputError, match=r"would overwrite what MODEL model reads$"):
            check_outputs({"-o": path}, {"MODEL": Path("model")})
    for first, second in (("x", "x"), ("x", "here/x"), ("a.wav", "hard.wav")):
        with pytest.raises(OutputError, match=rf"^--srt and --vtt are the same file, {first}$"):
            check_outputs({"--srt": first, "--vtt": second}, {})
    harmless = {"--clip": "http://a.wav", "--text": "x" * 100_000, "b": None, "c": 3, "--voice": "a\0b", "no": "none"}
    check_outputs({"-o": "model/page.html", "-p": "model/new.json", "-q": None}, {"MODEL": "model", **harmless})


@pytest.fixture
def world(synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a link to a model, a clip and codes."""
    monkeypatch.chdir(tmp_path)
    Path("m").symlink_to(synthetic("tiny", "base"))
    write_audio("a.wav", np.tile(WAVE, 20), 24000)
    np.save("c.npy", np.zeros((3, 16), np.int64))
    Path("t.srt").write_text("Hello.", encoding="utf-8")
    return tmp_path


# Every option of a command that names a file to write, with a command that is complete but for its name.
OUTPUTS = {
    "inspect": ["inspect", "m", "--html"],
    "explain": ["explain", "m", "--text", "Hi", "--ref-audio", "a.wav", "--html"],
    "verify": ["verify", "m", "--markdown"],
    "compare-audio": ["compare-audio", "a.wav", "a.wav", "--plot"],
    "encode": ["encode", "m", "a.wav", "-o"],
    "decode": ["decode", "m", "c.npy", "-o"],
    "voice create": ["voice", "create", "m", "a.wav", "-o"],
    "voice design": ["voice", "design", "m", "m", "warm", "--clip"],
    "say": ["say", "m", "Hi", "-o"],
    "say --file": ["say", "m", "--file", "t.srt", "--srt"],
    "say --vtt": ["say", "m", "Hi", "--voice", "v.safetensors", "--vtt"],
    "clone": ["clone", "m", "Hi", "--ref-audio", "a.wav", "-o"],
    "fixtures compare": ["fixtures", "compare", "c.npy", "a.wav", "--svg"],
}


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("name", [".", "m", "no/where.wav", "x" * 300 + ".wav", "a.wav", "m/config.json"])
def test_no_command_begins_what_it_cannot_write(world, monkeypatch, capsys, command, name):
    """The model is not even opened."""
    monkeypatch.setattr("qwen3tts_np.cli.compare_audio.require_matplotlib", lambda: None)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    for work in ("numpy.load", "qwen3tts_np.checkpoint.safetensors.Checkpoint.open", "soundfile.read"):
        monkeypatch.setattr(work, fail)
    before = {path.name: path.read_bytes() for path in world.iterdir() if path.is_file()}
    config = Path("m/config.json").read_bytes()
    harmless = os.path.isfile(name) and Path(name).parts[0] not in OUTPUTS[command]  # nothing that it reads
    if not harmless:
        assert cli.main([*OUTPUTS[command], name]) == 2
        out, error = capsys.readouterr()
        assert (out, error.count("\n")) == ("", 1)
        assert re.search("cannot be written|would overwrite|names no audio format|subtitles are", error)
    assert {path.name: path.read_bytes() for path in world.iterdir() if path.is_file()} == before
    assert Path("m/config.json").read_bytes() == config


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--file", "t.srt", "--srt", "t.srt"], "--srt t.srt would overwrite what --file t.srt reads"),
        (["--file", "t.srt", "--srt", "x.srt", "--vtt", "./x.srt"], "--srt and --vtt are the same file, x.srt"),
        (["Hi", "--voice", "a.wav", "-o", "a.wav"], "--output a.wav would overwrite what --voice a.wav reads"),
    ],
)
def test_speech_over_what_it_is_made_of_is_refused(world, capsys, options, sentence):
    before = {path.name: path.read_bytes() for path in world.iterdir() if path.is_file()}
    assert cli.main(["say", "m", *options]) == 2
    assert capsys.readouterr() == ("", f"qwen3tts-np say: {sentence}\n")
    assert {path.name: path.read_bytes() for path in world.iterdir() if path.is_file()} == before


@posix
@pytest.mark.parametrize("number", system.stop_signals(), ids=lambda number: number.name)
def test_a_signal_ends_in_order(world, monkeypatch, number):
    def run(_: Any) -> None:
        with output_folder("o"):
            os.kill(os.getpid(), number)
            time.sleep(10)

    monkeypatch.setattr("qwen3tts_np.cli.info.run", run)
    before = names(world)
    with pytest.raises(SystemExit) as ended:
        cli.main(["info", "m"])
    assert ended.value.code == 128 + number
    assert names(world) == before


def test_a_signal_that_is_ignored_stays_ignored(world, monkeypatch):
    monkeypatch.setattr("qwen3tts_np.cli.info.run", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert cli.main(["info", "m"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_signals_are_as_before_afterwards(world):
    before = [signal.getsignal(number) for number in system.stop_signals()]
    assert cli.main(["info", "m"]) == 0
    assert [signal.getsignal(number) for number in system.stop_signals()] == before


# --- nobody goes around it ------------------------------------------------------------------------

# Files that write inside a folder of output_folder, or into a temporary one.
INSIDE = {
    "export/onnx_target.py",
    "inspect/stored_tensors.py",
    "synthetic/text.py",
    "synthetic/weights.py",
    "parity/fixture.py",
    "inspect/attention_maps.py",
    "inspect/choices.py",
    "inspect/collector.py",
    "inspect/tracing.py",
    "inspect/readme.py",
    "evaluate/sphinx.py",
    "verify/official_probe.py",
}
WRITES = {
    "np": {"save", "savez", "savetxt"},
    "os": {"replace", "rename", "remove", "unlink"},
    "path": {"write_text", "write_bytes", "unlink", "rename", "tofile"},
}


def written(source: str) -> Iterator[str]:
    """Calls in a program that write, rename or remove a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            module, _, last = name.rpartition(".")
            opened = last == "open" and any(re.fullmatch("[rbt]*[wax+][bt+]*", mode) for mode in _texts(node))
            if opened or last in WRITES.get(module, WRITES["path"] if module else ()):
                yield name


def _texts(call: ast.Call) -> list[str]:
    given = (*call.args, *(keyword.value for keyword in call.keywords))
    return [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def test_everything_is_written_through_the_gate():
    found = {}
    for path in sorted((ROOT / "qwen3tts_np").rglob("*.py")):
        name = path.relative_to(ROOT / "qwen3tts_np").as_posix()
        if calls := list(written(path.read_text(encoding="utf-8"))):
            found[name] = calls
    remove = {
        "speech/store.py",
        "server/voices.py",
        "batch/folder.py",
        "training/prepare/outputs.py",
        "files/journal.py",
    }
    assert set(found) - INSIDE - remove == {"files/output.py"}, found
    assert set(written("open(p, 'wb')\np.open('x')\nnp.save(f, a)\nos.replace(a, b)\np.write_text(t)")) == {
        "open",
        "p.open",
        "np.save",
        "os.replace",
        "p.write_text",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="whether a process runs is not known there")
def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(output.tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / f".qwen3tts-np.{2**22 + 1}-0123abcd.partial"  # beyond the numbers of processes
    (killed / "files").mkdir(parents=True)
    (killed / ".lock").touch()
    (killed / "files" / "speech.wav").write_bytes(b"private")
    with scratch_folder() as mine:
        assert not killed.exists()
        assert stat.S_IMODE(mine.parent.stat().st_mode) == 0o700
        with scratch_folder() as other:
            assert mine.is_dir()
            assert other.is_dir()
        assert os.listdir(tmp_path) == [mine.parent.name]
    assert not os.listdir(tmp_path)
