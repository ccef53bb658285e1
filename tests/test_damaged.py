"""Damaged checkpoints: every file missing, empty, cut, with flipped bits, of another kind or from another model.

Whatever is in a folder, it loads, or one sentence of ``errors.py`` names the file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import CustomVoice, Qwen3TTSModel, QwenTTSError, VoiceClonePromptItem
from qwen3tts_np.checkpoint.adapter import Adapter
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_generation_config, read_model_config
from qwen3tts_np.checkpoint.keys import TensorSpec, check
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.writer import write_safetensors
from qwen3tts_np.compiled.codec.packed import write_packed_decoder
from qwen3tts_np.errors import CheckpointError
from qwen3tts_np.files import input as gate
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.verify.health import check_health

pytestmark = pytest.mark.filterwarnings("ignore")
CUTS, FLIPS = 100, 60  # of each file
ROOT = Path(__file__).parents[1]


def weights(folder: Path) -> None:
    check(Checkpoint.open(folder), model_specs(read_model_config(folder)))


def codec_weights(folder: Path) -> None:
    codec = folder / "speech_tokenizer"
    check(Checkpoint.open(codec), codec_specs(read_codec_config(codec)))


def tokenize(folder: Path) -> None:
    tokenizer = Tokenizer.from_directory(folder)
    tokenizer.complete()
    tokenizer.encode("Hello 你好 🎉 <|im_end|>")


READERS: dict[str, Callable[[Path], object]] = {
    "config.json": read_model_config,
    "generation_config.json": read_generation_config,
    "model.safetensors": weights,
    **dict.fromkeys(("vocab.json", "merges.txt", "tokenizer_config.json"), tokenize),
    "speech_tokenizer/config.json": lambda folder: read_codec_config(folder / "speech_tokenizer"),
    "speech_tokenizer/model.safetensors": codec_weights,
}
OPTIONAL = ("generation_config.json",)


@pytest.fixture(scope="module")
def whole(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to damage, whose files are restored after each damage."""
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(synthetic("tiny", "custom_voice"), folder)
    return folder


@pytest.fixture(scope="module")
def packed(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in int4, as the kernels read it."""
    folder = tmp_path_factory.mktemp("damaged") / "packed"
    convert(synthetic("tiny", "custom_voice"), folder, "int4", lambda f: write_packed_decoder(f / "speech_tokenizer"))
    return folder


def refusal(read: Callable[[], object], name: str) -> str | None:
    """What the reader says of the file ``name``; None where it reads it. Anything but a sentence fails the test."""
    try:
        read()
    except QwenTTSError as e:
        said = str(e)
        assert "\n" not in said and len(said) < 2000, said[:300]
        assert name in said or "tensor" in said or "model.safetensors" in said, (name, said)
        return said
    return None


def damages(content: bytes, chance: random.Random) -> list[bytes]:
    """``content`` cut at CUTS places, and with flipped bits where its header, or its text, is."""
    cuts = [content[: len(content) * i // CUTS] for i in range(CUTS)]
    head = min(len(content), 8 + int.from_bytes(content[:8], "little")) if content[4:8] == bytes(4) else len(content)
    flipped = []
    for _ in range(FLIPS):
        copy = bytearray(content)
        copy[chance.randrange(head)] ^= 1 << chance.randrange(8)
        flipped.append(bytes(copy))
    return cuts + flipped


@pytest.mark.parametrize("name", READERS)
def test_cut_and_flipped(whole: Path, name: str) -> None:
    file, read = whole / name, READERS[name]
    content = file.read_bytes()
    try:
        told = []
        for damaged in damages(content, random.Random(0)):
            file.write_bytes(damaged)
            told.append(refusal(lambda: read(whole), Path(name).name))
        cuts = told[:CUTS]
        assert None not in cuts or name == "merges.txt"  # fewer merges are merges as well
        file.unlink()
        assert (refusal(lambda: read(whole), Path(name).name) is None) == (name in OPTIONAL)
        file.mkdir()
        assert refusal(lambda: read(whole), Path(name).name) is not None
        file.rmdir()
    finally:
        file.write_bytes(content)
    read(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_packed_files_cut_and_flipped(packed: Path, name: str) -> None:
    file, read = packed / name, READERS[name]
    content = file.read_bytes()
    try:
        for damaged in damages(content, random.Random(1))[::2]:
            file.write_bytes(damaged)
            refusal(lambda: read(packed), Path(name).name)
    finally:
        file.write_bytes(content)
    read(packed)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without FIFOs")
def test_what_is_no_file(whole: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO nobody writes to, a device, a link to itself, and gigabytes of blanks, which take no memory to refuse."""
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    file, kept = whole / name, whole / "kept"
    file.rename(kept)

    def blanks() -> None:
        with file.open("wb") as sparse:
            sparse.truncate(3 << 30)

    plants = (lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), lambda: file.symlink_to(file), blanks)
    try:
        for plant in plants:
            plant()
            assert refusal(lambda: READERS[name](whole), Path(name).name) is not None
            file.unlink()
    finally:
        file.unlink(missing_ok=True)
        kept.rename(file)


