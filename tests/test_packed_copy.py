"""Packed copies in the cache: never without permission, once, of the right checkpoint, whole; and not needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.checkpoint.quantised import QuantisedTensor
from qwen3tts_np.compiled import packed_copy as copies
from qwen3tts_np.errors import OutputError
from qwen3tts_np.layout import convert as converter

MATRIX = "talker.model.layers.0.self_attn.q_proj.weight"
needs_compiler = pytest.mark.skipif(not compiled(), reason="packed weights are for compiled kernels")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.delenv(copies.VARIABLE, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def source(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "custom_voice")


def is_mapped(model: Qwen3TTSModel) -> bool:
    loop: Any = model.frame_loop
    return isinstance(loop.checkpoint[MATRIX], QuantisedTensor)


@needs_compiler
def test_nothing_is_kept_without_permission(source: Path, cache: Path) -> None:
    assert not is_mapped(Qwen3TTSModel.from_pretrained(source, weights_format="int4"))
    assert not is_mapped(Qwen3TTSModel.from_pretrained(source, weights_format="int4", cache_packed=False))
    assert not cache.exists()


@needs_compiler
def test_a_copy_is_made_once_and_speaks_the_same(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Qwen3TTSModel.from_pretrained(source, weights_format="int8")
    monkeypatch.setenv(copies.VARIABLE, "1")
    made = Qwen3TTSModel.from_pretrained(source, weights_format="int8")
    assert is_mapped(made)
    monkeypatch.setattr(converter, "convert", lambda *_: pytest.fail("it is there"))
    found = Qwen3TTSModel.from_pretrained(source, weights_format="int8")
    assert is_mapped(found)
    (copy,) = copies.copies()
    assert copy.name.startswith("tiny-custom_voice-int8-")
    waves = [
        model.generate_custom_voice("Hi.", "ryan", seed=1, max_new_tokens=4)[0][0] for model in (plain, made, found)
    ]
    assert all(np.array_equal(waves[0], wave) for wave in waves)
    assert not is_mapped(Qwen3TTSModel.from_pretrained(source, weights_format="auto")), "there is none of this format"
    command = ["say", str(source), "Hi.", "--format", "int8", "--cache-packed", "--seed", "1", "--max-new-tokens", "4"]
    assert cli.main([*command, "-o", str(copy.parent / "hi.wav")]) == 0
    assert copies.copies() == [copy]


def test_another_checkpoint_has_another_copy_and_a_damaged_one_is_made_anew(source: Path, tmp_path: Path) -> None:
    first = copies.packed_copy(source, "int4")
    (first / "vocab.json").unlink()
    assert copies.packed_copy(source, "int4") == first
    assert (first / "vocab.json").is_file()
    times = os.stat(source / "config.json")
    try:
        os.utime(source / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
        assert copies.identity(source)[:20] not in first.name
    finally:
        os.utime(source / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert copies.packed_copy(first, "int4") == first, "a converted checkpoint needs none"
    assert copies.copies() == [first]


@pytest.mark.filterwarnings("ignore:no packed copy is kept")  # said by who came second, if the first is not yet done
def test_two_at_once_leave_one_copy(source: Path) -> None:
    found: list[Path] = []
    both = [threading.Thread(target=lambda: found.append(copies.packed_copy(source, "int4"))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    (copy,) = copies.copies()
    assert copy in found
    assert set(found) <= {copy, source}, "who came second has it too, or does without"


def test_where_nothing_can_be_written_it_does_without(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(converter, "convert", full)
    with pytest.warns(UserWarning, match="no packed copy is kept: the disk is full"):
        assert copies.packed_copy(source, "int4") == source


@pytest.mark.parametrize(
    ("value", "asked", "message"),
    [
        ("yes", None, "QWEN3TTS_NP_CACHE_PACKED='yes' must be 0 or 1"),
        ("1", "yes", "cache_packed='yes' must be True or False"),
        ("", True, "cache_packed=True with weights_format='auto': a packed copy is int8 or int4"),
    ],
)
def test_what_cannot_be_meant(value: str, asked: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(copies.VARIABLE, value)
    with pytest.raises(RequestError, match=message):
        copies.is_allowed(asked, "auto")


def test_the_environment_allows_and_an_argument_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not copies.is_allowed(None, "int4")
    monkeypatch.setenv(copies.VARIABLE, "1")
    assert copies.is_allowed(None, "int4")
    assert not copies.is_allowed(None, "auto"), "of which there are no copies"
    assert not copies.is_allowed(False, "int4")
