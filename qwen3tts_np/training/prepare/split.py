"""Training or validation: decided by the text alone, so that equal texts never straddle the split."""

from __future__ import annotations

import hashlib
import unicodedata

from ...errors import RequestError
from ...shown import shortened


def share_of(text: str) -> float:
    """``5%`` or ``0.05`` as a number from 0 to 0.5. RequestError for anything else."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.5:
        raise RequestError(f"--validation {shortened(text)} must be a share of the rows from 0% to 50%, such as 5%")
    return share


def is_validation(text: str, share: float) -> bool:
    """Whether rows of ``text`` belong to validation, of which ``share`` of all texts do.

    Texts that differ in case, in how letters are composed, or in white space alone are equal.
    """
    words = " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") < share * 2.0**64
