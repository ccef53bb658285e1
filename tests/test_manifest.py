"""Manifests: JSON Lines and CSV are read alike, row by row; whatever is wrong is a sentence with its line."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qwen3tts_np.errors import RequestError
from qwen3tts_np.manifest import BadRow, Manifest, Row

FIELDS = st.fixed_dictionaries(
    {"id": st.text(min_size=1), "text": st.text(min_size=1)},
    optional={
        "language": st.sampled_from(["german", "auto"]),
        "speaker": st.text(min_size=1),
        "instruct": st.text(min_size=1),
        "ref_text": st.text(min_size=1),
        "seed": st.integers(-(2**63), 2**64 - 1),
        "temperature": st.floats(0.01, 2),
        "top_k": st.integers(0, 100),
        "do_sample": st.booleans(),
    },
)


def write(folder: Path, content: str | bytes, name: str = "manifest") -> Manifest:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Manifest(file)


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def csv_of(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    content = io.StringIO()
    table = csv.DictWriter(content, names)
    table.writeheader()
    table.writerows(rows)
    return content.getvalue()


@given(st.lists(FIELDS, min_size=1, max_size=5), st.booleans(), st.sampled_from(["", "\ufeff"]))
def test_what_is_written_is_read_in_either_form(tmp_path_factory, rows, as_csv, mark):
    assume(not as_csv or not any("\0" in str(value) for row in rows for value in row.values()))  # refused there
    folder = tmp_path_factory.mktemp("manifest")
    found = list(write(folder, mark + (csv_of if as_csv else lines_of)(rows)).rows())
    sampling = ("temperature", "top_k", "do_sample")
    for row, fields in zip(found, rows, strict=True):
        assert row.sampling == {name: fields[name] for name in sampling if name in fields}
        for name, value in fields.items():
            assert name in sampling or getattr(row, name) == value


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_rows_or_sentences(tmp_path_factory, content, likely):
    """Also behind a proper beginning: nothing but RequestError is raised."""
    manifest = write(tmp_path_factory.mktemp("manifest"), b"id,text\n" + content if likely else content)
    with warnings.catch_warnings(), suppress(RequestError):
        warnings.simplefilter("ignore")
        assert all(isinstance(row, Row | BadRow) for row in manifest)


def test_files_are_named_relative_to_the_manifest(tmp_path):
    (row,) = write(
        tmp_path,
        lines_of([{"audio": "a.wav", "audio_codes": "/b.npy", "ref_audio": "https://host/c.wav", "voice": "d"}]),
    ).rows()
    assert (row.audio, row.audio_codes) == (str(tmp_path / "a.wav"), "/b.npy")
    assert (row.ref_audio, row.voice) == ("https://host/c.wav", str(tmp_path / "d"))


def test_the_official_training_file_and_results_are_manifests(tmp_path):
    training = {"audio": "./data/1.wav", "text": "Hi.", "ref_audio": "./data/r.wav", "audio_codes": [[1, 2], [3, 4]]}
    (row,) = write(tmp_path, lines_of([training])).rows()
    assert (row.id, row.text, row.audio_codes) == (None, "Hi.", [[1, 2], [3, 4]])
    result = {"id": 7, "file": "7.wav", "seconds": 1.2, "frames": 15, "seed": 1, "warnings": [], "error": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = write(tmp_path, lines_of([result])).rows()
    assert (row.id, row.audio, row.seed, row.error) == ("7", str(tmp_path / "7.wav"), 1, None)


BAD = [
    ('{"id": "a", "text": 5}', "text is 5, expected text"),
    ('{"id": 1.5}', "id is 1.5, expected text, or a whole number"),
    ('{"id": "a", "seed": 18446744073709551616}', "expected a whole number from -2**63 to 2**64 - 1"),
    ('{"id": "a", "top_k": 1.5}', "top_k is 1.5, expected a whole number"),
    ('{"id": "a", "do_sample": 1}', "do_sample is 1, expected true or false"),
    ('{"id": "a", "temperature": 1e999}', "temperature is inf, expected a finite number"),
    ('{"id": "a", "temperature": NaN}', "NaN is not a number in JSON"),
    ('{"id": "a", "audio_codes": [[1], [1, 2]]}', "expected a .npy file, or codes [frames][groups]"),
    ('{"id": "a", "text": "\\ud800"}', "text: U+D800 at position 0 is half a surrogate pair"),
    ('{"id": "a", "file": "a", "audio": "b"}', "file and audio are the same field"),
    ('{"id": "a"', "not valid JSON"),
    ('["a"]', "['a'] is no JSON object"),
]


@pytest.mark.parametrize(("line", "told"), BAD)
def test_a_bad_row_is_a_sentence_with_its_line_and_the_others_are_read(tmp_path, line, told):
    manifest = write(tmp_path, '{"id": "first"}\n\n' + line + '\n{"id": "last"}\n')
    first, bad, last = manifest
    assert isinstance(first, Row) and isinstance(bad, BadRow) and isinstance(last, Row)
    assert (first.id, bad.line, last.id, last.line) == ("first", 3, "last", 4)
    assert bad.id == ("a" if '"a", ' in line and "not valid" not in told and "NaN" not in line else None)
    assert str(bad.error).startswith(f"{manifest.path}:3: ") and told in str(bad.error)
    with pytest.raises(RequestError, match="manifest:3: "):
        list(manifest.rows())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a,x,Hi", "seed is 'x', expected a whole number"),
        ("a,1_0,Hi", "seed is '1_0', expected a whole number"),
        ("a,1", "it has 2 cells, and the heading has 3"),
        ("a,1,Hi,there", "it has 4 cells, and the heading has 3"),
        ("a,1,\udcff", "it is not UTF-8"),
    ],
)
def test_a_bad_row_of_csv(tmp_path, line, told):
    content = f'id,seed,text\nfirst,1,"two\nlines"\n{line}\nlast,,x\n'.encode(errors="surrogateescape")
    first, bad, last = write(tmp_path, content)
    assert isinstance(first, Row) and isinstance(bad, BadRow) and isinstance(last, Row)
    assert (first.text, first.line, last.seed, last.line) == ("two\nlines", 2, None, 5)
    assert bad.line == 4 and told in str(bad.error)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty, expected JSON Lines, or CSV with a heading"),
        (" \n\n", "is empty"),
        ("[\n{}\n]", ":1: this is a JSON array; a manifest has one object a line"),
        ("name;words\na;b", ":1: the heading 'name;words' has none of the fields id, text"),
        ("text,text\na,b", ":1: the heading has 'text' twice"),
        ("text\na\nb\0", ":3: it holds a NUL, which no table of text has"),
        ('text\n"' + "x" * 200_000, ":2: not valid CSV (field larger than field limit"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, told):
    with pytest.raises(RequestError) as caught:
        list(write(tmp_path, content))
    assert told in str(caught.value)


def test_an_unknown_field_is_named_once(tmp_path):
    manifest = write(tmp_path, lines_of([{"text": "a", "mood": 1}, {"text": "b", "mood": 2, "made": "x"}]))
    with pytest.warns(UserWarning, match="there is no field 'mood', so it is ignored; there are id, text") as told:
        rows = [*manifest.rows(), *manifest]
    assert [isinstance(row, Row) and row.text for row in rows] == ["a", "b", "a", "b"]
    assert len(told) == 1


def test_memory_does_not_grow_with_the_manifest(tmp_path):
    manifest = write(tmp_path, "id,text\n" + "".join(f"{i},{'x' * 100}\n" for i in range(5_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in manifest) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 3e5
    finally:
        tracemalloc.stop()
