"""The explained prompt: row by row it must be what the model reads, for every mode, streaming and not."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from fine_tuned import SPEAKER, fine_tuned
from parity import CASES

from qwen3tts_np import Qwen3TTSModel, cli
from qwen3tts_np.errors import RequestError
from qwen3tts_np.generate import embed_frame
from qwen3tts_np.inspect.explanation import explain
from qwen3tts_np.inspect.request import WrittenRequest, prepare
from qwen3tts_np.inspect.request_file import read_request
from qwen3tts_np.talker.talker import text_projection
from qwen3tts_np.trace import trace

GREEDY = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(12_000), 24000)
    return str(path)


def requests(clip):
    """(checkpoint, arguments) of every mode."""
    custom = {"text": "Hello there, you.", "speaker": "vivian"}
    yield "tiny", "custom_voice", {**custom, "language": "english"}
    yield "tiny", "custom_voice", {**custom, "non_streaming_mode": False}
    yield "tiny-1.7b", "custom_voice", {**custom, "speaker": "eric", "instruct": "Slowly.", "language": "chinese"}
    yield "tiny", "voice_design", {"text": "Hello.", "instruct": "An old man."}
    yield "tiny", "voice_design", {"text": "", "instruct": "", "non_streaming_mode": False}
    yield "tiny", "base", {"text": "Hello.", "ref_audio": clip, "x_vector_only_mode": True}
    yield "tiny", "base", {"text": "Hello.", "ref_audio": clip, "ref_text": "One two."}
    yield "tiny", "base", {"text": "A long text, longer than the clip is.", "ref_audio": clip, "ref_text": "One two."}
    yield "tiny", "base", {"text": "Hello.", "ref_audio": clip, "ref_text": "One.", "non_streaming_mode": True}


@pytest.mark.parametrize("n", range(9))
@pytest.mark.filterwarnings("ignore:the reference clip")
def test_the_rows_are_what_the_model_reads(synthetic, clip, n):
    """The sum that each row states, worked out from the weights, is the talker's input in a real run."""
    like, kind, arguments = list(requests(clip))[n]
    model = Qwen3TTSModel.from_pretrained(synthetic(like, kind), backend="reference")
    request = WrittenRequest({**arguments, **GREEDY})
    found = explain(model, request)
    with trace("talker.model.inputs_embeds", "speaker_encoder") as t:
        prepared = prepare(model, request)
        ((_, codes),) = model.generate([prepared])
    w = model.frame_loop.weights
    frames = iter(p.frame for p in prepared.prompt.prefill if p.frame)
    inputs = t["talker.model.inputs_embeds@0"]
    assert len(inputs) == len(found.prefill)
    for row, x in zip(found.prefill, inputs, strict=True):
        wanted = text_projection(w.talker, np.array([row.text_id]))[0]
        if row.codec_id is not None:
            assert row.sum == f"text + codec_embedding[{row.codec_id}]"
            wanted = wanted + w.talker.codec_embedding[row.codec_id]
        elif row.sum == "text + 16 embeddings":
            frame = next(frames)
            assert row.codec == " ".join(map(str, frame[:4])) + "..."
            wanted = wanted + embed_frame(np.array(frame), w)
        elif row.sum == "text + x-vector":
            wanted = wanted + model.create_voice_clone_prompt(clip, None, True)[0].ref_spk_embedding
        else:
            assert row.sum == "text"
        np.testing.assert_allclose(x, wanted, atol=1e-5)  # float32: the rows are projected one by one here
    assert next(frames, None) is None
    assert len(codes) == 3
    for i, frame in enumerate(codes):
        row = found.frames[min(i, len(found.frames) - 1)]
        wanted = text_projection(w.talker, np.array([row.text_id]))[0] + embed_frame(frame, w)
        np.testing.assert_allclose(t[f"talker.model.inputs_embeds@{i + 1}"][0], wanted, atol=1e-5)


