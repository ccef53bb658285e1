"""All sections of ``verify`` in order: files, key tables, statistics and the official package."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import QwenTTSError, RequestError
from ..layout.description import Description, describe
from .live import official_section
from .official_probe import SETUP
from .sections import SKIPPED, WRONG, Report, Section, files_section, judged, keys_section, statistics_section
from .tokenizer import tokenizer_problems


def check_health(folder: Path, python: str | None, fine_tuned: bool) -> Report:
    """Check the checkpoint in ``folder``. ``python``: the interpreter that has the official package, to compare with.

    ``fine_tuned``: do not compare files with the published ones. Raises RequestError if ``python`` is not a program.
    """
    if python is not None and shutil.which(python) is None:
        raise RequestError(f"--official {python}: there is no such program; {SETUP}")
    found = describe(folder)
    sections = [
        files_section(found, fine_tuned),
        keys_section(found, tokenizer_problems(folder, found)),
        statistics_section(found),
    ]
    if python is not None:
        sections.append(_official(folder, found, python, loads=sections[1].status != WRONG))
    return Report(found.directory, found.released, sections)


def _official(folder: Path, found: Description, python: str, loads: bool) -> Section:
    title = "official package"
    if found.config is None:
        return Section(title, SKIPPED, "there is no talker in this directory")
    if not loads:
        return Section(title, SKIPPED, "the key tables are wrong, so the checkpoint does not load")
    if any(dtype.startswith("INT") for dtype in found.weights[0].dtypes):
        return Section(title, SKIPPED, "it does not read quantised weights")
    try:
        return official_section(folder, found.config, python)
    except QwenTTSError as e:  # with damaged weights either side may fail
        return judged(title, "", [str(e)])
