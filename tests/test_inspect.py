"""The architecture in numbers: counted against the tables, against what a run multiplies, and against what it hears."""

from __future__ import annotations

import json
import re
import shutil
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from fine_tuned import fine_tuned

from qwen3tts_np import Qwen3TTSModel, Qwen3TTSTokenizer, cli, ops
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_model_config
from qwen3tts_np.inspect.architecture import WHENS, Block
from qwen3tts_np.inspect.inspection import inspect_checkpoint, share_of_reads
from qwen3tts_np.inspect.readme import inspect_released
from qwen3tts_np.inspect.receptive import decoder_fields, encoder_fields, frames_of_a_sample
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.report.values import si
from qwen3tts_np.speaker.encoder import speaker_embedding
from qwen3tts_np.trace import trace


@pytest.fixture(scope="module")
def base(synthetic):
    return synthetic("tiny", "base")


def leaves(block: Block) -> list[Block]:
    return [block] if block.shape is not None else [leaf for child in block.children for leaf in leaves(child)]


def find(block: Block, path: str) -> Block:
    return next(b for b in walk(block) if b.path == path)


def walk(block: Block):
    yield block
    for child in block.children:
        yield from walk(child)


# --- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("like", "kind"), [("tiny", "base"), ("tiny-1.7b", "custom_voice")])
def test_every_parameter_and_byte_is_counted_once(synthetic, like, kind):
    directory = synthetic(like, kind)
    found = inspect_checkpoint(directory, 10)
    assert found.ok()
    codec = read_codec_config(directory / "speech_tokenizer")
    wanted = [*model_specs(read_model_config(directory)), *codec_specs(codec)]
    assert sum(block.parameters for block in found.blocks) == sum(spec.size for spec in wanted)
    assert sum(leaf.count for block in found.blocks for leaf in leaves(block)) == len(wanted)
    files = [directory / "model.safetensors", directory / "speech_tokenizer" / "model.safetensors"]
    headers = [8 + int.from_bytes(file.read_bytes()[:8], "little") for file in files]
    assert sum(block.bytes for block in found.blocks) == sum(f.stat().st_size for f in files) - sum(headers)
    for block in found.blocks:
        for part in walk(block):
            assert not part.children or part.parameters == sum(child.parameters for child in part.children)


def test_alike_blocks_are_one_line_with_official_names(base):
    talker, predictor = inspect_checkpoint(base, 10).blocks[:2]
    layers = find(talker, "talker.model.layers.0-2")
    assert (layers.count, layers.official) == (3, "Qwen3TTSTalkerDecoderLayer")
    assert find(predictor, "talker.code_predictor.model.layers.0-1").official == "Qwen3TTSDecoderLayer"
    heads = find(predictor, "talker.code_predictor.lm_head.0-14")
    assert heads.count == 15
    assert heads.tensor is not None and heads.tensor.shape == (128, 64)


OFFICIAL = {  # every block of a base model that is a class of the official package; the last of those that share a path
    "talker": "Qwen3TTSTalkerForConditionalGeneration",
    "talker.model.layers.*": "Qwen3TTSTalkerDecoderLayer",
    "talker.model.layers.*.self_attn": "Qwen3TTSTalkerAttention",
    "talker.model.layers.*.mlp": "Qwen3TTSTalkerTextMLP",
    "talker.code_predictor": "Qwen3TTSTalkerCodePredictorModelForConditionalGeneration",
    "talker.code_predictor.model.layers.*": "Qwen3TTSDecoderLayer",
    "talker.code_predictor.model.layers.*.self_attn": "Qwen3TTSAttention",
    "talker.code_predictor.model.layers.*.mlp": "Qwen3TTSTalkerTextMLP",
    "speaker_encoder": "Qwen3TTSSpeakerEncoder",
    "speaker_encoder.blocks.*": "SqueezeExcitationRes2NetBlock",
    "speaker_encoder.blocks.*.res2net_block": "Res2NetBlock",
    "decoder": "Qwen3TTSTokenizerV2Decoder",
    "decoder.quantizer.rvq_first": "ResidualVectorQuantizer",
    "decoder.quantizer.rvq_first.vq.layers.*": "EuclideanCodebook",
    "decoder.quantizer.rvq_rest": "ResidualVectorQuantizer",
    "decoder.quantizer.rvq_rest.vq.layers.*": "EuclideanCodebook",
    "decoder.pre_transformer": "Qwen3TTSTokenizerV2DecoderTransformerModel",
    "decoder.pre_transformer.layers.*": "Qwen3TTSTokenizerV2DecoderTransformerLayer",
    "decoder.pre_transformer.layers.*.self_attn": "Qwen3TTSTokenizerV2DecoderAttention",
    "decoder.pre_transformer.layers.*.mlp": "Qwen3TTSTokenizerV2DecoderMlp",
    "decoder.upsample.*.*": "Qwen3TTSTokenizerV2ConvNeXtBlock",
    "decoder.decoder.*": "SnakeBeta",
    "decoder.decoder.*.block.*": "Qwen3TTSTokenizerV2DecoderDecoderResidualUnit",
    "decoder.decoder.*.block.*.act*": "SnakeBeta",
    "encoder": "Qwen3TTSTokenizerV2Encoder",
    "encoder.encoder": "MimiEncoder",
    "encoder.encoder_transformer.layers.*": "MimiTransformerLayer",
    "encoder.encoder_transformer.layers.*.self_attn": "MimiAttention",
    "encoder.quantizer.semantic_residual_vector_quantizer": "MimiResidualVectorQuantizer",
    "encoder.quantizer.semantic_residual_vector_quantizer.layers.*": "MimiEuclideanCodebook",
    "encoder.quantizer.acoustic_residual_vector_quantizer": "MimiResidualVectorQuantizer",
    "encoder.quantizer.acoustic_residual_vector_quantizer.layers.*": "MimiEuclideanCodebook",
}


