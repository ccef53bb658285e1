"""Instructions of the loops that multiply quantised weights, on the CPUs of a list: what LLVM makes of the kernels.

    python tests/instructions.py                  # a table of all, as in kernels/README.md
    python tests/instructions.py neoverse-n1      # one, as JSON

It compiles the product's kernels for the CPU and reads the assembly. Nothing of that is run, so any CPU will do, and
LLVM needs to know the other architecture, which that of llvmlite does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from typing import Any, NamedTuple

from cross_compile import compile_for
from llvmlite import binding
from qwen3tts_np_kernels.machine_code import Target

_AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3"
_AVX512 = f"{_AVX2},+avx512f,+avx512bw,+avx512vl,+avx512dq"


class Cpu(NamedTuple):
    """A CPU as LLVM names it. The features of ARM are those that LLVM knows by the name."""

    triple: str
    features: str
    known_as: str
    """Examples, for the table."""


_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
CPUS = {
    "cascadelake": Cpu(_X86, f"{_AVX512},+avx512vnni", "AVX-512 with VNNI"),
    "skylake-avx512": Cpu(_X86, _AVX512, "AVX-512"),
    "alderlake": Cpu(_X86, f"{_AVX2},+avxvnni", "AVX2 with VNNI"),
    "haswell": Cpu(_X86, _AVX2, "AVX2"),
    "neoverse-v1": Cpu(_ARM, "", "i8mm: Graviton 3 and 4, Grace, Apple M2 and later"),
    "apple-m1": Cpu(_ARM, "", "dotprod: Apple M1"),
    "neoverse-n1": Cpu(_ARM, "", "dotprod: Graviton 2, Ampere Altra, Raspberry Pi 5"),
    "cortex-a72": Cpu(_ARM, "", "neither: Graviton 1, Raspberry Pi 4"),
}
PRODUCTS = (
    "vpdpbusd",
    "vpmaddubsw",
    "vpmaddwd",
    "vpsignb",
    "pmaddwd",
    "sdot",
    "usdot",
    "smull",
    "smlal",
    "vfma",
    "fmla",
)
_LABEL = re.compile(r"^(\.LBB\w+):")
_JUMP = re.compile(r"^\t(?:j\w+|b\.\w+|cbn?z|tbn?z)\t.*?(\.LBB\w+)")
_LINE = re.compile(r"^\t(?:\{vex\}\s+)?(\w+)(.*)")


def available(cpu: str) -> bool:
    """Whether this LLVM compiles for the architecture of the CPU."""
    binding.initialize_all_targets()
    try:
        binding.Target.from_triple(CPUS[cpu].triple)
    except RuntimeError:
        return False
    return True


def measured(cpu: str) -> dict[str, Any]:
    """What a process of its own prints for this CPU: the entry of the table, and the loops of each product."""
    run = subprocess.run([sys.executable, __file__, cpu], stdout=subprocess.PIPE, check=True, timeout=300)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def loops(cpu: str) -> dict[str, Any]:
    """The same, in this process, which compiles for no other CPU from then on."""
    compile_for(Target(CPUS[cpu].triple, cpu, CPUS[cpu].features))
    from qwen3tts_np_kernels.cpu import CPU
    from qwen3tts_np_kernels.linear_jit import PROMPT_ITEMS, PROMPT_LINES, ROWS, STREAMS

    found: dict[str, Any] = {"name": CPU.name}
    for name in ("int8", "int4", "bfloat16"):
        found[name] = _loop(name, STREAMS, 1)
        found[f"{name}, 4 items"] = _loop(name, ROWS, 4)
        if PROMPT_ITEMS and name != "bfloat16":
            found[f"{name}, prompt"] = _loop(name, ROWS, PROMPT_ITEMS, PROMPT_LINES)
    return found


def _loop(name: str, blocks: int, items: int, lines: int = 0) -> dict[str, Any]:
    """Of the loop over groups of inputs, or over pairs of them, for so many blocks of 16 rows and items.

    ``lines``: how many cache lines of what comes next it prefetches.
    """
    import numpy as np
    from qwen3tts_np_kernels import linear_jit
    from qwen3tts_np_kernels.arguments import INTEGER, ArrayKind
    from qwen3tts_np_kernels.compiler import kernel_module
    from qwen3tts_np_kernels.machine_code import target_machine
    from qwen3tts_np_kernels.pack import FORMATS, GROUP

    form, words = FORMATS[name], (INTEGER,) * 8
    arrays = {t: ArrayKind(np.dtype(t), 1) for t in (form.dtype.name, "uint16", "float32", "int8", "int32")}
    if form.bits is None:
        tile = linear_jit._float_tile(blocks, items)

        def product(w, x, y, start, inputs, first, steps, apart, x_start, x_to, y_to):  # type: ignore[no-untyped-def]
            tile((w,), start, inputs, (first, steps, apart), (x,), x_start, x_to, y, 0, y_to)

        kinds = (arrays[form.dtype.name], arrays["float32"], arrays["float32"], *words)
    else:
        tile = linear_jit._int_tile(form.bits, lines, blocks, items)

        def product(w, scales, levels, x_scales, zeros, y, start, inputs, first, steps, apart, x_start, x_to, y_to):  # type: ignore[no-untyped-def]
            x = (levels, x_scales, zeros)
            tile((w, scales), start, inputs, (first, steps, apart), x, x_start, x_to, y, 0, y_to, (x_to, y_to))

        names = (form.dtype.name, "uint16", "int8", "float32", "int32", "float32")
        kinds = (*(arrays[one] for one in names), *words)
    module = kernel_module(product, linear_jit._int8_product.targetoptions, kinds, "product")
    counts = max(
        _innermost(target_machine().emit_assembly(module)), key=lambda c: sum(c[p] for p in c if p.startswith(PRODUCTS))
    )
    inputs = 2 if form.bits is None else GROUP
    return {"per 16 weights": round((counts.total() - counts["stack"]) / (blocks * items * inputs), 1), **counts}


def _innermost(assembly: str) -> list[Counter[str]]:
    """The instructions of each loop that has no loop inside, by name and kind of register; and those of the stack."""
    lines = assembly.splitlines()
    labels = {match[1]: n for n, line in enumerate(lines) if (match := _LABEL.match(line))}
    jumps = [(labels.get(match[1], n), n) for n, line in enumerate(lines) if (match := _JUMP.match(line))]
    back = [(start, end) for start, end in jumps if start < end]
    inner = [one for one in back if not any(o != one and one[0] <= o[0] and o[1] <= one[1] for o in back)]
    return [_counted(lines[start : end + 1]) for start, end in inner]


def _counted(lines: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, operands in (match.groups() for line in lines if (match := _LINE.match(line))):
        registers = re.findall(r"%([xyz]mm)", operands)
        counts[f"{name} {registers[-1]}" if registers else name] += 1
        counts["stack"] += "(%rsp)" in operands or "[sp" in operands
    return counts


def table() -> str:
    """Of all CPUs, in Markdown: instructions per 16 weights and item."""
    products = ("int8", "int4", "bfloat16")
    lines = ["| CPU | " + " | ".join(f"{name} | 4 items" for name in products) + " |", "|---|" + "--:|" * 6]
    for cpu, described in CPUS.items():
        found = measured(cpu)
        numbers = (str(found[key]["per 16 weights"]) for name in products for key in (name, f"{name}, 4 items"))
        lines.append(f"| {described.known_as} (`{cpu}`) | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(loops(sys.argv[1])) if sys.argv[1:] else table())
