"""Which instructions LLVM makes of the products with quantised weights, on CPUs of x86 and ARM: read, not run."""

from __future__ import annotations

import instructions
import pytest
from instructions import CPUS
from llvmlite import binding
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.linear_jit import STREAMS
from qwen3tts_np_kernels.selection import byte_products

NAMES = ("vpmaddubsw", "vpmaddwd", "vpsignb", "vpdpbusd", "sdot", "usdot", "smmla", "usmmla", "smull", "smlal")
# Products of 32 inputs, 16 rows and 4 items are 2048: 64 to an instruction in a register of 512 bits, 16 in one of 128.
# With 32 registers of 512 bits, it is two blocks of 16 rows.
EXPECTED = {
    "cascadelake": ("AVX-512 with VNNI", {"vpdpbusd zmm": 64}, {"vpdpbusd zmm": 64}),
    "skylake-avx512": ("AVX-512", {"vpmaddubsw zmm": 64, "vpmaddwd zmm": 8}, {"vpmaddwd zmm": 128}),
    "alderlake": ("AVX2 with VNNI", {"vpdpbusd ymm": 64}, {"vpdpbusd ymm": 64}),
    "haswell": (
        "AVX2",
        {"vpmaddubsw ymm": 64, "vpmaddwd ymm": 8},
        {"vpmaddubsw ymm": 64, "vpmaddwd ymm": 64, "vpsignb ymm": 64},
    ),
    "neoverse-v1": ("NEON with i8mm", {"sdot": 128}, {"usdot": 128}),
    "apple-m1": ("NEON with dotprod", {"sdot": 128}, {"sdot": 128}),
    "neoverse-n1": ("NEON with dotprod", {"sdot": 128}, {"sdot": 128}),
    "cortex-a72": (
        "NEON",
        {"smull": 16, "smull2": 16, "smlal": 112, "smlal2": 112},
        {"smull": 128, "smull2": 128},
    ),
}
LLVM = binding.llvm_version_info


@pytest.mark.skipif(not compiled(), reason="nothing is compiled")
@pytest.mark.parametrize("cpu", CPUS)
def test_products_are_those_instructions_and_sums_stay_in_registers(cpu: str) -> None:
    if not instructions.available(cpu):
        pytest.skip("this LLVM does not compile for the CPU")
    if LLVM < (20,) and CPUS[cpu].features == "":
        pytest.skip(f"LLVM {LLVM[0]} selects other instructions of ARM")
    name, int4, int8 = EXPECTED[cpu]
    found = instructions.measured(cpu)
    assert found["name"] == name
    for bits, expected in (("int4", int4), ("int8", int8)):
        for items in ("", ", 4 items") if expected.keys() <= {"sdot", "usdot"} else (", 4 items",):
            counts = found[bits + items]
            products = expected if items else {key: n * STREAMS // 4 for key, n in expected.items()}
            assert {key: n for key, n in counts.items() if key.startswith(NAMES)} == products
            everything = sum(n for key, n in counts.items() if key not in ("stack", "per 16 weights"))
            assert counts["stack"] < everything / 4, "with a tile that is kept in memory it is a third"
    if "cascadelake" in cpu:
        for bits in ("int4", "int8"):
            assert found[f"{bits}, prompt"]["vpdpbusd zmm"] == 96, "two blocks of 16 rows and 6 items"
            assert found[f"{bits}, prompt"]["vmovups zmm"] < 8, "sums stay in registers"


@pytest.mark.skipif(LLVM < (20,), reason="it selects usdot of none")
@pytest.mark.parametrize(
    ("cpu", "features", "products"),
    [
        ("generic", "", set()),
        ("generic", "+dotprod", {"dotprod"}),
        ("cortex-a53", "", set()),
        ("cortex-a72", "", set()),
        ("cortex-a76", "", {"dotprod"}),
        ("apple-m1", "", {"dotprod"}),
        ("apple-m2", "", {"dotprod", "i8mm"}),
        ("neoverse-v1", "", {"dotprod", "i8mm"}),
        ("neoverse-v1", "-i8mm", {"dotprod"}),
        ("neoverse-v1", "-i8mm,-dotprod", set()),
    ],
)
@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_llvm_tells_which_products_of_bytes_a_cpu_has(cpu: str, features: str, products: set[str], triple: str) -> None:
    if not instructions.available("neoverse-n1"):
        pytest.skip("this LLVM does not compile for ARM")
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    assert byte_products(machine) == products
