"""Synthetic checkpoints: the value rule against a second one in plain integers, the layouts against the released
files, and what ``synth`` does when it cannot write."""

from __future__ import annotations

import argparse
import errno
import json
import math
import shutil
import struct
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np.checkpoint import published, writer
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_generation_config, read_model_config
from qwen3tts_np.checkpoint.keys import TensorSpec, check
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.cli import synth
from qwen3tts_np.errors import CheckpointError
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.synthetic import layouts
from qwen3tts_np.synthetic import weights as synthetic
from qwen3tts_np.synthetic.layouts import LIKES, RELEASED_TEXT, TYPES
from qwen3tts_np.synthetic.weights import RULES, SyntheticValues, rule_for, stream_key, uniforms, write_checkpoint
from qwen3tts_np.text.tokenizer import Tokenizer

README = Path(__file__).parents[1] / "golden" / "README.md"
TINY = [(like, kind) for like in ("tiny", "tiny-1.7b") for kind in TYPES]
RELEASED = [(m.name.removeprefix("Qwen3-TTS-12Hz-"), m) for m in published.MODELS]
F32 = np.dtype(np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "tiny"
    write_checkpoint(root, "tiny", "base", seed=7)
    return root


def all_tensors(root: Path) -> dict[str, tuple[TensorSpec, np.ndarray]]:
    specs = [*model_specs(read_model_config(root)), *codec_specs(read_codec_config(root / "speech_tokenizer"))]
    files = {**Checkpoint.open(root), **Checkpoint.open(root / "speech_tokenizer")}
    return {spec.key: (spec, files[spec.key].widen(F32)) for spec in specs}


# --- the rule -------------------------------------------------------------------------------------


def float32(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


def bfloat16(x: float) -> float:
    """Round a float32 by comparing it with its two neighbours, in exact arithmetic."""
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    below, above = (struct.unpack("<f", struct.pack("<I", b))[0] for b in (bits & ~0xFFFF, (bits & ~0xFFFF) + 0x10000))
    down, up = abs(Fraction(x) - Fraction(below)), abs(Fraction(above) - Fraction(x))
    if down == up:
        return below if bits >> 16 & 1 == 0 else above
    return below if down < up else above


def port(spec: TensorSpec, seed: int, index: int) -> Fraction:
    """Value ``index`` of a plain tensor before rounding, as a port would read it out of golden/README.md."""
    key = 0xCBF29CE484222325
    for byte in f"{seed} {spec.key}".encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    z = (key + (index // 4 + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    r = (z ^ z >> 31) >> 16 * (index % 4) & 0xFFFF
    rule = next(rule for rule in RULES if fnmatchcase(spec.key, rule.pattern))
    n = spec.shape[0] if spec.letters == "in out kernel" else math.prod(spec.shape[1:])
    amplitude = float32(rule.gain if rule.of == "value" else rule.gain * math.sqrt(3 / n))
    return Fraction(float32(rule.centre)) + Fraction(amplitude) * Fraction(2 * r - 65535, 65536)


def rounded(spec: TensorSpec, exact: Fraction) -> float:
    return bfloat16(float32(float(exact))) if spec.dtype == "BF16" else float32(float(exact))


SPECIAL = ("cluster_usage", "embedding_sum", "embed_sum", "codec_head.weight", "speaker_encoder.blocks.0.conv.weight")


def test_plain_tensors_follow_the_rule(tiny):
    plain = {key: t for key, t in all_tensors(tiny).items() if not key.endswith(SPECIAL)}
    assert {rule_for(key) for key in plain} == {r for r in RULES if not r.pattern.endswith(SPECIAL)}
    for spec, values in plain.values():
        for index in {0, 1, spec.size // 2, spec.size - 1}:
            assert values.flat[index % spec.size] == rounded(spec, port(spec, 7, index % spec.size)), spec.key


def test_the_four_other_kinds(tiny):
    tensors = all_tensors(tiny)
    eos = read_model_config(tiny).talker_config.codec_eos_token_id

    spec, head = tensors["talker.codec_head.weight"]
    for row, factor in ((0, 1), (eos, Fraction(float32(1.6))), (eos + 1, 1)):
        assert head[row, 3] == rounded(spec, port(spec, 7, row * spec.shape[1] + 3) * factor)

    spec, first = tensors["speaker_encoder.blocks.0.conv.weight"]
    assert first[2, 4, 1] == rounded(spec, port(spec, 7, (2 * spec.shape[1] + 4) * spec.shape[2] + 1))
    np.testing.assert_array_equal(first[:, 1::2], -first[:, 0::2])

    books = [key for key in tensors if key.endswith("cluster_usage")]
    assert len(books) == 16 + 32
    for key in books:
        spec, usage = tensors[key]
        assert list(np.flatnonzero(usage == 0)) == [5, 69]
        assert usage[6] == rounded(spec, port(spec, 7, 6))
        name = next(n for n in (".embedding_sum", ".embed_sum") if key.replace(".cluster_usage", n) in tensors)
        spec, sums = tensors[key.replace(".cluster_usage", name)]
        for row in (5, 6):
            divisor = max(Fraction(float(usage[row])), Fraction(float32(1e-5)))
            assert sums[row, 2] == rounded(spec, port(spec, 7, row * spec.shape[1] + 2) * divisor)
        entries = sums / np.maximum(usage, np.float32(1e-5))[:, None]
        assert entries.std(axis=1).min() > 0.15  # 0.29 and 0.35 over all; rows have 24 values


@given(start=st.integers(0, 1000).map(lambda i: 4 * i), count=st.integers(1, 50))
def test_a_stream_can_be_entered_anywhere(start, count):
    key = stream_key("any.name", 3)
    np.testing.assert_array_equal(uniforms(key, start, count), uniforms(key, 0, start + count)[start:])


def test_chunks_are_one_stream(monkeypatch):
    spec = TensorSpec("talker.model.norm.weight", (1000,), "H", "F32")
    whole = np.concatenate(list(SyntheticValues(0, 0)(spec)))
    monkeypatch.setattr(synthetic, "CHUNK", 64)
    chunks = list(SyntheticValues(0, 0)(spec))
    assert [len(chunk) for chunk in chunks] == [64] * 15 + [40]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_uniforms_are_uniform():
    """The bounds are 5 standard errors of 2^20 draws."""
    u = uniforms(stream_key("a", 0), 0, 1 << 20)
    assert abs(u.mean()) < 5 / math.sqrt(3 * u.size)
    assert abs((u**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / u.size)
    neighbours = (u[1:] * u[:-1]).mean()
    others = (u * uniforms(stream_key("b", 0), 0, u.size)).mean()
    assert max(abs(neighbours), abs(others)) < 5 / 3 / math.sqrt(u.size)


def test_the_readme_states_the_rule():
    lines = README.read_text(encoding="utf-8").splitlines()
    table = lines[lines.index("| pattern | centre | gain | amplitude |") + 2 :][: len(RULES) + 1]
    spread = {"value": "gain", "output": "gain * sqrt(3 / n)"}
    assert table == [*(f"| `{r.pattern}` | {r.centre} | {r.gain} | {spread[r.of]} |" for r in RULES), ""]


def test_the_example_of_the_readme():
    text = README.read_text(encoding="utf-8")
    spec = TensorSpec("talker.codec_head.weight", (3072, 1024), "V H", "BF16")
    assert f"{stream_key(spec.key, 0):#x}" == "0xdb8c1117fce78d93"
    assert list(uniforms(stream_key(spec.key, 0), 0, 4) * 65536) == [2173, 22581, -63925, 32123]
    first = next(iter(SyntheticValues(0, 2150)(spec)))[0, :4]
    assert list(first) == [0x3BB0, 0x3D65, 0xBE22, 0x3DA3]
    values = (first.astype(np.uint32) << 16).view(F32)
    assert list(values) == [0.00537109375, 0.055908203125, -0.158203125, 0.07958984375]
    for shown in ("0xdb8c1117fce78d93", "2173, 22581, -63925, 32123", "0x3bb0, 0x3d65, 0xbe22, 0x3da3"):
        assert shown in text
    assert ", ".join(map(str, map(float, values))) in text


# --- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("like", "kind"), TINY)
def test_a_tiny_checkpoint_is_whole(tmp_path, like, kind):
    root = tmp_path / "new" / "folder"
    write_checkpoint(root, like, kind)
    model, codec = read_model_config(root), read_codec_config(root / "speech_tokenizer")
    assert (model.tts_model_type, model.tts_model_size) == (kind, "0b6" if like == "tiny" else "1b7")
    weights, codec_weights = Checkpoint.open(root), Checkpoint.open(root / "speech_tokenizer")
    check(weights, model_specs(model))
    check(codec_weights, codec_specs(codec))
    assert {t.dtype for t in weights.values()} == {"BF16"}
    assert {t.dtype for t in codec_weights.values()} == {"F32"}
    assert list(weights) == sorted(weights)
    assert weights.metadata == ({} if kind == "base" else {"format": "pt"})
    assert read_generation_config(root).top_k == 50
    assert (weights.path.stat().st_size < 2_000_000) and (codec_weights.path.stat().st_size < 2_500_000)

    tokenizer = Tokenizer.from_directory(root)
    assert tokenizer.vocab_size <= model.talker_config.text_vocab_size
    marks = [model.im_start_token_id, model.im_end_token_id, model.tts_pad_token_id, model.tts_eos_token_id]
    assert tokenizer.encode("<|im_start|><|im_end|><tts_pad><tts_text_eod>") == marks

    talker = model.talker_config
    rows = talker.vocab_size - 1024  # of which the official code suppresses all but EOS
    ids = [*talker.codec_language_id.values(), *talker.spk_id.values(), talker.codec_eos_token_id, talker.codec_pad_id]
    assert rows == codec.decoder_config.codebook_size == talker.code_predictor_config.vocab_size
    assert len(set(ids)) == len(ids) == (9 + 12 + 2 if kind == "custom_voice" else 12)
    assert all(rows <= i < talker.vocab_size for i in ids)


def test_the_seed_is_all_there_is(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, "tiny", "custom_voice", seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 11
    same = {n: [(tmp_path / "a" / f).read_bytes() == (tmp_path / n / f).read_bytes() for f in files] for n in "bc"}
    assert all(same["b"])
    assert [f.name for f, equal in zip(files, same["c"], strict=True) if not equal] == ["model.safetensors"] * 2


def test_types_of_one_size_share_their_talker(tiny, tmp_path):
    write_checkpoint(tmp_path / "custom", "tiny", "custom_voice", seed=7)
    base, custom = Checkpoint.open(tiny), Checkpoint.open(tmp_path / "custom")
    assert set(base) - set(custom) == {key for key in base if key.startswith("speaker_encoder.")}
    for key, stored in custom.items():
        np.testing.assert_array_equal(stored.data, base[key].data)


def test_permissions_are_ordinary(tiny, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (tiny / "model.safetensors").stat().st_mode == plain.stat().st_mode
    (tmp_path / "folder").mkdir()
    assert tiny.stat().st_mode == (tmp_path / "folder").stat().st_mode


# --- the released layouts -------------------------------------------------------------------------


@pytest.fixture
def without_weights(monkeypatch):
    """Write directories of the released sizes in no time."""
    monkeypatch.setattr(synthetic, "write_safetensors", lambda *_: None)
    monkeypatch.setattr(synthetic, "require_space", lambda *_: None)


@pytest.mark.parametrize(("name", "model"), RELEASED)
def test_sizes_are_the_published_ones(tmp_path, without_weights, name, model):
    """To the byte, headers included."""
    write_checkpoint(tmp_path / name, model.like, model.model_type)
    codec = codec_specs(read_codec_config(tmp_path / name / "speech_tokenizer"))
    metadata = layouts.safetensors_metadata(model.model_type)
    files = (
        (model_specs(read_model_config(tmp_path / name)), metadata, model.weights),
        (codec, None, published.CODEC_WEIGHTS),
    )
    for tensors, extra, weights in files:
        specs = sorted(tensors, key=lambda spec: spec.key)
        assert len(specs) == weights.tensors
        assert sum(spec.size for spec in specs) == weights.parameters
        assert len(writer.header(specs, extra)) + sum(map(writer.byte_size, specs)) == weights.file.bytes


def subset(ours, official) -> bool:
    if isinstance(ours, dict):
        return isinstance(official, dict) and all(k in official and subset(v, official[k]) for k, v in ours.items())
    return ours == official and type(ours) is type(official)


@pytest.mark.parametrize(("name", "model"), RELEASED)
def test_layouts_are_the_released_ones(reference, tmp_path, without_weights, name, model):
    ours, official = tmp_path / name, reference / "configs" / name
    write_checkpoint(ours, model.like, model.model_type)
    for file in ("config.json", "generation_config.json", "preprocessor_config.json"):
        for folder in (".", "speech_tokenizer"):
            if (official / folder / file).exists():
                pair = [json.loads((root / folder / file).read_text(encoding="utf-8")) for root in (ours, official)]
                assert subset(*pair), f"{folder}/{file}"
    assert read_model_config(ours) == read_model_config(official)
    assert read_codec_config(ours / "speech_tokenizer") == read_codec_config(official / "speech_tokenizer")
    assert read_generation_config(ours) == read_generation_config(official)

    listed = json.loads((reference / "tensors" / f"{name}.tensors.json").read_text())
    assert {s.key: tuple(listed[s.key]["shape"]) for s in model_specs(read_model_config(ours))} == {
        key: tuple(entry["shape"]) for key, entry in listed.items()
    }
    assert {entry["dtype"] for entry in listed.values()} == {"bfloat16"}


def test_published_numbers_are_those_of_the_facts(reference):
    facts = json.loads((reference / "facts.json").read_text(encoding="utf-8"))
    pins = facts["hf_pins"]
    for name, model in RELEASED:
        pin = pins[f"Qwen3-TTS-12Hz-{name}"]
        check_pin(pin, model.revision, model.weights, model.config)
    codec = next(pin for key, pin in pins.items() if key.startswith(published.CODEC_NAME))
    check_pin(codec, published.CODEC_REVISION, published.CODEC_WEIGHTS, None)
    for key, entry in facts["common_files"].items():
        if "sha256" in entry:
            assert published.COMMON_FILES[key] == published.PublishedFile(entry["bytes"], entry["sha256"])


def check_pin(pin, revision, weights, config):
    pinned = pin["model.safetensors"]
    assert (pin["revision"], pinned["tensors"], pinned["params"]) == (revision, weights.tensors, weights.parameters)
    assert (pinned["bytes"], pinned["sha256"]) == (weights.file.bytes, weights.file.sha256)
    if config:
        assert (pin["config.json"]["bytes"], pin["config.json"]["sha256"]) == (config.bytes, config.sha256)


def test_released_sizes_have_the_released_ids(tmp_path, without_weights):
    write_checkpoint(tmp_path / "small", "tiny", "base")
    write_checkpoint(tmp_path / "large", "0.6b", "base")
    small, large = (Tokenizer.from_directory(tmp_path / name) for name in ("small", "large"))
    vocab = json.loads((tmp_path / "large" / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocab.values()) == list(range(151643))
    assert large.encode("<|im_start|>assistant\nuser<|im_end|>") == [151644, 77091, 198, 872, 151645]
    assert large.encode("<|endoftext|><tts_pad><tts_text_bos><tts_text_eod><|audio_pad|>") == [
        151643, 151671, 151672, 151673, 151675,
    ]  # fmt: skip
    assert large.vocab_size == 151676 <= RELEASED_TEXT.text_vocab_size
    text = "Hello world, the user said: assistant! 你好，今天天气 <tts_pad> ## [unused999]"
    assert large.decode(large.encode(text)) == text
    pieces = [[t.decode([i]) for i in t.encode(text)] for t in (small, large)]
    assert pieces[0] == pieces[1]


def test_tokenizer_files_can_be_given(tmp_path, without_weights):
    given_files = tmp_path / "given"
    given_files.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (given_files / name).write_text(name)
    write_checkpoint(tmp_path / "out", "1.7b", "voice_design", tokenizer=given_files)
    assert (tmp_path / "out" / "merges.txt").read_text() == "merges.txt"
    (given_files / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"^\S*given has no merges\.txt$"):
        write_checkpoint(tmp_path / "other", "1.7b", "base", tokenizer=given_files)
    with pytest.raises(CheckpointError, match=r"^tiny has its own small vocabulary"):
        write_checkpoint(tmp_path / "other", "tiny", "base", tokenizer=given_files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given", "out"]


# --- what can go wrong ----------------------------------------------------------------------------


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        with pytest.raises(CheckpointError, match=rf"^\S*{name} exists already and is not an empty directory$"):
            write_checkpoint(tmp_path / name, "tiny", "base")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine.txt", "used"]


def test_an_empty_directory_will_do(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_checkpoint(tmp_path / "link", "tiny", "voice_design")
    assert (tmp_path / "empty" / "model.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "link"]


def test_no_room_is_said_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"^\S*full needs 2511\.5 MB, and 1000\.0 MB are free$"):
        write_checkpoint(tmp_path / "full", "0.6b", "base")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "seen", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CheckpointError, "full cannot be written: No space left"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_nothing_is_left_half_written(tmp_path, monkeypatch, failure, seen, message):
    whole = SyntheticValues.__call__

    def until_the_end(self, spec):
        if spec.key.startswith("encoder.quantizer"):
            raise failure
        yield from whole(self, spec)

    monkeypatch.setattr(SyntheticValues, "__call__", until_the_end)
    with pytest.raises(seen, match=message):
        write_checkpoint(tmp_path / "full", "tiny", "base")
    assert list(tmp_path.iterdir()) == []


def test_a_model_nobody_released_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"^there is no 0\.6b voice_design model"):
        write_checkpoint(tmp_path / "out", "0.6b", "voice_design")
    assert list(tmp_path.iterdir()) == []


# --- the command ----------------------------------------------------------------------------------


def run(*argv: str) -> None:
    parser = argparse.ArgumentParser()
    synth.add_parser(parser.add_subparsers())
    args = parser.parse_args(["synth", *argv])
    args.run(args)


def test_the_command(tiny, tmp_path):
    run("--like", "tiny", "--type", "base", "--seed", "7", str(tmp_path / "out"))
    for name in ("config.json", "model.safetensors", "speech_tokenizer/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny / name).read_bytes()


@pytest.mark.parametrize("wrong", [("--like", "small"), ("--type", "clone"), ("--seed", "x")])
def test_the_command_names_its_choices(tmp_path, capsys, wrong):
    options = {"--like": "tiny", "--type": "base", "--seed": "0"} | dict([wrong])
    with pytest.raises(SystemExit):
        run(*(word for pair in options.items() for word in pair), str(tmp_path / "out"))
    assert repr(wrong[1]) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_like_and_type_is_a_choice():
    assert {(m.like, m.model_type) for m in published.MODELS} <= {(like, kind) for like in LIKES for kind in TYPES}
