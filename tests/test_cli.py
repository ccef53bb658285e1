"""The command line: what it prints, its exit status, and that a user's mistake is one line without a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy

from qwen3tts_np import cli
from qwen3tts_np.checkpoint import published as publishing
from qwen3tts_np.checkpoint.config_file import read_codec_config, read_model_config
from qwen3tts_np.checkpoint.published import CODEC_WEIGHTS, MODELS, PublishedFile, PublishedModel, PublishedWeights
from qwen3tts_np.checkpoint.tensor import DTYPES
from qwen3tts_np.checkpoint.writer import header
from qwen3tts_np.cli import info
from qwen3tts_np.layout import description as describing
from qwen3tts_np.layout.description import describe
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.synthetic import layouts
from qwen3tts_np.synthetic.weights import write_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A custom-voice checkpoint; read only."""
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_checkpoint(directory, "tiny", "custom_voice", 0)
    return directory


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(tiny, tmp_path / "checkpoint")


def edit(path: Path, change) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def problems(directory, capsys) -> list[str]:
    status = cli.main(["info", str(directory), "--json"])
    found = json.loads(capsys.readouterr().out)["problems"]
    assert status == bool(found)
    return found


# --- info -----------------------------------------------------------------------------------------


def test_info_says_what_a_checkpoint_is(tiny, capsys):
    assert cli.main(["info", str(tiny)]) == 0
    out = capsys.readouterr().out
    talker = json.loads((tiny / "config.json").read_text())["talker_config"]

    def transformer(c):
        heads = f"{c['num_attention_heads']} query and {c['num_key_value_heads']} key/value heads of {c['head_dim']}"
        return (
            f"{c['num_hidden_layers']} layers, width {c['hidden_size']}, {heads}, feed-forward {c['intermediate_size']}"
        )

    for line in (
        str(tiny),
        "  model            custom_voice, 0.6B",
        f"  talker           {transformer(talker)}, vocabulary {talker['vocab_size']}",
        f"  code predictor   {transformer(talker['code_predictor_config'])}, 16 codes per frame",
        "  languages        beijing_dialect, chinese, english, french, german, italian, japanese, korean, portuguese, "
        "russian, sichuan_dialect, spanish",
        "  speakers         aiden, dylan (beijing_dialect), eric (sichuan_dialect), ono_anna, ryan, serena, sohee, "
        "uncle_fu, vivian",
        "  codec            24000 Hz to 24000 Hz, 12.5 frames per second, 16 codes of 128 per frame",
        "  layout           none of the published ones",
        "problems: none",
    ):
        assert line in out.splitlines(), line
    count = len(list(model_specs(read_model_config(tiny))))
    assert f"model.safetensors: {count} tensors ({count} BF16)" in out
    assert re.search(rf"^  vocab.json +{(tiny / 'vocab.json').stat().st_size:,}$", out, re.M)


def test_info_describes_the_published_voices_and_no_others(tmp_path):
    config = layouts.model_config("0.6b", "custom_voice", layouts.RELEASED_TEXT)
    config["talker_config"]["spk_id"]["ryan"] = 3000  # somebody else's, by fine-tuning
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lines = list(info.model_lines(read_model_config(tmp_path)))
    assert "    sohee          warm female voice, rich in emotion; Korean" in lines
    assert "    dylan          youthful male voice, clear and natural; Chinese (Beijing dialect)" in lines
    assert not [line for line in lines if "ryan " in line]


