"""The program where its surroundings are poor or hostile: prints one line for each, and exits 1 if one is not as said.

    python tests/surroundings.py              # Linux; some need root, unshare, setpriv and taskset, and are left out
    python tests/surroundings.py --only cold

Eight processes compile into one cold cache, and others while its folder is deleted again and again; a package that
cannot be written to, no home, no /dev/shm, no place for temporary files; a user who owns nothing; one core, few
threads, little address space; file names in another encoding than the locale's.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
TEXT = "Hello world."
KERNELS = """
import numpy as np
from qwen3tts_np_kernels.norm_jit import rms_norm
from qwen3tts_np_kernels.activation_jit import silu_gate
rms_norm(np.ones((1, 16), np.float32), np.ones(16, np.float32), 1e-6)
gated = np.ones((1, 16), np.float32)
silu_gate(np.ones((1, 32), np.float32), gated)
print(float(gated.sum()))
"""
NOBODY = "65534"


def shell(line: str, folder: Path, **variables: str) -> tuple[int, str]:
    """The exit status and the messages of a line of bash; PY and Q in it are Python and the program."""
    names = {
        "PY": sys.executable,
        "Q": f"{sys.executable} -m qwen3tts_np",
        "SAY": f"{sys.executable} -m qwen3tts_np say",
    }
    environment = {**os.environ, "PYTHONPATH": PATHS, **names, **variables}
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, timeout=600, check=False
    )
    return done.returncode, done.stderr.decode(errors="replace")


def expect(line: str, folder: Path, status: int = 0, says: str = "", **variables: str) -> Iterator[str]:
    """What is wrong: another exit status, a traceback, other words, or no sound in a.wav."""
    found, said = shell(line, folder, **variables)
    if found != status:
        yield f"exit status {found}, not {status}: {said[-300:]}"
    if "Traceback" in said or says not in said:
        yield f"it says {said[-300:]!r}, expected {says!r}"
    if status == 0 and "a.wav" in line and not (folder / "a.wav").exists():
        yield "no a.wav"


def kernels(folder: Path, cache: Path) -> subprocess.Popen[str]:
    """A process that calls two kernels."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "NUMBA_CACHE_DIR": str(cache)}
    words = [sys.executable, "-c", KERNELS]
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(processes: list[subprocess.Popen[str]]) -> Iterator[str]:
    ended = [(process.communicate(timeout=600), process.returncode) for process in processes]
    if results := {out for (out, _), _ in ended} - {ended[0][0][0]}:
        yield f"other results: {results}"
    for (_, said), status in ended:
        if status or "Traceback" in said:
            yield f"exit status {status}: {said[-300:]}"


def cold(folder: Path) -> Iterator[str]:
    """Eight processes compile into one cold cache"""
    cache = folder / "cache"
    yield from outcome([kernels(folder, cache) for _ in range(8)])
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    if len(before) != 2 or any(path.name.startswith(".") for path in before):
        yield f"the cache holds {sorted(path.name for path in before)}"
    process = kernels(folder, cache)
    if "compiling" in process.communicate()[1]:
        yield "a ninth compiles again"


def deleted(folder: Path) -> Iterator[str]:
    """The cache is deleted while four processes run"""
    cache, over = folder / "cache", threading.Event()

    def delete() -> None:
        while not over.is_set():
            shutil.rmtree(cache, ignore_errors=True)
            time.sleep(0.01)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        yield from outcome([kernels(folder, cache) for _ in range(4)])
    finally:
        over.set()
        thread.join()


def in_namespace(mounts: str, line: str) -> str:
    """``line`` where ``mounts`` has changed the file system for it alone."""
    return f"unshare -m bash -c {shlex.quote(f'{mounts} && {line}')}"


def read_only(folder: Path) -> Iterator[str]:
    """A package that cannot be written to, and no home: kernels are compiled in memory, with one warning"""
    mounts = f"mount --bind {ROOT} {ROOT} && mount -o remount,bind,ro {ROOT}"
    say = in_namespace(mounts, f'! touch {ROOT}/x 2>/dev/null && env -u HOME $SAY "{TEXT}" --seed 1 -o {folder}/a.wav')
    yield from expect(say, folder)
    (folder / "kernels.py").write_text(KERNELS)
    hide = f"{mounts} && mount -t tmpfs -o ro none {ROOT}/kernels/qwen3tts_np_kernels/__pycache__"
    where = "XDG_CACHE_HOME=/proc HOME=/proc"
    yield from expect(in_namespace(hide, f"{where} $PY {folder}/kernels.py"), folder, says="no place to keep compiled")


