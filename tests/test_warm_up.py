"""``warm-up``: afterwards a model of another size and type compiles nothing."""

from __future__ import annotations

import pytest
from qwen3tts_np_kernels import cpu

from qwen3tts_np import Qwen3TTSModel, cli

needs_compiler = pytest.mark.skipif(not cpu.compiled(), reason="NUMBA_DISABLE_JIT is set")


@needs_compiler
def test_another_model_finds_its_kernels_compiled(synthetic, capsys):
    assert cli.main(["warm-up", "--format", "int4"]) == 0
    ready, kept = capsys.readouterr().out.splitlines()
    folder = cpu.cache_folder()
    assert ready.startswith("int4: ready after ") and kept == f"kept in {folder}"
    before = {path.name for path in folder.glob("*.bin")}
    assert before
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny-1.7b", "custom_voice"), weights_format="int4")
    model.generate_custom_voice("Hello.", "ryan", max_new_tokens=4, seed=1)
    assert {path.name for path in folder.glob("*.bin")} == before


def test_without_the_compiler_there_is_nothing_to_do(monkeypatch, capsys):
    monkeypatch.setattr(cpu, "compiled", lambda: False)
    assert cli.main(["warm-up"]) == 2
    assert "unset NUMBA_DISABLE_JIT" in capsys.readouterr().err
