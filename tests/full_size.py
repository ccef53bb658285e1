"""Full-size parity: the 0.6B structure with synthetic weights against the recorded fingerprints.

    pytest tests/full_size.py         about three minutes on two cores, 3 GB of disk for the checkpoints, 6 GB of memory

Not part of the suite: its name does not begin with ``test_``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from parity import assert_fingerprint, checkpoint_of, load_full
from test_parity import PROMPT

from qwen3tts_np import Qwen3TTSModel, trace

RUNS = [(model, run) for model in ("0.6b-custom_voice", "0.6b-base") for run in load_full(model)[0]["runs"]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Qwen3TTSModel]:
    """The model of a recording. One at a time, the last: two would not fit everywhere."""
    folder = tmp_path_factory.mktemp("full")

    @lru_cache(maxsize=1)
    def loaded(name: str) -> Qwen3TTSModel:
        return Qwen3TTSModel.from_pretrained(checkpoint_of(load_full(name)[0], folder), backend="reference")

    return loaded


def arguments(call: dict[str, Any], clips: dict[str, Any]) -> dict[str, Any]:
    given = dict(call["arguments"])
    if "ref_audio" in given:
        clip = given["ref_audio"]
        given["ref_audio"] = (clips[clip["audio"]] / np.float32(32768), clip["sample_rate"])
    return given


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_fingerprints(load: Callable[[str], Qwen3TTSModel], name: str, run: str) -> None:
    model = load(name)
    content, clips = load_full(name)
    call, wanted = content["runs"][run]["call"], content[f"tensors of {run}"]
    given = arguments(call, clips)
    with trace() if "activations" in run else trace("talker.model.inputs_embeds") as t:
        wavs, _, codes = getattr(model, call["method"])(**given, seed=call["seed"], return_codes=True)
    found = {n: array for n, array in t.items() if not n.startswith(PROMPT)}
    found |= {f"codes.{i}": code for i, code in enumerate(codes)}
    found |= {f"wav.{i}": wave for i, wave in enumerate(wavs)}
    found["inputs_embeds.0"] = t["talker.model.inputs_embeds@0"]
    if "ref_audio" in given:
        only = {k: given[k] for k in ("ref_audio", "ref_text", "x_vector_only_mode") if k in given}
        (voice,) = model.create_voice_clone_prompt(**only)
        found["speaker_embedding.0"] = voice.ref_spk_embedding
        if voice.ref_code is not None:
            found["ref_codes.0"] = voice.ref_code
    shared = [n for n in wanted if n in found and "same_as" not in wanted[n]]
    assert {"codes.0", "wav.0", "inputs_embeds.0"} <= set(shared)
    for n in shared:
        assert_fingerprint(f"{name} {run}: {n}", found[n], wanted[n])
