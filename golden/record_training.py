"""Record gradients and training steps of the official package: cases/training_*.

    .venv-official/bin/python golden/record_training.py [--checkpoints DIR] [--python P]

``record.py --check`` records them again elsewhere, as it does the others, and says what moved.

The losses are those of the official classes: the talker's ``forward`` with labels, and ``forward_sub_talker_finetune``.
What ``finetuning/sft_12hz.py`` (QwenLM/Qwen3-TTS, 022e286) does around them is done here: the sequences of dataset.py,
the sum of embeddings, the weight 0.3, accumulation, clipping, AdamW. Each of two alignments is recorded:

    official     as the script has it: the talker's labels shifted before the loss shifts them, those of the code
                 predictor shifted by the loss, and the state of the frame itself
    inference    labels shifted once, those of the code predictor not, and the state before the frame

Where the script cannot run on these checkpoints, both depart from it: text embeddings are projected, weights are
float32 without autocast, attention is PyTorch's own, and the speaker embedding is given.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sketch
import store
import torch
from cases import Checkpoint
from official import float64, load, versions
from record import Smith
from store import CASES, Json, Tensors
from torch.nn import functional as F

MADE_BY = "golden/record_training.py"
TEXTS = ("The ferry leaves at nine.", "It rains.", "Nobody minded, and in the morning the sun was out again.", "Yes!")
FRAMES = (9, 5, 14, 7)
BATCH = 2  # utterances of a micro-batch
ACCUMULATION, CLIP, DECAY = 4, 1.0, 0.01  # the script's
EPOCHS = 20  # of two micro-batches, which make a step whose loss is still divided by ACCUMULATION
RATE = 2e-4  # ten times the script's: at its own, a step is not much more than the rounding of float32 weights
SUB_WEIGHT = 0.3
IGNORED = -100
ABOUT = {
    "official": "Gradients and training steps as sft_12hz.py computes them, its three shifts included.",
    "inference": "Gradients and training steps with each code predicted from what generation predicts it from.",
}


@dataclass(frozen=True)
class Lesson:
    """The utterances that are learnt."""

    ids: list[list[int]]  # of the templates
    codes: list[np.ndarray]  # [f, 16]
    speaker: np.ndarray  # [H]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--checkpoints", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        smith = Smith(args.python, (args.checkpoints or Path(scratch)).resolve())
        record_training(smith, "*", CASES)
    store.write_manifest()


def record_training(smith: Smith, pattern: str, out: Path) -> None:
    """Record the cases whose names fit ``pattern``, as folders of ``out``."""
    for like in ("tiny", "tiny-1.7b"):
        checkpoint = Checkpoint(like, "base", 0)
        for alignment in ABOUT:
            name = f"training_{like}_{alignment}"
            if fnmatch.fnmatchcase(name, pattern):
                record(smith.make(checkpoint), smith.describe(checkpoint), alignment, out / name)


def record(directory: Path, checkpoint: Json, alignment: str, target: Path) -> None:
    single = load(directory)
    lesson = lesson_of(single)
    rounded, _ = gradients(single, lesson, alignment)
    with float64():
        exact, losses = gradients(load(directory), lesson, alignment)
    rows, moved = train(load(directory), lesson, alignment)
    tensors: Tensors = {}
    table: dict[str, Json] = {}
    for name, gradient in exact.items():
        norm = float(np.linalg.norm(gradient))
        error = float(np.linalg.norm(rounded[name] - gradient)) / (norm or 1.0)  # a head that learns nothing has 0
        table[name] = {"shape": list(gradient.shape), "norm": norm, "float32_error": store.shorten(error)}
        tensors[f"gradient.{name}"] = sketch.projections(name, gradient)
        tensors[f"gradient_samples.{name}"] = sketch.samples(gradient)
        tensors[f"moved.{name}"] = sketch.projections(name, moved[name])
        table[name]["moved"] = float(np.linalg.norm(moved[name]))
    case: Json = {
        "about": ABOUT[alignment],
        "made_by": MADE_BY,
        "checkpoint": checkpoint,
        "alignment": alignment,
        "texts": list(TEXTS),
        "settings": {
            "batch": BATCH,
            "accumulation": ACCUMULATION,
            "clip": CLIP,
            "decay": DECAY,
            "rate": RATE,
            "sub_talker_weight": SUB_WEIGHT,
        },
        "versions": versions(),
        "sketch": sketch.RULE,
        "losses": losses,
        "steps": rows,
        "tensors": table,
    }
    inputs: Tensors = {f"codes.{i}": codes.astype(np.int32) for i, codes in enumerate(lesson.codes)}
    inputs["speaker_embedding"] = lesson.speaker
    store.write_case(target, case, inputs, tensors)
    print(f"{target.name}: {len(table)} tensors, losses {losses}, last step {rows[-1]}", flush=True)


def lesson_of(model: Any) -> Lesson:
    """From the frozen stream of ``numpy.random.RandomState``."""
    talker = model.model.config.talker_config
    draw = np.random.RandomState(27)
    codes = [draw.randint(0, talker.code_predictor_config.vocab_size, (f, talker.num_code_groups)) for f in FRAMES]
    speaker = (draw.randint(-512, 513, talker.hidden_size) / 1024).astype(np.float32)
    ids = model._tokenize_texts([model._build_assistant_text(text) for text in TEXTS])
    return Lesson([row[0].tolist() for row in ids], codes, speaker)


def gradients(model: Any, lesson: Lesson, alignment: str) -> tuple[Tensors, Json]:
    """Of one batch of all utterances, and its losses, in the dtype of the model."""
    talker, sub = losses_of(model.model, lesson, range(len(TEXTS)), alignment)
    (talker + SUB_WEIGHT * sub).backward()
    found = {name: p.grad.numpy() for name, p in model.model.named_parameters() if p.grad is not None}
    return found, {"talker": float(talker), "sub_talker": float(sub)}


def train(model: Any, lesson: Lesson, alignment: str) -> tuple[list[Json], Tensors]:
    """A row for each micro-batch, and how far each tensor has moved."""
    network = model.model
    before = {name: p.detach().numpy().astype(np.float64) for name, p in network.named_parameters()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    rows: list[Json] = []
    for _ in range(EPOCHS):
        for first in range(0, len(TEXTS), BATCH):
            talker, sub = losses_of(network, lesson, range(first, first + BATCH), alignment)
            ((talker + SUB_WEIGHT * sub) / ACCUMULATION).backward()
            rows.append({"talker": float(talker), "sub_talker": float(sub)})
        rows[-1]["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP))
        optimiser.step()
        optimiser.zero_grad()
    after = dict(network.named_parameters())
    return rows, {name: after[name].detach().numpy() - value for name, value in before.items()}


def losses_of(network: Any, lesson: Lesson, which: range, alignment: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the talker and of the code predictor, on one micro-batch."""
    talker, groups = network.talker, network.config.talker_config.num_code_groups
    sequences = [list(positions(lesson.ids[i], lesson.codes[i], network.config)) for i in which]
    longest = max(map(len, sequences))
    batch = [s + [Position(0, 0, None, padding=True)] * (longest - len(s)) for s in sequences]
    dtype = talker.codec_head.weight.dtype

    def column(of: Any, kind: Any = torch.long) -> torch.Tensor:
        return torch.tensor([[of(p) for p in row] for row in batch], dtype=kind)

    text = talker.text_projection(talker.get_text_embeddings()(column(lambda p: p.text)))
    x = text * column(lambda p: not p.padding, dtype)[..., None]
    codec = talker.model.codec_embedding(column(lambda p: max(p.codec, 0)))
    x = x + codec * column(lambda p: p.codec >= 0, dtype)[..., None]
    speaks = column(lambda p: p.codec == SPEAKER, dtype)[..., None]
    x = x + speaks * torch.from_numpy(lesson.speaker).to(dtype)
    codes = column(lambda p: [0] * groups if p.frame is None else p.frame)  # [B, T, G]
    is_frame = column(lambda p: p.frame is not None, torch.bool)
    for g in range(1, groups):
        x = x + talker.code_predictor.get_input_embeddings()[g - 1](codes[..., g]) * is_frame[..., None].to(dtype)
    labels = column(lambda p: p.label)
    shifted = alignment == "official"
    outputs = talker(
        inputs_embeds=x[:, :-1],
        attention_mask=column(lambda p: not p.padding)[:, :-1],
        labels=labels[:, 1:] if shifted else labels[:, :-1],  # the loss shifts them in any case
        output_hidden_states=True,
    )
    if not shifted:  # without its own shift the end of the longest would be cut off with the last position
        logits, wanted = outputs.logits, labels[:, 1:]
        outputs.loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
    states = outputs.hidden_states[0][-1][is_frame[:, :-1] if shifted else is_frame[:, 1:]]
    logits, sub = talker.forward_sub_talker_finetune(codes[is_frame], states)
    if not shifted:
        sub = F.cross_entropy(logits.flatten(0, 1), codes[is_frame][:, 1:].flatten())
    return outputs.loss, sub


NOTHING, SPEAKER = -1, -2


@dataclass(frozen=True)
class Position:
    text: int
    codec: int  # a token of the codec vocabulary, or one of the two above
    frame: list[int] | None = None
    label: int = IGNORED
    padding: bool = False


def positions(ids: list[int], codes: np.ndarray, config: Any) -> Iterator[Position]:
    """The sequence of one utterance, as dataset.py lays it out; it ends with the end of speech, which nobody reads."""
    c, pad = config.talker_config, config.tts_pad_token_id
    role, text = ids[:3], ids[3:-5]
    yield from (Position(i, NOTHING) for i in role)
    for codec in (c.codec_nothink_id, c.codec_think_bos_id, c.codec_think_eos_id, SPEAKER):
        yield Position(pad, codec)
    yield Position(config.tts_bos_token_id, c.codec_pad_id)
    yield from (Position(i, c.codec_pad_id) for i in (*text, config.tts_eos_token_id))
    yield Position(pad, c.codec_bos_id)
    yield from (Position(pad, int(frame[0]), frame.tolist(), int(frame[0])) for frame in codes)
    yield Position(pad, c.codec_eos_token_id, None, c.codec_eos_token_id)


if __name__ == "__main__":
    main()
