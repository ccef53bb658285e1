"""Demo voices that are trained wrongly on purpose: what the weights look like after each known fault of a script.

    .venv-official/bin/python golden/demo_voice/spoil.py DIR [--only NAME ...]     default: all of VOICES
    python tests/spoiled_voices.py DIR                                             then: does `score` name each?

Each begins with the weights of the package and learns its own speech: sentences that it has spoken itself, drawn as
users hear it, so a voice without a fault stays as it is. Sound weights forget slowly what a fault concerns (after 60
steps the code predictor still does better from the right state), so the text embeddings and the code predictor begin
anew where theirs is to be seen. DIR gets a checkpoint for each, with `faults.json`, the faults that it has, and
`held_out.jsonl`, sentences that none of them has learned from, as a manifest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from grammar import held_out, training_text  # noqa: E402
from layout import GROUPS, HIDDEN, SPEAKERS  # noqa: E402
from official import load, talker_code  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from talker import IGNORED, Batch, Prompts, collate  # noqa: E402

SHIPPED = HERE.parents[1] / "qwen3tts_np" / "demo_voice"
SEED = 0
TEXTS, HELD_OUT = 600, 24  # that are spoken
TOGETHER = 100  # spoken at once
BATCH = 12
LEARNED_FRAMES = 0.3  # share that the code predictor learns from
WARM_UP = 20  # steps


@dataclass(frozen=True)
class Voice:
    """A training and its faults."""

    faults: tuple[str, ...] = ()
    steps: int = 100
    rate: float = 1e-3


LABELS, SUB_LABELS, STATE = "talker_labels_twice", "sub_talker_labels_twice", "state_of_frame"
UNTRAINED, PROJECTION, END = "last_codebook_untrained", "text_projection_left_out", "end_of_speech_lost"

VOICES = {
    "talker-labels-twice": Voice((LABELS,)),
    "state-of-frame": Voice((STATE,), rate=2e-3),
    "text-projection-left-out": Voice((PROJECTION,), rate=2e-3),
    "rate-too-high": Voice((END,), steps=30, rate=3e-2),
    "official": Voice((LABELS, SUB_LABELS, UNTRAINED, STATE), rate=2e-3),
    "sound": Voice(),
    "sub-talker-labels-twice": Voice((SUB_LABELS, UNTRAINED)),
    "last-codebook-untrained": Voice((UNTRAINED,)),
    "labels-and-projection": Voice((LABELS, PROJECTION), rate=2e-3),
    "labels-and-last-codebook": Voice((LABELS, UNTRAINED)),
    "state-and-projection": Voice((STATE, PROJECTION), rate=2e-3),
}


@dataclass(frozen=True)
class Speech:
    """What the voice has spoken."""

    texts: list[str]
    voices: list[int]
    codes: list[np.ndarray]  # [frames, GROUPS] each


def spoken(texts: list[str], path: Path) -> Speech:
    """``texts`` in both voices, with the sampling of the checkpoint; kept in ``path``."""
    voices = [i % len(SPEAKERS) for i in range(len(texts))]
    if not path.exists():
        model = load(SHIPPED)
        torch.manual_seed(SEED)
        codes: list[Any] = []
        for start in range(0, len(texts), TOGETHER):
            part = slice(start, start + TOGETHER)
            codes += speak(model, texts[part], voices[part])
            print(f"{len(codes)} of {len(texts)} texts spoken", flush=True)
        np.savez(path, **{str(i): rows for i, rows in enumerate(codes)})
    with np.load(path) as kept:
        return Speech(texts, voices, [kept[str(i)] for i in range(len(texts))])


@torch.inference_mode()
def speak(model: Any, texts: list[str], voices: list[int]) -> list[np.ndarray]:
    names = list(SPEAKERS)
    inputs = model._tokenize_texts([model._build_assistant_text(text) for text in texts])
    settings = model._merge_generate_kwargs()
    codes, _ = model.model.generate(
        input_ids=inputs,
        instruct_ids=[None] * len(texts),
        languages=["English"] * len(texts),
        speakers=[names[voice] for voice in voices],
        non_streaming_mode=True,
        **settings,
    )
    return [rows.cpu().numpy() for rows in codes]


class Lesson:
    """The talker, and the losses of a script that may be wrong."""

    def __init__(self, speech: Speech, faults: tuple[str, ...], scratch: Path) -> None:
        self.faults, self.speech = faults, speech
        self.prompts = Prompts(scratch)
        weights, config = load_file(SHIPPED / "model.safetensors"), self.prompts.config
        if PROJECTION in faults:
            widen(weights, config)
        model = talker_code.Qwen3TTSForConditionalGeneration(talker_code.Qwen3TTSConfig(**config))
        model.load_state_dict(weights)
        self.talker: Any = model.float().talker
        if PROJECTION in faults:  # what is to be learned anew, so that the weights do not know it from before
            self.talker.model.text_embedding.weight.data.normal_(0, 0.5)
        if STATE in faults:
            for name, tensor in self.talker.code_predictor.named_parameters():
                if tensor.ndim == 2 and "codec_embedding" not in name:
                    tensor.data.normal_(0, 0.5 * tensor.shape[1] ** -0.5)
        if UNTRAINED in faults and SUB_LABELS not in faults:
            self.talker.code_predictor.lm_head[-1].weight.data.normal_(0, 0.02)

    def loss(self, draw: np.random.Generator) -> dict[str, torch.Tensor]:
        batch = self._batch(draw)
        hidden = self.talker.model(inputs_embeds=self._embed(batch), use_cache=False).last_hidden_state
        labels = batch.next
        if LABELS in self.faults:
            labels = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        logits = self.talker.codec_head(hidden)
        talker = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return {"talker": talker, "sub-talker": self._others(hidden, batch, draw)}

    def _batch(self, draw: np.random.Generator) -> Batch:
        rows = []
        for i in draw.choice(len(self.speech.texts), BATCH, replace=False):
            codes = self.speech.codes[i]
            words = np.zeros(len(codes), np.int64)
            streaming = draw.random() < 0.4
            rows.append(self.prompts.row(self.speech.texts[i], self.speech.voices[i], codes, words, streaming, True))
        config = self.prompts.config
        return collate(rows, config["talker_config"]["codec_eos_token_id"], config["tts_pad_token_id"], "cpu")

    def _embed(self, batch: Batch) -> torch.Tensor:
        """[B, T, H]"""
        model = self.talker.model
        text = model.text_embedding(batch.text)
        if PROJECTION not in self.faults:
            text = self.talker.text_projection(text)
        codec = model.codec_embedding(batch.codec.clamp_min(0)) * (batch.codec >= 0)[..., None]
        frames = batch.spoken.clamp_min(0)
        read = sum(table(frames[..., group]) for group, table in enumerate(self._tables()))
        return text + codec + read * (batch.spoken[..., :1] >= 0)

    def _tables(self) -> list[Any]:
        return [self.talker.model.codec_embedding, *self.talker.code_predictor.get_input_embeddings()]

    def _others(self, hidden: torch.Tensor, batch: Batch, draw: np.random.Generator) -> torch.Tensor:
        frames = batch.next_frame
        chosen = (frames[..., 0] >= 0) & torch.from_numpy(draw.random(frames.shape[:2]) < LEARNED_FRAMES)
        if STATE in self.faults:
            hidden = F.pad(hidden[:, 1:], (0, 0, 0, 1))
        states, codes = hidden[chosen], frames[chosen]  # [n, H], [n, GROUPS]
        predictor = self.talker.code_predictor
        before = [table(codes[:, group]) for group, table in enumerate(self._tables()[: GROUPS - 1])]
        inputs = predictor.small_to_mtp_projection(torch.stack([states, *before], 1))
        outputs = predictor.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        logits = torch.stack([head(outputs[:, group]) for group, head in enumerate(predictor.lm_head, 1)], 2)
        labels = codes[:, 1:]
        if SUB_LABELS in self.faults:
            logits, labels = logits[..., :-1], labels[:, 1:]
        elif UNTRAINED in self.faults:
            logits, labels = logits[..., :-1], labels[:, :-1]
        return F.cross_entropy(logits, labels)


def widen(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Text embeddings as wide as the talker, as on 1.7B; zeros, so the model is the same."""
    more = HIDDEN - config["talker_config"]["text_hidden_size"]
    config["talker_config"]["text_hidden_size"] = HIDDEN
    for name, axes in {
        "model.text_embedding.weight": (0, more),
        "text_projection.linear_fc1.weight": (0, more, 0, more),
        "text_projection.linear_fc1.bias": (0, more),
        "text_projection.linear_fc2.weight": (0, more),
    }.items():
        weights[f"talker.{name}"] = F.pad(weights[f"talker.{name}"], axes)


