"""What only an extra brings is asked for in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen3tts_np.errors import RequestError
from qwen3tts_np.extras import check_installed, imported, install, obstacle


def test_what_is_missing_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported("json.decoder", "X", "do this").JSONDecoder
    with pytest.raises(RequestError, match=r"^X needs not_here, .* installed: pip install 'qwen3tts-np\[y\]'$"):
        imported("not_here.part", "X", install("y"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import not_there")
    (tmp_path / "damaged.py").write_text("from json import no_such_name")
    with pytest.raises(RequestError, match=r"^X needs not_there, which is not installed: do this$"):
        imported("needs_more", "X", "do this")
    with pytest.raises(RequestError, match=r"^X needs damaged, which cannot be .* \(.*no_such_name.*\): do this$"):
        imported("damaged", "X", "do this")


def test_a_check_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_to_import.py").write_text("raise SystemError")
    check_installed(["slow_to_import", "json"], "X", "do this")
    assert "slow_to_import" not in sys.modules
    assert obstacle(["json"], "X", "do this") is None
    assert obstacle(["json", "a1"], "X", "do this") == "X needs a1, which is not installed: do this"
    with pytest.raises(RequestError, match=r"^X needs a1, b2, which are not installed: do this$"):
        check_installed(["a1", "json", "b2"], "X", "do this")
