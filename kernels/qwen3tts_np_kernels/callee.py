"""Functions as compiled code calls them. The compiler (``compiler.py``) gives each a type when it meets one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Callee:
    """A Python function, and the options to compile it with. The compiler's inliner reads both by these names.

    Trap: the linker identifies a function by its qualified name, and picks one of two with the same name and argument
    types. So closures get names made from their contents.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        if cells:
            function.__qualname__ += f"({', '.join(getattr(cell, '__qualname__', repr(cell)) for cell in cells)})"
        functools.update_wrapper(self, function)
        self.py_func, self.targetoptions = function, options

    def __deepcopy__(self, memo: Any) -> Callee:
        return self  # the compiler copies what refers to it

    def __call__(self, *arguments: Any) -> Any:
        raise NotImplementedError(f"{self.py_func.__qualname__} is for compiled code only")
