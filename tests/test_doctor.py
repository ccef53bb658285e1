"""``doctor``: one line per check, a fault only where speech cannot work, and no network where that is forbidden."""

from __future__ import annotations

import errno
import json
import re
import tempfile
import urllib.error
import urllib.request
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from qwen3tts_np_kernels import cpu, system

from qwen3tts_np import cli
from qwen3tts_np.checkpoint.hub import Hub
from qwen3tts_np.verify import installation as doctor

NAMES = "Python libraries compiler kernel cache packed copies cores memory libsndfile extras hub speech"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    monkeypatch.setattr(doctor, "READ", 1 << 20)


def test_every_check_is_one_line_and_this_machine_speaks(capsys):
    assert cli.main(["doctor", "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert " ".join(line[7:20].strip() for line in lines) == NAMES
    assert {line.split()[0] for line in lines} <= {"ok", "note"}
    assert lines[-1].startswith("ok     speech        the demo voice said 'hello world'")


@pytest.mark.parametrize("status", ["ok", "note", "fault"])
def test_the_exit_status_says_whether_speech_works(status, monkeypatch, capsys):
    checks = [doctor.Check("a", "ok", "fine"), doctor.Check("b", status, "found", "do this")]
    monkeypatch.setattr("qwen3tts_np.cli.doctor.check_installation", lambda offline: iter(checks))
    works = status != "fault"
    assert cli.main(["doctor"]) == int(not works)
    assert capsys.readouterr().out.splitlines()[1] == f"{status:<6} b             found -> do this"
    assert cli.main(["doctor", "--json"]) == int(not works)
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is works
    assert found["checks"][1] == {"name": "b", "status": status, "found": "found", "advice": "do this"}


@pytest.mark.parametrize(
    ("version", "status"), [((3, 9), "fault"), ((3, 10), "ok"), ((3, 13), "ok"), ((3, 99), "note")]
)
def test_python(version, status, monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (*version, 0))
    found = doctor.python()
    assert found.status == status
    assert bool(found.advice) is (status != "ok")


def test_the_tested_versions_are_those_of_the_project():
    root = Path(__file__).parents[1]
    files = ("pyproject.toml", "README.md", ".github/workflows/check.yml")
    project, readme, workflow = ((root / file).read_text(encoding="utf-8") for file in files)
    oldest, newest = doctor.dotted(doctor.OLDEST), doctor.dotted(doctor.NEWEST)
    assert f'requires-python = ">={oldest}"' in project
    tested = [doctor.dotted((3, minor)) for minor in range(doctor.OLDEST[1], doctor.NEWEST[1] + 1)]
    assert re.findall(r"Programming Language :: Python :: (3\.\d+)", project) == tested
    assert f"Python {oldest} or later; {oldest} to {newest} are tested." in readme
    assert f'python: ["{oldest}", "{newest}"]' in workflow


def test_a_library_that_cannot_be_imported_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARIES", ("soxr", "no_such_library"))
    found = doctor.libraries()
    assert found.status == "fault" and "no_such_library (No module named" in found.found


def test_a_kernel_that_is_wrong_is_a_fault_and_a_compiler_switched_off_a_note(monkeypatch):
    monkeypatch.setattr(cpu, "compiled", lambda: True)
    monkeypatch.setattr(doctor, "rms_norm", lambda x, weight, eps: x)
    assert doctor.compiler().status == "fault"
    monkeypatch.setattr(cpu, "compiled", lambda: False)
    assert "NUMBA_DISABLE_JIT" in doctor.compiler().advice


def test_the_kernel_cache_is_counted_and_may_be_closed(tmp_path, monkeypatch):
    (tmp_path / "kernel-a.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "other.txt").touch()
    assert doctor.kernel_cache(tmp_path).found == f"{tmp_path}: 1 files, 3 MB"
    assert doctor.kernel_cache(None).status == "note"

    def refuse(**options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = doctor.kernel_cache(tmp_path)
    assert found.status == "note" and "Read-only file system" in found.found and "NUMBA_CACHE_DIR" in found.advice


def test_the_kernel_cache_is_where_numba_keeps_it():
    folder = cpu.cache_folder()
    assert folder is None if not cpu.compiled() else folder is not None and folder.is_absolute()


@pytest.mark.parametrize(("quota", "status"), [(None, "ok"), (1.5, "ok"), (0.5, "note")])
def test_cores(quota, status, monkeypatch):
    monkeypatch.setattr(system, "cpu_quota", lambda: quota)
    found = doctor.cores()
    assert found.status == status and (quota is None or f"CPU quota {quota:g}" in found.found)


@pytest.mark.parametrize(
    ("speed", "available", "status", "advice"),
    [
        (60, 8e9, "ok", ""),
        (30, 8e9, "note", "0.6B keeps up with playback in int8: --format int8"),
        (5, 8e9, "note", "0.6B is slower than playback: --format int4"),
        (60, 1e9, "note", "0.6B in int4 needs 1.5 GB: close other programs"),
    ],
)
def test_memory(speed, available, status, advice, monkeypatch):
    monkeypatch.setattr(doctor, "read_speed", lambda threads: speed)
    monkeypatch.setattr(system, "memory", lambda: system.Memory(int(16e9), int(available)))
    found = doctor.memory()
    assert (found.status, found.advice) == (status, advice)
    assert found.found == f"16.0 GB, {available / 1e9:.1f} GB available, read at {speed} GB/s or more"


def test_memory_of_unknown_size(monkeypatch):
    monkeypatch.setattr(system, "memory", lambda: None)
    assert doctor.memory().found.startswith("read at ")


def test_memory_of_a_container(tmp_path):
    assert system.memory(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\n")
    assert system.memory(tmp_path) == (8000 * 1024, 5000 * 1024)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    for name, content in (("memory.max", "2048000"), ("memory.current", "1024000")):
        (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup/box" / name).write_text(content)
    assert system.memory(tmp_path) == (2048000, 1024000)


def test_an_audio_format_that_is_missing(monkeypatch):
    assert doctor.libsndfile().status in ("ok", "note")
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": "", "OGG": "", "AU": ""})
    found = doctor.libsndfile()
    assert found.found.endswith("WAV, FLAC, OGG and 1 others; not MP3") and found.status == "note"


def test_extras_come_from_the_metadata(monkeypatch):
    required = [
        "numpy>=1",
        'a>=2; extra == "one"',
        "b ; extra == 'two'",
        'c[x]>1 ; extra == "two"',
        'd; extra == "dev"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    monkeypatch.setattr(doctor, "installed", lambda name: name in ("a", "b"))
    found = doctor.extras()
    assert found.found == "one installed, two missing"
    assert found.advice == "pip install 'qwen3tts-np[two]' if you want them"

    def unknown(name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", unknown)
    assert doctor.extras().status == "note"


@pytest.mark.parametrize(("forbidden", "offline"), [(True, False), (False, True)])
def test_the_hub_is_not_asked_offline(forbidden, offline, tmp_path):
    (tmp_path / "models--Qwen--Qwen3-TTS-12Hz-0.6B-Base").mkdir()
    found = doctor.hub(Hub(tmp_path, "https://mirror.example", forbidden), offline)
    assert found.status == "ok"
    assert found.found == f"cache {tmp_path}: Qwen/Qwen3-TTS-12Hz-0.6B-Base; offline, so nothing was asked"
    assert doctor.hub(None, False).advice == "pip install 'qwen3tts-np[hub]' downloads models by name"


def test_the_hub_answers_or_not(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: asked.append(url) or nullcontext())
    settings = Hub(tmp_path, "https://mirror.example", False)
    assert doctor.hub(settings, False).found.endswith("none of the published models; https://mirror.example answers")
    assert asked == ["https://mirror.example"]

    def unreachable(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    found = doctor.hub(settings, False)
    assert (
        found.status == "note" and found.found.endswith("cannot be reached: no route") and "HF_ENDPOINT" in found.advice
    )


def test_a_damaged_demo_voice_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.demo, "CHECKPOINT", tmp_path)
    assert doctor.speech().status == "fault"


def test_silence_is_a_fault(monkeypatch):
    silent = SimpleNamespace(generate_custom_voice=lambda *arguments, **options: ([doctor.np.zeros(24000)], 24000))
    monkeypatch.setattr(doctor.Qwen3TTSModel, "from_pretrained", lambda *arguments, **options: silent)
    assert doctor.speech().status == "fault"
