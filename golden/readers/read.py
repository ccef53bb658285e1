"""Read a case, recompute it from the weights, compare. NumPy only: a starting point for a port.

python read.py CHECKPOINT       every step of ../INDEX.json that takes these operations; exit 1 if one is off
"""

import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1]
TYPES = {"F32": "<f4", "I32": "<i4", "U32": "<u4", "I16": "<i2", "BF16": "<u2"}


def read(path, names):
    """Tensors of a safetensors file: 8 bytes that give the length of the header, the header in JSON, the data."""
    raw = Path(path).read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or start > len(raw):
        sys.exit(f"{path} is cut short: its {len(raw)} bytes do not hold the header")
    header = json.loads(raw[8:start])
    return [tensor(raw[start:], header[name.removesuffix(".T")], name, path) for name in names]


def tensor(data, entry, name, path):
    first, last = entry["data_offsets"]
    if last > len(data):
        sys.exit(f"{path} is cut short: {name} ends at byte {last} of {len(data)}")
    values = np.frombuffer(data[first:last], TYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = values.reshape(entry["shape"])
    return values.T if name.endswith(".T") else values


def rms_norm(x, weight, eps):
    x = x.reshape(-1, len(weight))  # the norms of q and k take every head by itself
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


OPERATIONS = {
    "embedding": lambda ids, table: table[ids],
    "linear": lambda x, weight, bias=0: x @ weight.T + bias,
    "rms_norm": rms_norm,
    "codebook": lambda codes, sums, usage, group, floor: (sums / np.maximum(usage, floor)[:, None])[codes[:, group]].T,
}
checkpoint, failed = Path(sys.argv[1]), 0
index = json.loads((GOLDEN / "INDEX.json").read_text(encoding="utf-8"))
for step in (step for stage in index["stages"] for step in stage["steps"] if step["op"] in OPERATIONS):
    weights = read(checkpoint / step["file"], step["weights"])
    *given, wanted = read(GOLDEN / f"cases/{step['case']}/expected.safetensors", [*step["given"], step["expected"]])
    found = OPERATIONS[step["op"]](*given, *weights, **step.get("settings", {}))
    error = float(np.abs(found.ravel() - wanted.ravel()).max())
    failed += not error <= step["atol"]
    print(f"{step['op']:9} {step['expected']}: {error:.1e}, allowed {step['atol']:.1e}")
sys.exit(failed > 0)
