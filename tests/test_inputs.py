"""Every argument of the Python API: values that it cannot take are one sentence, extreme ones that it can work.

``TABLE`` says of each parameter of each public function which values (``bad_values.py``) are tried. What no row
names is found by introspection and printed.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bad_values as v
import numpy as np
import pytest
from bad_values import OK, Values

import qwen3tts_np
from qwen3tts_np import (
    ClonedVoice,
    CustomVoice,
    DesignedVoice,
    Qwen3TTSModel,
    Qwen3TTSTokenizer,
    QwenTTSError,
    VoiceClonePromptItem,
    score,
    trace,
)
from qwen3tts_np.config import GenerationConfig
from qwen3tts_np.files import input as gate
from qwen3tts_np.speech.live import stream
from qwen3tts_np.speech.longform import narrate

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")]
SECONDS = 5  # the most that refusing a value may take, on a busy machine
SENTENCE = 700  # characters

SAMPLING: dict[str, Values] = {
    **dict.fromkeys(("do_sample", "subtalker_dosample"), v.STRICT_SWITCH),
    **dict.fromkeys(("temperature", "repetition_penalty", "subtalker_temperature"), v.POSITIVE),
    **dict.fromkeys(("top_k", "subtalker_top_k"), v.TOP_K),
    **dict.fromkeys(("top_p", "subtalker_top_p"), v.SHARE),
    "max_new_tokens": v.COUNT,
}
NO_SWITCH = [row for row in v.refused(v.SWITCH) if not isinstance(row[0], list)]  # a list is one for each item
SPEECH: dict[str, Any] = {
    "text": v.TEXT,
    "speaker": v.SPEAKER,
    "language": v.LANGUAGE,
    "instruct": [*v.refused(v.STRING), (["a", "b"], "instruct has 2 values for 1 items")],
    "ref_audio": "audio",
    "ref_text": [*v.refused(v.STRING), (["a"] * 3, "ref_text has 3 values for 1 items")],
    "x_vector_only_mode": [*NO_SWITCH, ([True, False], "has 2 values for 1 items")],
    "voice_clone_prompt": v.PROMPT,
    "non_streaming_mode": v.SWITCH,
    "return_codes": v.SWITCH,
    "progress": v.CALLBACK,
    "packet_frames": [*v.COUNT, (v.DIGITS, OK)],
    "seed": v.SEED,
    **SAMPLING,
}
DTYPES = [(value, "is not supported; use") for value in (5, "int8", v.LONG, v.FOREIGN)]
LOADING: dict[str, Values] = {
    "pretrained_model_name_or_path": [
        *v.NO_PATHS,
        *(
            (name, "is not a directory")
            for name in ("none", v.LONG, "x/" * 3000, "\0", "a\ud800", "/dev/null", "\x1b[1m")
        ),
        ("Qwen/Qwen3-TTS-none", "is neither a directory nor a published model"),
    ],
    **dict.fromkeys(("dtype", "torch_dtype"), DTYPES),
    "backend": [(value, "must be 'auto', 'compiled' or 'reference'") for value in (None, 5, "gpu", v.LONG, v.FOREIGN)],
    "threads": [*v.refused(v.COUNT), (v.DIGITS, OK)],
    "cache_dir": v.NO_PATHS[1:-1],
    "local_files_only": v.SWITCH,
    "revision": [(None, OK), ("x", OK)],  # of a model of the hub
    "token": [(None, OK), (True, OK)],
    "torch_arguments": [({"nonsense": 1}, "has no argument 'nonsense'"), ({v.LONG: 1}, "has no argument 'xxx")],
}
FORMATS = [(value, "must be 'auto' or one of") for value in (None, 5, "int3", v.LONG, v.FOREIGN)]
PRETOKENIZERS = [(value, "is not one of native") for value in (None, 5, "bert", v.LONG, v.FOREIGN)]
ARRAYS = [row for row in v.CODES if not isinstance(row[0], list)]  # a list is one for each clip
NO_REQUESTS = [(value, "expected a list of what prepare returns") for value in (None, 5, "", {}, v.FOREIGN)]
NO_REQUEST = [(value, "a request is") for value in (None, 5, "a", [], v.FOREIGN)]
NO_VOICE = [(value, "give a CustomVoice, a DesignedVoice or a ClonedVoice") for value in (None, 5, "ryan", v.FOREIGN)]
NO_MODEL = [(value, "model is") for value in (None, 5, "m", v.FOREIGN)]
FLOATS = [(value, "the target must be at least 1 s") for value in (v.NAN, v.INF, -1, 0, "1", None, v.FOREIGN, 1j)]
ITEM: dict[str, Values] = {
    "ref_code": [*((value, says.replace("16]", "G]")) for value, says in v.CODES[:7] if value is not None)],
    "ref_spk_embedding": v.EMBEDDING,
    "x_vector_only_mode": v.SWITCH,
    "icl_mode": [*v.refused(v.SWITCH), (True, "ref_code is missing")],
    "ref_text": v.STRING,
    "fingerprint": [(value, "expected a Fingerprint") for value in (5, "", {}, v.FOREIGN)],
    "description": v.STRING,
}
REQUEST: dict[str, Values] = {
    "prompt": [(value, "expected a Prompt") for value in (None, 5, [], v.FOREIGN)],
    "limits": [(value, "expected a Limits") for value in (None, 5, {}, v.FOREIGN)],
    "seed": [(value, says) for value, says in v.SEED if says and "must be" in says],
    "x_vector": [(value, says.replace("ref_spk_embedding", "x_vector")) for value, says in v.refused(v.EMBEDDING)[1:]],
    "reference_codes": ITEM["ref_code"],
    "incoming": [(value, "expected a TextSource") for value in (5, "a", [], v.FOREIGN)],
}
TABLE: dict[str, dict[str, Any]] = {
    "Qwen3TTSModel.from_pretrained": {
        **LOADING,
        "weights_format": FORMATS,
        "pretokenizer": PRETOKENIZERS,
        "cache_packed": v.refused(v.SWITCH),
        "adapter": [(value, "adapter") for value in (5, [], v.FOREIGN)],
    },
    "Qwen3TTSModel.for_prompts": {"path": LOADING["pretrained_model_name_or_path"]},
    "Qwen3TTSModel.create_voice_clone_prompt": {n: SPEECH[n] for n in ("ref_audio", "ref_text", "x_vector_only_mode")},
    "Qwen3TTSModel.voice": {"arguments": [({"nonsense": 1}, "has no argument nonsense")]},
    "Qwen3TTSModel.prepare": {
        **SAMPLING,
        "text": [*v.STRING, (None, "must be a string"), ([], "must be a string")],
        "voice": NO_VOICE,
        "language": v.LANGUAGE,
        "streaming": v.SWITCH,
        "seed": REQUEST["seed"],
    },
    "Qwen3TTSModel.generate": {
        "requests": [*NO_REQUESTS, ([5], "a request is int")],
        "joint_seed": REQUEST["seed"],
        "progress": v.CALLBACK,
        "continuous": v.SWITCH,
    },
    "Qwen3TTSModel.frames": {"requests": [*NO_REQUESTS, ([5], "a request is int")], "joint_seed": REQUEST["seed"]},
    "Qwen3TTSModel.stream": {"request": NO_REQUEST, "packet_frames": v.refused(v.COUNT)},
    "Qwen3TTSModel.packets": {"request": NO_REQUEST, "packet_frames": v.refused(v.COUNT)},
    "Qwen3TTSModel.decode": {"request": NO_REQUEST, "codes": v.CODES, "continuous": v.SWITCH},
    "Qwen3TTSModel.open_batch": {
        "places": [*v.refused(v.COUNT), (v.DIGITS, "must be a whole number of at most 1024")],
        "positions": [*v.refused(v.COUNT), (v.DIGITS, OK), (None, OK)],
        "prompt_slice": [*v.refused(v.COUNT), (v.DIGITS, OK), (None, OK)],
    },
    **{
        f"Qwen3TTSModel.{name}": {
            **{n: values for n, values in SAMPLING.items() if n == "max_new_tokens"},
            **{n: v.refused(values) for n, values in SAMPLING.items() if n != "max_new_tokens"},
            "voice": NO_VOICE,
            "language": v.LANGUAGE,
            "seed": REQUEST["seed"],
            **({"packet_frames": v.refused(v.COUNT)} if name == "open" else {}),
        }
        for name in ("open", "arriving")
    },
    "Qwen3TTSTokenizer.from_pretrained": LOADING,
    "Qwen3TTSTokenizer.encode": {
        "audios": "audio",
        "sr": v.RATES,
        "return_dict": [(False, OK)],  # the result is a tuple as well
    },
    "Qwen3TTSTokenizer.decode": {"encoded": ARRAYS, "continuous": v.SWITCH},
    "Qwen3TTSTokenizer.decode_together": {
        "parts": [
            *((value, "must be a list of pairs") for value in (None, 5, "a", {}, [5], [(1,)], v.FOREIGN)),
            ([(5, np.zeros((2, 16), int))], "a stream is int, expected a CodeStream"),
            ([], OK),
        ]
    },
    "Qwen3TTSTokenizer.load_audio": {"x": "audio", "target_sr": v.RATES, "sr": v.RATES},
    "CustomVoice": {"speaker": v.STRING, "instruct": v.STRING},
    "DesignedVoice": {"instruct": v.STRING},
    "ClonedVoice": {"item": [(value, "expected a VoiceClonePromptItem") for value in (None, 5, "a", {}, v.FOREIGN)]},
    "Request": REQUEST,
    "VoiceClonePromptItem": ITEM,
    "VoiceClonePromptItem.save": {"path": [*v.NO_PATHS, *((p, "cannot be") for p in ("/", "\0", v.LONG, "none/v"))]},
    "VoiceClonePromptItem.load": {
        "path": [*v.NO_PATHS, *((p, "cannot be") for p in ("none", "\0", v.LONG, "a\ud800"))]
    },
    "SpeechSession.feed": {"text": v.STRING},
    "trace": {"patterns": [((value,), "a pattern must be a string") for value in (None, *v.NO_TEXT)] + [(("*",), OK)]},
    "stream": {
        "model": NO_MODEL,
        "seed": REQUEST["seed"],
        "packet_frames": v.refused(v.COUNT),
        **dict.fromkeys(("target", "longest"), FLOATS),
        "tempo": [(value, "must be a number from 0.25 to 4") for value in (*v.NO_NUMBERS, 0, 4.5, v.DIGITS)],
        "language": v.refused(v.LANGUAGE),
        "text": [*v.refused(v.STRING), (" \n", "nothing to say"), ("a\0", "a NUL character at position 1")],
    },
    "score": {
        "model": NO_MODEL,
        "speech": [
            *((value, f"speech is {type(value).__name__}, expected a manifest") for value in (None, 5, v.FOREIGN)),
            *((value, "speech is int, expected a Speech") for value in ([5], {5: 1})),
            *((name, "cannot be read") for name in ("none", "\0", v.LONG, "a\ud800")),
            ([], "there is nothing to score"),
        ],
        "streaming": v.refused(v.SWITCH),
        "limit": v.refused(v.COUNT),
        "progress": v.refused(v.CALLBACK),
    },
    "narrate": {
        "model": NO_MODEL,
        "base_model": v.refused(NO_MODEL)[1:],
        "work": v.NO_PATHS[1:],
        **dict.fromkeys(("progress", "writing"), v.refused(v.CALLBACK)),
        "batch_size": v.refused(v.COUNT),
        "text": v.refused(v.STRING),
        "loudness": [(value, "must be a number from -50 to -5") for value in (v.NAN, v.INF, 0, "1", [], v.FOREIGN)],
        "output": [*v.NO_PATHS, ("a.txt", "names no audio format"), ("\0.wav", "null byte")],
        "subtitles": [([5], "expected the name of a file"), (["a.txt"], "subtitles are .srt or .vtt files")],
    },
}
for _kind in ("custom_voice", "voice_design", "voice_clone"):
    for _way in ("generate", "stream", "open"):
        _rows = TABLE[f"Qwen3TTSModel.{_way}_{_kind}"] = dict(SPEECH)
        if (_way, _kind) != ("generate", "custom_voice"):  # what is taken is tried there
            _rows.update({name: v.refused(values) for name, values in SPEECH.items() if isinstance(values, list)})
        if _way != "generate":
            _rows["text"] = v.refused(v.ONE_TEXT)
FACTORIES = {"Qwen3TTSModel", "Qwen3TTSTokenizer", "SpeechSession", "SpeechStream"}  # made by other calls only
# Of the loader, of what makes voices, and of the frame loop.
NOT_FOR_USERS = {"Qwen3TTSTokenizer.load", "Qwen3TTSTokenizer.encode_waves", "Request.waits"}


# --- what is public -------------------------------------------------------------------------------


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name, function) of everything in ``__all__``, methods included; an error class takes any words."""
    for name in qwen3tts_np.__all__:
        thing = getattr(qwen3tts_np, name)
        if isinstance(thing, type):
            if issubclass(thing, Exception):
                continue
            if name not in FACTORIES:
                yield name, thing
            yield from ((f"{name}.{m}", getattr(thing, m)) for m in dir(thing) if not m.startswith("_"))
        elif callable(thing):
            yield name, thing


