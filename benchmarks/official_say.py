"""The official package as a command that speaks a text, for ``peers.py``: MODEL TEXT OUT [--threads N] [--frames N].

Runs in the environment of golden/setup_official.sh. The model is a custom-voice checkpoint; its first speaker speaks.
"""

from __future__ import annotations

import argparse
import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import soundfile
import torch
from qwen_tts import Qwen3TTSModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Qwen3TTSModel.from_pretrained(args.model, device_map="cpu", dtype=getattr(torch, args.dtype))
    torch.manual_seed(args.seed)
    speaker = model.get_supported_speakers()[0]
    waves, rate = model.generate_custom_voice(args.text, speaker, max_new_tokens=args.frames)
    soundfile.write(args.out, waves[0], rate)


if __name__ == "__main__":
    main()