def test_every_weights_class_names_its_official_class():
    """Convolutions, embeddings and heads are PyTorch's own classes, which the tables do not name."""
    found = {
        re.sub(r"(?<=\.)\d+(-\d+)?|(?<=act)\d", "*", part.path): part.official
        for block in inspect_released("0.6B").blocks
        for part in walk(block)
        if part.official
    }
    assert found == OFFICIAL


def test_a_frame_reads_the_code_predictor_fifteen_times(base):
    found = inspect_checkpoint(base, 10)
    predictor = next(block for block in found.blocks if block.path == "talker.code_predictor")
    layers = find(predictor, "talker.code_predictor.model.layers.0-1")
    assert layers.cost["frame"].bytes_read == 15 * layers.bytes
    assert find(predictor, "talker.code_predictor.lm_head.0-14").cost["frame"].bytes_read == 15 * 128 * 64 * 2
    embedding = find(predictor, "talker.code_predictor.model.codec_embedding.0-14")
    assert embedding.cost["frame"].bytes_read == 15 * 64 * 2  # a row of each
    assert sum(share_of_reads(block, found) for block in found.blocks) == pytest.approx(1)


def test_flops_are_those_of_a_run(base, synthetic, monkeypatch):
    """Every matrix product and convolution of a run is counted where it happens."""
    directory = synthetic("tiny", "custom_voice")
    model = Qwen3TTSModel.from_pretrained(directory, backend="reference")
    done = count_flops(monkeypatch)
    with trace("talker.model.inputs_embeds", "talker.text_projection") as t:
        _, _, codes = model.generate_custom_voice("Hello.", "vivian", max_new_tokens=4, seed=0, return_codes=True)
    frames, prompt = len(codes[0]), len(t["talker.model.inputs_embeds@0"])
    tokens = sum(len(x) for name, x in t.items() if "text_projection" in name)
    assert frames == 3
    talker, predictor, decoder, _ = inspect_checkpoint(directory, 10).blocks
    head = find(talker, "talker.codec_head").cost["frame"].flops  # once after the prompt, where layers run for each
    frame, token = talker.cost["frame"].flops, talker.cost["text"].flops
    wanted = (frame - head) * (prompt + frames) + head * (1 + frames) + token * tokens
    wanted += frames * (predictor.cost["frame"].flops + decoder.cost["frame"].flops)
    assert sum(done) == wanted


def test_flops_of_the_encoder_are_those_of_a_run(base, monkeypatch):
    tokenizer = Qwen3TTSTokenizer.from_pretrained(base, backend="reference")
    done = count_flops(monkeypatch)
    frames = 4
    tokenizer.encode(np.sin(np.arange(frames * 1920) / 10).astype(np.float32), sr=24000)
    encoder = inspect_checkpoint(base, 10).blocks[-1]
    assert sum(done) == frames * encoder.cost["reference"].flops


