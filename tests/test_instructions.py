"""Which instructions LLVM makes of the products with quantised weights, on CPUs of four kinds: read, not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qwen3tts_np_kernels.cpu import CPU, compiled

_AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3"
_AVX512 = f"{_AVX2},+avx512f,+avx512bw,+avx512vl,+avx512dq"
# Per group of 32 inputs, 16 rows and 4 items, 2048 products: an instruction has 64 of them in a register of 512 bits.
CPUS = {
    "haswell": (
        _AVX2,
        "AVX2",
        {"vpmaddubsw ymm": 64, "vpmaddwd ymm": 8},
        {"vpmaddubsw ymm": 64, "vpmaddwd ymm": 64, "vpsignb ymm": 64},
    ),
    "alderlake": (f"{_AVX2},+avxvnni", "AVX2 with VNNI", {"vpdpbusd ymm": 64}, {"vpdpbusd ymm": 64}),
    "skylake-avx512": (
        _AVX512,
        "AVX-512",
        {"vpmaddubsw zmm": 32, "vpmaddwd zmm": 4},
        {"vpmaddwd zmm": 64},
    ),
    "cascadelake": (f"{_AVX512},+avx512vnni", "AVX-512 with VNNI", {"vpdpbusd zmm": 32}, {"vpdpbusd zmm": 32}),
}
PRODUCTS = ("vpmaddubsw", "vpmaddwd", "vpsignb", "vpdpbusd")


@pytest.mark.skipif(not (compiled() and CPU.is_x86), reason="compiles for x86")
@pytest.mark.parametrize("processor", CPUS)
def test_products_are_those_instructions_and_sums_stay_in_registers(processor: str) -> None:
    features, name, int4, int8 = CPUS[processor]
    found = instructions(processor, features)
    assert found["name"] == name
    for bits, expected in (("int4", int4), ("int8", int8)):
        counts = found[bits]
        assert {key: n for key, n in counts.items() if key.startswith(PRODUCTS)} == expected
        assert counts["stack"] < 40, "of 250 to 360: a tile that is kept in memory has more"


def instructions(processor: str, features: str) -> dict[str, Any]:
    """As ``instructions.py`` prints them for this CPU."""
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("instructions.py"))],
        env={**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    result: dict[str, Any] = json.loads(run.stdout)
    return result
