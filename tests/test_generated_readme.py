"""The generated parts of qwen3tts_np/README.md: they are what the key tables of today give, and staleness is found."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qwen3tts_np.errors import ConfigError
from qwen3tts_np.inspect import readme

FOLDER = Path(__file__).parents[1] / "qwen3tts_np"


def test_nothing_is_stale():
    assert readme.stale(FOLDER) == [], "run: python -m qwen3tts_np.inspect.readme"


@pytest.fixture
def copy(tmp_path) -> Path:
    for name in (readme.README, readme.DIAGRAM):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new"), [(readme.README, "311,164,928", "311,164,929"), (readme.DIAGRAM, "28 x", "27 x")]
)
def test_one_wrong_number_is_stale(copy, file, old, new):
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert readme.stale(copy) == [file]


def test_a_missing_diagram_is_stale(copy):
    (copy / readme.DIAGRAM).unlink()
    assert readme.stale(copy) == [readme.DIAGRAM]


def test_rewriting_changes_nothing_outside_the_marks(copy):
    text = "before\n<!-- begin sizes -->\nold\n<!-- end sizes -->\nbetween\n"
    for name in ("costs", "caches", "fields"):
        text += f"<!-- begin {name} -->\n<!-- end {name} -->\n"
    new = readme.rewritten(text + "after")
    assert new.startswith("before\n<!-- begin sizes -->\n| block |")
    assert "\nold\n" not in new
    assert "<!-- end sizes -->\nbetween\n<!-- begin costs -->" in new
    assert new.endswith("<!-- end fields -->\nafter")
    assert readme.rewritten(new) == new


def test_a_missing_mark_is_an_error():
    with pytest.raises(ConfigError, match="<!-- begin sizes -->"):
        readme.rewritten("no marks")


def test_the_readme_shows_the_diagram_and_the_diagram_is_xml():
    assert f"]({readme.DIAGRAM})" in (FOLDER / readme.README).read_text(encoding="utf-8")
    words = list(ElementTree.fromstring((FOLDER / readme.DIAGRAM).read_text(encoding="utf-8")).itertext())
    for lane in ("talker", "code predictor", "codec decoder", "codec encoder", "speaker encoder"):
        assert lane in words
    assert "28 x model.layers.0-27" in words
