"""What the fields of a file that people write may hold: a rule each, and the words that a refusal has for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Rule = tuple[Callable[[Any], bool], str]
TEXT: Rule = (lambda value: isinstance(value, str), "text")
SWITCH: Rule = (lambda value: isinstance(value, bool), "true or false")
WHOLE: Rule = (lambda value: type(value) is int, "a whole number")
NUMBER: Rule = (lambda value: type(value) in (int, float) and abs(value) <= sys.float_info.max, "a finite number")
SEED: Rule = (
    lambda value: type(value) is int and -(2**63) <= value < 2**64,
    "a whole number from -2**63 to 2**64 - 1",
)
# The sampling arguments of ``generate_*``, under their official names.
SAMPLING_RULES: dict[str, Rule] = {
    **dict.fromkeys(("non_streaming_mode", "do_sample", "subtalker_dosample"), SWITCH),
    **dict.fromkeys(("top_k", "subtalker_top_k", "max_new_tokens"), WHOLE),
    **dict.fromkeys(("temperature", "top_p", "repetition_penalty", "subtalker_temperature", "subtalker_top_p"), NUMBER),
}


def are_codes(value: Any) -> bool:
    """Whether ``value`` is lists of codes [frames][G]."""
    if not isinstance(value, list) or not all(isinstance(frame, list) for frame in value):
        return False
    codes = [code for frame in value for code in frame]
    return len(set(map(len, value))) <= 1 and all(type(code) is int and 0 <= code < 2**31 for code in codes)