def kinds(found):
    return [row.why.split(";")[0] for row in [*found.prefill, *found.frames]]


@pytest.mark.filterwarnings("ignore:the reference clip")
def test_each_word_is_told_from_the_others(synthetic, clip):
    model = Qwen3TTSModel.for_prompts(synthetic("tiny", "base"))
    arguments = {"text": "Hello there.", "ref_audio": clip, "ref_text": "One two."}
    said = len(model.text_tokenizer.encode("Hello there."))
    heard_words = len(model.text_tokenizer.encode("One two."))
    for non_streaming in (False, True):
        found = explain(model, WrittenRequest({**arguments, "non_streaming_mode": non_streaming}))
        assert found.streaming is not non_streaming
        assert kinds(found).count("what the reference says") == heard_words
        assert kinds(found).count("text to say") == said
        assert kinds(found).count("end of the text") == 1
        assert sum(row.kind == "reference frame" for row in found.prefill) == 7  # 0.5 s
        assert [row.position for row in found.prefill] == list(range(len(found.prefill)))
        assert found.prefill[-1].why.endswith("the logits here choose code 0 of the first frame")


def test_marks_have_their_names(synthetic):
    model = Qwen3TTSModel.for_prompts(synthetic("tiny-1.7b", "custom_voice"))
    request = {"text": "Hi", "speaker": "Dylan", "language": "auto", "instruct": "Whisper."}
    found = explain(model, WrittenRequest({**request, "non_streaming_mode": False}))
    codec = [row.codec for row in found.prefill if row.kind not in ("instruction", "role")]
    assert codec == "codec_think codec_think_bos beijing_dialect codec_think_eos dylan codec_pad codec_bos".split()
    assert [row.text for row in found.prefill if row.kind == "role"] == ["'<|im_start|>'", "'assistant'", "'\\n'"]
    assert [row.text for row in found.frames[-2:]] == ["'<tts_text_eod>'", "'<tts_pad>'"]
    assert found.prefill[0].kind == "instruction"
    plain = explain(model, WrittenRequest({"text": "Hi", "speaker": "vivian"}))
    assert "codec_nothink" in [row.codec for row in plain.prefill]


def test_the_weights_that_write_codes_are_not_needed(synthetic):
    """The prompt is the same with and without them."""
    directory = synthetic("tiny", "custom_voice")
    request = WrittenRequest({"text": "Hello.", "speaker": "vivian"})
    whole = Qwen3TTSModel.from_pretrained(directory, backend="reference")
    assert explain(Qwen3TTSModel.for_prompts(directory), request) == explain(whole, request)


# --- requests -------------------------------------------------------------------------------------


