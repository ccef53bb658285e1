"""Coverage-guided fuzzing of whatever reads a file that somebody else wrote.

python tests/fuzz.py                       # every reader, 20 s each; prints what was found, exit status 1 if anything
python tests/fuzz.py voice codes -s 120    # two of them for two minutes each
python tests/fuzz.py --plant               # a fault is planted in each reader; one that is not found is printed

A reader may return, or raise an error of ``errors.py``. Any other exception is a finding; so is an input that takes
more than 5 s, or more memory than four times its length and a constant. Inputs are mutated by atheris (``pip install
atheris``), or where it is not installed by the small engine below, which keeps an input that reaches new lines.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).parents[1]
PACKAGE = str(ROOT / "qwen3tts_np")
SECONDS = 5  # of one input
TIMES, CONSTANT = 4, 4 << 20  # bytes of memory, per byte of the input and for anything
VALUES = (  # of JSON
    *("null", "true", "-1", "0", "1e999", "9" * 400, str(2**64 - 1), "1.5", "[]", "{}"),
    *('""', '"\\ud800"', '"2"', '"x"', '"true"'),
)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a file there takes a tenth of the time
WORDS = (  # what the formats are made of, and numbers at the ends of their types
    *("null", "true", "-1", "0", "1e999", "NaN", "9" * 400, "1.5", "[]", "{}", '""', '"', "[" * 2000, "\\ud800", "\0"),
    *("F16", "BF16", "I64", "U8", "dtype", "shape", "data_offsets", "[0, 0]", "18446744073709551616", "True", "|O"),
    *("<i2", "(0, 16)", "(3, 16, 1)", "same_as", ".T", "raw", "npy", "codes", "audio", "../x", "int4", "#version:"),
)


@dataclass(frozen=True)
class Reader:
    """One kind of file: where it is written, inputs to begin with, what reads it, and where a fault is planted."""

    name: str  # of the file in its folder
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]  # takes the folder
    function: str  # module:name of a function inside the reader
    reached: Callable[..., bool]  # by which arguments of that function, which no seed has
    repaired: Callable[[bytes], bytes] = bytes  # an input whose lengths fit again


def _voices(folder: Path) -> list[bytes]:
    from qwen3tts_np import VoiceClonePromptItem

    VoiceClonePromptItem(np.zeros((2, 16), np.int64), np.zeros(4, np.float32), False, True, "a").save(folder / "seed")
    VoiceClonePromptItem(None, np.zeros(4, np.float32), True, False).save(folder / "seed2")
    return [(folder / "seed").read_bytes(), (folder / "seed2").read_bytes()]


def _weights(_: Path) -> list[bytes]:
    def file(header: dict[str, Any], data: bytes) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data

    one = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"}}
    levels = {"a.weight.int8": {"dtype": "U8", "shape": [1, 32], "data_offsets": [0, 32]}}
    scales = {"a.weight.int8.scales": {"dtype": "F16", "shape": [1, 1], "data_offsets": [32, 34]}}
    return [file(one, bytes(16)), file({**levels, **scales}, bytes(34))]


def _configs(_: Path) -> list[bytes]:
    from qwen3tts_np.synthetic import layouts

    return [json.dumps(layouts.model_config("tiny", kind, layouts.RELEASED_TEXT)).encode() for kind in ("base",)]


def _codecs(_: Path) -> list[bytes]:
    from qwen3tts_np.synthetic import layouts

    return [json.dumps(layouts.codec_config("tiny")).encode()]


def _codes(folder: Path) -> list[bytes]:
    np.save(folder / "seed.npy", np.zeros((2, 16), np.int64))
    return [(folder / "seed.npy").read_bytes()]


def _requests(_: Path) -> list[bytes]:
    call = {"method": "generate_custom_voice", "arguments": {"text": "Hi", "top_k": 5, "do_sample": True}, "seed": 1}
    short = {"mode": "voice_clone", "text": "Hi", "ref_audio": {"audio": "a.wav"}, "temperature": 0.5}
    return [json.dumps(call).encode(), json.dumps(short).encode()]


def _casts(_: Path) -> list[bytes]:
    return [json.dumps({"Anna": "vivian", "Bob": {"speaker": "ryan", "instruct": "low"}, "C": "c.pt"}).encode()]


def _lexicons(_: Path) -> list[bytes]:
    return [json.dumps({"Stra\u00dfe": "Schtrase", "L'eau": "Lo", "sql": "sequel"}).encode()]


def _texts(_: Path) -> list[bytes]:
    marks = b"A: Hi. [pause 0.5s] [voice ryan] you [pause 20ms] \\[pause 1s]"
    return [marks, b'<speak version="1.1"><p><s>Hi &amp; you</s></p><break time="1s"/>Bye.</speak>']


def _read_marks(folder: Path) -> object:
    text = _read("files.input", "read_text", "text.txt")(folder)
    return importlib.import_module("qwen3tts_np.speech.script").read_script(text, cast={"A": {}})


def _manifests(_: Path) -> list[bytes]:
    row = {"id": "a", "text": "Hi", "ref_audio": "a.wav", "seed": 1, "top_k": 5, "audio_codes": [[1, 2]]}
    return [json.dumps(row).encode(), b'id,text,seed,temperature,do_sample\na,"Hi, you",7,0.5,true\n']


def _read_manifest(folder: Path) -> object:
    from qwen3tts_np.manifest import Manifest

    return list(Manifest(folder / "x.jsonl"))


def _embeddings(folder: Path) -> list[bytes]:
    (folder / "x.rvq").write_bytes(bytes(44))
    (folder / "x.txt").write_bytes(b"Hi")
    return [bytes(16), np.ones(4, "<f4").tobytes()]


def _packed_codes(_: Path) -> list[bytes]:
    return [bytes(44)]


def _fixtures(folder: Path) -> list[bytes]:
    (folder / "expected.bin").write_bytes(bytes(64))
    entry = {"shape": [2, 2], "dtype": "float32", "offset": 0, "bytes": 16}
    return [json.dumps({"storage": "raw", "tensors": {"a": entry, "b": {**entry, "same_as": "a"}}}).encode()]


def _read(module: str, name: str, file: str = "") -> Callable[[Path], object]:
    """A reader that is imported when it is used: after atheris has prepared for that."""

    def read(folder: Path) -> object:
        function: Any = importlib.import_module(f"qwen3tts_np.{module}")
        for part in name.split("."):
            function = getattr(function, part)
        return function(folder / file if file else folder)

    return read


def _with_header_length(data: bytes) -> bytes:
    """A safetensors file whose first eight bytes say where its header ends; most mutations move that."""
    end = data.find(b"}}") + 2
    return max(end - 8, 0).to_bytes(8, "little") + data[8:]


READERS = {
    "manifest": Reader(
        "x.jsonl", _manifests, _read_manifest, "manifest:_of_cell", lambda name, cell: cell in ("-1", "null", "9" * 400)
    ),
    "spk": Reader(
        "x.spk",
        _embeddings,
        _read("voice.prompt_item", "VoiceClonePromptItem.load", "x.spk"),
        "voice.prompt_item:read_spk",
        lambda path: (path.stat().st_size % 4) != 0,
    ),
    "rvq": Reader(
        "x.rvq",
        _packed_codes,
        _read("files.arrays", "read_codes", "x.rvq"),
        "files.arrays:read_rvq",
        lambda path: (path.stat().st_size % 22) != 0,
    ),
    "weights": Reader(
        "x.safetensors",
        _weights,
        _read("checkpoint.safetensors", "Checkpoint.open", "x.safetensors"),
        "checkpoint.safetensors:_span",
        lambda entry, *_: isinstance(entry, dict) and 0 in (entry.get("shape") or ()),
        _with_header_length,
    ),
    "config": Reader(
        "config.json",
        _configs,
        _read("checkpoint.config_file", "read_model_config"),
        "checkpoint.config_file:_typed",
        lambda value, *_: type(value) is int and value > 10**9,
    ),
    "codec": Reader(
        "config.json",
        _codecs,
        _read("checkpoint.config_file", "read_codec_config"),
        "checkpoint.config_file:_typed",
        lambda value, *_: type(value) is int and value > 10**9,
    ),
    "voice": Reader(
        "x.safetensors",
        _voices,
        _read("voice.prompt_item", "VoiceClonePromptItem.load", "x.safetensors"),
        "voice.prompt_item:is_voice",
        lambda metadata: metadata.get("version") != "1",
        _with_header_length,
    ),
    "codes": Reader(
        "x.npy",
        _codes,
        _read("files.arrays", "read_codes", "x.npy"),
        "files.arrays:read_array",
        lambda path: b"True" in Path(path).read_bytes(),
    ),
    "request": Reader(
        "request.json",
        _requests,
        _read("inspect.request_file", "read_request", "request.json"),
        "inspect.request_file:shown",
        lambda value: True,  # it is called for wrong values only
    ),
    "cast": Reader(
        "cast.json",
        _casts,
        _read("speech.cast", "read_cast", "cast.json"),
        "speech.cast:_voice",
        lambda file, name, value: type(value) is int,
    ),
    "lexicon": Reader(
        "words.json",
        _lexicons,
        _read("speech.cast", "read_lexicon", "words.json"),
        "speech.cast:_once",
        lambda pairs: any(not isinstance(value, str) for _, value in pairs),
    ),
    "markup": Reader(
        "text.txt",
        _texts,
        _read_marks,
        "text.markup:length_of",
        lambda value: not value.strip(),
    ),
    "fixture": Reader(
        "case.json",
        _fixtures,
        _read("parity.fixture", "read_fixture"),
        "parity.fixture:_table",
        lambda path, manifest: manifest.get("storage") != "raw",
    ),
}


# --- one input ------------------------------------------------------------------------------------


class Finding(Exception):
    """An input that a reader does not cope with."""


def _late(_: int, __: FrameType | None) -> None:
    raise Finding(f"it takes more than {SECONDS} s")


def check(reader: Reader, data: bytes, folder: Path) -> None:
    """Read ``data``. Raises whatever the reader must not raise."""
    from qwen3tts_np.errors import QwenTTSError

    (folder / reader.name).write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        reader.read(folder)
    except QwenTTSError as e:
        if "\n" in str(e) or len(str(e)) > 10_000:
            raise Finding(f"a sentence of {len(str(e))} characters: {str(e)[:100]}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    taken = tracemalloc.get_traced_memory()[1] - before
    if taken > TIMES * len(data) + CONSTANT:
        raise Finding(f"{taken} bytes of memory for {len(data)}")


@contextlib.contextmanager
def prepared(reader: Reader, plant: bool) -> Iterator[tuple[Path, list[bytes]]]:
    """A folder to read in, and the inputs to begin with."""
    before = signal.signal(signal.SIGALRM, _late)
    tracemalloc.start()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seeds = reader.seeds(Path(folder))
        with planted(reader) if plant else contextlib.nullcontext():
            yield Path(folder), seeds
    tracemalloc.stop()
    signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def planted(reader: Reader) -> Iterator[None]:
    """A division by zero in the function of ``reader`` where its arguments are such as no seed has."""
    module, _, name = reader.function.partition(":")
    before = getattr(importlib.import_module(f"qwen3tts_np.{module}"), name)

    def faulty(*arguments: Any) -> Any:
        return 1 / 0 if reader.reached(*arguments) else before(*arguments)

    with mock.patch(f"qwen3tts_np.{module}.{name}", faulty):
        yield


# --- our own engine -------------------------------------------------------------------------------


def mutated(data: bytes, pool: list[bytes], chance: random.Random) -> bytes:
    """``data`` with one to four changes: bits, bytes, words of the formats, numbers, pieces of another input.

    Half of them change one value to another of JSON: what has many fields would seldom be read as far as their types.
    """
    out = bytearray(data)
    if chance.random() < 0.5 and (places := scalars(data)):
        start, end = chance.choice(places)
        out[start:end] = chance.choice(VALUES).encode()
        return bytes(out)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del out[at : at + chance.choice([1, 2, 4, 16, 64, len(out)])]
        elif kind == 2:
            out[at:at] = chance.choice(WORDS).encode()
        elif kind == 3:
            start, end = chance.choice(scalars(bytes(out)) or [(at, at)])
            out[start:end] = chance.choice(WORDS).encode()
        elif kind == 4:
            words = [found.span() for found in re.finditer(rb"[\w.<]+", bytes(out))]
            start, end = chance.choice(words or [(at, at)])
            out[start:end] = chance.choice(WORDS).encode()
        else:
            other = chance.choice(pool)
            start = chance.randrange(len(other) + 1)
            out[at : at + chance.randrange(32)] = other[start : start + chance.randrange(64)]
    return bytes(out)


def scalars(data: bytes) -> list[tuple[int, int]]:
    """Where the numbers, strings and names are, of JSON or of what looks like it."""
    return [found.span() for found in re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"|true|false|null', data)]


def lines_of(call: Callable[[], None]) -> set[tuple[str, int]]:
    """The lines of the package that a call runs."""
    seen: set[tuple[str, int]] = set()

    def line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def enter(frame: FrameType, _: str, __: object) -> Any:
        return line if frame.f_code.co_filename.startswith(PACKAGE) else None

    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(None)
    return seen


def own_engine(name: str, seconds: float, plant: bool, most: int = sys.maxsize) -> str | None:
    """What is found in ``seconds``, and in ``most`` inputs; None if nothing is."""
    reader, chance = READERS[name], random.Random(0)
    with prepared(reader, plant) as (folder, pool):
        seen: set[tuple[str, int]] = set()
        end = time.monotonic() + seconds
        for number in range(most):
            data = pool[number] if number < len(pool) else mutated(chance.choice(pool), pool, chance)
            data = reader.repaired(data) if number % 2 else data
            try:
                new = lines_of(lambda data=data: check(reader, data, folder)) - seen  # type: ignore[misc]
            except (Exception, SystemExit) as e:
                return f"{type(e).__name__}: {e}; the input is {data[:2000]!r}"
            if new:
                seen |= new
                pool.append(data)
            if time.monotonic() > end:
                break
    return None


# --- atheris --------------------------------------------------------------------------------------


def atheris_engine(name: str, seconds: float, plant: bool) -> str | None:
    """The same in a process of its own: libFuzzer ends the one that it runs in."""
    words = [sys.executable, __file__, "--child", name, "-s", str(seconds), *(["--plant"] if plant else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10 * seconds + 120)
    if done.returncode == 0:
        return None
    said = (done.stdout + done.stderr).partition(" === Uncaught Python exception: ===")
    return said[2].strip()[:2000] or said[0][-2000:]


def child(name: str, seconds: float, plant: bool) -> None:
    """Fuzz one reader with atheris, indefinitely, or until libFuzzer says so."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["qwen3tts_np"], enable_loader_override=False):
        importlib.import_module("qwen3tts_np")
        for other in READERS.values():
            importlib.import_module(f"qwen3tts_np.{other.function.partition(':')[0]}")
    reader = READERS[name]
    with prepared(reader, plant) as (folder, seeds), tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(seed)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            """Half of them bytes as libFuzzer changes them, half words of the formats: a large JSON stays one."""
            chance = random.Random(seed)
            changed = atheris.Mutate(data, most) if chance.random() < 0.5 else mutated(data, seeds, chance)
            return (reader.repaired(changed) if chance.random() < 0.8 else changed)[:most]

        quoted = ("".join(f"\\x{byte:02x}" for byte in word.encode()[:60]) for word in WORDS)
        Path(folder, "words").write_text("".join(f'"{word}"\n' for word in quoted))
        options = [
            f"-max_total_time={seconds:g}",
            f"-timeout={SECONDS}",
            "-rss_limit_mb=2048",
            "-mutate_depth=1",
            f"-dict={folder}/words",
        ]
        options += [f"-artifact_prefix={folder}/", corpus]
        atheris.Setup([sys.argv[0], *options], lambda data: check(reader, data, folder), custom_mutator=mutate)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)} (all)")
    parser.add_argument("-s", "--seconds", type=float, default=20, help="for each reader (%(default)g)")
    parser.add_argument("--plant", action="store_true", help="plant a fault, which has to be found")
    parser.add_argument("--own", action="store_true", help="the engine of this file, though atheris is installed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.seconds, args.plant)
    own = args.own or importlib.util.find_spec("atheris") is None
    if own and not args.own:
        print("atheris is not installed (pip install atheris): the engine of this file is used")
    failed = 0
    for name in args.readers or READERS:
        start = time.monotonic()
        found = (own_engine if own else atheris_engine)(name, args.seconds, args.plant)
        verdict = f"found {found}" if found else "nothing found"
        print(f"{name}: {verdict} ({time.monotonic() - start:.0f} s)", flush=True)
        failed += (found is None or "ZeroDivisionError" not in found) if args.plant else found is not None
    return int(failed > 0)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    sys.exit(main())
