"""A voice between two others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen3tts_np import RequestError, VoiceClonePromptItem, cli
from qwen3tts_np.ops import Array
from qwen3tts_np.voice.mix import mixed, on_the_arc
from qwen3tts_np.voice.prompt_item import Fingerprint

RNG = np.random.default_rng(1)
A, B = (RNG.standard_normal(64).astype(np.float32) * size for size in (1, 3))
VECTORS = arrays(np.float32, 8, elements=st.floats(-1, 1, width=16)).filter(lambda v: np.linalg.norm(v) > 0.1)


def voice(embedding: Array, **fields: Any) -> VoiceClonePromptItem:
    return VoiceClonePromptItem(
        **{
            "ref_code": None,
            "ref_spk_embedding": embedding,
            "x_vector_only_mode": True,
            "icl_mode": False,
            **fields,
        }
    )


@given(VECTORS, VECTORS, st.floats(0, 1))
def test_the_mix_is_on_the_arc_and_its_length_between_the_two(a: Array, b: Array, share: float) -> None:
    cosine = float(a.astype(float) @ b.astype(float) / (np.linalg.norm(a) * np.linalg.norm(b)))
    if cosine < -0.999:
        return
    made = on_the_arc(a, b, share).astype(float)
    length = (1 - share) * np.linalg.norm(a) + share * np.linalg.norm(b)
    assert np.linalg.norm(made) == pytest.approx(length, rel=1e-5)
    angle = np.arccos(np.clip(cosine, -1, 1))
    to_a = np.arccos(np.clip(made @ a / (np.linalg.norm(made) * np.linalg.norm(a)), -1, 1))
    assert to_a == pytest.approx(share * angle, abs=2e-3)


def test_the_ends_are_the_two_voices_and_the_order_is_that_of_the_share() -> None:
    np.testing.assert_allclose(on_the_arc(A, B, 0), A, rtol=1e-6)
    np.testing.assert_allclose(on_the_arc(A, B, 1), B, rtol=1e-6)
    np.testing.assert_allclose(on_the_arc(A, B, 0.3), on_the_arc(B, A, 0.7), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(on_the_arc(A, A, 0.4), A, rtol=1e-6)


def test_what_cannot_be_mixed() -> None:
    for a, b, share, says in (
        (A, B, 1.5, r"share=1\.5 must be a number from 0 to 1"),
        (A, B, float("nan"), "share=nan must be"),
        (A, B, "0.5", "must be a number"),
        (A, B[:32], 0.5, r"embeddings of shape \[64\] and \[32\] cannot be mixed"),
        (A[None], B[None], 0.5, "cannot be mixed"),
        (A, 0 * B, 0.5, "an embedding of zeros has no direction"),
        (A, -3 * A, 0.5, "opposite directions"),
    ):
        with pytest.raises(RequestError, match=says):
            mixed(voice(a), voice(b), share)


def test_a_mix_is_an_embedding_alone_with_what_is_known_of_the_model(tmp_path: Path) -> None:
    of = Fingerprint("0b6", "encoder", "codebooks")
    spoken = {"ref_code": np.zeros((3, 16), int), "icl_mode": True, "x_vector_only_mode": False, "ref_text": "Hi."}
    made = mixed(voice(A, fingerprint=of, **spoken), voice(B, fingerprint=of), 0.25)
    assert (made.icl_mode, made.ref_code, made.ref_text, made.fingerprint) == (False, None, None, of)
    assert made.description == "a mix of two voices, 0.75 and 0.25"
    with pytest.warns(UserWarning, match="different weights of the speaker encoder"):
        assert (
            mixed(voice(A, fingerprint=of), voice(B, fingerprint=replace(of, speaker_encoder="x")), 0.5).fingerprint
            is None
        )


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    voice(A).save("a.safetensors")
    voice(B).save("b.safetensors")
    assert cli.main(["voice", "mix", "a.safetensors", "b.safetensors", "--share", "0.3", "-o", "c.safetensors"]) == 0
    assert "a mix of two voices, 0.7 and 0.3" in capsys.readouterr().out
    np.testing.assert_array_equal(VoiceClonePromptItem.load("c.safetensors").ref_spk_embedding, on_the_arc(A, B, 0.3))
    assert cli.main(["voice", "mix", "a.safetensors", "b.safetensors", "-o", "b.safetensors"]) == 2
    assert "would overwrite what B b.safetensors reads" in capsys.readouterr().err
