"""The golden store on disk: one folder per case, one manifest. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

Tensors = dict[str, NDArray[Any]]  # in execution order
Json = dict[str, Any]

GOLDEN = Path(__file__).resolve().parent
CASES = GOLDEN / "cases"
MADE_BY = "golden/record.py"
FACTOR = 4  # allowed error of another order of summation, in units of the official package's own error
FLOOR = 8 * 2.0**-23  # of the largest value: eight units in the last place

TOLERANCE = {
    "rule": "|difference| <= atol for every value of a tensor; integers are equal",
    "why": f"The official package ran twice, in float32 and in float64 with its own casts to float32 taken out. error "
    f"is the greatest |float32 - float64| of a tensor, peak its greatest |value|, and atol = max({FACTOR} * worst "
    f"error, {FLOOR:.3g} * peak), rounded up; the worst error is over all calls of the module or items of the batch. "
    f"Another order of summation may err some times more than torch's does, and no float32 result is better than a few "
    f"units in the last place.",
}


def write_case(folder: Path, case: Json, inputs: Tensors, expected: Tensors) -> None:
    """Replace ``folder`` by case.json, expected.safetensors and, where there are inputs, inputs.safetensors."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / "case.json").write_text(dump(case), encoding="utf-8", newline="\n")
    for name, tensors in (("inputs", inputs), ("expected", expected)):
        if tensors:
            data = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
            (temporary / f"{name}.safetensors").write_bytes(save(data))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def dump(case: Json) -> str:
    """JSON in which every entry of a table (a dictionary of dictionaries or lists) has a line of its own."""
    parts = []
    for key, value in case.items():
        if isinstance(value, dict) and value and all(isinstance(v, dict | list) for v in value.values()):
            rows = ",\n".join(f"  {_compact(k)}: {_compact(v)}" for k, v in value.items())
            text = f"{{\n{rows}\n }}"
        else:
            text = json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n ")
        parts.append(f" {_compact(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def tolerances(single: Tensors, double: Tensors) -> dict[str, Json]:
    """The entries of float tensors: shape, tolerance, float32 error against float64, largest value."""
    errors = {name: greatest(value.astype(np.float64) - double[name]) for name, value in single.items()}
    worst: dict[str, float] = {}
    for name, error in errors.items():
        worst[family(name)] = max(error, worst.get(family(name), 0.0))
    entries = {}
    for name, value in single.items():
        peak = greatest(value)
        atol = round_up(max(FACTOR * worst[family(name)], FLOOR * peak))
        entries[name] = {"shape": list(value.shape), "atol": atol}
        entries[name] |= {"error": shorten(errors[name]), "peak": shorten(peak)}
    return entries


def family(name: str) -> str:
    """All calls of a module; all items of a batch."""
    return name.partition("@")[0] if "@" in name else name.partition(".")[0]


def greatest(value: NDArray[Any]) -> float:
    return float(np.abs(value).max(initial=0))


def round_up(value: float) -> float:
    """The next number of two decimal digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")


def shorten(value: float) -> float:
    return float(f"{value:.3g}")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest(golden: Path = GOLDEN) -> Json:
    """Size and sha256 of every file under cases/ and full/."""
    files = sorted(path for room in ("cases", "full") for path in (golden / room).rglob("*") if path.is_file())
    return {path.relative_to(golden).as_posix(): [path.stat().st_size, sha256(path)] for path in files}


def made_here(case: Path) -> bool:
    return bool(json.loads(case.read_text(encoding="utf-8")).get("made_by") == MADE_BY)


def write_manifest(golden: Path = GOLDEN) -> None:
    files = manifest(golden)
    total = sum(size for size, _ in files.values())
    text = dump({"bytes": total, "files": files})
    (golden / "manifest.json").write_text(text, encoding="utf-8", newline="\n")


def compare(old: Path, new: Path) -> tuple[list[str], bool]:
    """The differences between two recordings of a case, and whether they are equivalent."""
    if not old.is_dir():
        return [f"{new.name}: not in the store"], False
    lines, same = [], True
    was, now = _tensors(old), _tensors(new)
    allowed = json.loads((old / "case.json").read_text(encoding="utf-8"))["tensors"]
    for name in sorted(was.keys() ^ now.keys()):
        lines.append(f"{new.name}: {name} is only in the {'old' if name in was else 'new'} recording")
        same = False
    for name in (name for name in was if name in now and was[name].tobytes() != now[name].tobytes()):
        a, b = was[name], now[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{new.name}: {name} was {a.dtype} {a.shape}, is {b.dtype} {b.shape}")
            same = False
            continue
        moved = float(np.abs(a.astype(np.float64) - b).max())
        atol = allowed.get(name, {}).get("atol", 0)
        verdict = "within" if moved <= atol else "MORE THAN"
        lines.append(f"{new.name}: {name} moved by up to {moved:.3g}, {verdict} atol {atol}")
        same &= moved <= atol
    if not lines and (old / "case.json").read_bytes() != (new / "case.json").read_bytes():
        lines.append(f"{new.name}: equal tensors, another case.json")
    return lines, same


def _tensors(folder: Path) -> Tensors:
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found
