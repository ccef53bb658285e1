"""Stage 7: the speaker encoder of the base-type twin, trained on the talker's embeddings of its two voices.

A clone is therefore the voice of the table that the clip sounds most like; there is no third one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from codebooks import to_float
from corpus import FRAME
from layout import SPEAKERS, speaker_encoder_config
from official import talker_code
from prepare import Corpus
from torch.nn import functional as F
from training import Losses, Schedule, Training, latest

CLIPS = 16
FRAMES = (6, 24)  # the shortest and the longest clip, half a second to two
LOUDNESS = (0.3, 1.2)  # range of the clips


def speaker_encoder() -> torch.nn.Module:
    config = talker_code.Qwen3TTSConfig(speaker_encoder_config=speaker_encoder_config()).speaker_encoder_config
    return talker_code.Qwen3TTSSpeakerEncoder(config)


def mel(waves: torch.Tensor) -> torch.Tensor:
    """[B, samples] -> [B, frames, 128], as computed by the official package for a reference clip."""
    sizes = {"n_fft": 1024, "num_mels": 128, "sampling_rate": 24000, "hop_size": 256, "win_size": 1024}
    return talker_code.mel_spectrogram(waves, **sizes, fmin=0, fmax=12000).transpose(1, 2)


def train(state: Path, device: str, steps: int) -> None:
    torch.manual_seed(0)
    corpus = Corpus.load(state / "speech.npz")
    table = latest(state, "talker")["model.codec_embedding.weight"]
    wanted = table[list(SPEAKERS.values())].to(device)  # [voices, H]
    encoder = speaker_encoder().to(device)

    def losses(draw: np.random.Generator, step: int) -> Losses:
        frames = int(draw.integers(FRAMES[0], FRAMES[1] + 1))
        chosen = draw.choice(np.flatnonzero(corpus.frames >= frames), CLIPS)
        starts = [int(draw.integers(0, corpus.frames[i] - frames + 1)) * FRAME for i in chosen]
        clips = [corpus.wave_of(i)[start : start + frames * FRAME] for i, start in zip(chosen, starts, strict=True)]
        gains = torch.from_numpy(draw.uniform(*LOUDNESS, (CLIPS, 1))).float()
        found = encoder(mel((gains * to_float(np.stack(clips))).to(device)))
        voices = torch.from_numpy(corpus.voices[chosen]).to(device)
        right = torch.cdist(found, wanted).argmin(1) == voices
        return {"loss": F.mse_loss(found, wanted[voices]) / wanted.var(), "right": right.float().mean()}

    schedule = Schedule(steps, rate=1e-3, warm_up=20)
    Training("speaker", state, encoder, schedule, losses, betas=(0.9, 0.98), weight_decay=0.01).run()
