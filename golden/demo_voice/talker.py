"""Stage 6: the talker and its code predictor: official classes, our own losses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layout import ENGLISH, ENTRIES, GROUPS, SPEAKERS, model_config, write_tokenizer
from official import talker_code
from prepare import Corpus
from torch.nn import functional as F
from training import Losses, Schedule, Training

IGNORED = -100  # as in torch's cross entropy
BATCH = 32
NEIGHBOURS = 4  # number of batches of utterances of similar length that a batch is drawn from
STREAMING = 0.4  # share of the streaming layout
NO_LANGUAGE = 0.2  # share of prompts without a language
RANDOM_CODES = 0.03  # share of random codes among those already spoken
OTHER_FRAMES = 0.5  # share of frames already spoken whose codes 1 to 15 are those of another frame with this code 0
PREDICTED_FRAMES = 0.2  # share of frames that the code predictor learns from
READING_LAYER = 1  # its first head is trained to attend to the current word
WEIGHTS = {"code0": 1.0, "others": 0.5, "reading": 0.5}


@dataclass(frozen=True)
class Row:
    """One utterance as input of the talker. Positions: the prompt, then one per frame."""

    text: list[int]  # token at every position
    codec: list[int]  # codec token of every position of the prompt, -1 for none
    codes: np.ndarray  # [frames, GROUPS]
    reading: list[int]  # for the last position of the prompt and every frame: position of the next word


@dataclass(frozen=True)
class Batch:
    text: torch.Tensor  # [B, T]
    codec: torch.Tensor  # [B, T], -1 for none
    spoken: torch.Tensor  # [B, T, GROUPS], the frame that position gives to the talker; -1 in the prompt
    next: torch.Tensor  # [B, T], code 0 of the next frame, or the end of speech
    next_frame: torch.Tensor  # [B, T, GROUPS]
    reading: torch.Tensor  # [B, T]


class Prompts:
    """Token ids, and the official prompt of a custom voice."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.ids = write_tokenizer(scratch)
        self.config = model_config(self.ids)

    def words(self, text: str) -> list[int]:
        return [self.ids[("Ġ" if i else "") + word] for i, word in enumerate(text.split())]

    def row(self, text: str, voice: int, codes: np.ndarray, words: np.ndarray, streaming: bool, named: bool) -> Row:
        """``named``: whether the prompt names the language."""
        c, talker = self.config, self.config["talker_config"]
        think = ["think", "think_bos", ENGLISH, "think_eos"] if named else ["nothink", "think_bos", "think_eos"]
        prefix = [t if isinstance(t, int) else talker[f"codec_{t}_id"] for t in think]
        prefix += [list(SPEAKERS.values())[voice]]
        pad, bos = talker["codec_pad_id"], talker["codec_bos_id"]
        tts_pad = c["tts_pad_token_id"]
        spoken_text = [*self.words(text), c["tts_eos_token_id"]]
        tokens = [c["im_start_token_id"], c["assistant_token_id"], self.ids["Ċ"]]
        tokens += [tts_pad] * len(prefix) + [c["tts_bos_token_id"]]
        codec = [-1, -1, -1, *prefix, pad]
        first = len(tokens)  # position of the first word in either layout
        if streaming:
            codec.append(bos)
            tokens += (spoken_text + [tts_pad] * len(codes))[: len(codes) + 1]
        else:
            codec += [pad] * len(spoken_text) + [bos]
            tokens += spoken_text + [tts_pad] * (len(codes) + 1)
        reading = [first + int(word) for word in words] + [first + len(spoken_text) - 1]
        return Row(tokens, codec, codes, reading)


def collate(rows: list[Row], eos: int, pad: int, device: str) -> Batch:
    size, length = len(rows), max(len(row.text) for row in rows)
    text = np.full((size, length), pad)
    codec = np.full((size, length), -1)
    spoken = np.full((size, length, GROUPS), -1)
    following = np.full((size, length), IGNORED)
    next_frame = np.full((size, length, GROUPS), IGNORED)
    reading = np.full((size, length), IGNORED)
    for i, row in enumerate(rows):
        prompt, frames = len(row.codec), len(row.codes)
        text[i, : len(row.text)] = row.text
        codec[i, :prompt] = row.codec
        spoken[i, prompt : prompt + frames] = row.codes
        following[i, prompt - 1 : prompt + frames] = [*row.codes[:, 0], eos]
        next_frame[i, prompt - 1 : prompt - 1 + frames] = row.codes
        # A streamed word can be attended to only once it has arrived.
        looked = [at if at <= prompt - 1 + step else IGNORED for step, at in enumerate(row.reading)]
        reading[i, prompt - 1 : prompt + frames] = looked
    arrays = (text, codec, spoken, following, next_frame, reading)
    return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