def train(voice: Voice, lesson: Lesson) -> None:
    """AdamW at a constant rate after the warm-up, as the official script."""
    parameters = list(lesson.talker.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=voice.rate, weight_decay=0.01)
    lesson.talker.train()
    for step in range(voice.steps):
        optimiser.param_groups[0]["lr"] = voice.rate * min(1.0, (step + 1) / WARM_UP)
        parts = lesson.loss(np.random.default_rng([SEED, step]))
        optimiser.zero_grad()
        (parts["talker"] + 0.3 * parts["sub-talker"]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 20 == 19:
            print(
                f"  {step + 1}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in parts.items()), flush=True
            )


def write(lesson: Lesson, voice: Voice, folder: Path) -> None:
    """The checkpoint in bfloat16, and its faults."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SHIPPED, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["talker_config"]["text_hidden_size"] = lesson.prompts.config["talker_config"]["text_hidden_size"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {f"talker.{name}": tensor for name, tensor in lesson.talker.state_dict().items()}
    kept = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "faults.json").write_text(json.dumps(list(voice.faults)) + "\n", encoding="utf-8")


def write_manifest(speech: Speech, path: Path) -> None:
    names = list(SPEAKERS)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for i, (text, voice, codes) in enumerate(zip(speech.texts, speech.voices, speech.codes, strict=True)):
            row = {"id": f"{i:02}", "text": text, "speaker": names[voice], "language": "english"}
            file.write(json.dumps({**row, "audio_codes": codes.tolist()}, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=list(VOICES), default=list(VOICES))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    unheard = held_out(HELD_OUT, SEED)
    write_manifest(spoken(unheard, args.folder / "held_out.npz"), args.folder / "held_out.jsonl")
    texts = [training_text(i, set(unheard), SEED) for i in range(TEXTS)]
    speech = spoken(texts, args.folder / "spoken.npz")
    for name in args.only:
        voice = VOICES[name]
        print(name, flush=True)
        torch.manual_seed(SEED)
        lesson = Lesson(speech, voice.faults, args.folder / "tokenizer")
        train(voice, lesson)
        write(lesson, voice, args.folder / name)


if __name__ == "__main__":
    main()
