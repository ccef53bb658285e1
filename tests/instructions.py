"""Instructions of the loop that multiplies 16 rows by 4 items, in int4 and int8, on the CPU that Numba compiles for.

    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx2,+fma,+f16c python tests/instructions.py

It compiles, and runs nothing, so it serves any x86 CPU on any other. Prints, as JSON, how often each instruction occurs
in the loop per register it works in ("vpmaddubsw ymm"), and how many instructions touch the stack ("stack").
"""

from __future__ import annotations

import json
import re
from collections import Counter

from numba import njit, types
from qwen3tts_np_kernels import compiler  # noqa: F401  # tells Numba what an operation is
from qwen3tts_np_kernels.cpu import CPU
from qwen3tts_np_kernels.simd import ops, tiles

BYTES, SIGNED, INTS = (types.Array(t, 1, "C") for t in (types.uint8, types.int8, types.int32))
_LINE = re.compile(r"\t(?:\{vex\}\s+)?(\w+)(.*)")


def instructions(bits: int) -> Counter[str]:
    """Of the loop over groups for weights of so many bits."""
    group_bytes = 64 * bits

    @njit
    def run(values, levels, zeros, ints, groups):  # type: ignore[no-untyped-def]
        for group in range(groups):
            tile = tiles.group_tile(values, group * group_bytes, 0, 2048, levels, zeros, group, groups, bits, 1, 4)
            for i in range(4):
                ops.store_int(ints, 64 * group + 16 * i, tile[i])

    run.compile((BYTES, SIGNED, INTS, INTS, types.intp))
    (assembly,) = run.inspect_asm().values()
    return max(map(_counted, assembly.split("\n.LBB")), key=lambda counts: counts["products"])


def _counted(block: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, operands in _LINE.findall(block):
        registers = re.findall(r"%([xyz]mm)", operands)
        counts[f"{name} {registers[-1]}" if registers else name] += 1
        counts["stack"] += "(%rsp)" in operands
        counts["products"] += name in ("vpdpbusd", "vpmaddubsw", "vpmaddwd", "pmaddwd")
    return counts


if __name__ == "__main__":
    print(json.dumps({"name": CPU.name, "int4": instructions(4), "int8": instructions(8)}))
