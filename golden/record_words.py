"""Record draws step by step with all of their inputs: cases/sampling_words.

    python golden/record_words.py

For a port without MT19937, or whose sampled codes differ: the words of the generator, the times computed from them, and
for a few steps of the talker's sampling the logits, the scores, the probabilities and the code. case.json names them.
Run ``record.py --manifest`` afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record_sampling import RUNS, generate, make_logits
from safetensors.numpy import save_file

OUT = Path(__file__).parent / "cases" / "sampling_words"
SEEDS = (0, 1, -1, 2**32 - 1, 2**40 + 3, -(2**63), 2**64 - 1)
COUNT = 1300  # words of a seed; the twister makes 624 at a time, so this is the third block
RUN = "talker_small"
STEPS = 4


def main() -> None:
    tensors: dict[str, np.ndarray] = {}
    for seed in SEEDS:
        tensors[f"words.{seed}"] = words(seed, COUNT)
        torch.manual_seed(seed)
        tensors[f"times.{seed}"] = torch.empty(8).exponential_().numpy()
    tensors |= steps()
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / "expected.safetensors")
    (OUT / "case.json").write_text(json.dumps(describe(tensors), indent=1) + "\n", encoding="utf-8")


def words(seed: int, count: int) -> np.ndarray:
    """The raw 32-bit words of torch's generator; a 64-bit number is two of them, the high half first."""
    torch.manual_seed(seed)
    pairs = torch.empty(count // 2, dtype=torch.int64).random_(-(2**63), None).numpy().view(np.uint64)
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(2**32 - 1)], axis=1).astype(np.uint32).ravel()


def steps() -> dict[str, np.ndarray]:
    """Logits [S, V] to codes [S]: the scores after all processors, the probabilities, the times, the race."""
    run = RUNS[RUN] | {"steps": STEPS}
    logits = make_logits(list(RUNS).index(RUN), RUNS[RUN])[:STEPS]
    result = generate(logits, run)
    scores = torch.cat(result.scores)  # [S, V], -inf where a code is out
    p = scores.softmax(-1)
    torch.manual_seed(run["seed"])
    times = torch.stack([torch.empty(run["vocab"]).exponential_() for _ in range(STEPS)])
    codes = result.sequences[0]
    assert torch.equal((p / times).argmax(-1), codes), "torch.multinomial is not the race it was"
    kept = torch.isfinite(scores)
    return {
        "steps.logits": logits[:, 0].numpy(),
        "steps.scores": torch.where(kept, scores, torch.full_like(scores, -1e30)).numpy(),
        "steps.probabilities": p.numpy(),
        "steps.words": words(run["seed"], 2 * STEPS * run["vocab"]).reshape(STEPS, -1, 2),
        "steps.times": times.numpy(),
        "steps.codes": codes.numpy().astype(np.int32),
    }


def describe(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "made_by": "golden/record_words.py",
        "torch": torch.__version__,
        "about": "words.SEED: the first words of MT19937 after torch.manual_seed(SEED), of which the low 32 bits seed "
        "it by init_genrand; times.SEED: the first Exp(1) numbers. A time is -log1p(-u) rounded to float32, u = "
        "(word0 mod 2^21 * 2^32 + word1) / 2^53 for the next two words. steps: four codes 0 of the talker, V = 1152: "
        "logits, scores after all processors (-1e30 where a code is out), probabilities = softmax, the words and times "
        "of each draw, codes = argmax(probabilities / times).",
        "run": RUNS[RUN] | {"steps": STEPS},
        "tolerance": "words, scores and codes are equal; times and probabilities differ by 2e-6 of their value at most",
        "tensors": {name: {"shape": list(value.shape)} for name, value in tensors.items()},
    }


if __name__ == "__main__":
    main()
