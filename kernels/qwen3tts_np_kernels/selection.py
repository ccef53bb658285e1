"""Which instructions for sums of byte products LLVM would select for an ARM CPU: asked of LLVM.

Its list of features does not say: for an ARM host it leaves out dotprod and i8mm, and on macOS it is empty, while the
code generator knows them from the CPU's name. Trap: an intrinsic that the target lacks ends the process, so none can
be tried. So LLVM compiles two plain sums, and the assembly shows what it selected.
"""

from __future__ import annotations

import re
from typing import Any

from llvmlite import binding

_SUM = """
    declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
    define i32 @sum(<16 x i8> %a, <16 x i8> %b) {{
        %x = {} <16 x i8> %a to <16 x i32>
        %y = sext <16 x i8> %b to <16 x i32>
        %products = mul <16 x i32> %x, %y
        %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
        ret i32 %sum
    }}"""
_PROBES = {"dotprod": ("sext", "sdot"), "i8mm": ("zext", "usdot")}


def byte_products(machine: Any) -> frozenset[str]:
    """Which of ARM's features dotprod and i8mm the code of an LLVM target machine makes use of by itself."""
    found = set()
    for feature, (extension, instruction) in _PROBES.items():
        assembly = machine.emit_assembly(binding.parse_assembly(_SUM.format(extension)))
        if re.search(rf"\t{instruction}[.\t]", assembly):
            found.add(feature)
    return frozenset(found)