def test_info_counts_every_parameter_once(tiny, capsys):
    assert cli.main(["info", str(tiny), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = sum(spec.size for spec in model_specs(read_model_config(tiny)))
    codec = sum(spec.size for spec in codec_specs(read_codec_config(tiny / "speech_tokenizer")))
    assert [summary["parameters"] for summary in found["weights"]] == [model, codec]
    for summary in found["weights"]:
        assert sum(summary["blocks"].values()) == summary["parameters"]
        assert "others" not in summary["blocks"]
    assert found["config"]["talker_config"]["hidden_size"] == 64
    assert found["generation_config"]["top_k"] == 50
    assert found["files"]["config.json"] == (tiny / "config.json").stat().st_size


@pytest.mark.parametrize("published", MODELS, ids=lambda model: model.name)
def test_info_knows_the_published_layouts(tmp_path, published):
    """Files of the full size whose weights are holes: nothing but their headers is written or read."""
    codec_dir = tmp_path / "speech_tokenizer"
    codec_dir.mkdir()
    config = layouts.model_config(published.like, published.model_type, layouts.RELEASED_TEXT)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (codec_dir / "config.json").write_text(json.dumps(layouts.codec_config(published.like)))
    hollow(tmp_path / "model.safetensors", list(model_specs(read_model_config(tmp_path))))
    hollow(codec_dir / "model.safetensors", list(codec_specs(read_codec_config(codec_dir))))

    found = describe(tmp_path)
    assert found.released == published.name
    assert [(s.tensors, s.parameters) for s in found.weights] == [
        (published.weights.tensors, published.weights.parameters),
        (CODEC_WEIGHTS.tensors, CODEC_WEIGHTS.parameters),
    ]
    assert found.problems == [
        "vocab.json is missing",
        "merges.txt is missing",
        "tokenizer_config.json is missing",
        "generation_config.json is missing; the official package does not load without it",
        "speech_tokenizer/preprocessor_config.json is missing; the official package does not load without it",
    ]
    assert describe(codec_dir).released == "Qwen3-TTS-Tokenizer-12Hz"


def hollow(path, specs) -> None:
    with path.open("wb") as file:
        file.write(header(sorted(specs, key=lambda spec: spec.key)))
        file.truncate(file.tell() + sum(spec.size * DTYPES[spec.dtype].itemsize for spec in specs))


def test_info_of_a_speech_tokenizer_alone(tiny, capsys):
    assert cli.main(["info", str(tiny / "speech_tokenizer")]) == 0
    out = capsys.readouterr().out
    assert "12.5 frames per second, 16 codes of 128 per frame" in out
    assert "talker" not in out
    assert problems(tiny / "speech_tokenizer", capsys) == []


def test_info_of_shards(copy, capsys):
    arrays = safetensors.numpy.load_file(copy / "speech_tokenizer" / "model.safetensors")
    (copy / "speech_tokenizer" / "model.safetensors").unlink()
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(sorted(arrays))}
    for shard in ("part-0.safetensors", "part-1.safetensors"):
        part = {name: array for name, array in arrays.items() if weight_map[name] == shard}
        safetensors.numpy.save_file(part, copy / "speech_tokenizer" / shard)
    index = copy / "speech_tokenizer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert problems(copy, capsys) == []


def test_info_lists_missing_files(copy, capsys):
    for name in ("vocab.json", "generation_config.json", "speech_tokenizer/preprocessor_config.json"):
        (copy / name).unlink()
    assert problems(copy, capsys) == [
        "vocab.json is missing",
        "generation_config.json is missing; the official package does not load without it",
        "speech_tokenizer/preprocessor_config.json is missing; the official package does not load without it",
    ]
    (copy / "speech_tokenizer" / "preprocessor_config.json").touch()
    shutil.rmtree(copy / "speech_tokenizer")
    (copy / "model.safetensors").unlink()
    found = problems(copy, capsys)
    assert f"{copy} holds neither model.safetensors nor model.safetensors.index.json" in found
    assert any(p.startswith(f"{copy / 'speech_tokenizer'} is missing: the folder of the codec") for p in found)


def test_info_lists_what_the_tensors_should_be(copy, capsys):
    talker = json.loads((copy / "config.json").read_text())["talker_config"]
    layers, width, inner = talker["num_hidden_layers"], talker["hidden_size"], talker["intermediate_size"]
    edit(copy / "config.json", lambda c: c["talker_config"].update(num_hidden_layers=layers + 1, intermediate_size=7))
    found = problems(copy, capsys)
    assert len(found) == 11 + 3 * layers
    key = f"talker.model.layers.{layers}.input_layernorm.weight"
    assert f"model.safetensors: tensor {key!r} is missing, expected BF16 [{width}]" in found
    key = "talker.model.layers.0.mlp.up_proj.weight"
    assert f"model.safetensors: {key}: shape [{inner}, {width}], expected [7, {width}] = [F H]" in found


def test_info_shows_the_first_problems_only(copy, capsys):
    edit(
        copy / "config.json",
        lambda c: c["talker_config"].update(num_hidden_layers=c["talker_config"]["num_hidden_layers"] + 4),
    )
    assert cli.main(["info", str(copy)]) == 1
    out = capsys.readouterr().out
    assert "\nproblems: 44\n" in out
    assert out.endswith("\n  and 24 more (--json lists all)\n")


def test_info_goes_on_after_a_broken_file(copy, capsys):
    edit(copy / "config.json", lambda c: c["talker_config"].update(head_dim="many"))
    edit(copy / "generation_config.json", lambda c: c.update(top_k=None))
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1])
    found = problems(copy, capsys)
    assert len(found) == 3
    assert "head_dim = 'many', expected an int" in found[0]
    assert "top_k = None, expected an int" in found[1]
    assert "lie outside" in found[2]
    assert cli.main(["info", str(copy)]) == 1
    assert "12.5 frames per second" in capsys.readouterr().out


def test_info_compares_talker_and_codec(copy, capsys):
    def halve(config):
        config["encoder_valid_num_quantizers"] = config["decoder_config"]["num_quantizers"] = 8
        config["decoder_config"]["codebook_size"] = config["encoder_config"]["codebook_size"] = 64

    edit(copy / "speech_tokenizer" / "config.json", halve)
    found = problems(copy, capsys)
    assert "the talker writes 16 codes per frame, speech_tokenizer reads 8" in found
    assert "the talker writes 128 codes from the code predictor, speech_tokenizer reads 64" in found


def test_info_holds_the_tokenizer_against_the_configuration(copy, capsys):
    expected = json.loads((copy / "config.json").read_text())["tts_bos_token_id"]
    edit(copy / "config.json", lambda c: c.update(tts_bos_token_id=5))
    told = f"config.json: tts_bos_token_id = 5, but the tokenizer makes [{expected}] of <tts_text_bos>"
    assert problems(copy, capsys) == [told]
    (copy / "merges.txt").write_text("a b c\n")
    assert problems(copy, capsys) == [f"{copy / 'merges.txt'}:1: a merge is two symbols, found 3"]


