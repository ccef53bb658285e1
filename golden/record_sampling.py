"""Record the sampling of codes from logits by transformers and torch: cases/sampling.

    python golden/record_sampling.py

No model is needed: a stub with known logits is run by ``generate`` with the same arguments that the official talker and
code predictor pass, so the order of the processors, the stopping and the draws are the real ones. The logits are not
stored. They are multiples of 1 / 2**20 derived from the frozen stream of ``numpy.random.RandomState``, hence the same
bits on every machine; case.json documents how.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, TopPLogitsWarper
from transformers.modeling_outputs import CausalLMOutput

OUT = Path(__file__).parent / "cases" / "sampling"
SAFE_MARGIN = 5e-6  # float32 softmax differs between builds of torch and NumPy by up to 2e-6 relative

TALKER = {"role": "talker", "vocab": 3072, "eos": 2150}
SUBTALKER = {"role": "subtalker", "vocab": 2048, "eos": None}
DEFAULTS = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "talker_defaults": {**TALKER, **DEFAULTS, "repetition_penalty": 1.05, "batch": 1, "steps": 60, "seed": 0},
    "talker_top_p": {**TALKER, **DEFAULTS, "top_k": 0, "top_p": 0.8, "repetition_penalty": 1.05,
                     "batch": 1, "steps": 12, "seed": -1},
    "talker_batch": {**TALKER, **DEFAULTS, "temperature": 1.3, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.3,
                     "batch": 3, "steps": 60, "seed": 2**32 + 7, "eos_boost": 4.0},
    "talker_all_off": {**TALKER, **DEFAULTS, "temperature": 1.0, "top_k": 0, "repetition_penalty": 1.0,
                       "batch": 2, "steps": 12, "seed": 11},
    "talker_top_p_zero": {**TALKER, **DEFAULTS, "top_p": 0.0, "repetition_penalty": 1.5,
                          "batch": 1, "steps": 30, "seed": 12},
    "talker_ties": {**TALKER, **DEFAULTS, "top_k": 30, "repetition_penalty": 1.05, "levels": 2**6,
                    "batch": 2, "steps": 12, "seed": 13},
    "talker_small": {**TALKER, "vocab": 1152, "eos": 230, **DEFAULTS, "repetition_penalty": 0.8,
                     "batch": 1, "steps": 40, "seed": 14},
    "talker_greedy": {**TALKER, **DEFAULTS, "do_sample": False, "temperature": 0.0, "repetition_penalty": 2.0,
                      "batch": 2, "steps": 40, "seed": 15, "eos_boost": 2.0},
    "subtalker_defaults": {**SUBTALKER, **DEFAULTS, "batch": 2, "steps": 15, "seed": 16},
    "subtalker_top_p": {**SUBTALKER, **DEFAULTS, "temperature": 0.7, "top_k": 0, "top_p": 0.9,
                        "batch": 1, "steps": 15, "seed": 17},
    "subtalker_greedy": {**SUBTALKER, **DEFAULTS, "do_sample": False, "batch": 2, "steps": 15, "seed": 18},
}  # fmt: skip
STORED_STEPS = (0, 1, 2, 6)  # whose scores are stored: around the minimum length, and with some history
DRAWS = [(seed, batch, vocab) for seed in (0, 1, -1, 2**32 - 1, 2**40 + 3, -(2**63), 2**64 - 1)
         for batch, vocab in ((1, 16), (1, 3072), (3, 2048))]  # fmt: skip


class Scripted(PreTrainedModel, GenerationMixin):
    """Returns ``script[t]`` at step t, whatever the input."""

    config_class = PretrainedConfig

    def __init__(self, script: torch.Tensor) -> None:
        super().__init__(PretrainedConfig(hidden_size=1, num_hidden_layers=1))
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.script, self.step = script, 0  # [S, B, V]

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> CausalLMOutput:
        self.step += 1
        return CausalLMOutput(logits=self.script[self.step - 1][:, None])


def make_logits(number: int, run: dict[str, Any]) -> torch.Tensor:
    """[S, B, V]: multiples of 16 / levels from -8 to 8; eos_boost is added to the end of speech."""
    levels = run.get("levels", 2**24)
    raw = np.random.RandomState(number).randint(0, levels, size=(run["steps"], run["batch"], run["vocab"]))
    logits = (raw * (16 / levels) - 8).astype(np.float32)
    if "eos_boost" in run:
        logits[..., run["eos"]] += np.float32(run["eos_boost"])
    return torch.from_numpy(logits)


def generate(logits: torch.Tensor, run: dict[str, Any]) -> Any:
    """One official ``generate``, with the arguments of ``Qwen3TTSForConditionalGeneration`` for this role."""
    arguments = {k: run[k] for k in DEFAULTS} | {"max_new_tokens": run["steps"]}
    if run["role"] == "talker":
        arguments |= {
            "min_new_tokens": 2,
            "eos_token_id": run["eos"],
            "repetition_penalty": run["repetition_penalty"],
            "suppress_tokens": [i for i in range(run["vocab"] - 1024, run["vocab"]) if i != run["eos"]],
        }
    torch.manual_seed(run["seed"])
    return Scripted(logits).generate(
        inputs_embeds=torch.zeros(run["batch"], 3, 1),
        attention_mask=torch.ones(run["batch"], 3, dtype=torch.long),
        use_cache=False, output_scores=True, return_dict_in_generate=True, **arguments,
    )  # fmt: skip


class RaceMargin:
    """The margin of the draws: the smallest (winner / second) - 1 of p / q so far."""

    def __init__(self) -> None:
        self.least = float("inf")
        self._multinomial = torch.multinomial
        torch.multinomial = self  # type: ignore[assignment]

    def __call__(self, p: torch.Tensor, num_samples: int) -> torch.Tensor:
        state = torch.get_rng_state()
        best = (p / torch.empty_like(p).exponential_()).topk(2).values  # [B, 2]
        torch.set_rng_state(state)
        self.least = min(self.least, float((best[:, 0] / best[:, 1] - 1).min()))
        return self._multinomial(p, num_samples)


class BorderMargin:
    """The margin of the top-p cuts: the smallest |cumulative probability - border| so far."""

    def __init__(self) -> None:
        self.least = float("inf")
        official = TopPLogitsWarper.__call__

        def watched(warper: TopPLogitsWarper, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            cumulative = scores.double().sort().values.softmax(-1).cumsum(-1)[..., :-1]  # the best one always stays
            self.least = min(self.least, float((cumulative - (1 - warper.top_p)).abs().min()))
            return official(warper, input_ids, scores)

        TopPLogitsWarper.__call__ = watched  # type: ignore[method-assign]


def main() -> None:
    race, border = RaceMargin(), BorderMargin()
    tensors: dict[str, np.ndarray] = {}
    for number, (name, run) in enumerate(RUNS.items()):
        logits = make_logits(number, run)
        result = generate(logits, run)
        tensors[f"{name}.codes"] = result.sequences.numpy().astype(np.int32)  # [B, S]
        for step in (s for s in STORED_STEPS if s < len(result.scores)):
            scores = result.scores[step].numpy()  # [B, V]
            kept = np.argwhere(np.isfinite(scores)).astype(np.int32)  # [kept, 2]
            # argwhere gives a transposed view, and safetensors writes memory in its order
            tensors[f"{name}.kept@{step}"] = np.ascontiguousarray(kept)
            tensors[f"{name}.scores@{step}"] = scores[np.isfinite(scores)]  # [kept]
        run["ran"] = result.sequences.shape[1]
    for seed, batch, vocab in DRAWS:
        weights = torch.from_numpy(draw_weights(batch, vocab))
        torch.manual_seed(seed)
        drawn = torch.stack([torch.multinomial(weights, 1)[:, 0] for _ in range(20)])
        tensors[f"draws.{seed}.{batch}x{vocab}"] = drawn.numpy().astype(np.int32)  # [20, B]
    for margin in (race, border):
        assert margin.least > SAFE_MARGIN, f"{type(margin).__name__} {margin.least:.2g}; change a seed"
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / "expected.safetensors")
    (OUT / "case.json").write_text(json.dumps(describe(race.least, border.least), indent=1) + "\n")
    print(f"{OUT}: {len(tensors)} tensors, closest draw {race.least:.2g}, closest border {border.least:.2g}")


def draw_weights(batch: int, vocab: int) -> np.ndarray:
    """[B, V] float32 without any rounding: squares of 12-bit numbers, every third one 0."""
    raw = np.random.RandomState(vocab).randint(0, 2**12, size=(batch, vocab))
    raw[:, ::3] = 0
    return (raw**2 / 2**24).astype(np.float32)


def describe(race: float, border: float) -> dict[str, Any]:
    return {
        "made_by": "golden/record_sampling.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "logits": "run number n (from 0): RandomState(n).randint(0, levels, size=(steps, batch, vocab)) "
        "* (16 / levels) - 8 as float32, levels 2**24 where not given, plus eos_boost at eos",
        "draws": "draws.SEED.BxV: 20 draws after torch.manual_seed(SEED) from RandomState(V).randint(0, 2**12, "
        "size=(B, V)), every third column 0, squared / 2**24 as float32",
        "tolerance": {"codes": 0, "kept": 0, "scores": 0},
        "why": "Scores are products, quotients and comparisons of float32 numbers, the same in IEEE arithmetic "
        "anywhere. Softmax does differ between builds, by up to 2e-6 relative. That can turn a draw only where the two "
        f"best p / q are that near: the nearest recorded are {race:.2g} apart; and a top-p cut only where a cumulative "
        f"probability is that near the border: the nearest is {border:.2g} away. The recorder demands {SAFE_MARGIN} "
        "of both.",
        "runs": RUNS,
    }


if __name__ == "__main__":
    main()
