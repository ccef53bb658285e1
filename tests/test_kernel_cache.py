"""Machine code on disk: found again, found damaged before it is used, never that of other sources, and not needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3tts_np_kernels
from numpy.typing import NDArray
from qwen3tts_np_kernels import cache, cpu, machine_code

pytestmark = pytest.mark.skipif(not cpu.compiled(), reason="nothing is compiled")


def add_one(x: NDArray[np.float64]) -> None:
    x[0] += 1.0


class Counted(cpu.Kernel):
    """A kernel that knows whether it was compiled."""

    compiled = False

    def _compile(self, kinds: Any, entry: str) -> Any:
        self.compiled = True
        return super()._compile(kinds, entry)


def compiled_again() -> bool:
    """Call a kernel as a new process does, which sees the cache on disk only; whether it was compiled."""
    again, x = Counted(add_one, cpu.OPTIONS), np.ones(1)
    again(x)
    assert x[0] == 2.0
    return again.compiled


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of its own, and nothing said yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "place"))
    monkeypatch.setattr(cache, "said", set())
    for remembered in (cache.folder, cache.stamp):
        remembered.cache_clear()
    yield tmp_path / "place"
    for remembered in (cache.folder, cache.stamp):
        remembered.cache_clear()


@pytest.fixture
def file(place):
    """The one file of a kernel that has been kept."""
    compiled_again()
    (found,) = place.rglob("*.bin")
    return found


def test_a_kernel_is_kept_and_found_again(file):
    assert not compiled_again()
    assert [found.name for found in file.parent.iterdir()] == [file.name]


DAMAGES = {
    "empty": lambda content: b"",
    "cut within the digest": lambda content: content[:10],
    "cut behind the digest": lambda content: content[:32],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-1],
    "a bit of the machine code": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "a bit of the digest": lambda content: bytes([content[0] ^ 128]) + content[1:],
    "longer": lambda content: content + b"\0",
    "of something else": lambda content: b"\x80\x04K\x01." * 100,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_in_place_of_a_file_makes_nobody_wait(file):
    file.unlink()
    os.mkfifo(file)
    assert compiled_again()
    assert file.is_file(), "what was compiled took its place"
    assert not compiled_again()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_said_once_and_written_anew(file, damage):
    good = file.read_bytes()
    file.write_bytes(DAMAGES[damage](good))
    with pytest.warns(UserWarning, match=f"{file.name} is damaged: .* compiled anew"):
        assert compiled_again()
    assert not compiled_again()
    file.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled_again()


def test_another_kernel_in_the_place_of_a_file_is_not_taken(file, place):
    file.write_bytes(cache.sealed(b"of another function", machine_code.Code("another", (), b"\xc3")))
    assert compiled_again()


def test_an_edit_in_any_source_and_another_version_have_other_folders(tmp_path, monkeypatch):
    room = tmp_path / "package" / "room"
    room.mkdir(parents=True)
    files = [room / name for name in ("__init__.py", "a.py", "b.py")]
    for source in files:
        source.write_text("x = 1\n")
    found = [cache.stamp((room,))]
    for edit in (*(lambda source=source: source.write_text("x = 2\n") for source in files), files[1].unlink):
        edit()
        cache.stamp.cache_clear()
        found.append(cache.stamp((room,)))
    files[2].rename(room / "c.py")
    for module, name, value in (
        (cache, "numba_version", lambda: "0"),
        (cache.llvmlite, "__version__", "0"),
        (cache.binding, "llvm_version_info", (0, 0, 0)),
    ):
        cache.stamp.cache_clear()
        found.append(cache.stamp((room,)))
        monkeypatch.setattr(module, name, value)
    cache.stamp.cache_clear()
    found.append(cache.stamp((room,)))
    cache.stamp.cache_clear()
    assert len(set(found)) == len(found)


def test_sources_are_all_that_a_kernel_can_contain():
    kernels = Path(qwen3tts_np_kernels.__file__).parent
    assert cache.sources_of(kernels / "norm_jit.py") == (kernels,)
    assert cache.sources_of(kernels / "simd" / "ops.py") == (kernels,)
    room = kernels.parents[1] / "qwen3tts_np" / "compiled"
    assert cache.sources_of(room / "talker" / "session.py") == (kernels, room)
    assert cache.sources_of(Path(__file__)) == (kernels, Path(__file__))


ADDED = 1.0


@cpu.inner
def add_constant(x: float) -> float:
    return x + ADDED


def add_by_call(x: NDArray[np.float64]) -> None:
    x[0] = add_constant(x[0])


def test_a_constant_of_another_room_is_part_of_the_key(place, monkeypatch):
    """Machine code contains its value, and the digest of the sources knows nothing of it."""
    assert cache.constants(add_by_call) == ("ADDED=1.0",)
    for value in (1.0, 5.0):
        cache.constants.cache_clear()
        monkeypatch.setitem(globals(), "ADDED", value)
        monkeypatch.setitem(globals(), "add_constant", cpu.inner(add_constant.py_func))
        again, x = Counted(add_by_call, cpu.OPTIONS), np.ones(1)
        again(x)
        assert x[0] == 1.0 + value
        assert again.compiled
    cache.constants.cache_clear()


def test_where_nothing_can_be_kept_kernels_are_compiled_in_memory(place, monkeypatch):
    taken = place.parent / "a file"
    taken.write_text("")
    monkeypatch.setattr(cache, "places", lambda: iter([taken]))
    with pytest.warns(UserWarning, match="no place to keep compiled kernels: .* set NUMBA_CACHE_DIR") as said:
        assert [compiled_again() for _ in range(2)] == [True, True]
    assert len(said) == 1


def test_without_a_home_the_users_folder_is_no_place(monkeypatch):
    for name in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)  # as where no home is known
    assert all(place.is_absolute() for place in cache.places())


def test_a_full_disk_is_said_once_and_the_kernel_runs(place, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "write", full)
    with pytest.warns(UserWarning, match="cannot be kept in .*: No space left on device; .* in memory") as said:
        assert [compiled_again() for _ in range(2)] == [True, True]
    assert len(said) == 1


def test_a_filled_folder_that_is_closed_to_us_is_read(file, monkeypatch):
    cache.folder.cache_clear()
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", lambda **_: pytest.fail("it is not written to"))
    assert not compiled_again()


def test_writers_at_once_leave_a_whole_file(tmp_path):
    path, contents = tmp_path / "x.bin", [bytes([i]) * 100_000 for i in range(4)]
    whole = [cache.hashlib.sha256(content).digest() + content for content in contents]
    seen: list[Any] = []

    def write(content: bytes) -> None:
        for _ in range(20):
            cache.write(path, content)
            seen.append(cache.checked(path))

    writers = [threading.Thread(target=write, args=(content,)) for content in whole]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(seen) == 80
    assert set(seen) <= set(contents)
    assert list(tmp_path.iterdir()) == [path]


def test_folders_of_former_sources_are_removed(place):
    for i in range(9):
        (place / f"kernels-{i}").mkdir(parents=True)
    (place / "of others").mkdir()
    compiled_again()
    left = {found.name for found in place.iterdir()}
    assert len(left) == cache.KEPT + 2
    assert "of others" in left


WARM = """
import sys
import numpy as np
from qwen3tts_np_kernels.norm_jit import rms_norm
from qwen3tts_np_kernels.activation_jit import silu_gate
rms_norm(np.ones((1, 16), np.float32), np.ones(16, np.float32), 1e-6)
silu_gate(np.ones((1, 32), np.float32), np.ones((1, 16), np.float32))
sys.exit("numba" in sys.modules)
"""


def test_kernels_that_are_kept_run_without_numba(tmp_path):
    """Importing it, and having it make its own objects of what is on disk, takes most of a second."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", WARM], env=environment, capture_output=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [1, 0]
    assert [run.stderr.decode().strip() for run in runs] == [cpu.COMPILING, ""], "only who compiles says so, once"
    kept = [path.read_bytes() for path in tmp_path.rglob("*.bin")]
    assert len(kept) == 2
    assert not any(b"NRT_" in content or b"numba_" in content for content in kept), "functions that only Numba has"


def test_the_command_line_says_that_it_compiles(tmp_path):
    """Also where standard error is no terminal, in a line of its own."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "qwen3tts_np", "doctor", "--offline"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"qwen3tts-np doctor: {cpu.COMPILING}"]