def no_shared_memory(folder: Path) -> Iterator[str]:
    """No /dev/shm, and no place for temporary files"""
    yield from expect(
        in_namespace("mount -t tmpfs -o ro,size=4k none /dev/shm", f'$SAY "{TEXT}" --seed 1 -o {folder}/a.wav'), folder
    )
    no_temporary = "for d in /tmp /var/tmp /usr/tmp; do [ -d $d ] && mount -t tmpfs -o ro none $d; done; cd /proc"
    line = f'TMPDIR=/proc $SAY "{TEXT}" --seed 1 -o - | cat >/dev/null; exit ${{PIPESTATUS[0]}}'
    yield from expect(in_namespace(no_temporary, line), folder, 2, "no temporary folder can be made")


def nobody(folder: Path) -> Iterator[str]:
    """A user who owns nothing, and may start no threads"""
    own = folder / "own"
    own.mkdir()
    os.chown(own, int(NOBODY), int(NOBODY))
    # Where the checkout is closed to others, as below /root, it may be read all the same.
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    become += " --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
    home = f"HOME={own}"
    yield from expect(f'{home} {become} $SAY "{TEXT}" --seed 1 -o {own}/a.wav', own)
    (folder / "roots.wav").write_bytes(b"old")
    line = f'{home} {become} $SAY "{TEXT}" --seed 1 -o {folder}/roots.wav'
    yield from expect(line, folder, 2, "roots.wav cannot be written: ")
    limited = f'ulimit -u 1; {home} {become} $SAY "{TEXT}" --seed 1 -o {own}/a.wav'
    yield from expect(limited, own)


def little(folder: Path) -> Iterator[str]:
    """One core; 1.5 GB of address space, and less than is needed"""
    say = f'$SAY "{TEXT}" --seed 1 -o a.wav'
    yield from expect(f"taskset -c 0 {say}", folder)
    one = (folder / "a.wav").read_bytes()
    yield from expect(f"ulimit -v 1500000; {say}", folder)
    if (folder / "a.wav").read_bytes() != one:
        yield "other samples"
    yield from expect(f"ulimit -v 700000; {say}", folder, 2, "of address space are free")


def other_names(folder: Path) -> Iterator[str]:
    """Names in another encoding than the locale's"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for number, name in enumerate((b"caf\xe9", "caf\u00e9".encode(), b"\xff\xfe", "\u8bed\u97f3".encode())):
        made = Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".wav"))
        (folder / f"{number}.sh").write_bytes(b"$SAY --file " + name + b".txt --seed 1 -o " + name + b".wav\n")
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name + b".txt")).write_text(TEXT)
        for variables in (plain, {"LC_ALL": "C.UTF-8"}):
            yield from expect(f". ./{number}.sh", folder, **variables)
            if not made.exists():
                yield f"no file {made!r}"
        made.unlink(missing_ok=True)


CASES: dict[str, tuple[Callable[[Path], Iterator[str]], tuple[str, ...]]] = {
    "cold": (cold, ()),
    "deleted": (deleted, ()),
    "read-only": (read_only, ("unshare",)),
    "shm": (no_shared_memory, ("unshare",)),
    "nobody": (nobody, ("setpriv",)),
    "little": (little, ("taskset",)),
    "names": (other_names, ()),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, action="append", help="may be given several times")
    failed = False
    for name in parser.parse_args().only or CASES:
        case, needed = CASES[name]
        if missing := [program for program in needed if not shutil.which(program) or os.geteuid()]:
            print(f"{case.__doc__}: not tried without {', '.join(missing)} and root", flush=True)
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            os.chmod(place, 0o755)
            wrong = list(case(Path(place)))
        print(
            f"{case.__doc__}: {'as it should be' if not wrong else 'WRONG'} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
        for line in wrong:
            print(f"  {line}", flush=True)
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
