"""A wheel, built from a clean copy, installed into an environment of its own, and spoken with.

    pytest tests/wheel.py             about two minutes; needs a package index

Not part of the suite: its name does not begin with ``test_``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qwen3tts_np

ROOT = Path(__file__).parents[1]
SOURCES = {"qwen3tts_np": ROOT / "qwen3tts_np", "qwen3tts_np_kernels": ROOT / "kernels" / "qwen3tts_np_kernels"}
SENTENCE = "Hello world, this is a test of my voice."
NOT_PACKED = {".md", ".svg"}  # pages about the code


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a folder ``build`` behind, and packs what an earlier one holds."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("qwen3tts_np", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(work), str(source))
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python("-m", "pip", "install", "--quiet", str(wheel), program=programs / "python")
    return programs


def python(*arguments: str, program: Path = Path(sys.executable), cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(package: str) -> Iterator[str]:
    for path in SOURCES[package].rglob("*"):
        if path.is_file() and path.suffix not in NOT_PACKED and "__pycache__" not in path.parts:
            yield f"{package}/{path.relative_to(SOURCES[package]).as_posix()}"


def test_the_wheel_holds_every_file_of_the_tree_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        about = f"qwen3tts_np-{qwen3tts_np.__version__}.dist-info"
        metadata = archive.read(f"{about}/METADATA").decode()
    licence = "qwen3tts_np/LICENSE"
    wanted = {name for package in SOURCES for name in files(package)} - {licence}
    assert len(wanted) > 150
    assert wanted - held == set()
    assert {"qwen3tts_np/py.typed", "qwen3tts_np/demo_voice/model.safetensors"} <= held
    assert f"{about}/licenses/{licence}" in held
    code = {name for name in held if not name.startswith(about)}
    assert code - wanted - {licence} == set(), "nothing else"
    assert "License-Expression: Apache-2.0" in metadata and "Project-URL: Homepage" in metadata


def test_it_speaks_from_another_folder(installed, tmp_path):
    said = python("-m", "qwen3tts_np", "say", SENTENCE, "--seed", "1", program=installed / "python", cwd=tmp_path)
    assert "speech.wav" in said
    wave, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert rate == 24000 and wave.ndim == 1
    assert 2 < len(wave) / rate < 6
    assert np.sqrt(np.mean(wave**2)) > 0.01 and np.abs(wave).max() < 1


def test_the_command_is_installed_with_the_version_of_the_package(installed, tmp_path):
    program = installed / ("qwen3tts-np.exe" if sys.platform == "win32" else "qwen3tts-np")
    done = subprocess.run([program, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"qwen3tts-np {qwen3tts_np.__version__}\n"
    where = python("-c", "import qwen3tts_np; print(qwen3tts_np.__file__)", program=installed / "python", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