@pytest.mark.parametrize("name", READERS)
def test_from_another_model(whole: Path, synthetic: Callable[..., Path], name: str) -> None:
    """A file of a larger base model loads where it fits the others, and is named where it does not."""
    kept = (whole / name).read_bytes()
    shutil.copy(synthetic("tiny-1.7b", "base") / name, whole / name)
    try:
        said = refusal(lambda: Qwen3TTSModel.for_prompts(whole).prepare("Hi", CustomVoice("ryan")), "")
    finally:
        (whole / name).write_bytes(kept)
    if name in ("config.json", "model.safetensors"):
        assert said is not None


# --- tensors --------------------------------------------------------------------------------------


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a safetensors file; its data stay."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


NORM = "talker.model.norm.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: h[NORM].update(shape=[32, 2]), f"{NORM}: shape [32, 2], expected [64]"),
        (lambda h: h[NORM].update(dtype="I16"), f"{NORM}: type I16, expected BF16"),
        (lambda h: h.update(other=h.pop(NORM)), f"tensor '{NORM}' is missing"),
        (lambda h: h.update({"x" * 100_000: h.pop(NORM)}), f"tensor '{NORM}' is missing"),
    ],
)
def test_wrong_tensors(whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str) -> None:
    shutil.copytree(whole, tmp_path / "m")
    edit(tmp_path / "m" / "model.safetensors", change)
    with pytest.raises(CheckpointError) as refused:
        Qwen3TTSModel.for_prompts(tmp_path / "m")
    assert says in str(refused.value) and len(str(refused.value)) < 2000


