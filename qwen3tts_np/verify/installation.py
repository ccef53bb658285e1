"""Checks of an installation: can it speak here, how fast may it be, and what to do about whatever is missing."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from qwen3tts_np_kernels import cpu, system
from qwen3tts_np_kernels.norm import rms_norm_ref
from qwen3tts_np_kernels.norm_jit import rms_norm

from ..checkpoint.hub import Hub, hub_settings, published_names
from ..compiled import packed_copy
from ..errors import QwenTTSError, RequestError
from ..model import Qwen3TTSModel
from ..speech import demo

Status = Literal["ok", "note", "fault"]  # as it should be; worth knowing; speech cannot work
DISTRIBUTION = "qwen3tts-np"
OLDEST, NEWEST = (3, 10), (3, 13)  # Python versions that are tested
LIBRARIES = ("safetensors", "tokenizers", "scipy", "soxr", "threadpoolctl")
FOR_DEVELOPERS = ("all", "dev", "official", "test")  # extras that nobody misses
GB_PER_FRAME = {"bfloat16": 3.31, "int8": 1.76, "int4": 0.95}  # weights of 0.6B, as benchmarks/speed.md has them
SMALLEST = 1.5e9  # bytes that 0.6B in int4 needs, by the same page
FRAMES_PER_SECOND = 12.5
TIMEOUT = 5  # seconds
SOUND = ("WAV", "FLAC", "OGG", "MP3")  # what the command line writes
READ = 1 << 27  # bytes, of the measurement of memory


@dataclass(frozen=True)
class Check:
    """One line: ``found`` is what is so, ``advice`` what to do where something is missing or slow."""

    name: str
    status: Status
    found: str
    advice: str = ""


def check_installation(offline: bool = False) -> Iterator[Check]:
    """All checks, one after the other. The network is asked at most once, and not at all where that is forbidden."""
    yield python()
    yield libraries()
    yield compiler()
    yield kernel_cache(cpu.cache_folder())
    yield packed_copies()
    yield cores()
    yield memory()
    yield libsndfile()
    yield extras()
    yield hub(hub_settings(), offline)
    yield speech()


def python() -> Check:
    version = sys.version_info[:2]
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if version < OLDEST:
        return Check("Python", "fault", found, f"install Python {dotted(OLDEST)} or later")
    if version > NEWEST:
        return Check("Python", "note", found, f"newer than the versions that are tested, up to {dotted(NEWEST)}")
    return Check("Python", "ok", found)


def libraries() -> Check:
    """The packages that are imported late, too: each is imported here."""
    versions, missing = [f"numpy {np.__version__}"], []
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
            versions.append(f"{name} {metadata.version(name)}")
        except (ImportError, OSError) as e:  # a library of the system that is not there is an OSError
            missing.append(f"{name} ({e})")
    if missing:
        return Check("libraries", "fault", f"cannot be imported: {', '.join(missing)}", "install the package again")
    return Check("libraries", "ok", ", ".join(versions))


def compiler() -> Check:
    """Numba: a kernel is compiled, or read from the cache, and compared with its definition."""
    name = f"numba {metadata.version('numba')}, llvmlite {metadata.version('llvmlite')}"
    if not cpu.compiled():
        return Check("compiler", "note", f"{name}, switched off", "unset NUMBA_DISABLE_JIT: NumPy alone is slow")
    x = np.linspace(-1, 1, 6 * 40, dtype=np.float32).reshape(6, 40)
    weight = np.linspace(0.5, 1.5, 40, dtype=np.float32)
    if not np.allclose(rms_norm(x, weight, 1e-6), rms_norm_ref(x, weight, 1e-6), rtol=1e-5):
        return Check("compiler", "fault", f"{name}: a kernel gives wrong numbers", "delete the kernel cache; report it")
    return Check("compiler", "ok", f"{name}, for {cpu.CPU.name}")


def kernel_cache(folder: Path | None) -> Check:
    """Whether machine code is kept for the next process."""
    if folder is None:
        return Check("kernel cache", "note", "not used, as the compiler is switched off")
    kept = [path for path in folder.glob("*.bin") if path.is_file()] if folder.is_dir() else []
    found = f"{folder}: {len(kept)} files, {sum(path.stat().st_size for path in kept) / 1e6:.0f} MB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check("kernel cache", "ok", found)
    except OSError as e:
        advice = "set NUMBA_CACHE_DIR to a folder of yours, or every process compiles for half a minute"
        return Check("kernel cache", "note", f"{found}, cannot be written: {e.strerror}", advice)


def packed_copies() -> Check:
    """Checkpoints that are kept packed in the user's cache, and whether the environment allows more."""
    kept = packed_copy.copies()
    size = sum(path.stat().st_size for copy in kept for path in copy.rglob("*") if path.is_file())
    found = f"{packed_copy.folder()}: {len(kept)}, {size / 1e9:.1f} GB"
    try:
        allowed = packed_copy.is_allowed(None, packed_copy.COPIED[0])
    except RequestError as e:
        return Check("packed copies", "note", found, str(e))
    more = "more are kept" if allowed else "more are kept with --cache-packed only"
    return Check("packed copies", "ok", f"{found}, {more}", "remove the folder to have the space back" if kept else "")