def test_flops_of_the_speaker_encoder_are_those_of_a_run(base, monkeypatch):
    model = Qwen3TTSModel.from_pretrained(base, backend="reference")
    done = count_flops(monkeypatch)
    seconds = 2
    wave = np.sin(np.arange(seconds * 24000) / 10).astype(np.float32)
    with trace("speaker_encoder.blocks.0*") as t:
        speaker_embedding(wave, model.speaker_encoder, model.config.speaker_encoder_config)
    mel_frames = max(x.shape[-1] for x in t.values())
    assert mel_frames == seconds * 24000 // 256
    encoder = next(b for b in inspect_checkpoint(base, 10).blocks if b.path == "speaker_encoder")
    once = [b for b in leaves(encoder) if len(b.shape) > 1 and (".se_block." in b.path or ".fc." in b.path)]
    wanted = encoder.cost["reference"].flops * mel_frames / 7.5 + sum(2 * b.parameters for b in once)
    assert sum(done) == wanted


def count_flops(monkeypatch) -> list[int]:
    done: list[int] = []

    def counting(name, flops):
        original = getattr(ops, name)

        def counted(*args, **kwargs):
            y = original(*args, **kwargs)
            done.append(flops(y, *args))
            return y

        for module in [m for n, m in sys.modules.items() if n.startswith("qwen3tts_np.")]:
            if getattr(module, name, None) is original:
                monkeypatch.setattr(module, name, counted)

    counting("linear", lambda y, x, w, *_: 2 * w.size * (y.size // y.shape[-1]))
    counting("conv1d", lambda y, x, w, *_: 2 * w.size * y.shape[1])
    counting("depthwise_conv1d", lambda y, x, w, *_: 2 * w.size * y.shape[1])
    counting("conv_transpose1d", lambda y, x, w, *_: 2 * w.size * x.shape[1])
    counting("nearest", lambda y, x, entries: 2 * entries.size * len(x))
    return done


def test_costs_of_the_released_models():
    """Worked out by hand from the published sizes."""
    small = inspect_released("0.6B")
    assert small.total("frame").flops == pytest.approx(8.43e9, rel=1e-3)
    layer = 2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072 + 2 * 1024 + 2 * 128
    assert find(small.blocks[0], "talker.model.layers.0-27").bytes == 28 * layer * 2
    talker = small.attention[0]
    assert talker.bytes_a_second == 28 * 2 * 8 * 128 * 4 * 12.5
    assert talker.bytes_held == 125 * 28 * 2 * 8 * 128 * 4
    assert talker.flops == 125 * 28 * 4 * 16 * 128


# --- hearing --------------------------------------------------------------------------------------


def test_decoder_fields_are_what_a_change_of_one_frame_changes(base):
    codec = read_codec_config(base / "speech_tokenizer")
    fields = decoder_fields(codec)
    tokenizer = Qwen3TTSTokenizer.from_pretrained(base, backend="reference", dtype="float64")
    at, frames = 3, 70
    codes = np.random.default_rng(0).integers(0, 128, (frames, 16))
    changed = codes.copy()
    changed[at] = (changed[at] + 1) % 128
    traces = []
    for each in (codes, changed):
        with trace() as t:
            tokenizer.decode(each)
        traces.append(t)
    for f in fields:
        first, second = (t[f"{f.layer.name}@0"] for t in traces)
        axis = 0 if f.layer.kind == "attention" else 1  # transformer layers are [T, H], convolutions [C, T]
        steps = np.flatnonzero((first != second).any(axis=1 - axis))
        a_frame = round(f.rate / 12.5)
        assert steps[0] == at * a_frame, f.layer.name
        missing = f.steps - (steps[-1] - steps[0] + 1)
        assert 0 <= missing <= f.rate / 1000, f.layer.name  # the last ms may change by less than float64 shows
    assert frames_of_a_sample(codec) == -(-fields[-1].steps // 1920)


def test_encoder_fields_are_what_a_change_of_one_sample_changes(base):
    fields = encoder_fields(read_codec_config(base / "speech_tokenizer"))
    tokenizer = Qwen3TTSTokenizer.from_pretrained(base, backend="reference", dtype="float64")
    wave = np.random.default_rng(0).standard_normal(8 * 1920) * 0.1
    at, traces = 2 * 1920, []
    for change in (0, 0.5):
        wave[at] += change
        with trace() as t:
            tokenizer.encode(wave, sr=24000)
        traces.append(t)
    for f in fields:
        if f.steps is None:
            continue
        first, second = (t[f"{f.layer.name}@0"] for t in traces)
        stride = round(24000 / f.rate)
        ends = (np.arange(first.shape[1]) + 1) * stride - 1  # the last sample of each step
        wanted = (ends >= at) & (ends - f.steps < at)
        np.testing.assert_array_equal((first != second).any(axis=0), wanted, err_msg=f.layer.name)


# --- the command ----------------------------------------------------------------------------------


def test_inspect_prints_the_tree(base, capsys):
    assert cli.main(["inspect", str(base), "--depth", "4"]) == 0
    out = capsys.readouterr().out
    count = len(list(model_specs(read_model_config(base))))
    assert f"model.safetensors: {count} tensors, as in the key table" in out
    assert re.search(r"^ +layers\.0-2  x3 .*Qwen3TTSTalkerDecoderLayer$", out, re.M)
    assert re.search(r"^ +self_attn\.q_proj|^ +q_proj  x3 +\[128, 64\] +BF16", out, re.M)
    assert "Codec decoder: reach of one frame of codes" in out


def test_inspect_json_and_its_sums(base, capsys):
    assert cli.main(["inspect", str(base), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for when in WHENS:
        parts = [b["cost"][when]["bytes_read"] for b in found["blocks"] if when in b["cost"]]
        assert sum(parts) == pytest.approx(found["totals"][when]["bytes_read"])
    assert found["a_second_of_speech"]["flops"] == 12.5 * found["totals"]["frame"]["flops"]


def test_inspect_html_is_one_file_with_the_picture(base, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(base), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|@import|src=|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\s\"<]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    picture = ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.S)[0])
    words = " ".join(picture.itertext())
    for name in ("3 x model.layers.0-2", "15 x lm_head.0-14", "MimiEncoder", "pre_transformer", "self_attn.q_norm"):
        assert name in words, name


@pytest.mark.parametrize("with_codec", [True, False])
def test_inspect_of_configurations_alone(base, tmp_path, capsys, with_codec):
    shutil.copy(base / "config.json", tmp_path)
    if with_codec:
        (tmp_path / "speech_tokenizer").mkdir()
        shutil.copy(base / "speech_tokenizer" / "config.json", tmp_path / "speech_tokenizer")
    assert cli.main(["inspect", str(tmp_path)]) == int(not with_codec)
    out = capsys.readouterr().out
    assert "model.safetensors: not there; sizes are those of the key table" in out
    assert ("speech_tokenizer/config.json is missing" in out) is not with_codec
    if with_codec:
        whole, alone = inspect_checkpoint(base, 10), inspect_checkpoint(tmp_path, 10)
        assert alone.blocks == whole.blocks


def test_inspect_of_a_speech_tokenizer_alone(base, capsys):
    assert cli.main(["inspect", str(base / "speech_tokenizer"), "--depth", "0"]) == 0
    out = capsys.readouterr().out
    assert "decoder" in out
    assert "talker" not in out


def test_inspect_of_a_fine_tuned_checkpoint(base, tmp_path, capsys):
    directory = fine_tuned(base, tmp_path / "tuned")
    assert cli.main(["inspect", str(directory), "--html", str(tmp_path / "page.html")]) == 0
    found = inspect_checkpoint(directory, 10)
    assert [block.path for block in found.blocks] == ["talker", "talker.code_predictor", "decoder", "encoder"]
    assert find(found.blocks[0], "talker.model.layers.0-1").count == 2


def test_inspect_says_what_the_key_table_misses(base, tmp_path, capsys):
    directory = shutil.copytree(base, tmp_path / "copy")
    config = json.loads((directory / "config.json").read_text())
    config["talker_config"]["num_hidden_layers"] += 1
    (directory / "config.json").write_text(json.dumps(config))
    assert cli.main(["inspect", str(directory)]) == 1
    out = capsys.readouterr().out
    assert "model.safetensors: 11 problems" in out
    assert "'talker.model.layers.3.input_layernorm.weight' is missing" in out


def test_inspect_counts_the_bytes_of_quantised_weights(base, tmp_path, capsys):
    assert cli.main(["convert", "--format", "int8", str(base), str(tmp_path / "int8")]) == 0
    found, before = inspect_checkpoint(tmp_path / "int8", 10), inspect_checkpoint(base, 10)
    assert found.ok()
    assert found.total("frame").bytes_read < before.total("frame").bytes_read
    assert found.total("frame").flops == before.total("frame").flops


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--context", "0"], "--context 0 must be above 0"), (["--html", "/nowhere/x.html"], "/nowhere/x.html cannot")],
)
def test_inspect_refuses_in_one_sentence(base, capsys, arguments, told):
    assert cli.main(["inspect", str(base), *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (192, "192 B"), (999.6, "1.00 kB"), (1536, "1.54 kB"), (99_960, "100 kB"), (2.4226e9, "2.42 GB")],
)
def test_numbers_have_three_digits(value, shown):
    assert si(value, "B") == shown
