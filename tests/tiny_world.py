"""A folder in which the commands of the documentation run as they are printed, in seconds.

The published models are there under their names, as tiny checkpoints with random weights: a directory never touches
the network. So are the clip, the book and the voice that the examples speak of, and programs that stand in for a
player and for the installed command.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from training_world import write_data

from qwen3tts_np import VoiceClonePromptItem, cli
from qwen3tts_np.checkpoint.adapter import Adapter
from qwen3tts_np.checkpoint.published import Like, ModelType
from qwen3tts_np.training.adapters import new_addition, write_adapter

ROOT = Path(__file__).parents[1]
MODELS: dict[str, tuple[Like, ModelType]] = {
    "Qwen/Qwen3-TTS-12Hz-0.6B-Base": ("tiny", "base"),
    "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice": ("tiny", "custom_voice"),
    "Qwen/Qwen3-TTS-12Hz-1.7B-Base": ("tiny-1.7b", "base"),
    "Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice": ("tiny-1.7b", "custom_voice"),
    "Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign": ("tiny-1.7b", "voice_design"),
}
MAX_NEW_TOKENS = 12
QUICK = {
    "bench": ["--seconds", "0.1"],
    "evaluate": ["--measure", "sound"],
}  # what a command as printed would take its time for
BOOK = "It rained. The ferry came late, and nobody minded.\n\nIn the morning the sun was out again."
PLAY = "Anna: Hello.\nBob: Good morning, Nguyen. [pause 0.5s] It rains."
CAST = {"Anna": "vivian", "Bob": "ryan"}
WORDS = {"Nguyen": "Win"}
REQUEST = {"method": "generate_custom_voice", "arguments": {"text": "Hello.", "speaker": "vivian"}, "seed": 1}
PROGRAM = """#!/bin/sh
PYTHONPATH={path} exec {python} -m qwen3tts_np "$@"
"""
PIP = """#!/bin/sh
test "$1" = install
"""
PLAYER = """#!/bin/sh
exec cat > {heard}
"""


def build(folder: Path, synthetic: Callable[..., Path]) -> None:
    """Fill ``folder``. ``synthetic`` is the fixture of conftest.py."""
    (folder / "Qwen").mkdir()
    for name, (like, model_type) in MODELS.items():
        shutil.copytree(synthetic(like, model_type), folder / name)
        generation = folder / name / "generation_config.json"  # random weights babble on: here they stop soon
        generation.write_text(json.dumps({**json.loads(generation.read_text()), "max_new_tokens": MAX_NEW_TOKENS}))
    t = np.arange(round(3.5 * 24000)) / 24000
    hum = 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2
    soundfile.write(folder / "ada.wav", hum, 24000)
    soundfile.write(folder / "anything.wav", hum[:24000] / 2, 24000)
    np.save(folder / "ada.npy", np.arange(160).reshape(10, 16) % 128)
    (folder / "request.json").write_text(json.dumps(REQUEST), encoding="utf-8")
    official = {"audio": "anything.wav", "text": "Good morning.", "ref_audio": "ada.wav"}
    (folder / "train.jsonl").write_text(json.dumps(official) + "\n", encoding="utf-8")
    raw = [official, {"audio": "ada.wav", "text": "What Ada says."}]
    (folder / "raw.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in raw), encoding="utf-8")
    spoken = {"text": "Good morning.", "speaker": "vivian", "audio_codes": "ada.npy"}
    (folder / "held-out.jsonl").write_text(json.dumps(spoken) + "\n", encoding="utf-8")
    write_data(folder)
    (folder / "train.env").write_text("NUM_EPOCHS=1\nBATCH_SIZE=5\nLOGGING_STEPS=1\n", encoding="utf-8")
    (folder / "texts.jsonl").write_text(json.dumps({"id": "a1", "text": "Good morning.", "speaker": "ryan"}))
    (folder / "texts.csv").write_text("id,text\na1,Good morning.\n", encoding="utf-8")
    (folder / "spoken.jsonl").write_text('{"id": "a", "text": "Hello.", "audio": "ada.wav"}\n', encoding="utf-8")
    (folder / "meta.lst").write_text("a|What Ada says.|ada.wav|Hello.\n", encoding="utf-8")
    (folder / "book.txt").write_text(BOOK, encoding="utf-8")
    (folder / "texts.txt").write_text("Good morning.\n", encoding="utf-8")
    (folder / "play.txt").write_text(PLAY, encoding="utf-8")
    (folder / "cast.json").write_text(json.dumps(CAST), encoding="utf-8")
    (folder / "words.json").write_text(json.dumps(WORDS), encoding="utf-8")
    voice = VoiceClonePromptItem(None, np.ones(64, np.float32) / 8, True, False)
    voice.save(folder / "ada.safetensors")
    VoiceClonePromptItem(None, np.arange(64, dtype=np.float32) / 64, True, False).save(folder / "bob.safetensors")
    (folder / "voices").mkdir()
    (folder / "ada-lora").mkdir()
    module, row = "talker.model.layers.0.mlp.up_proj", 1151
    addition = new_addition(module, (160, 64), rank=4, seed=0)
    adapter = Adapter({module: addition}, 4, 4.0, {row: np.ones(64, np.float32) / 8}, {"ada": row})
    write_adapter(folder / "ada-lora", adapter, "Qwen/Qwen3-TTS-12Hz-0.6B-Base", 64)
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    programs = {
        "qwen3tts-np": PROGRAM.format(path=shlex.quote(path), python=shlex.quote(sys.executable)),
        "pip": PIP,
        "aplay": PLAYER.format(heard=shlex.quote(str(folder / "heard.wav"))),
    }
    (folder / "bin").mkdir()
    for name, content in programs.items():
        (folder / "bin" / name).write_text(content, encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)


def run(line: str, folder: Path) -> None:
    """Run one command line in ``folder``, the current directory; AssertionError if it fails.

    A plain call of the program runs in this process, which has compiled the kernels already, and others in bash.
    """
    words = shlex.split(line)
    if words[0] == "qwen3tts-np" and not {"|", "||", ">", "&&", "--help"} & set(words):  # argparse leaves after --help
        assert cli.main([*words[1:], *QUICK.get(words[1], [])]) == 0, line
        return
    home = folder / "home"
    for needed in (".zfunc", ".config/fish/completions"):
        (home / needed).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    command = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
