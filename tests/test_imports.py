"""Imports go one way: a room may use the rooms below it, never those above or beside it.

cli -> server -> verify -> training -> evaluate -> scoring -> calibration -> parity -> inspect -> batch -> speech ->
export -> model -> official_calls -> voice_arguments -> cloning, official_view, streaming -> speech_tokenizer ->
compiled -> running_batch -> teacher -> generate -> request -> voice -> synthetic -> layout -> talker | codec |
speaker | text -> mlp, conv -> manifest -> checkpoint, trace, audio, report -> config, ops, files, arguments, extras
-> errors, notices -> shown -> kernels -> NumPy

Key tables are beside the blocks that use them, so ``layout``, which lists every tensor of a checkpoint, is above the
blocks, and what makes a checkpoint from that list (``synthetic``) is above ``layout``.
``mlp`` and ``conv``, which talker, codec and speaker encoder share, are below them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, KERNELS = "qwen3tts_np", "qwen3tts_np_kernels"

# From top to bottom. Rooms of one floor: those of SEPARATE do not know each other, others may.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"server"},
    {"verify"},
    {"training"},
    {"evaluate"},
    {"scoring"},
    {"calibration"},
    {"parity"},
    {"inspect"},
    {"batch"},
    {"speech"},
    {"export"},
    {"model"},
    {"official_calls"},
    {"voice_arguments"},
    {"cloning", "official_view", "streaming"},
    {"speech_tokenizer"},
    {"compiled"},
    {"running_batch"},
    {"teacher"},
    {"generate"},
    {"request"},
    {"voice"},
    {"synthetic"},
    {"layout"},
    {"talker", "codec", "speaker", "text"},
    {"mlp", "conv"},
    {"manifest"},
    {"checkpoint", "trace", "audio", "report"},
    {"config", "ops", "files", "arguments", "extras"},
    {"errors", "notices", "start"},
    {"shown"},
    {KERNELS},
)
SEPARATE = {"talker", "codec", "speaker", "text"}
FLOOR_OF = {room: i for i, floor in enumerate(FLOORS) for room in floor}

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DEPENDENCIES = re.search(r"^dependencies = \[(.*?)^\]", PYPROJECT, re.M | re.S)
RUN_TIME = set(re.findall(r'"([A-Za-z0-9_]+)', DEPENDENCIES[1] if DEPENDENCIES else ""))  # imported as they are named
NEWER = {"tomllib"}  # of the standard library, since Python 3.11
AUDIO = {"av", "pyloudnorm", "sounddevice"}  # of the extras tempo, loudness and play
JUDGES = {  # of the extra evaluate, and a recogniser that a user may have
    *("jiwer", "pocketsphinx", "pesq", "pystoi", "pyloudnorm", "onnxruntime", "webrtcvad"),
    *("whisper_normalizer", "text_to_num", "faster_whisper"),
}
SERVER = {"fastapi", "starlette", "uvicorn"}  # an extra; the command line imports the room where it needs it
# llvmlite comes with Numba: kernels may name instructions that Numba has no words for. huggingface_hub is an extra.
ALSO = {
    KERNELS: {"llvmlite"},
    "checkpoint": {"huggingface_hub"},
    "report": {"matplotlib"},
    "server": SERVER,
    "audio": AUDIO,
    "batch": {"ray"},
    "evaluate": JUDGES,
    "export": {"coremltools", "onnx"},
    "training": {"tomli", "pyarrow", "huggingface_hub", "wandb"},
}
FRAMEWORKS = {"torch", "torchaudio", "transformers", "qwen_tts", "tensorflow", "jax", "onnxruntime"}


def imports(path: Path, module: str) -> tuple[str, ...]:
    """The full name of everything that a file imports, inside functions too. ``module`` is the file's own name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _imported(path.read_text(encoding="utf-8"), package)


@cache
def _imported(source: str, package: str) -> tuple[str, ...]:
    return tuple(_imports(source, package))


