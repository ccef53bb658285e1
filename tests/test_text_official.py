"""The 1,000 golden strings on the real vocabulary, against the official processor in its own environment.

Runs where QWEN3TTS_OFFICIAL_PYTHON names the interpreter of that environment and ../shared/reference is there.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from qwen3tts_np.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("regex", ["native", "mistral"])
def test_the_official_processor_gives_the_same_ids(reference: Path, tmp_path: Path, regex: str) -> None:
    python = os.environ.get("QWEN3TTS_OFFICIAL_PYTHON")
    if python is None:
        pytest.skip("needs QWEN3TTS_OFFICIAL_PYTHON, the interpreter of the official package")
    for file in (reference / "tokenizer").iterdir():
        (tmp_path / file.name).symlink_to(file)
    if regex == "mistral":  # the official package exchanges the regex because of what config.json says
        (tmp_path / "config.json").symlink_to(reference / "configs" / "0.6B-Base" / "config.json")
    tokenizer = Tokenizer.from_directory(tmp_path, "official-local")
    assert tokenizer.pretokenizer == regex

    groups = json.loads((GOLDEN / "cases" / "text" / "ids.json").read_text(encoding="utf-8"))
    texts = [row[0] for rows in groups.values() for row in rows]
    assert len(texts) == 1000
    answer = subprocess.run(
        [python, GOLDEN / "record_text.py", "--tokenize", tmp_path],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    for text, ids in zip(texts, json.loads(answer.stdout), strict=True):
        assert tokenizer.encode(text) == ids, text
