"""What others get wrong about Qwen3-TTS: each row of the table in qwen3tts_np/README.md, held by a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel, Qwen3TTSTokenizer, trace
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_model_config
from qwen3tts_np.checkpoint.published import MODELS
from qwen3tts_np.config import CodecConfig, ModelConfig
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.synthetic.layouts import RELEASED_TEXT, codec_config, model_config

PACKAGE = Path(__file__).parents[1] / "qwen3tts_np"
SECTION = (PACKAGE / "README.md").read_text(encoding="utf-8").partition("## Often claimed\n")[2].partition("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
HELD: dict[str, Callable[..., None]] = {}
SIZES = {"0.6b": 1024, "1.7b": 2048}  # width of the talker
GREEDY = {"do_sample": False, "subtalker_dosample": False}


def holds(word: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test holds the row whose claim has this word."""

    def named(test: Callable[..., None]) -> Callable[..., None]:
        HELD[word] = test
        return test

    return named


@dataclass(frozen=True)
class Configured:
    """What a model says of itself; ``like`` is its size."""

    like: str
    model: ModelConfig
    codec: CodecConfig

    @property
    def keys(self) -> set[str]:
        return {spec.key for spec in (*model_specs(self.model), *codec_specs(self.codec))}


OFFICIAL = Path(__file__).parents[2] / "shared" / "reference"
FOLDERS = sorted((OFFICIAL / "configs").glob("*"))  # of the released models; none where they are not at hand


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> list[Configured]:
    """All five: by the synthetic layouts, which carry the official numbers, and by the official files if at hand."""
    found = [Configured(folder.name[:4].lower(), *read(folder)) for folder in FOLDERS]
    for name in MODELS:
        folder = tmp_path_factory.mktemp("configs")
        (folder / "speech_tokenizer").mkdir()
        contents = (model_config(name.like, name.model_type, RELEASED_TEXT), codec_config(name.like))
        for path, content in zip((folder, folder / "speech_tokenizer"), contents, strict=True):
            (path / "config.json").write_text(json.dumps(content), encoding="utf-8")
        found.append(Configured(name.like, *read(folder)))
    return found


def read(folder: Path) -> tuple[ModelConfig, CodecConfig]:
    return read_model_config(folder), read_codec_config(folder / "speech_tokenizer")


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"), backend="reference")


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, int]:
    return np.random.default_rng(0).uniform(-0.3, 0.3, 3 * 24000).astype(np.float32), 24000


# --- the table ------------------------------------------------------------------------------------


def test_every_row_has_a_test_and_every_test_a_row():
    assert len(ROWS) == len(HELD) >= 8
    for word in HELD:
        assert [word in claim for claim, *_ in ROWS].count(True) == 1, word


def test_every_row_points_at_a_file():
    for claim, _, where in ROWS:
        files = re.findall(r"`([^`]+)`", where)
        assert files, claim
        for file in files:
            assert (PACKAGE / file).is_file(), file


# --- its rows -------------------------------------------------------------------------------------


@holds("delay pattern")
def test_the_codes_of_a_frame_belong_together(model, clip):
    """The talker's step n and the code predictor's call n choose the codes of frame n, greedy: the largest logit."""
    voice = model.create_voice_clone_prompt(clip, x_vector_only_mode=True)
    with trace("talker.code_predictor.lm_head.*") as t:
        _, _, (codes,) = model.generate_voice_clone(
            "Hello.", voice_clone_prompt=voice, max_new_tokens=6, return_codes=True, **GREEDY
        )
    assert codes.shape[0] > 2
    for frame, chosen in enumerate(codes):
        largest = [int(np.argmax(t[f"talker.code_predictor.lm_head.{group}@{frame}"])) for group in range(15)]
        assert largest == chosen[1:].tolist()


def test_the_codec_decodes_the_codes_of_a_frame_at_once(model):
    """Whichever codebook changes at frame 2, samples change from the beginning of frame 2 and not before."""
    frame = model.speech_tokenizer.get_decode_upsample_rate()
    codes = np.random.default_rng(0).integers(0, 64, (5, 16))
    (before,), _ = model.speech_tokenizer.decode(codes)
    for group in range(16):
        other = codes.copy()
        other[2, group] += 1
        (after,), _ = model.speech_tokenizer.decode(other)
        np.testing.assert_array_equal(after[: 2 * frame], before[: 2 * frame])
        assert (after[2 * frame : 3 * frame] != before[2 * frame : 3 * frame]).any()


