"""Checkpoints that training writes: complete, loaded without a problem, and what their parts say they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qwen3tts_np_kernels.bfloat16 import round_ref

from qwen3tts_np import Qwen3TTSModel, cli
from qwen3tts_np.checkpoint.adapter import Adapter, with_speakers
from qwen3tts_np.checkpoint.json_file import read_json
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.errors import CheckpointError, MissingFileError, RequestError
from qwen3tts_np.layout.description import describe
from qwen3tts_np.training.adapters import adapted_modules, new_addition, write_adapter
from qwen3tts_np.training.checkpoints import (
    NewCheckpoint,
    check_base,
    link_folder,
    speaker_rows,
    write_checkpoint,
)
from qwen3tts_np.training.surgery import Surgery, of_last_layers, operate

TEXT = "It rained."


@pytest.fixture
def base(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture
def adapter(base: Path) -> Adapter:
    """Additions to every projection, none of them zero, and a voice."""
    draw = np.random.default_rng(1)
    stored = Checkpoint.open(base)
    additions = {}
    for module in adapted_modules(stored):
        a, b = new_addition(module, stored[f"{module}.weight"].shape, 4, seed=0)
        additions[module] = a, draw.normal(0, 0.05, b.shape).astype(np.float32)
    row = speaker_rows(read_json(base / "config.json"), ["Ada"])["ada"]
    voice = draw.normal(0, 0.5, 64).astype(np.float32)
    return Adapter(additions, 4, 8.0, {row: voice}, {"ada": row})


def merged(base: Path, adapter: Adapter, target: Path) -> Path:
    config = with_speakers(read_json(base / "config.json"), adapter.speakers)
    new = NewCheckpoint(base, config, adapter=adapter, rows=adapter.rows, speakers=adapter.speakers, card="# Ada\n")
    write_checkpoint(target, new)
    return target


def separate(base: Path, adapter: Adapter, target: Path) -> Path:
    target.mkdir()
    write_adapter(target, adapter, base.name, 64)
    return target


def codes(model: Qwen3TTSModel, speaker: str = "ada") -> np.ndarray:
    _, _, found = model.generate_custom_voice(
        TEXT, speaker, do_sample=False, subtalker_dosample=False, max_new_tokens=8, return_codes=True
    )
    return found[0]


def load(path: Path, adapter: Path | None = None) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(path, backend="reference", adapter=adapter)


def test_merged_is_separate(base, adapter, tmp_path):
    whole = merged(base, adapter, tmp_path / "whole")
    alone = separate(base, adapter, tmp_path / "alone")
    mapped, loaded = Checkpoint.open(whole), Adapter.open(alone).merged(Checkpoint.open(base))
    changed = 0
    for name, stored in mapped.items():
        np.testing.assert_array_equal(stored.data, loaded[name].data, err_msg=name)
        changed += not np.array_equal(stored.data, Checkpoint.open(base)[name].data)
    assert changed == len(adapter.additions) + 1  # and the row of the voice
    np.testing.assert_array_equal(codes(load(whole)), codes(load(base, alone)))
    assert Adapter.open(whole / "adapter").alpha == 8


def test_what_an_adapter_adds(base, adapter):
    before, after = Checkpoint.open(base), adapter.merged(Checkpoint.open(base))
    module, (a, b) = next(iter(adapter.additions.items()))
    weight = before[f"{module}.weight"].widen(np.dtype(np.float32)) + np.float32(8 / 4) * (b @ a)
    np.testing.assert_array_equal(after[f"{module}.weight"].data, round_ref(weight))
    table = "talker.model.codec_embedding.weight"
    assert np.flatnonzero((after[table].data != before[table].data).any(axis=1)).tolist() == list(adapter.rows)
    for row, voice in adapter.rows.items():
        np.testing.assert_array_equal(after[table].data[row], round_ref(voice))


def test_an_adapter_returns_from_disk(base, adapter, tmp_path):
    found = Adapter.open(separate(base, adapter, tmp_path / "alone"))
    assert (found.rank, found.alpha, found.speakers) == (4, 8.0, adapter.speakers)
    assert found.additions.keys() == adapter.additions.keys()
    for module, (a, b) in adapter.additions.items():
        np.testing.assert_array_equal(found.additions[module][0], a)
        np.testing.assert_array_equal(found.additions[module][1], b)
    for row, values in adapter.rows.items():
        np.testing.assert_array_equal(found.rows[row], values)


def test_names_and_config_are_those_of_peft(base, adapter, tmp_path):
    alone = separate(base, adapter, tmp_path / "alone")
    config = read_json(alone / "adapter_config.json")
    assert config["peft_type"] == "LORA" and config["r"] == 4 and config["lora_alpha"] == 8.0
    assert "talker.model.layers.0.self_attn.q_proj" in config["target_modules"]
    stored = Checkpoint.open(alone / "adapter_model.safetensors")
    prefix = "base_model.model.talker.code_predictor.model.layers.1.mlp.down_proj.lora_"
    assert stored[f"{prefix}A.weight"].shape == (4, 96) and stored[f"{prefix}B.weight"].shape == (64, 4)
    assert stored.metadata == {"format": "pt"}


def test_a_new_addition_adds_nothing(base):
    stored = Checkpoint.open(base)
    module = adapted_modules(stored)[0]
    a, b = new_addition(module, stored[f"{module}.weight"].shape, 4, seed=0)
    unchanged = Adapter({module: (a, b)}, 4, 4.0).merged(stored)[f"{module}.weight"]
    np.testing.assert_array_equal(unchanged.data, stored[f"{module}.weight"].data)
    assert np.abs(a).max() > 0


def test_a_checkpoint_is_complete(base, adapter, tmp_path):
    whole = merged(base, adapter, tmp_path / "whole")
    found = describe(whole)
    assert found.problems == []
    assert found.config is not None and found.config.tts_model_type == "custom_voice"
    assert found.config.talker_config.spk_id == adapter.speakers
    assert not any(name.startswith("speaker_encoder.") for name in Checkpoint.open(whole))
    assert (whole / "README.md").read_text() == "# Ada\n"
    stated = read_json(whole / "speaker_config.json")
    assert stated["speaker_name"] == "ada" and stated["speaker_embedding_dim"] == 64
    codec = "speech_tokenizer/model.safetensors"
    assert (whole / codec).read_bytes() == (base / codec).read_bytes()


def test_what_is_not_trained_is_as_it_was(base, tmp_path):
    write_checkpoint(tmp_path / "same", NewCheckpoint(base, read_json(base / "config.json")))
    one, other = Checkpoint.open(base), Checkpoint.open(tmp_path / "same")
    assert one.keys() == other.keys()
    for name, stored in one.items():
        assert stored.dtype == other[name].dtype
        np.testing.assert_array_equal(stored.data, other[name].data)


def test_a_checkpoint_in_place_of_another(base, adapter, tmp_path):
    whole = merged(base, adapter, tmp_path / "whole")
    new = NewCheckpoint(base, read_json(base / "config.json"))
    with pytest.raises(RequestError, match="exists already"):
        write_checkpoint(whole, new)
    write_checkpoint(whole, new, over=True)
    assert describe(whole).config.tts_model_type == "base"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_linked_folder_takes_no_room_and_has_the_same_bytes(base, adapter, tmp_path):
    whole = merged(base, adapter, tmp_path / "whole")
    for _ in range(2):  # the second time in place of the first
        link_folder(whole, tmp_path / "best")
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) > 10
    for name in files:
        assert (whole / name).read_bytes() == (tmp_path / "best" / name).read_bytes()
    assert (whole / "model.safetensors").samefile(tmp_path / "best" / "model.safetensors")


# --- voices ---------------------------------------------------------------------------------------


def test_voices_get_row_3000_then_the_highest_free_ones():
    talker = {"vocab_size": 3072, "code_predictor_config": {"vocab_size": 2048}, "codec_pad_id": 3071}
    talker |= {"codec_language_id": {"x": 3070}, "spk_id": {"Bob": 2061}}
    rows = speaker_rows({"talker_config": talker}, ["Ada", "ada", "Eve", "bob"])
    assert rows == {"ada": 3000, "eve": 3069, "bob": 2061}
    talker["codec_language_id"]["y"] = 3000
    assert speaker_rows({"talker_config": talker}, ["Ada"]) == {"ada": 3069}


def test_a_small_table_has_no_row_3000(base):
    config = read_json(base / "config.json")
    assert speaker_rows(config, ["Ada"])["ada"] == config["talker_config"]["vocab_size"] - 1


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_a_name_that_no_voice_can_have(base, name):
    with pytest.raises(RequestError, match="name of a voice"):
        speaker_rows(read_json(base / "config.json"), [name])


def test_more_voices_than_rows():
    talker = {"vocab_size": 10, "code_predictor_config": {"vocab_size": 8}, "codec_pad_id": 9}
    with pytest.raises(RequestError, match="no row left for b"):
        speaker_rows({"talker_config": talker}, ["a", "b"])


# --- surgery --------------------------------------------------------------------------------------


def test_added_layers_are_the_identity(base, adapter, tmp_path):
    whole = merged(base, adapter, tmp_path / "whole")
    operate(whole, tmp_path / "more", Surgery(add=2))
    assert describe(tmp_path / "more").problems == []
    assert read_json(tmp_path / "more" / "config.json")["talker_config"]["num_hidden_layers"] == 5
    np.testing.assert_array_equal(codes(load(whole)), codes(load(tmp_path / "more")))


@pytest.mark.parametrize("surgery", [Surgery(replace_last=1), Surgery(add=1, init="xavier")])
def test_other_layers_are_not(base, adapter, tmp_path, surgery):
    whole = merged(base, adapter, tmp_path / "whole")
    operate(whole, tmp_path / "other", surgery)
    assert describe(tmp_path / "other").problems == []
    assert not np.array_equal(codes(load(whole)), codes(load(tmp_path / "other")))


def test_new_layers_are_xavier_and_follow_the_seed(base):
    weights = Surgery(replace_last=1, add=1, seed=3).weights(base)
    assert {name.split(".")[3] for name in weights} == {"2", "3"} and len(weights) == 22
    up = weights["talker.model.layers.2.mlp.up_proj.weight"]
    most = np.sqrt(6 / (64 + 160))
    assert 0.95 * most < np.abs(up).max() <= most
    assert not weights["talker.model.layers.3.mlp.down_proj.weight"].any()
    assert weights["talker.model.layers.2.mlp.down_proj.weight"].any()
    np.testing.assert_array_equal(
        up, Surgery(replace_last=2, seed=3).weights(base)["talker.model.layers.2.mlp.up_proj.weight"]
    )
    assert not np.array_equal(
        up, Surgery(replace_last=1, seed=4).weights(base)["talker.model.layers.2.mlp.up_proj.weight"]
    )


def test_the_kinds_of_layers_grow_with_them():
    talker = {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    config = Surgery(add=2).config({"talker_config": talker})
    assert config["talker_config"]["layer_types"] == ["full_attention"] * 4 and talker["num_hidden_layers"] == 2


def test_more_layers_than_there_are(base):
    with pytest.raises(RequestError, match="replace_last=9, and the talker has 3 layers"):
        Surgery(replace_last=9).weights(base)
    with pytest.raises(RequestError, match="the last 4 layers"):
        of_last_layers(Checkpoint.open(base), 4)
    assert {name.split(".")[3] for name in of_last_layers(Checkpoint.open(base), 2)} == {"1", "2"}


# --- refused --------------------------------------------------------------------------------------


def test_a_quantised_base_is_refused(base, tmp_path, adapter):
    from qwen3tts_np.layout.convert import convert

    convert(base, tmp_path / "small", "int8")
    with pytest.raises(RequestError, match="quantised; training begins from the original"):
        check_base(tmp_path / "small")
    with pytest.raises(RequestError, match="quantised; an adapter needs"):
        load(tmp_path / "small", separate(base, adapter, tmp_path / "alone"))


def test_an_adapter_of_another_model(base, adapter, tmp_path, synthetic):
    alone = separate(base, adapter, tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"the adapter's addition to .* is \[.*\], the model's is"):
        load(synthetic("tiny-1.7b", "base"), alone)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True, which is not implemented here"),
        ({"r": 5}, "are not of rank 5"),
        ({"r": "4"}, "r is '4'"),
        ({"trainable_token_indices": None}, "are not those of trainable_token_indices"),
    ],
)
def test_a_wrong_adapter(base, adapter, tmp_path, change, told):
    alone = separate(base, adapter, tmp_path / "alone")
    path = alone / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=told):
        Adapter.open(alone)


def test_no_adapter(tmp_path, capsys, base):
    with pytest.raises(MissingFileError, match=r"holds no adapter_config\.json"):
        Adapter.open(tmp_path)
    assert cli.main(["say", str(base), "Hello.", "--adapter", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_say_and_clone_with_an_adapter(base, adapter, tmp_path, monkeypatch):
    separate(base, adapter, tmp_path / "ada")
    monkeypatch.chdir(tmp_path)
    short = ["--greedy", "--max-new-tokens", "4"]
    assert cli.main(["say", str(base), TEXT, "--adapter", "ada", "--speaker", "Ada", "-o", "said.wav", *short]) == 0
    assert (
        cli.main(["clone", str(base), TEXT, "--adapter", "ada", "--ref-audio", clip(tmp_path), "-o", "c.wav", *short])
        == 0
    )


def clip(folder: Path) -> str:
    import soundfile

    wave = 0.3 * np.sin(np.arange(24000 * 3) * 0.04) * np.sin(np.arange(24000 * 3) * 0.0005)
    soundfile.write(folder / "clip.wav", wave, 24000)
    return str(folder / "clip.wav")


def test_an_adapter_that_is_damaged(base, adapter, tmp_path):
    alone = separate(base, adapter, tmp_path / "alone")
    shutil.copy(base / "model.safetensors", alone / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="is no part of a low-rank addition"):
        Adapter.open(alone)