class Alike:
    """Frames by their code 0.

    espeak-ng speaks a word nearly the same way every time, so 16 true codes identify the sentence and position of a
    frame. A talker that learns to rely on that fails as soon as its code predictor chooses another variant of a sound:
    its words are right given the true past and wrong given its own. With the finer codes of some other frame it has to
    rely on code 0 and the text.
    """

    def __init__(self, codes: np.ndarray, device: str) -> None:
        order = np.argsort(codes[:, 0], kind="stable")
        count = np.bincount(codes[:, 0], minlength=ENTRIES)
        self._frames = torch.from_numpy(codes[order].astype(np.int64)).to(device)  # [frames, GROUPS]
        self._count = torch.from_numpy(count).to(device)
        self._start = torch.from_numpy(np.cumsum(count) - count).to(device)

    def mixed(self, frames: torch.Tensor) -> torch.Tensor:
        """[B, T, GROUPS] with :data:`OTHER_FRAMES` of them exchanged."""
        first = frames[..., 0]
        share = torch.rand(first.shape, dtype=torch.float64, device=first.device)  # below 1 even times a count
        place = self._start[first] + (share * self._count[first]).long()
        exchanged = torch.rand(first.shape, device=first.device) < OTHER_FRAMES
        return torch.where(exchanged[..., None], self._frames[place], frames)


