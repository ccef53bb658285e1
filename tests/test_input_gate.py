"""The gate for files that users name: everything that can be at a name is read, or refused in one sentence."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_np.checkpoint.json_file import MOST_JSON, read_json
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.errors import InputError, QwenTTSError, RequestError
from qwen3tts_np.files import input as gate
from qwen3tts_np.files.arrays import read_array, read_codes
from qwen3tts_np.files.input import open_input, read_bytes
from qwen3tts_np.shown import LONGEST, printable, shortened
from qwen3tts_np.voice.prompt_item import VoiceClonePromptItem

pytestmark = pytest.mark.filterwarnings("error")
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without FIFOs")


def names(folder: Path) -> dict[str, str]:
    """Names that no file can be read under -> part of the sentence."""
    (folder / "loop").symlink_to("loop")
    found = {
        "x" * 300: "its name is too long",
        "a\udc80\ud800": "half a surrogate pair",
        "a\0b": "a null byte",
        "": "names no file",
        str(folder): "a directory",
        str(folder / "loop"): "symbolic links",
        str(folder / "none" / "such"): "No such file",
        os.devnull: "a device",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo")
        found[str(folder / "fifo")] = "a pipe"
    return found


READERS = {
    "bytes": read_bytes,
    "json": lambda path: read_json(Path(path)),
    "weights": lambda path: Checkpoint.open(Path(path)),
    "voice": VoiceClonePromptItem.load,
    "codes": read_codes,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_every_such_name(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    for name, words in names(tmp_path).items():
        if name == "" and reader in ("json", "weights", "voice"):
            continue  # Path("") is the current folder
        with pytest.raises(QwenTTSError) as refused:
            READERS[reader](name)
        said = str(refused.value)
        expected = (words, "nobody has written", "not found", "holds neither", "is a directory")
        assert any(part in said for part in expected), (name, said)
        assert len(said) < 500 and "\n" not in said


def test_the_cause_is_the_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_bytes(tmp_path / "gone")
    assert isinstance(refused.value.__cause__, FileNotFoundError)


@needs_fifo
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    content = bytes(range(256)) * 1024  # more than the pipe holds
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(content,))
    writer.start()
    assert read_bytes(tmp_path / "fifo") == content
    writer.join()


def test_more_than_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "blanks.json").open("wb") as file:
        file.truncate(MOST_JSON + 1)  # a sparse file
    with pytest.raises(InputError, match=f"more than {MOST_JSON} bytes"):
        read_json(tmp_path / "blanks.json")


def test_a_file_is_opened_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_input(tmp_path / "a") as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize("shape", [(3, 16), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["int64", ">i4", "float32", "uint8"])
def test_arrays_are_those_of_numpy(tmp_path: Path, shape: tuple[int, ...], order: str, dtype: str) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype and found.flags.writeable


def lying(header: str, data: bytes = bytes(64)) -> bytes:
    """A .npy file of version 1 with this header."""
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a .npy array"),
        (b"\x93NUMPY", "is not a .npy array"),
        (b"PK\x03\x04" + bytes(64), "is not a .npy array"),
        (lying(HEADER % ("<i8", "(4, 4)")), "128 bytes, and 64 follow"),
        (lying(HEADER % ("<i8", "(1000000000000, 16)")), "and 64 follow"),
        (lying(HEADER % ("<i8", "(-1, 8)")), "and 64 follow"),
        (lying(HEADER % ("<i8", "(0, 9223372036854775808)"), b""), "and 0 follow"),
        (lying(HEADER % ("<i8", "(0, 16)"), b""), "int64 [0, 16], expected codes"),
        (lying(HEADER % ("V0", "(4, 4)"), b""), "expected numbers"),
        (lying(HEADER % ("|O", "(1, 8)")), "array of object; expected numbers"),
        (lying(HEADER % ("<q", "(1, 8")), "is not a .npy array"),
        (lying(HEADER % ("nonsense", "(1, 8)")), "is not a .npy array"),
        (lying("(" * 300), "is not a .npy array"),
        (lying("'" * 7), "is not a .npy array"),
        (lying(HEADER % ("<f8", "(2, 4)")), "expected codes: integers"),
        (lying(HEADER % ("<i8", "(2, 2, 2)")), "expected codes: integers"),
        (lying(HEADER % ("<i8", "(8,)")), "expected codes: integers"),
        (lying(HEADER % ("<i8", "()"), bytes(8)), "expected codes: integers"),
    ],
)
def test_a_file_that_holds_no_codes(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "codes.npy").write_bytes(content)
    with pytest.raises(RequestError) as refused:
        read_codes(tmp_path / "codes.npy")
    assert words in str(refused.value)


def test_what_errors_say_moves_no_cursor() -> None:
    assert printable("a\x1b[2J\x07\n\u202eb\ud800é日🎉") == r"a\x1b[2J\x07\n\u202eb\ud800é日🎉"
    assert "\x1b" not in str(QwenTTSError("\x1b[31m"))


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 10**100_000, -(10**100_000), list(range(10**5)), b"x" * 10**6, [10**5000]],
    ids=lambda value: type(value).__name__,
)
def test_a_long_value_is_shortened(value: object) -> None:
    assert len(shortened(value)) < LONGEST + 30


@pytest.mark.parametrize("value", ["", "abc", 12, True, None, [1, 2], 1e308])
def test_a_short_value_is_itself(value: object) -> None:
    assert shortened(value) == repr(value)


def test_a_file_of_the_system_that_has_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the log of the kernel: it is regular, and a read without waiting gives None."""

    class Silent(io.FileIO):
        def read(self, *_: object) -> None:  # type: ignore[override]
            return None

    (tmp_path / "log").touch()
    monkeypatch.setattr(gate.system, "open_without_waiting", Silent)
    with pytest.raises(InputError, match="log cannot be read: there is nothing to read in it now"):
        read_bytes(tmp_path / "log")
