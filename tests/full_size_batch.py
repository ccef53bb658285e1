"""A running batch at full size: the 0.6B structure with synthetic weights, codes in company against codes alone.

    pytest tests/full_size_batch.py         3 GB of disk for the checkpoint, 6 GB of memory

Not part of the suite: its name does not begin with ``test_``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.request import CustomVoice

FORMATS = ("int4", "int8", "bfloat16", "float32")
SENTENCE = "The quick brown fox jumps over the lazy dog, and then it does so once more. "
# sentences, sampling parameters, and the step at which a request joins; one that leaves does so after so many frames
SCHEDULE: list[tuple[int, dict[str, Any], int, int]] = [
    (1, {"seed": 1, "max_new_tokens": 21}, 0, 99),
    (6, {"seed": 2, "max_new_tokens": 9, "temperature": 1.5}, 1, 99),
    (2, {"seed": 3, "max_new_tokens": 13, "streaming": True}, 1, 5),
    (3, {"seed": 4, "max_new_tokens": 7, "do_sample": False, "subtalker_dosample": False}, 6, 99),
    (1, {"seed": 5, "max_new_tokens": 17, "repetition_penalty": 1.2, "streaming": True}, 7, 99),
]


@pytest.fixture(scope="module")
def folder(synthetic: Callable[..., Path]) -> Path:
    return synthetic("0.6b", "custom_voice")


@pytest.mark.parametrize("name", FORMATS)
def test_codes_are_those_of_the_request_alone(folder: Path, name: str) -> None:
    model = Qwen3TTSModel.from_pretrained(folder, weights_format=name)
    requests = [model.prepare(n * SENTENCE, CustomVoice("ryan"), **options) for n, options, _, _ in SCHEDULE]
    alone = [model.generate([request])[0].codes for request in requests]
    for prompt_slice in (1, 7, 64):
        codes: list[list[np.ndarray]] = [[] for _ in requests]
        here: dict[int, int] = {}
        with model.open_batch(places=4, positions=256, prompt_slice=prompt_slice) as batch:
            waiting, number = list(range(len(requests))), 0
            while waiting or here:
                while waiting and batch.free and SCHEDULE[waiting[0]][2] <= number:
                    someone = waiting.pop(0)
                    here[batch.join(requests[someone])] = someone
                step = batch.step()
                for place, row in zip(step.places, step.codes, strict=True):
                    codes[here[place]].append(row)
                for place in list(here):
                    if place in step.ended or len(codes[here[place]]) >= SCHEDULE[here[place]][3]:
                        batch.leave(place)
                        del here[place]
                number += 1
        for found, expected, (_, _, _, most) in zip(codes, alone, SCHEDULE, strict=True):
            np.testing.assert_array_equal(found, expected[:most])