class Lesson:
    """The talker, its inputs and its losses."""

    def __init__(self, state: Path, device: str) -> None:
        self.device = device
        self.prompts = Prompts(state / "tokenizer")
        self.corpus = Corpus.load(state / "codes.npz")
        self.held_out = Corpus.load(state / "held_out.npz")
        self.by_length = np.argsort(self.corpus.frames, kind="stable")
        self._alike = Alike(self.corpus.codes, device)
        torch.manual_seed(0)
        config = talker_code.Qwen3TTSConfig(**self.prompts.config)
        self.talker: Any = talker_code.Qwen3TTSForConditionalGeneration(config).talker.to(device)
        initialise(self.talker)
        self._attention = self.talker.model.layers[READING_LAYER].self_attn
        self._attention.register_forward_pre_hook(self._keep, with_kwargs=True)
        self._input: dict[str, Any] = {}

    def _keep(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        self._input = named

    def batch(self, draw: np.random.Generator) -> Batch:
        start = draw.integers(0, len(self.by_length) - BATCH * NEIGHBOURS + 1)
        similar = self.by_length[start : start + BATCH * NEIGHBOURS]
        chosen = draw.choice(similar, BATCH, replace=False)
        rows = [self._row(self.corpus, i, draw.random() < STREAMING, draw.random() >= NO_LANGUAGE) for i in chosen]
        return self._collate(rows)

    def _row(self, corpus: Corpus, i: int, streaming: bool, named: bool) -> Row:
        voice = int(corpus.voices[i])
        return self.prompts.row(corpus.texts[i], voice, corpus.codes_of(i), corpus.words_of(i), streaming, named)

    def _collate(self, rows: list[Row]) -> Batch:
        config = self.prompts.config
        return collate(rows, config["talker_config"]["codec_eos_token_id"], config["tts_pad_token_id"], self.device)

    def losses(self, draw: np.random.Generator, step: int) -> Losses:
        return self._losses(self.batch(draw), training=True)

    def _losses(self, batch: Batch, training: bool) -> Losses:
        hidden = self.talker.model(inputs_embeds=self._embed(batch, training), use_cache=False).last_hidden_state
        logits = self.talker.codec_head(hidden)
        reading, looked = self._reading(batch.reading)
        parts = {
            "code0": F.cross_entropy(logits.flatten(0, 1), batch.next.flatten(), ignore_index=IGNORED),
            "others": self._others(hidden, batch.next_frame, PREDICTED_FRAMES if training else 1.0),
            "reading": reading,
        }
        right = (logits.argmax(-1) == batch.next)[batch.next != IGNORED].float().mean()
        total = sum(WEIGHTS[name] * loss for name, loss in parts.items())
        return {"loss": total, **parts, "right": right, "looked": looked}

    def _embed(self, batch: Batch, training: bool) -> torch.Tensor:
        """[B, T, H]: text, plus codec tokens in the prompt and the sum of 16 codes for every frame after it."""
        model, predictor = self.talker.model, self.talker.code_predictor
        text = self.talker.text_projection(model.text_embedding(batch.text))
        codec = model.codec_embedding(batch.codec.clamp_min(0)) * (batch.codec >= 0)[..., None]
        frames = batch.spoken.clamp_min(0)
        if training:
            frames = self._alike.mixed(frames)
            wrong = torch.rand(frames.shape, device=self.device) < RANDOM_CODES
            frames = torch.where(wrong, torch.randint_like(frames, ENTRIES), frames)
        tables = [model.codec_embedding, *predictor.get_input_embeddings()]
        spoken = sum(table(frames[..., group]) for group, table in enumerate(tables))
        return text + codec + spoken * (batch.spoken[..., :1] >= 0)

    def _others(self, hidden: torch.Tensor, frames: torch.Tensor, share: float) -> torch.Tensor:
        """Codes 1 to 15 of some frames, each from the talker's state and the codes before it."""
        chosen = frames[..., 0] >= 0
        if share < 1:
            chosen &= torch.rand(chosen.shape, device=self.device) < share
        states, codes = hidden[chosen], frames[chosen]  # [n, H], [n, GROUPS]
        predictor = self.talker.code_predictor
        tables = [self.talker.model.codec_embedding, *predictor.get_input_embeddings()]
        before = [table(codes[:, group]) for group, table in enumerate(tables[: GROUPS - 1])]
        inputs = predictor.small_to_mtp_projection(torch.stack([states, *before], 1))
        outputs = predictor.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        logits = [head(outputs[:, group]) for group, head in enumerate(predictor.lm_head, 1)]
        return F.cross_entropy(torch.stack(logits, 2), codes[:, 1:])

    def _reading(self, reading: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy of one head's attention against the word's position, and how often that is its peak."""
        attention, hidden = self._attention, self._input["hidden_states"]
        width = attention.head_dim
        query = attention.q_norm(hidden @ attention.q_proj.weight[:width].T)[:, None]  # [B, 1, T, D]
        key = attention.k_norm(hidden @ attention.k_proj.weight[:width].T)[:, None]
        rope = attention.rope_scaling
        query, key = talker_code.apply_multimodal_rotary_pos_emb(
            query, key, *self._input["position_embeddings"], rope["mrope_section"], rope["interleaved"]
        )
        scores = (query @ key.transpose(2, 3))[:, 0] * attention.scaling  # [B, T, T]
        ahead = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(ahead, -1e9)
        known = reading != IGNORED
        loss = F.cross_entropy(scores.flatten(0, 1), reading.flatten(), ignore_index=IGNORED)
        return loss, (scores.argmax(-1) == reading)[known].float().mean()

    def evaluate(self) -> str:
        """Code 0 of held-out sentences with the true past, in both layouts."""
        found = []
        for streaming in (False, True):
            rows = [self._row(self.held_out, i, streaming, True) for i in range(60)]
            losses = self._losses(self._collate(rows), training=False)
            found.append(", ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "loss"))
        return " | streaming: ".join(found)


def initialise(talker: Any) -> None:
    """Initialise embeddings at the scale of their summands; the rest as in the official classes."""
    with torch.no_grad():
        talker.model.text_embedding.weight.normal_(0, 0.5)
        talker.model.codec_embedding.weight.normal_(0, 0.1)
        for table in talker.code_predictor.get_input_embeddings():
            table.weight.normal_(0, 0.05)


def train(state: Path, device: str, steps: int) -> None:
    lesson = Lesson(state, device)
    schedule = Schedule(steps, rate=2e-3)
    Training(
        "talker", state, lesson.talker, schedule, lesson.losses, betas=(0.9, 0.98), weight_decay=0.02,
        evaluate=lesson.evaluate,
    ).run()  # fmt: skip
