"""Make the demo voice: speech, codebooks, codec, talker, checkpoint.

    golden/setup_official.sh                                       once: the environment
    .venv-official/bin/pip install --no-deps espeakng-loader==0.2.4 pocketsphinx==5.1.1
    .venv-official/bin/python golden/demo_voice/make.py            everything, or what is still missing

    --state DIR     where everything is kept between runs (default: demo_voice_state)
    --stage NAME    only this one: prepare, talker, decoder, encoder, speaker, export; talker, decoder and encoder do
                    not need each other and may run at the same time, each in a process of its own
    --device cuda   train on a GPU
    --talker-steps, --decoder-steps, --encoder-steps, --speaker-steps N
                    other lengths; while the rate has not begun to fall, a stopped run may go on with another length

Stop it when you like: the same command goes on from the last state, and the result is the same.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # official.py

STAGES = ("prepare", "talker", "decoder", "encoder", "speaker", "export")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path("demo_voice_state"))
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--talker-steps", type=int, default=1500)
    parser.add_argument("--decoder-steps", type=int, default=3100)
    parser.add_argument("--encoder-steps", type=int, default=1000)
    parser.add_argument("--speaker-steps", type=int, default=400)
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    for stage in [args.stage] if args.stage else STAGES:
        run(stage, args)


def run(stage: str, args: argparse.Namespace) -> None:
    """A stage imports what it needs when its turn comes."""
    module = import_module(stage)
    if stage == "prepare":
        module.prepare(args.state)
    elif stage == "export":
        module.export(args.state)
    else:
        module.train(args.state, args.device, getattr(args, f"{stage}_steps"))


if __name__ == "__main__":
    main()