def parameters() -> list[tuple[str, str]]:
    """(function, parameter) of all of these."""
    found = []
    for name, function in public():
        if not callable(function) or name in NOT_FOR_USERS:
            continue
        for parameter in inspect.signature(function).parameters:
            if parameter == "sampling":
                found += [(name, field.name) for field in dataclasses.fields(GenerationConfig)]
            elif parameter != "self":
                found.append((name, parameter))
    return found


def test_every_parameter_is_in_the_table() -> None:
    missing = [f"{name}({parameter})" for name, parameter in parameters() if parameter not in TABLE.get(name, {})]
    assert not missing, "no case names " + ", ".join(missing)


def test_every_row_is_tried() -> None:
    known = {*parameters(), *((name, row) for name in ("stream", "narrate") for row in TABLE[name])}
    assert set(ROWS) <= known
    assert sum(len(rows) for table in TABLE.values() for rows in table.values()) > 300


# --- the calls ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(synthetic: Callable[..., Path]) -> dict[str, Qwen3TTSModel]:
    return {
        kind: Qwen3TTSModel.from_pretrained(synthetic("tiny", kind), backend="reference")
        for kind in ("custom_voice", "voice_design", "base")
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Values:
    return v.audio(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def calls(models: dict[str, Qwen3TTSModel], synthetic: Callable[..., Path], tmp_path_factory: Any) -> dict[str, v.Call]:
    """A call for each name of the table, which takes one argument and has usual ones in place of the others."""
    custom, base, folder = models["custom_voice"], models["base"], tmp_path_factory.mktemp("out")
    item = VoiceClonePromptItem(None, np.ones(64, np.float32) / 8, True, False)
    request = custom.prepare("Hi", CustomVoice("ryan"), seed=1, max_new_tokens=2)
    model, codec = str(synthetic("tiny", "custom_voice")), custom.speech_tokenizer
    usual: dict[str, tuple[v.Call, dict[str, Any]]] = {
        "Qwen3TTSModel.from_pretrained": (
            lambda torch_arguments=None, **a: Qwen3TTSModel.from_pretrained(**a, **(torch_arguments or {})),
            {"pretrained_model_name_or_path": model, "backend": "reference"},
        ),
        "Qwen3TTSTokenizer.from_pretrained": (
            lambda torch_arguments=None, **a: Qwen3TTSTokenizer.from_pretrained(**a, **(torch_arguments or {})),
            {"pretrained_model_name_or_path": model, "backend": "reference"},
        ),
        "Qwen3TTSModel.for_prompts": (Qwen3TTSModel.for_prompts, {}),
        "Qwen3TTSModel.create_voice_clone_prompt": (
            base.create_voice_clone_prompt,
            {"ref_audio": (v.TONE, 24000), "x_vector_only_mode": True},
        ),
        "Qwen3TTSModel.voice": (lambda arguments: custom.voice(**arguments), {}),
        "Qwen3TTSModel.prepare": (custom.prepare, {"text": "Hi", "voice": CustomVoice("ryan"), "seed": 1}),
        "Qwen3TTSModel.generate": (custom.generate, {"requests": [request, request]}),
        "Qwen3TTSModel.frames": (lambda **a: list(custom.frames(**a)), {"requests": [request, request]}),
        "Qwen3TTSModel.stream": (custom.stream, {"request": request}),
        "Qwen3TTSModel.packets": (custom.packets, {"request": request}),
        "Qwen3TTSModel.decode": (custom.decode, {"request": request, "codes": np.zeros((2, 16), int)}),
        "Qwen3TTSModel.open_batch": (custom.open_batch, {"places": 1}),
        "Qwen3TTSModel.open": (custom.open, {"voice": CustomVoice("ryan")}),
        "Qwen3TTSModel.arriving": (custom.arriving, {"voice": CustomVoice("ryan")}),
        "Qwen3TTSTokenizer.encode": (
            codec.encode,
            {"audios": (v.TONE[:4000], 24000)},
        ),
        "Qwen3TTSTokenizer.decode": (codec.decode, {"encoded": np.zeros((2, 16), int)}),
        "Qwen3TTSTokenizer.decode_together": (codec.decode_together, {}),
        "Qwen3TTSTokenizer.load_audio": (codec.load_audio, {"x": (v.TONE, 24000), "target_sr": 24000}),
        "CustomVoice": (CustomVoice, {"speaker": "ryan"}),
        "DesignedVoice": (DesignedVoice, {}),
        "ClonedVoice": (ClonedVoice, {}),
        "Request": (lambda **a: dataclasses.replace(request, **a), {}),
        "VoiceClonePromptItem": (lambda **a: dataclasses.replace(item, **a), {}),
        "VoiceClonePromptItem.save": (item.save, {}),
        "VoiceClonePromptItem.load": (VoiceClonePromptItem.load, {}),
        "SpeechSession.feed": (
            lambda text: list(custom.open_custom_voice("ryan", seed=1, max_new_tokens=2).feed(text)),
            {},
        ),
        "trace": (lambda patterns: trace(*patterns).__enter__(), {}),
        "score": (score, {"model": custom, "speech": []}),
        "stream": (stream, {"model": custom, "text": "Hi", "speaker": "ryan"}),
        "narrate": (
            narrate,
            {"model": custom, "text": "Hi", "output": folder / "a.wav", "speaker": "ryan"},
        ),
    }
    speech = {"custom_voice": {"speaker": "ryan"}, "voice_design": {"instruct": "Old."}}
    for kind in ("custom_voice", "voice_design", "voice_clone"):
        of_kind = models["base" if kind == "voice_clone" else kind]
        voice = speech.get(kind, {"voice_clone_prompt": item})
        for way in ("generate", "stream", "open"):
            text = {} if way == "open" else {"text": "Hi"}
            arguments = {**voice, **text, "seed": 1, "max_new_tokens": 2}
            usual[f"Qwen3TTSModel.{way}_{kind}"] = getattr(of_kind, f"{way}_{kind}"), arguments
    return {name: _with(function, arguments) for name, (function, arguments) in usual.items()}


def _with(function: v.Call, usual: dict[str, Any]) -> v.Call:
    """``function`` of one argument; a clip takes the place of a saved voice."""

    def call(name: str, value: Any) -> Any:
        arguments = dict(usual)
        if "voice_clone_prompt" in usual and name in ("ref_audio", "ref_text", "x_vector_only_mode"):
            arguments |= {"voice_clone_prompt": None, "ref_audio": (v.TONE, 24000), "x_vector_only_mode": True}
        for clip in {"audios", "x"} & usual.keys() if name == "sr" else ():
            arguments[clip] = v.TONE  # without its own rate
        return function(**{**arguments, name: value})

    return call


# --- the table ------------------------------------------------------------------------------------

ROWS = [
    (name, parameter)
    for name, parameter in [*parameters(), *((n, row) for n in ("stream", "narrate") for row in TABLE[n])]
    if parameter in TABLE.get(name, {})
]


@pytest.mark.parametrize(("name", "parameter"), ROWS, ids=[f"{name}({parameter})" for name, parameter in ROWS])
def test_values(
    name: str, parameter: str, calls: dict[str, v.Call], clips: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.01)  # s, of a FIFO that nobody writes to
    monkeypatch.chdir(Path(__file__).parent)
    rows = TABLE[name][parameter]
    if rows == "audio":
        rows = [*clips, v.HOUR] if parameter == "ref_audio" else clips
    for value, says in rows:
        start = time.monotonic()
        if says is OK:
            calls[name](parameter, value)
            continue
        with pytest.raises(QwenTTSError) as refused:
            calls[name](parameter, value)
        said, shown = str(refused.value), v.shown(value)
        assert says.format(shown) in said if "{}" in says else says in said, (said, says)
        assert "\n" not in said and "\x1b" not in said and len(said) < SENTENCE, said[:200]
        assert time.monotonic() - start < SECONDS, shown


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Hello there. " * 80_000, v.EMOJI], ids=["a megabyte", "100,000 emoji"])
def test_a_text_beyond_the_model_is_refused_in_seconds(models: dict[str, Qwen3TTSModel], text: str) -> None:
    start = time.process_time()
    with pytest.raises(QwenTTSError, match=r"has \d+ positions and the model has 32768"):
        models["custom_voice"].prepare(text, CustomVoice("ryan"))
    assert time.process_time() - start < 2 * SECONDS


@pytest.mark.parametrize("name", ["temperature", "subtalker_temperature", "repetition_penalty"])
def test_both_paths_take_the_same_numbers(synthetic: Callable[..., Path], name: str) -> None:
    """Numbers at the ends of the range of a float give codes on both paths, or an error on both."""
    found = []
    for backend in ("reference", "compiled"):
        model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend=backend, threads=1)
        for value in (1e308, 1e-308, 5e-324, sys.float_info.max):
            request = model.prepare("Hi", CustomVoice("ryan"), seed=1, max_new_tokens=3, **{name: value})
            try:
                found.append([list(frame.codes[0]) for frame in model.frames([request])])
            except QwenTTSError:
                found.append([])
    assert found[: len(found) // 2] == found[len(found) // 2 :]
