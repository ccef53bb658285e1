"""config.json and its companions: what loads, what is refused, and whether the refusal names the culprit."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np.checkpoint.config_file import (
    GENERATION_DEFAULTS,
    SPEAKER_ENCODER_DEFAULTS,
    read_codec_config,
    read_generation_config,
    read_model_config,
)
from qwen3tts_np.config import CodecConfig, GenerationConfig, ModelConfig, SpeakerEncoderConfig
from qwen3tts_np.errors import ConfigError
from qwen3tts_np.synthetic import layouts
from qwen3tts_np.synthetic.layouts import RELEASED_TEXT

RELEASED = ["0.6B-Base", "0.6B-CustomVoice", "1.7B-Base", "1.7B-CustomVoice", "1.7B-VoiceDesign"]


def model_json(like="tiny", model_type="base"):
    return layouts.model_config(like, model_type, RELEASED_TEXT)


def read(reader, directory, raw, name="config.json"):
    text = raw if isinstance(raw, str) else json.dumps(raw)
    (directory / name).write_text(text, encoding="utf-8")
    return reader(directory)


def refusal(reader, directory, raw, name="config.json") -> str:
    with pytest.raises(ConfigError) as error:
        read(reader, directory, raw, name)
    message = str(error.value)
    assert message.startswith(str(directory / name)), message
    assert "\n" not in message, message
    return message


# --- what loads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations(reference, name):
    directory = reference / "configs" / name
    model, codec = read_model_config(directory), read_codec_config(directory / "speech_tokenizer")
    facts = json.loads((reference / "facts.json").read_text())
    large, custom = name.startswith("1.7B"), name.endswith("CustomVoice")
    talker = model.talker_config

    kind = {"Base": "base", "CustomVoice": "custom_voice", "VoiceDesign": "voice_design"}[name.split("-")[1]]
    assert (model.tts_model_type, model.tts_model_size) == (kind, "1b7" if large else "0b6")
    assert (talker.hidden_size, talker.intermediate_size) == ((2048, 6144) if large else (1024, 3072))
    assert (talker.num_hidden_layers, talker.num_attention_heads, talker.num_key_value_heads) == (28, 16, 8)
    assert (talker.head_dim, talker.vocab_size, talker.text_hidden_size) == (128, 3072, 2048)
    assert (talker.rope_theta, talker.rms_norm_eps, type(talker.rope_theta)) == (1e6, 1e-6, float)
    assert talker.code_predictor_config.hidden_size == 1024
    assert talker.code_predictor_config.num_hidden_layers == 5
    assert talker.num_code_groups == codec.encoder_valid_num_quantizers == 16
    assert (model.speaker_encoder_config is None) == (kind != "base")

    languages = facts["codec_language_id"]
    dialects = languages.pop("_customvoice_only")
    assert talker.codec_language_id == (languages | dialects if custom else languages)
    assert talker.spk_id == (facts["spk_id"] if custom else {})
    spoken = {name: d for name, d in talker.spk_is_dialect.items() if d}
    assert spoken == ({n: d for n, d in facts["spk_is_dialect"].items() if d} if custom else {})
    assert talker.codec_eos_token_id == facts["codec_ids"]["eos"]
    assert model.tts_pad_token_id == facts["text_ids"]["<tts_pad>"]

    assert (codec.decoder_config.head_dim, codec.encoder_config.head_dim) == (64, 64)
    assert codec.encoder_config.downsample_stride == 2
    assert read_generation_config(directory).max_new_tokens == 8192


@pytest.mark.parametrize("like", layouts.LIKES)
@pytest.mark.parametrize("model_type", layouts.TYPES)
def test_every_layout_of_ours_loads(tmp_path, like, model_type):
    model = read(read_model_config, tmp_path, model_json(like, model_type))
    codec = read(read_codec_config, tmp_path, layouts.codec_config(like))
    assert model.tts_model_type == model_type
    assert model.talker_config.num_code_groups == codec.decoder_config.num_quantizers


def test_fine_tuned_from_base(tmp_path):
    """The official fine-tuning script writes the base config with another type and one speaker, and drops weights."""
    raw = model_json("0.6b", "base")
    raw["tts_model_type"] = "custom_voice"
    raw["talker_config"] |= {"spk_id": {"My_Speaker": 3000}, "spk_is_dialect": {"My_Speaker": False}}
    raw["talker_config"]["num_hidden_layers"] = 20
    raw["talker_config"]["code_predictor_config"]["num_hidden_layers"] = 3
    config = read(read_model_config, tmp_path, raw)
    assert config.speaker_encoder_config is None  # its weights are not in the file, whatever the config says
    assert config.talker_config.spk_id == {"my_speaker": 3000}  # callers may write a name in any case
    assert config.talker_config.spk_is_dialect == {"my_speaker": False}
    assert config.talker_config.num_hidden_layers == 20
    assert config.talker_config.code_predictor_config.num_hidden_layers == 3


def test_unknown_keys_are_ignored(tmp_path):
    def sprinkle(node):
        if isinstance(node, dict) and not {"english", "ryan"} & node.keys():
            return {"a_new_key": {"with": ["anything"]}} | {key: sprinkle(value) for key, value in node.items()}
        return node

    model, codec = model_json("tiny", "custom_voice"), layouts.codec_config("tiny")
    assert read(read_model_config, tmp_path, sprinkle(model)) == read(read_model_config, tmp_path, model)
    assert read(read_codec_config, tmp_path, sprinkle(codec)) == read(read_codec_config, tmp_path, codec)


def test_what_the_official_classes_fill_in(tmp_path):
    model = read(read_model_config, tmp_path, model_json("0.6b"))
    assert model.speaker_encoder_config == SpeakerEncoderConfig(
        128, 1024, (512, 512, 512, 512, 1536), (5, 3, 3, 3, 1), (1, 2, 3, 4, 1), 128, 8, 128, 24000
    )
    codec = layouts.codec_config("0.6b")
    del codec["decoder_config"]["head_dim"], codec["encoder_config"]["head_dim"]
    config = read(read_codec_config, tmp_path, codec)
    assert (config.decoder_config.head_dim, config.encoder_config.head_dim) == (512 // 16, 512 // 8)


def test_generation_config(tmp_path):
    assert read_generation_config(tmp_path) == GenerationConfig(**GENERATION_DEFAULTS)  # no file
    given_ = read(read_generation_config, tmp_path, {"top_k": 7, "temperature": 1}, "generation_config.json")
    assert given_ == GenerationConfig(**GENERATION_DEFAULTS | {"top_k": 7, "temperature": 1.0})
    for key, default in GENERATION_DEFAULTS.items():
        for wrong in (None, "x", -1, [default], 0.5 if type(default) is int else {}):
            assert key in refusal(read_generation_config, tmp_path, {key: wrong}, "generation_config.json")


# --- one wrong value ------------------------------------------------------------------------------


def declared(cls, path=()):
    """(path, type) of every key that a configuration class and those inside it declare."""
    for field in fields(cls):
        hint = get_type_hints(cls)[field.name]
        hint = next((part for part in get_args(hint) if hasattr(part, "__dataclass_fields__")), hint)
        yield (*path, field.name), hint
        if hasattr(hint, "__dataclass_fields__"):
            yield from declared(hint, (*path, field.name))


FILES = {
    "model": (read_model_config, model_json("tiny", "base"), list(declared(ModelConfig))),
    "codec": (read_codec_config, layouts.codec_config("tiny"), list(declared(CodecConfig))),
}
WRONG: dict[Any, list[Any]] = {
    int: [None, "1", 1.0, 1.5, True, -1, [1], {}, 2**31, 10**400],
    float: [None, "1", True, -1e-6, [1.0], {}, 10**400, float("inf"), float("nan")],
    str: [None, 1, True, ["base"], {}],
    tuple: [None, 1, "1", [], {}, ["a"], [1, -1], [1, True], [1, 1.0], [[1]]],
    dict: [None, 1, "x", [], {"a": {}}, {"a": None}, {"a": -1}, {"a": 1.5}],
    object: [None, 1, "x", []],  # a nested class
}
HAS_DEFAULT = {*SPEAKER_ENCODER_DEFAULTS, "head_dim"}


def put(raw, path, value):
    """A copy of ``raw`` with one value replaced; with ``...`` it is deleted."""
    changed = copy.deepcopy(raw)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    if value is ...:
        del node[path[-1]]
    return changed


@pytest.mark.parametrize("file", FILES)
def test_a_missing_key_is_named(tmp_path, file):
    reader, raw, keys = FILES[file]
    for path, _ in keys:
        node = raw
        for key in path[:-1]:
            node = node[key]
        if path[-1] not in HAS_DEFAULT or (file == "model" and path[-1] == "head_dim"):
            message = refusal(reader, tmp_path, put(raw, path, ...))
            assert path[-1] in message, (path, message)
            assert "missing" in message or path == ("talker_config",), message


@pytest.mark.parametrize("file", FILES)
def test_an_ill_typed_value_is_named(tmp_path, file):
    reader, raw, keys = FILES[file]
    for path, hint in keys:
        kind = get_origin(hint) or hint
        for wrong in WRONG[kind if kind in WRONG else object]:
            message = refusal(reader, tmp_path, put(raw, path, wrong))
            assert path[-1] in message or "not a number in JSON" in message, (path, wrong, message)
            assert len(message) < len(str(tmp_path)) + 250, message


@pytest.mark.parametrize("file", FILES)
def test_only_ids_may_be_zero(tmp_path, file):
    reader, raw, keys = FILES[file]
    for path, hint in keys:
        zero = {int: 0, float: 0.0}.get(hint, [0] if get_origin(hint) is tuple else None)
        if zero is None:
            continue
        if path[-1].endswith("_id"):
            read(reader, tmp_path, put(raw, path, zero))
        else:
            assert path[-1] in refusal(reader, tmp_path, put(raw, path, zero))


def unsupported(cls, path=()):
    for key, only in getattr(cls, "FIXED", {}).items():
        yield (*path, key), only
    for field in fields(cls):
        for part in (get_type_hints(cls)[field.name], *get_args(get_type_hints(cls)[field.name])):
            if hasattr(part, "__dataclass_fields__"):
                yield from unsupported(part, (*path, field.name))


def test_another_architecture_is_refused(tmp_path):
    seen = set()
    for reader, raw, cls in ((*FILES["model"][:2], ModelConfig), (*FILES["codec"][:2], CodecConfig)):
        for path, only in unsupported(cls):
            other = {bool: not only, int: 7, str: "another"}[type(only)]
            message = refusal(reader, tmp_path, put(raw, path, other))
            assert f"{path[-1]} = {other!r}" in message, message
            assert repr(only) in message, message
            seen.add(path[-1])
    assert {"attention_bias", "hidden_act", "use_sliding_window", "pad_mode", "tokenizer_type", "mel_dim"} <= seen


@pytest.mark.parametrize("scaling", [{"rope_type": "yarn", "factor": 4.0}, {"type": "linear"}, "dynamic"])
def test_another_rotary_embedding_is_refused(tmp_path, scaling):
    for path in (("talker_config",), ("talker_config", "code_predictor_config")):
        assert "rope_scaling" in refusal(
            read_model_config, tmp_path, put(model_json(), (*path, "rope_scaling"), scaling)
        )


@pytest.mark.parametrize(
    "parameters", [{"rope_type": "linear"}, {"rope_type": "default", "partial_rotary_factor": 0.5}]
)
@pytest.mark.parametrize("scaling", [{"rope_type": "default"}, None])
def test_what_transformers_5_says_counts_beside_what_earlier_versions_say(tmp_path, parameters, scaling):
    """``rope_parameters`` beside a ``rope_scaling`` of an earlier version that says otherwise."""
    for path in (("talker_config",), ("talker_config", "code_predictor_config")):
        raw = put(model_json(), (*path, "rope_scaling"), scaling)
        raw = put(raw, (*path, "rope_parameters"), {"rope_theta": 1e6, **parameters})
        told = refusal(read_model_config, tmp_path, raw)
        assert "rope_scaling is 'linear'" in told or "partial_rotary_factor = 0.5" in told


def test_layers_that_do_not_look_back_on_everything_are_refused(tmp_path):
    for path in (("talker_config",), ("talker_config", "code_predictor_config")):
        raw = put(model_json(), (*path, "layer_types"), ["full_attention", "sliding_attention"])
        assert "layer_types has 'sliding_attention'" in refusal(read_model_config, tmp_path, raw)


BASE = FILES["model"][1]["talker_config"]["hidden_size"]
TALKER, SPEAKER = ("talker_config",), ("speaker_encoder_config",)
DECODER, ENCODER = ("decoder_config",), ("encoder_config",)


@pytest.mark.parametrize(
    ("file", "path", "value", "told"),
    [
        ("model", (*TALKER, "num_key_value_heads"), 3, "must be a multiple of num_key_value_heads=3"),
        ("model", (*TALKER, "head_dim"), 33, "head_dim=33 must be even"),
        ("model", (*TALKER, "num_code_groups"), 8, "num_code_groups=8, but the code predictor has 16"),
        ("model", (*TALKER, "codec_bos_id"), 5000, "codec_bos_id = 5000 lies outside the table of vocab_size=1152"),
        ("model", (*TALKER, "spk_id"), {"ann": 1152}, "spk_id 'ann' = 1152 lies outside"),
        ("model", (*TALKER, "codec_language_id"), {"thai": 1152}, "codec_language_id 'thai' = 1152 lies outside"),
        ("model", (*TALKER, "spk_is_dialect"), {"ann": "elvish"}, "'elvish' is not in codec_language_id"),
        ("model", (*TALKER, "text_vocab_size"), 100, "lies outside the table of text_vocab_size=100"),
        ("model", ("tts_model_type",), "singing", "'singing' is none of base, custom_voice, voice_design"),
        ("model", (*SPEAKER, "enc_dim"), BASE + 1, f"must be the talker's hidden_size={BASE}"),
        ("model", (*SPEAKER, "enc_dilations"), [1, 2, 3], "must have one length, at least 3"),
        ("model", (*SPEAKER, "enc_channels"), [24, 24, 24, 24, 70], "the last is the concatenation"),
        ("model", (*SPEAKER, "enc_channels"), [24, 24, 20, 28, 72], "must be equal"),
        ("model", (*SPEAKER, "enc_res2net_scale"), 5, "enc_res2net_scale=5 must divide the 24 channels"),
        ("codec", ("decode_upsample_rate",), 1000, "decode_upsample_rate=1000, but the rates multiply to 1920"),
        ("codec", ("encode_downsample_rate",), 1000, "encode_downsample_rate=1000, but the strides multiply to 1920"),
        ("codec", ("encoder_valid_num_quantizers",), 8, "encoder_valid_num_quantizers=8 must be equal"),
        ("codec", (*ENCODER, "num_quantizers"), 9, "num_quantizers=9 is less than encoder_valid_num_quantizers=16"),
        ("codec", (*ENCODER, "codebook_size"), 64, "codebook_size is 64 in the encoder and 128 in the decoder"),
        ("codec", (*ENCODER, "codebook_dim"), 20, "must be codebook_dim=20"),
        ("codec", (*DECODER, "decoder_dim"), 100, "decoder_dim=100 must be a multiple of 16"),
        ("codec", (*DECODER, "codebook_dim"), 47, "codebook_dim=47 must be even"),
    ],
)
def test_values_that_contradict_each_other(tmp_path, file, path, value, told):
    reader, raw, _ = FILES[file]
    assert told in refusal(reader, tmp_path, put(raw, path, value))


# --- whole files ----------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    for reader in (read_model_config, read_codec_config):
        with pytest.raises(ConfigError, match=r"config\.json not found; is .* a Qwen3-TTS checkpoint directory\?"):
            reader(tmp_path / "nowhere")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_model_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ":1: not valid JSON"),
        ('{\n "a": 1\n "b"}', ":3: not valid JSON"),
        ("[1]", "a JSON object was expected, found list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is not a number in JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"model_type": "qwen3"}', "has no talker_config: model_type is 'qwen3', not 'qwen3_tts'"),
    ],
)
def test_not_a_configuration(tmp_path, text, told):
    assert told in refusal(read_model_config, tmp_path, text)


def test_not_utf8(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="byte 7 is not UTF-8"):
        read_model_config(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@given(data=st.data(), file=st.sampled_from(sorted(FILES)))
def test_any_values_load_or_are_refused(tmp_path_factory, data, file):
    reader, raw, keys = FILES[file]
    paths = data.draw(st.lists(st.sampled_from([path for path, _ in keys]), min_size=1, max_size=3))
    for path in sorted(paths, key=len, reverse=True):  # inner ones first, so that the way to them is still there
        raw = put(raw, path, data.draw(JSON))
    directory = tmp_path_factory.getbasetemp()
    with contextlib.suppress(ConfigError):
        read(reader, directory, raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    directory = tmp_path_factory.getbasetemp()
    (directory / "config.json").write_bytes(content)
    with pytest.raises(ConfigError):
        read_model_config(directory)