def test_info_verifies_files_by_their_hash(copy, capsys, monkeypatch):
    assert cli.main(["info", str(copy), "--verify"]) == 1
    assert "not the layout of a published model" in capsys.readouterr().out

    def file(name):
        content = (copy / name).read_bytes()
        return PublishedFile(len(content), hashlib.sha256(content).hexdigest())

    model, codec = (PublishedWeights(s.tensors, s.parameters, file(s.file)) for s in describe(copy).weights)
    published = PublishedModel("Tiny", "0", "tiny", "custom_voice", model, file("config.json"))
    common = {name: file(name) for name in ("vocab.json", "speech_tokenizer/model.safetensors")}
    monkeypatch.setattr(describing, "MODELS", (*MODELS, published))
    monkeypatch.setattr(describing, "CODEC_WEIGHTS", codec)
    monkeypatch.setattr(publishing, "COMMON_FILES", common)
    assert cli.main(["info", str(copy), "--verify"]) == 0
    assert "  layout           that of Tiny, verified\n" in capsys.readouterr().out
    assert cli.main(["info", str(copy / "speech_tokenizer"), "--verify"]) == 0
    capsys.readouterr()

    for name in ("model.safetensors", "speech_tokenizer/model.safetensors"):
        with (copy / name).open("r+b") as weights:
            weights.seek(-1, 2)
            last = weights.read(1)
            weights.seek(-1, 2)
            weights.write(bytes([last[0] ^ 1]))
    with (copy / "config.json").open("a") as config:
        config.write("\n")
    assert cli.main(["info", str(copy), "--verify", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["problems"]
    assert [problem.split(":")[0] for problem in found] == [
        "config.json",
        "model.safetensors",
        "speech_tokenizer/model.safetensors",
    ]
    assert "bytes, published" in found[0]
    assert f"published {model.file.sha256}" in found[1]


# --- the program ----------------------------------------------------------------------------------


def program(*args, **kwargs):
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "", **kwargs.pop("env", {})}
    command = [sys.executable, "-m", "qwen3tts_np", *map(str, args)]
    return subprocess.run(command, env=env, text=True, timeout=120, check=False, **kwargs)


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"qwen3tts-np info: {tmp_path / 'config.json'} not found; is {tmp_path} a Qwen3-TTS checkpoint directory?\n"
    )


@pytest.mark.parametrize("argv", [[], ["sing"], ["info"], ["info", ".", "--loud"]])
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("qwen3tts-np") and error.endswith("--help'\n") and error.count("\n") == 1


@pytest.mark.parametrize("command", ["say", "clone", "encode", "decode", "info", "synth", "voice"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: qwen3tts-np {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("qwen3tts-np ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
@pytest.mark.parametrize("argv", [["say", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_no_success(argv, monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(argv) == 2
        monkeypatch.undo()
    assert capsys.readouterr().err.endswith(": standard output cannot be written: No space left on device\n")


def test_interrupted(tiny, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("qwen3tts_np.cli.info.describe", interrupt)
    assert cli.main(["info", str(tiny)]) == 130


def test_a_bug_is_not_swallowed(tiny, monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr("qwen3tts_np.cli.info.describe", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", str(tiny)])


def test_run_as_a_module(tiny):
    done = program("info", tiny, "--json", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["problems"] == []


def test_a_reader_that_leaves_early(tiny):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = program("info", tiny, stdout=write_end, stderr=subprocess.PIPE)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_cannot_show_a_name(copy):
    edit(copy / "config.json", lambda c: c["talker_config"]["spk_id"].update({"zoë": 200, "小明": 201}))
    done = program("info", copy, capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r"zo\xeb" in done.stdout


def test_synth_then_info(tmp_path, capsys):
    assert cli.main(["synth", "--like", "tiny-1.7b", "--type", "base", str(tmp_path / "new")]) == 0
    assert cli.main(["info", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "base, 1.7B" in out
    assert "code predictor projection" in out
    assert "speaker encoder  channels [24, 24, 24, 24, 72], embedding 96" in out


def test_a_mistyped_option_names_the_help_of_its_own_command(capsys):
    for command, usage in ((["say", "DIR", "Hi."], "say"), (["voice", "list", "."], "voice list")):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command, "--sed", "1"])
        error = capsys.readouterr().err
        words = f"qwen3tts-np {usage}"
        assert error == f"{words}: unrecognized arguments: --sed 1; see '{words} --help'\n"


def test_a_text_that_is_taken_for_an_option_is_told_where_it_belongs(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["say", "DIR", "-x"])
    hint = "unrecognized arguments: -x; a text that begins with '-' goes behind '--'; see 'qwen3tts-np say --help'"
    assert capsys.readouterr().err == f"qwen3tts-np say: {hint}\n"
    assert cli.main(["say", "DIR", "--", "-x"]) == 2
    assert "DIR" in capsys.readouterr().err, "now it is the text, and the folder is not there"