def _imports(source: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__", "imported"):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _last_name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def modules(root: Path, package: str) -> dict[str, Path]:
    """module name -> file, for an import package in ``root``."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def module_of(name: str, known: dict[str, Path]) -> str:
    """The module that an imported name is, or is taken from."""
    while name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name


def room_of(module: str) -> str:
    first, *rest = module.split(".")
    return first if first != PACKAGE else rest[0] if rest else "__init__"


def violations(root: Path) -> list[str]:
    """Every import below ``root`` that goes the wrong way."""
    found = []
    package, kernels = modules(root, PACKAGE), modules(root / "kernels", KERNELS)
    known = package | kernels
    for module, path in known.items():
        here = room_of(module)
        if here not in FLOOR_OF:
            found.append(f"{path.relative_to(root)}: {here!r} has no floor in {Path(__file__).name}")
            continue
        for name in imports(path, module):
            top = name.split(".")[0]
            if top in (PACKAGE, KERNELS):
                there = room_of(module_of(name, known))
                upward = FLOOR_OF.get(there, -1) < FLOOR_OF[here]
                if upward or (there != here and {here, there} <= SEPARATE):
                    found.append(f"{path.relative_to(root)}: {here} imports {there}")
            elif top not in sys.stdlib_module_names | NEWER | RUN_TIME | ALSO.get(here, set()):
                found.append(f"{path.relative_to(root)}: imports {top}")
    forbidden = {"tests": FRAMEWORKS, "golden": {PACKAGE, KERNELS}}
    for folder, names in forbidden.items():
        for path in sorted((root / folder).rglob("*.py")):
            tops = {name.split(".")[0] for name in imports(path, path.stem)}
            found += [f"{path.relative_to(root)}: imports {top}" for top in sorted(tops & names)]
    return found


def circles(root: Path) -> list[str]:
    """Modules of either package that import themselves by way of others."""
    known = modules(root, PACKAGE) | modules(root / "kernels", KERNELS)
    uses = {m: {module_of(name, known) for name in imports(path, m)} & known.keys() - {m} for m, path in known.items()}
    free: set[str] = set()
    while ready := {m for m, used in uses.items() if m not in free and used <= free}:
        free |= ready
    return sorted(known.keys() - free)


def test_imports_go_one_way():
    assert len(modules(ROOT, PACKAGE)) > 20
    assert len(modules(ROOT / "kernels", KERNELS)) > 5
    assert violations(ROOT) == []


def test_imports_make_no_circle():
    assert circles(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("qwen3tts_np/talker/layer.py", "from ..model import Qwen3TTSModel", "talker imports model"),
        ("qwen3tts_np/talker/layer.py", "def f():\n    from ..codec.rvq import x", "talker imports codec"),
        ("qwen3tts_np/talker/layer.py", "import qwen3tts_np.generate", "talker imports generate"),
        ("qwen3tts_np/speaker/mel.py", "from .. import text", "speaker imports text"),
        ("qwen3tts_np/speaker/mel.py", "from .. import Qwen3TTSModel", "speaker imports __init__"),
        ("qwen3tts_np/config.py", "from .text import Tokenizer", "config imports text"),
        ("qwen3tts_np/generate.py", "from . import model", "generate imports model"),
        ("qwen3tts_np/model.py", "from .cli import main", "model imports cli"),
        ("qwen3tts_np/model.py", "import importlib\nimportlib.import_module('qwen3tts_np.cli')", "model imports cli"),
        ("qwen3tts_np/ops.py", "import torch", "imports torch"),
        ("qwen3tts_np/ops.py", "try:\n    import requests\nexcept ImportError:\n    pass", "imports requests"),
        ("qwen3tts_np/newcomer/__init__.py", "", "'newcomer' has no floor in test_imports.py"),
        ("kernels/qwen3tts_np_kernels/norm.py", "from qwen3tts_np.errors import X", f"{KERNELS} imports errors"),
        ("kernels/qwen3tts_np_kernels/norm.py", "import torch.nn", "imports torch"),
        ("qwen3tts_np/ops.py", "from llvmlite import ir", "imports llvmlite"),
        ("qwen3tts_np/ops.py", "import huggingface_hub", "imports huggingface_hub"),
        ("qwen3tts_np/cli/info.py", "import matplotlib", "imports matplotlib"),
        ("qwen3tts_np/model.py", "from .inspect import inspection", "model imports inspect"),
        ("golden/record.py", "from qwen3tts_np import Qwen3TTSModel", "imports qwen3tts_np"),
        ("golden/deep/x.py", "import qwen3tts_np_kernels.norm", "imports qwen3tts_np_kernels"),
        ("tests/test_x.py", "import torch", "imports torch"),
        ("tests/test_x.py", "def f():\n    from transformers import X", "imports transformers"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, source, told):
    plant_rooms(tmp_path)
    assert violations(tmp_path) == []
    plant(tmp_path, file, source)
    assert violations(tmp_path) == [f"{Path(file)}: {told}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("qwen3tts_np/talker/layer.py", "from ..ops import x\nfrom .cache import y\nfrom . import cache"),
        ("qwen3tts_np/config.py", "from . import errors\nimport numpy as np\nimport os.path"),
        (
            "qwen3tts_np/cli/info.py",
            "from .. import __version__\nfrom ..model import x\nfrom qwen3tts_np_kernels import y",
        ),
        ("benchmarks/x.py", "import torch"),
        ("golden/record.py", "import torch\nfrom qwen_tts import Qwen3TTSModel\nimport store"),
        ("tests/test_x.py", "from qwen3tts_np.talker import x\nfrom parity import y"),
    ],
)
def test_what_is_allowed(tmp_path, file, source):
    plant_rooms(tmp_path)
    plant(tmp_path, file, source)
    assert violations(tmp_path) == []


def test_a_planted_circle_is_found(tmp_path):
    plant(tmp_path, "qwen3tts_np/a.py", "from .b.c import x")
    plant(tmp_path, "qwen3tts_np/b/c.py", "def f():\n    from .. import d")
    plant(tmp_path, "qwen3tts_np/d.py", "from . import errors")
    plant(tmp_path, "qwen3tts_np/errors.py", "")
    assert circles(tmp_path) == []
    plant(tmp_path, "qwen3tts_np/d.py", "import qwen3tts_np.a")
    assert circles(tmp_path) == ["qwen3tts_np.a", "qwen3tts_np.b.c", "qwen3tts_np.d"]


def test_a_planted_circle_of_kernels_is_found(tmp_path):
    plant(tmp_path, f"kernels/{KERNELS}/__init__.py", "")
    plant(tmp_path, f"kernels/{KERNELS}/norm.py", "from .cpu import kernel")
    plant(tmp_path, f"kernels/{KERNELS}/cpu.py", "import os")
    assert circles(tmp_path) == []
    plant(tmp_path, f"kernels/{KERNELS}/cpu.py", f"from {KERNELS}.norm import rms_norm")
    assert circles(tmp_path) == [f"{KERNELS}.cpu", f"{KERNELS}.norm"]


def plant_rooms(root: Path) -> None:
    for name in ("model", "generate", "config", "errors", "ops", "__init__"):
        plant(root, f"qwen3tts_np/{name}.py", "")
    for name in ("cli/__init__", "inspect/inspection", "text/__init__", "codec/rvq", "talker/cache"):
        plant(root, f"qwen3tts_np/{name}.py", "")


def plant(root: Path, file: str, source: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(source, encoding="utf-8")


def test_an_array_type_has_one_definition():
    """``arrays.py`` and ``ops.py`` have those that several files use; a name of two types would mislead."""
    found: dict[str, list[str]] = {}
    for module, path in (modules(ROOT, PACKAGE) | modules(ROOT / "kernels", KERNELS)).items():
        for name in re.findall(r"^(\w+)(?:: TypeAlias)? *= *NDArray\[", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, []).append(module)
    assert set(found) > {"Array", "Ints", "Wave"}
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_a_constant_has_one_definition():
    found: dict[str, list[str]] = {}
    for module, path in (modules(ROOT, PACKAGE) | modules(ROOT / "kernels", KERNELS)).items():
        for name in re.findall(r"^(\w*FORMATS|CONTROL_TOKENS)\b.* = ", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, []).append(module)
    assert set(found) > {"FORMATS", "TENSOR_FORMATS", "CONTROL_TOKENS"}
    assert {name: where for name, where in found.items() if len(where) > 1} == {}
