"""What only some systems have is called in one module, and each such call has a fallback."""

from __future__ import annotations

import ast
import errno
import mmap
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from qwen3tts_np_kernels import system

ROOT = Path(__file__).parents[1]
HOME = "kernels/qwen3tts_np_kernels/system.py"

# Attributes of os, signal, mmap, select, socket and ctypes, and modules, that Windows or macOS lack.
NAMES = set(
    "sched_getaffinity sched_setaffinity sched_yield sched_setscheduler getloadavg sysconf confstr "
    "fork forkpty register_at_fork wait waitid wait3 wait4 WNOHANG pidfd_open posix_spawn spawnvp "
    "chown lchown fchown fchmod lchmod mkfifo mknod chroot chflags getxattr setxattr O_DIRECTORY O_NOFOLLOW "
    "O_NONBLOCK O_CLOEXEC O_TMPFILE "
    "getuid geteuid getgid getegid getgroups setuid setgid setsid getpgid getpgrp setpgid killpg nice getpriority "
    "setpriority statvfs fstatvfs pread pwrite preadv pwritev sendfile copy_file_range splice memfd_create "
    "posix_fadvise posix_fallocate lockf openpty ttyname ctermid pipe2 set_blocking uname "
    "SIGHUP SIGPIPE SIGKILL SIGQUIT SIGALRM SIGUSR1 SIGUSR2 SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGWINCH SIGBREAK "
    "CTRL_C_EVENT CTRL_BREAK_EVENT alarm setitimer pthread_kill pthread_sigmask sigwait siginterrupt "
    "madvise MAP_PRIVATE MAP_SHARED MAP_ANONYMOUS MAP_POPULATE MAP_NORESERVE PROT_READ PROT_WRITE "
    "poll epoll kqueue AF_UNIX SO_REUSEPORT malloc_trim mallopt WinDLL windll SwitchToThread startfile getrusage "
    "flock".split()
)
MODULES = set("fcntl resource termios tty pty pwd grp syslog posix readline msvcrt winreg winsound _winapi".split())
FOLDERS = ("/proc/", "/sys/", "/dev/")  # of the kernel


