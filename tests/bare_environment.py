"""A Python environment that has some installed packages and nothing else: not this package, and no PyTorch."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest

STRANGERS = ("qwen3tts_np", "qwen3tts_np_kernels", "torch", "numba", "scipy", "safetensors", "onnx", "soundfile")


def bare_python(folder: Path, packages: Iterable[str]) -> Path:
    """The interpreter of a new environment in ``folder`` in which ``packages``, but not what they require, are links.

    AssertionError if it can import anything of ``STRANGERS``.
    """
    venv.create(folder, with_pip=False)
    paths = {name: Path(sysconfig.get_path(name, "venv", {"base": str(folder)})) for name in ("purelib", "scripts")}
    for package in packages:
        installed = distribution(package)
        tops = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
        assert tops, f"{package} has no list of its files"
        for top in tops:
            link(paths["purelib"] / top, Path(str(installed.locate_file(top))))
    (python,) = (path for path in paths["scripts"].iterdir() if path.stem == "python")
    look = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    seen = subprocess.run([python, "-I", "-c", look, *STRANGERS, *packages], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == str(list(packages)), seen.stdout
    return python


def link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as e:
        pytest.skip(f"links cannot be made here: {e.strerror}")