@holds("1/12")
def test_there_are_12_and_a_half_frames_per_second(released):
    for c in released:
        assert c.codec.output_sample_rate / c.codec.decode_upsample_rate == 12.5
        assert c.codec.input_sample_rate / c.codec.encode_downsample_rate == 12.5


@holds("embed_tokens")
def test_tensors_have_other_names(released):
    for c in released:
        check_names(c.keys)
    codec = OFFICIAL / "tensors" / "speech_tokenizer.tensors.json"
    for folder in FOLDERS:
        model = OFFICIAL / "tensors" / f"{folder.name}.tensors.json"
        check_names({name for path in (model, codec) for name in json.loads(path.read_text(encoding="utf-8"))})


def check_names(names: set[str]) -> None:
    assert not {name for name in names if name.startswith(("model.", "lm_head.")) or "embed_tokens" in name}
    assert not {name for name in names if "quantizers" in name.split(".")}
    heads = {name for name in names if "lm_head" in name}
    assert heads == {f"talker.code_predictor.lm_head.{group}.weight" for group in range(15)}
    wanted = ("talker.model.text_embedding", "talker.model.codec_embedding", "talker.codec_head")
    assert {f"{name}.weight" for name in wanted} <= names
    for quantizer in ("rvq_first", "rvq_rest"):
        assert any(name.startswith(f"decoder.quantizer.{quantizer}.") for name in names)


@holds("256 values")
def test_a_speaker_embedding_is_as_wide_as_the_talker(released, model, clip):
    encoders = [(c, c.model.speaker_encoder_config) for c in released if c.model.speaker_encoder_config is not None]
    assert {c.like for c, _ in encoders} == SIZES.keys()
    for c, encoder in encoders:
        assert encoder.enc_dim == c.model.talker_config.hidden_size == SIZES[c.like]
    (voice,) = model.create_voice_clone_prompt(clip, x_vector_only_mode=True)
    assert voice.ref_spk_embedding.shape == (model.config.talker_config.hidden_size,)


@holds("codec encoder")
def test_a_speaker_embedding_comes_from_the_speaker_encoder(released, model, clip):
    with trace() as t:
        model.create_voice_clone_prompt(clip, x_vector_only_mode=True)
    assert {re.split("[.@]", name)[0] for name in t} == {"speaker_encoder"}
    for c in released:
        own = [spec.key for spec in model_specs(c.model) if spec.key.startswith("speaker_encoder.")]
        assert bool(own) is (c.model.tts_model_type == "base")
        assert not [spec.key for spec in codec_specs(c.codec) if "speaker" in spec.key]


@holds("20 layers")
def test_the_talker_has_28_layers(released):
    for c in released:
        talker = c.model.talker_config
        assert (talker.num_hidden_layers, talker.code_predictor_config.num_hidden_layers) == (28, 5)
        assert (c.codec.decoder_config.num_hidden_layers, c.codec.encoder_config.num_hidden_layers) == (8, 8)


@holds("speech_tokenizer/tokenizer_config.json")
def test_the_codec_has_no_tokenizer_config(synthetic):
    ours = synthetic("tiny", "base")
    for folder in (ours, *FOLDERS):
        assert (folder / "tokenizer_config.json").is_file()
        assert not (folder / "speech_tokenizer" / "tokenizer_config.json").exists()
        assert (folder / "speech_tokenizer" / "preprocessor_config.json").is_file()
    assert Qwen3TTSTokenizer.from_pretrained(ours / "speech_tokenizer").get_output_sample_rate() == 24000


@holds(".audio")
def test_speech_is_a_list_of_waveforms_and_a_rate(model, clip):
    voice = model.create_voice_clone_prompt(clip, x_vector_only_mode=True)
    spoken = model.generate_voice_clone("Hello.", voice_clone_prompt=voice, max_new_tokens=4, **GREEDY)
    assert isinstance(spoken, tuple) and not hasattr(spoken, "audio")
    wavs, rate = spoken
    assert rate == 24000 and len(wavs) == 1
    assert wavs[0].dtype == np.float32 and wavs[0].ndim == 1