def calls(source: str) -> Iterator[str]:
    """Names of the lists above that a program uses, also by ``getattr`` and ``hasattr``, and folders of the kernel."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            wrapped = node.value.id in ("os", "signal", "mmap", "select", "socket", "ctypes", "resource", "fcntl")
            if (wrapped and node.attr in NAMES) or node.attr in ("madvise", "malloc_trim", "sched_yield"):
                yield f"{node.value.id}.{node.attr}"
            if node.attr.startswith("MADV_"):
                yield node.attr
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module for _ in range(1) if node.module in MODULES)
            inside = node.module in ("os", "signal", "mmap", "select", "socket", "ctypes")
            yield from (f"{node.module}.{alias.name}" for alias in node.names if inside and alias.name in NAMES)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            named = node.args[1] if len(node.args) > 1 else None
            if isinstance(named, ast.Constant) and named.value in NAMES:
                yield named.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(FOLDERS):
            yield node.value


def elsewhere(root: Path) -> list[str]:
    found = []
    for folder in ("qwen3tts_np", "kernels"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name != HOME:
                found += [f"{name}: {call}" for call in calls(path.read_text(encoding="utf-8"))]
    return found


def test_calls_that_not_all_systems_have_are_in_one_module():
    assert elsewhere(ROOT) == [], f"put them into {HOME}, with a fallback"
    assert len(set(calls((ROOT / HOME).read_text(encoding="utf-8")))) > 8  # the search finds what is there


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nlen(os.sched_getaffinity(0))", "os.sched_getaffinity"),
        ("import os\nif hasattr(os, 'register_at_fork'):\n    pass", "register_at_fork"),
        ("from os import mkfifo", "os.mkfifo"),
        ("def f():\n    import resource", "resource"),
        ("from fcntl import flock", "fcntl"),
        ("import signal\nsignal.signal(signal.SIGHUP, f)", "signal.SIGHUP"),
        ("owner.madvise(3)", "owner.madvise"),
        ("Path('/proc/meminfo')", "/proc/meminfo"),
    ],
)
def test_a_planted_call_is_found(tmp_path, source, found):
    for folder in ("qwen3tts_np/cli", "kernels/qwen3tts_np_kernels"):
        path = tmp_path / folder / "x.py"
        path.parent.mkdir(parents=True)
        path.write_text(source, encoding="utf-8")
        assert elsewhere(tmp_path) == [f"{folder}/x.py: {found}"]
        path.unlink()


# --- with the call and without it -----------------------------------------------------------------


def test_cores_are_those_of_the_affinity_or_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 9}, raising=False)
    assert system.allowed_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert system.allowed_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.allowed_cores() == 1


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (  # the tightest of those around it
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
    ],
)
def test_the_quota_of_a_container(files, quota, tmp_path):
    assert system.cpu_quota(plant(tmp_path, files)) == quota


@pytest.mark.parametrize(("cores", "quota", "usable"), [(4, None, 4), (4, 1.5, 2), (4, 0.3, 1), (2, 8.0, 2)])
def test_usable_cores_are_the_smaller_of_both(cores, quota, usable, monkeypatch):
    monkeypatch.setattr(system, "allowed_cores", lambda: cores)
    monkeypatch.setattr(system, "cpu_quota", lambda: quota)
    assert system.usable_cores() == usable


def test_what_linux_tells_of_arm(monkeypatch):
    capabilities = {16: 1 << 20 | 1 << 3, 26: 1 << 14}  # asimddp and aes; bf16
    library = SimpleNamespace(getauxval=lambda kind: capabilities[kind])
    monkeypatch.setattr(system, "ctypes", SimpleNamespace(CDLL=lambda name: library, c_ulong=int))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(system.platform, "machine", lambda: "aarch64")
    assert system.arm_features() == {"dotprod": True, "i8mm": False}
    capabilities[26] |= 1 << 13
    assert system.arm_features() == {"dotprod": True, "i8mm": True}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system.arm_features() == {}
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(system.platform, "machine", lambda: "x86_64")
    assert system.arm_features() == {}


def test_peak_memory_grows_and_may_be_unknown(monkeypatch):
    before = system.peak_memory()
    assert before is None or 1e6 < before < 1e12
    monkeypatch.setattr(system, "_lines", lambda path: [])
    pytest.importorskip("resource")
    assert abs(system.peak_memory() - before) < 0.5 * before
    monkeypatch.setitem(sys.modules, "resource", None)
    assert system.peak_memory() is None


def test_advice_reaches_mapped_bytes_or_does_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        for advice in ("dontneed", "willneed", "sequential", "random"):
            system.advise(mapping, advice, 100, 5000)
            system.advise(mapping, advice)
        assert mapping[300] == 300 % 256
    asked = []
    mapping = SimpleNamespace(madvise=lambda *given: asked.append(given))
    system.advise(mapping, "no such advice", 0, 1)
    assert asked == []


def test_memory_is_returned_where_that_is_possible(monkeypatch):
    system.return_free_memory()  # of this system, as it is
    trimmed = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(system.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=trimmed.append))
    system.return_free_memory()
    assert trimmed == [0]
    monkeypatch.setattr(system.ctypes, "CDLL", lambda _: SimpleNamespace())  # musl
    system.return_free_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(system.ctypes, "CDLL", None)  # not even looked for
    system.return_free_memory()
    system.keep_free_memory()


def test_memory_is_kept_where_that_is_possible(monkeypatch):
    asked = []
    library = SimpleNamespace(mallopt=lambda *given: asked.append(given))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(system.ctypes, "CDLL", lambda _: library)
    system.keep_free_memory()
    assert asked == [(-3, 32 << 20), (-1, 2**31 - 1)]
    monkeypatch.setattr(system.ctypes, "CDLL", lambda _: SimpleNamespace())  # musl
    system.keep_free_memory()


def test_a_child_hears_of_the_fork(monkeypatch):
    if hasattr(os, "fork"):
        program = (
            "import os\nfrom qwen3tts_np_kernels.system import at_fork\n"
            "at_fork(after_in_child=lambda: os.write(1, b'child'))\n"
            "child = os.fork()\n"
            "os._exit(0) if child == 0 else os.waitpid(child, 0)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "kernels")}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
        assert done.stdout == b"child"
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    system.at_fork(before=lambda: None)


def test_stop_signals_are_those_of_this_system(monkeypatch):
    assert signal.SIGTERM in system.stop_signals()
    assert (signal.SIGINT not in system.stop_signals()) and len(system.stop_signals()) == 2
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", signal.Signals(21), raising=False)
    assert [int(number) for number in system.stop_signals()] == [signal.SIGTERM, 21]


def test_a_closed_pipe_has_another_name_on_windows(monkeypatch):
    assert system.reader_is_gone(BrokenPipeError())
    assert not system.reader_is_gone(OSError(errno.ENOSPC, "full"))
    for platform, gone in (("linux", False), ("win32", True)):
        monkeypatch.setattr(sys, "platform", platform)
        assert system.reader_is_gone(OSError(errno.EINVAL, "Invalid argument")) is gone


def test_a_lock_is_held_by_one_and_given_up_at_the_end(tmp_path):
    with (tmp_path / "lock").open("wb") as first, (tmp_path / "lock").open("wb") as second:
        assert system.lock(first)
        assert not system.lock(second)
        first.close()
        assert system.lock(second)


def test_a_lock_where_there_is_no_flock(tmp_path, monkeypatch):
    taken: set[int] = set()

    def locking(file: int, mode: int, count: int) -> None:
        if taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.add(file)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with (tmp_path / "lock").open("wb") as first, (tmp_path / "lock").open("wb") as second:
        assert system.lock(first)
        assert not system.lock(second)


def files_of(folder: Path) -> tuple[Path, Path]:
    """An old file and a new one."""
    old, new = folder / "old", folder / "new"
    for path, mode in ((old, 0o600), (new, 0o644)):
        path.touch()
        path.chmod(mode)
    return old, new


def test_permissions_are_kept(tmp_path, monkeypatch):
    old, new = files_of(tmp_path)
    system.keep_permissions(old, new)
    assert new.stat().st_mode == old.stat().st_mode
    monkeypatch.delattr(os, "chown", raising=False)
    system.keep_permissions(old, new)


gives_away = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")


def refuse(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@gives_away
def test_an_owner_that_cannot_be_kept_is_an_error(tmp_path, monkeypatch):
    old, new = files_of(tmp_path)
    os.chown(old, 1234, 2345)
    system.keep_permissions(old, new)
    assert (new.stat().st_uid, new.stat().st_gid) == (1234, 2345)
    os.chown(new, 1235, 2345)
    monkeypatch.setattr(os, "chown", refuse)  # as for root of a container
    with pytest.raises(PermissionError):
        system.keep_permissions(old, new)


@gives_away
@pytest.mark.parametrize(("mode", "kept"), [(0o660, 0o600), (0o664, 0o644), (0o750, 0o700), (0o646, 0o646)])
def test_another_group_gets_no_more_than_everybody(tmp_path, monkeypatch, mode, kept):
    old, new = files_of(tmp_path)
    os.chown(old, -1, 2345)
    old.chmod(mode)
    monkeypatch.setattr(os, "chown", refuse)
    system.keep_permissions(old, new)
    assert stat.S_IMODE(new.stat().st_mode) == kept


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="this system keeps access control lists elsewhere")
def test_an_access_control_list_is_kept(tmp_path):
    old, new = files_of(tmp_path)
    entries = [(0x01, 6, -1), (0x02, 4, 1234), (0x04, 4, -1), (0x10, 4, -1), (0x20, 0, -1)]  # tag, permissions, who
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(old, "system.posix_acl_access", acl)
    except OSError as e:
        pytest.skip(f"this file system has none: {e.strerror}")
    system.keep_permissions(old, new)
    assert os.getxattr(new, "system.posix_acl_access") == acl


def test_a_limit_on_address_space_is_known():
    """The limit of a process of its own; without one the answer is None, as on Windows."""
    if system.free_address_space() is not None:
        pytest.skip("the tests themselves run under a limit")
    program = "from qwen3tts_np_kernels import system; print(system.free_address_space())"
    limit = 400 << 20

    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    if sys.platform != "linux":
        pytest.skip("other systems do not say how much is in use")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "kernels")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, preexec_fn=limited, capture_output=True, check=True
    )
    assert limit - (100 << 20) < int(done.stdout) < limit


def test_the_main_thread_is_woken_from_another(monkeypatch):
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        for _ in range(2):
            thread = threading.Thread(target=system.signal_main_thread, args=[signal.SIGTERM])
            thread.start()
            thread.join()
            monkeypatch.delattr(signal, "pthread_kill", raising=False)  # as on Windows
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)