def tokens(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Change a field of the first added token."""

    def change(content: dict[str, Any]) -> dict[str, Any]:
        next(iter(content["added_tokens_decoder"].values())).update(changes)
        return content

    return change


MANY = "a " * 50_000  # words, each a short one


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda c: c.update(tts_model_type=MANY)),
        ("config.json", lambda c: c.update(model_type=MANY)),
        ("config.json", lambda c: c["talker_config"]["spk_is_dialect"].update({MANY: MANY})),
        ("config.json", lambda c: c["talker_config"]["spk_id"].update({MANY: 10**9})),
        ("config.json", lambda c: c["talker_config"].update(rope_parameters={"rope_theta": MANY})),
        ("config.json", lambda c: (c.pop("talker_config"), c.update(model_type=[MANY] * 9))),
        ("model.safetensors", lambda h: h.update({MANY: h.pop(NORM)})),
    ],
)
def test_values_of_many_words_are_shortened(
    whole: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    shutil.copytree(whole, tmp_path / "m")
    if name.endswith(".json"):
        content = json.loads((tmp_path / "m" / name).read_text())
        change(content)
        (tmp_path / "m" / name).write_text(json.dumps(content))
    else:
        edit(tmp_path / "m" / name, change)
    assert refusal(lambda: Qwen3TTSModel.for_prompts(tmp_path / "m").text_tokenizer.encode("Hi"), "") is not None


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80], ids=["NaN", "inf", "-inf"])
def test_weights_that_are_not_finite(whole: Path, tmp_path: Path, bits: int) -> None:
    """Found at load in a norm, which every diverged training reaches; anywhere by ``verify``."""
    shutil.copytree(whole, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    content = bytearray(file.read_bytes())
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])

    def poison(name: str) -> None:
        at = data + header[name]["data_offsets"][0] + 4
        content[at : at + 2] = bits.to_bytes(2, "little")
        file.write_bytes(content)

    poison("talker.codec_head.weight")
    Qwen3TTSModel.for_prompts(tmp_path / "m")
    (section,) = [s for s in check_health(tmp_path / "m", None, True).sections if "talker.codec_head.weight" in str(s)]
    assert "NaN or infinity" in str(section)
    poison(NORM)
    with pytest.raises(CheckpointError, match=f"{NORM} holds values that are not finite"):
        Qwen3TTSModel.for_prompts(tmp_path / "m")


# --- tokenizer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vocab.json", lambda c: {**c, "new": 2**31 - 1}),
        ("vocab.json", lambda c: {**c, "new": -1}),
        ("vocab.json", lambda c: {**c, "new": 0}),
        ("vocab.json", lambda c: {**c, "new": 10**400}),
        ("vocab.json", lambda c: {**c, "new": None}),
        ("vocab.json", lambda c: {"a": 0}),
        ("vocab.json", lambda c: {}),
        ("vocab.json", lambda c: {**c, **{f"new {i}": len(c) + i for i in range(10_000)}}),
        ("vocab.json", lambda c: {**c, "\ud800": len(c)}),
        ("vocab.json", lambda c: {**c, "": len(c)}),
        ("tokenizer_config.json", lambda c: {}),
        ("tokenizer_config.json", lambda c: {"added_tokens_decoder": {}}),
        ("tokenizer_config.json", lambda c: {"added_tokens_decoder": []}),
        ("tokenizer_config.json", lambda c: {"added_tokens_decoder": {"x": {}}}),
        ("tokenizer_config.json", lambda c: {"added_tokens_decoder": {"9" * 400: {"content": "a"}}}),
        ("tokenizer_config.json", tokens(content="")),
        ("tokenizer_config.json", tokens(content=None)),
        ("tokenizer_config.json", tokens(content=5)),
        ("tokenizer_config.json", tokens(content="\ud800")),
        ("tokenizer_config.json", tokens(content="a")),
        ("tokenizer_config.json", tokens(special="yes")),
        ("tokenizer_config.json", tokens(other=1)),
    ],
)
def test_tokenizer_files_that_do_not_fit(
    whole: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    shutil.copytree(whole, tmp_path / "m")
    file = tmp_path / "m" / name
    file.write_text(json.dumps(change(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")

    def use() -> None:
        Qwen3TTSModel.for_prompts(tmp_path / "m").prepare("Hello 你好 <|im_end|>", CustomVoice("ryan"))

    refusal(use, "")


@pytest.mark.parametrize("line", ["a", "a b c", "zz zz", "a \u0000", "\u2028 a", "x" * 100_000 + " y", "Ġ Ġ"])
def test_merges_that_do_not_fit(whole: Path, tmp_path: Path, line: str) -> None:
    shutil.copytree(whole, tmp_path / "m")
    with (tmp_path / "m" / "merges.txt").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    refusal(lambda: tokenize(tmp_path / "m"), "merges.txt")


# --- adapters -------------------------------------------------------------------------------------


PREFIX = "base_model.model.talker.model."
PROJECTION = f"{PREFIX}layers.0.self_attn.q_proj.lora_"
PAIR: dict[str, tuple[int, ...]] = {f"{PROJECTION}A.weight": (4, 64), f"{PROJECTION}B.weight": (128, 4)}
ROWS = f"{PREFIX}codec_embedding.token_adapter.trainable_tokens_delta"


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({}, PAIR, None),
        ({"r": 10**400}, PAIR, "expected two numbers"),
        ({"lora_alpha": 10**400}, PAIR, "expected two numbers"),
        ({"lora_alpha": "a " * 50_000}, PAIR, "expected two numbers"),
        ({"r": True}, PAIR, "expected two numbers"),
        ({"peft_type": ["a "] * 50_000}, PAIR, "LORA is read here"),
        ({"rank_pattern": ["a "] * 50_000}, PAIR, "not implemented here"),
        ({"trainable_token_indices": {"talker.model.codec_embedding": [1]}}, {ROWS: (1,)}, "trainable_token_indices"),
        ({"trainable_token_indices": {"talker.model.codec_embedding": [1]}}, {ROWS: ()}, "trainable_token_indices"),
        ({"trainable_token_indices": {"talker.model.codec_embedding": [-1]}}, {ROWS: (1, 64)}, "row -1 is outside of"),
        ({"trainable_token_indices": {"talker.model.codec_embedding": [10**9]}}, {ROWS: (1, 64)}, "is outside of"),
        ({"trainable_token_indices": {"talker.model.codec_embedding": [1]}}, {ROWS: (1, 63)}, "the model's is"),
    ],
)
def test_adapters(
    whole: Path, tmp_path: Path, config: dict[str, Any], tensors: dict[str, tuple[int, ...]], says: str | None
) -> None:
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(given))
    specs = [TensorSpec(name, shape, "", "F32") for name, shape in tensors.items()]
    write_safetensors(tmp_path / "adapter_model.safetensors", specs, lambda s: [np.full(s.shape, 0.01, np.float32)])
    said = refusal(lambda: Adapter.open(tmp_path).merged(Checkpoint.open(whole)), "")
    assert (said is None) == (says is None) and (says or "") in (said or "")


# --- a defect of ours -----------------------------------------------------------------------------


def test_a_defect_of_ours_shows_its_traceback(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    """``1/0`` in generate.py, at the first frame: no sentence takes the place of the traceback, and nothing is left."""
    plant = "import qwen3tts_np.generate as g; g.Item.read_frame = lambda self, codes: 1 / 0"
    program = f"import sys; from qwen3tts_np import cli; {plant}; sys.exit(cli.main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "say", str(synthetic("tiny", "custom_voice")), "Hi", "-o", "a.wav"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    env = {**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert not list(tmp_path.iterdir())


def test_a_saved_voice_cut_anywhere(tmp_path: Path) -> None:
    made = tmp_path / "v.safetensors"
    VoiceClonePromptItem(np.zeros((2, 16), np.int64), np.zeros(8, np.float32), False, True, "a").save(made)
    content = made.read_bytes()
    for damaged in damages(content, random.Random(0)):
        made.write_bytes(damaged)
        said = refusal(lambda: VoiceClonePromptItem.load(made), made.name)
        assert said is not None or damaged == content


def test_metadata_that_is_nested_deeply(packed: Path, tmp_path: Path) -> None:
    """JSON inside the JSON of a header."""

    def nest(header: dict[str, Any]) -> None:
        header["__metadata__"] = dict.fromkeys(header["__metadata__"], "[" * 100_000)

    files = [file for file in packed.rglob("*.safetensors") if b"__metadata__" in file.read_bytes()]
    assert files
    for file in files:
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        shutil.copytree(packed, tmp_path / "m")
        edit(tmp_path / "m" / file.relative_to(packed), nest)
        model = refusal(lambda: Qwen3TTSModel.from_pretrained(tmp_path / "m"), "")
        assert model is not None and "damaged" in model, file