def test_a_request_is_a_file_and_options_go_before_it(synthetic, tmp_path, capsys):
    file = tmp_path / "request.json"
    content = {"mode": "custom_voice", "text": "One.", "speaker": "vivian", "language": "german", "seed": 3}
    file.write_text(json.dumps(content), encoding="utf-8")
    assert read_request(file) == WrittenRequest(
        {"text": "One.", "speaker": "vivian", "language": "german"}, "generate_custom_voice", 3
    )
    model = str(synthetic("tiny", "custom_voice"))
    assert cli.main(["explain", model, str(file), "--speaker", "ryan", "--streaming", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    codec = [row["codec"] for row in found["prefill"]]
    assert "ryan" in codec and "german" in codec and found["streaming"] is True


def test_clips_lie_beside_the_request(synthetic, clip, tmp_path):
    shutil.copy(clip, tmp_path / "clip.wav")
    (tmp_path / "r.json").write_text(json.dumps({"text": "Hi", "ref_audio": "clip.wav"}))
    wave, rate = read_request(tmp_path / "r.json").argument("ref_audio")
    assert (rate, len(wave)) == (24000, 12_000)
    found = explain(Qwen3TTSModel.for_prompts(synthetic("tiny", "base")), read_request(tmp_path / "r.json"))
    assert [row.codec for row in found.prefill if row.kind == "speaker"] == ["x-vector"]


def test_a_golden_case_is_a_request(synthetic):
    request = read_request(CASES / "activations_clone")
    wave, rate = request.argument("ref_audio")
    assert (request.method, rate, len(wave)) == ("generate_voice_clone", 24000, 3500)
    found = explain(Qwen3TTSModel.for_prompts(synthetic("tiny", "base")), request)
    assert sum(row.kind == "reference frame" for row in found.prefill) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"mode": "sing", "text": "Hi"}, "mode 'sing' is not one of custom_voice, voice_design, voice_clone"),
        ({"mode": "voice_clone", "text": "Hi", "ref_audio": "x.wav"}, "generate_voice_clone needs a base model"),
        ({"speaker": "vivian"}, "missing a required argument: 'text'"),
        ({"text": ["a", "b"]}, "has one item, this one has 2 in text"),
        ({"text": "Hi", "speaker": "Bob"}, "speaker 'Bob' is not in this model"),
        ({"text": "Hi", "volume": 3}, "there is no argument 'volume'"),
        ({"text": "Hi", "return_codes": False}, "return_codes has no place among the arguments"),
        ({"text": "Hi", "language": 5}, "language is 5, expected text"),
        ({"text": "Hi", "seed": [1, 2]}, "seed is [1, 2], expected a whole number"),
        ({"text": "Hi", "seed": True}, "seed is True, expected a whole number"),
        ({"text": "Hi", "non_streaming_mode": "no"}, "expected true or false"),
        ({"text": "Hi", "mode": ["voice_clone"]}, "mode ['voice_clone'] is not one of"),
        ({"method": "sing", "arguments": {}}, "method 'sing' is not one of generate_custom_voice"),
    ],
)
def test_what_is_no_request(synthetic, tmp_path, capsys, content, told):
    (tmp_path / "r.json").write_text(json.dumps(content))
    assert cli.main(["explain", str(synthetic("tiny", "custom_voice")), str(tmp_path / "r.json")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_no_request_at_all(synthetic, capsys):
    assert cli.main(["explain", str(synthetic("tiny", "custom_voice"))]) == 2
    assert "there is no request: give --text" in capsys.readouterr().err


def test_a_clone_needs_a_clip(synthetic):
    with pytest.raises(RequestError, match="give ref_audio or voice_clone_prompt"):
        explain(Qwen3TTSModel.for_prompts(synthetic("tiny", "base")), WrittenRequest({"text": "Hi"}))


# --- the command ----------------------------------------------------------------------------------


def test_explain_in_the_terminal_and_as_html(synthetic, tmp_path, capsys):
    directory = str(synthetic("tiny", "custom_voice"))
    arguments = ["explain", directory, "--text", "A <b> & 你好", "--speaker", "vivian", "--language", "english"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("custom voice, non-streaming: the complete text is read first\n")
    assert re.search(r"^ +7  speaker +\d+  '<tts_pad>' +\d+  vivian ", out, re.M)
    page = tmp_path / "page.html"
    assert cli.main([*arguments, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "http" not in text
    assert text.count("<table>") == 2
    assert "&lt;|im_start|&gt;" in text and "<|im_start|>" not in text


def test_explain_a_fine_tuned_checkpoint(synthetic, tmp_path, capsys):
    directory = fine_tuned(synthetic("tiny", "base"), tmp_path / "tuned")
    assert cli.main(["explain", str(directory), "--text", "Hello."]) == 0
    assert SPEAKER in capsys.readouterr().out


def test_a_saved_voice(synthetic, clip, tmp_path, capsys):
    model, voice = str(synthetic("tiny", "base")), str(tmp_path / "voice.safetensors")
    assert cli.main(["voice", "create", model, clip, "--text", "One two.", "-o", voice]) == 0
    assert cli.main(["explain", model, "--text", "Hello.", "--voice", voice]) == 0
    assert "reference frame" in capsys.readouterr().out