def cores() -> Check:
    allowed, quota, usable = system.allowed_cores(), system.cpu_quota(), system.usable_cores()
    limit = "" if quota is None else f", CPU quota {quota:g}"
    found = f"{usable} usable of {os.cpu_count()} (affinity {allowed}{limit})"
    if quota is not None and quota < 1:
        return Check("cores", "note", found, "less than one core: give the container more")
    return Check("cores", "ok", found)


def memory() -> Check:
    """Size, and the speed of reading it, which is what generating a frame waits for."""
    speed = read_speed(system.usable_cores())
    enough = [name for name, size in GB_PER_FRAME.items() if speed >= size * FRAMES_PER_SECOND]
    keeps_up = f"0.6B keeps up with playback in {enough[0]}" if enough else "0.6B is slower than playback"
    advice = "" if enough and enough[0] == "bfloat16" else f"{keeps_up}: --format {(enough or ['int4'])[0]}"
    found, sizes = f"read at {speed:.0f} GB/s or more", system.memory()
    if sizes is not None:
        found = f"{sizes.total / 1e9:.1f} GB, {sizes.available / 1e9:.1f} GB available, {found}"
        if sizes.available < SMALLEST:
            advice = f"0.6B in int4 needs {SMALLEST / 1e9} GB: close other programs"
    return Check("memory", "note" if advice else "ok", found, advice)


def read_speed(threads: int) -> float:
    """GB/s of reading a large array with NumPy, the best of some passes: a lower bound."""
    data = np.ones(READ, np.uint8)
    parts = np.array_split(data, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(4):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            best = min(best, time.perf_counter() - start)
    return data.nbytes / best / 1e9


def libsndfile() -> Check:
    formats = soundfile.available_formats()
    kinds = {True: [name for name in SOUND if name in formats], False: [name for name in SOUND if name not in formats]}
    found = f"{soundfile.__libsndfile_version__}: {', '.join(kinds[True])} and {len(formats) - len(kinds[True])} others"
    if kinds[False]:
        return Check("libsndfile", "note", f"{found}; not {', '.join(kinds[False])}", "pip install --upgrade soundfile")
    return Check("libsndfile", "ok", found)


def extras() -> Check:
    """Which optional parts are installed, from the metadata of the distribution."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return Check("extras", "note", "unknown: the package runs from its source", "pip install -e .")
    wanted: dict[str, list[str]] = {}
    for requirement in required:
        if extra := re.search(r"""extra == ['"]([\w-]+)['"]""", requirement):
            name = re.match(r"[\w.-]+", requirement)
            if name and extra[1] not in FOR_DEVELOPERS:
                wanted.setdefault(extra[1], []).append(name[0])
    missing = [extra for extra, names in wanted.items() if not all(map(installed, names))]
    found = ", ".join(f"{extra} {'missing' if extra in missing else 'installed'}" for extra in wanted)
    if missing:
        return Check("extras", "note", found, f"pip install '{DISTRIBUTION}[{','.join(missing)}]' if you want them")
    return Check("extras", "ok", found)


def hub(settings: Hub | None, offline: bool) -> Check:
    """Where models come from and go to. The endpoint is asked for its front page, unless the network is forbidden."""
    if settings is None:
        advice = f"pip install '{DISTRIBUTION}[hub]' downloads models by name"
        return Check("hub", "note", "huggingface_hub is not installed", advice)
    folders = {f"models--{name.replace('/', '--')}": name for name in published_names()}
    here = [name for folder, name in folders.items() if (settings.cache / folder).is_dir()]
    found = f"cache {settings.cache}: {', '.join(here) or 'none of the published models'}"
    if offline or settings.offline:
        return Check("hub", "ok", f"{found}; offline, so nothing was asked")
    try:
        with urllib.request.urlopen(settings.endpoint, timeout=TIMEOUT):
            return Check("hub", "ok", f"{found}; {settings.endpoint} answers")
    except (OSError, ValueError) as e:
        advice = "models that are here work; for others set HF_ENDPOINT to a mirror, or copy a folder"
        reason = getattr(e, "reason", e)
        return Check("hub", "note", f"{found}; {settings.endpoint} cannot be reached: {reason}", advice)


def speech() -> Check:
    """The demo voice says two words, in NumPy."""
    start = time.perf_counter()
    try:
        model = Qwen3TTSModel.from_pretrained(demo.CHECKPOINT, backend="reference")
        (wave,), rate, *_ = model.generate_custom_voice("hello world", "oak", "english", do_sample=False)
    except QwenTTSError as e:
        return Check("speech", "fault", f"the demo voice is damaged: {e}", "install the package again")
    seconds = time.perf_counter() - start
    if not 0.3 < len(wave) / rate < 5 or not np.sqrt(np.mean(np.square(wave))) > 0.01:
        return Check("speech", "fault", "the demo voice said nothing", "report it with all of the above")
    return Check("speech", "ok", f"the demo voice said 'hello world' in {seconds:.1f} s")


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
