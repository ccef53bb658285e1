"""Packages that only an optional extra brings: imported where they are needed, and asked for in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import RequestError


def install(extra: str) -> str:
    """The command that installs an extra of this package."""
    return f"pip install 'qwen3tts-np[{extra}]'"


def imported(module: str, purpose: str, how: str) -> Any:
    """``module``, which ``purpose`` needs and ``how`` installs. RequestError where it is missing or damaged."""
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        package, _, _ = (e.name or module).partition(".")
        raise RequestError(_missing([package], purpose, how)) from None
    except ImportError as e:
        raise RequestError(f"{purpose} needs {module}, which cannot be imported ({e}): {how}") from None


def check_installed(modules: Sequence[str], purpose: str, how: str) -> None:
    """Raises RequestError where one of ``modules`` is missing; imports none, since that takes time."""
    if (why := obstacle(modules, purpose, how)) is not None:
        raise RequestError(why)


def obstacle(modules: Sequence[str], purpose: str, how: str) -> str | None:
    """The sentence of :func:`check_installed`; None where nothing is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    return _missing(missing, purpose, how) if missing else None


def _missing(names: Sequence[str], purpose: str, how: str) -> str:
    return f"{purpose} needs {', '.join(names)}, which {'is' if len(names) == 1 else 'are'} not installed: {how}"
