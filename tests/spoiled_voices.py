"""Does `score` name what is wrong with voices that were trained wrongly on purpose, and nothing else?

    .venv-official/bin/python golden/demo_voice/spoil.py DIR      trains them
    python tests/spoiled_voices.py DIR [--format int4]            prints a table; exit status 1 for a wrong name

Scores the held-out sentences in DIR, in both layouts of the prompt, and the demo voice of the package beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from qwen3tts_np import Qwen3TTSModel, score
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.speech.demo import CHECKPOINT as DEMO
from qwen3tts_np.talker.loss import AFTER_NEXT, BEFORE, NEXT, OF


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--format", default="auto", help="of the weights")
    args = parser.parse_args()
    voices = {"the demo voice": (DEMO, set())} | {
        path.parent.name: (path.parent, set(json.loads(path.read_text(encoding="utf-8"))))
        for path in sorted(args.folder.glob("*/faults.json"))
    }
    rows, wrong = [], 0
    for name, (path, faults) in voices.items():
        model = Qwen3TTSModel.from_pretrained(path, weights_format=args.format)
        for streaming in (False, True):
            found = score(model, args.folder / "held_out.jsonl", streaming=streaming)
            named = {fault.name for fault in found.diagnosis.faults}
            wrong += named != faults
            talker, predictor = found.talker, found.predictor
            losses = (talker[NEXT], talker[AFTER_NEXT], predictor[BEFORE, NEXT], predictor[OF, NEXT])
            losses += (predictor[BEFORE, AFTER_NEXT], found.codebooks[-1].cross_entropy)
            cells = [name, "streaming" if streaming else "whole text", *(f"{loss:.2f}" for loss in losses)]
            missed, guessed = sorted(faults - named), sorted(named - faults)
            verdict = [
                *sorted(named & faults),
                *(f"NOT {one}" for one in missed),
                *(f"WRONGLY {one}" for one in guessed),
            ]
            rows.append([*cells, ", ".join(verdict) or "no known fault"])
    headers = ["voice", "layout", "talker", "after next", "predictor", "state of", "after next", "last", "named"]
    print(as_markdown(Table("", headers, "llrrrrrrl", rows)))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
