"""The fuzzer of ``fuzz.py``, for a moment: readers cope with what it makes, and a planted fault is found."""

from __future__ import annotations

import sys

import fuzz
import pytest

from qwen3tts_np.checkpoint import json_file

pytestmark = pytest.mark.skipif(not hasattr(fuzz.signal, "setitimer"), reason="a system without timers")
INPUTS = 60  # of each reader
ENOUGH = 1500  # to find a planted fault: several times what it takes


@pytest.mark.parametrize("name", fuzz.READERS)
def test_readers_refuse_what_is_damaged(name: str) -> None:
    assert fuzz.own_engine(name, sys.maxsize, plant=False, most=INPUTS) is None


@pytest.mark.parametrize("name", ["weights", "codec", "codes", "request", "fixture"])  # others take longer: --plant
def test_a_planted_fault_is_found(name: str) -> None:
    found = fuzz.own_engine(name, sys.maxsize, plant=True, most=ENOUGH)
    assert found is not None and found.startswith("ZeroDivisionError")


LARGE = 6 << 20  # bytes, more than the constant that any input may take


def large(name: str, seed: bytes) -> list[bytes]:
    """Files whose content is as large as it may be, or much larger in memory than on disk."""
    if name == "codes":
        rows = LARGE // 128
        header = seed.partition(b"\n")[0].replace(b"(2, 16), }", b"(%d, 16), }" % rows).ljust(127) + b"\n"
        return [header[:128] + bytes(128 * rows), seed.replace(b"(2, 16)", b"(%d, 16)" % 10**15)]
    texts = [
        b'{"a": "' + b"x" * LARGE + b'"}',
        b'{"a": [' + b"[]," * (LARGE // 3) + b"[]]}",
        b" " * LARGE,
        b"[" * LARGE,
    ]
    if seed.startswith(b"{"):
        return [*texts, seed.rstrip()[:-1] + b', "a": "' + b"x" * LARGE + b'"}']
    return [*(len(text).to_bytes(8, "little") + text for text in texts), seed + bytes(LARGE)]


@pytest.mark.parametrize("name", fuzz.READERS)
def test_large_files_take_no_more_than_four_times_their_size(name: str) -> None:
    reader = fuzz.READERS[name]
    with fuzz.prepared(reader, plant=False) as (folder, seeds):
        for content in large(name, seeds[0]):
            fuzz.check(reader, content, folder)


def test_small_json_that_is_large_in_memory_has_a_limit_of_its_own() -> None:
    """As many empty lists as are read: thirty times the file, and no more than that."""
    reader, count = fuzz.READERS["request"], json_file.MOST_VALUES // 2 - 10
    raised = pytest.raises(fuzz.Finding, match="bytes of memory")
    with fuzz.prepared(reader, plant=False) as (folder, _), raised as found:
        fuzz.check(reader, b'{"text": [' + b"[]," * count + b"[]]}", folder)
    assert int(str(found.value).split()[0]) < 100 << 20


def test_an_input_that_takes_too_long_or_too_much_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = fuzz.READERS["codes"]
    for fault in (lambda folder: bytearray(fuzz.CONSTANT + 10_000), lambda folder: [None for _ in iter(int, 1)]):
        monkeypatch.setattr(fuzz, "SECONDS", 0.1)
        slow = fuzz.Reader(codes.name, codes.seeds, fault, codes.function, codes.reached)
        monkeypatch.setitem(fuzz.READERS, "codes", slow)
        assert (fuzz.own_engine("codes", sys.maxsize, plant=False, most=1) or "").startswith("Finding")


@pytest.mark.parametrize("fields", ['"shape": [18446744073709551615, 2]', '"shape": [2], "dtype": "i4,,"'])
def test_what_it_has_found_in_fixtures(fields: str) -> None:
    """NumPy's errors for a shape and a type that are none."""
    entry = f'{{"dtype": "float32", "offset": 0, "bytes": 16, {fields}}}'
    content = f'{{"storage": "raw", "tensors": {{"a": {entry}}}}}'.encode()
    with fuzz.prepared(fuzz.READERS["fixture"], plant=False) as (folder, _):
        fuzz.check(fuzz.READERS["fixture"], content, folder)
