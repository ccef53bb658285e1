"""README.md of a checkpoint: its model card, from which the hub takes the block at the top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .settings import TrainingSettings


@dataclass(frozen=True)
class Trained:
    """What a card says of a training. Nothing of it depends on when or where it was run."""

    base: str
    model_type: str
    speakers: Mapping[str, int]
    clips: int
    hours: float  # of speech
    step: int
    steps: int
    epoch: int  # from 0
    trainable: int
    losses: Mapping[str, float]  # of validation


def card_of(trained: Trained, settings: TrainingSettings) -> str:
    """The page, in Markdown."""
    speaker = next(iter(trained.speakers), None)
    spoken = f' --speaker "{speaker}"' if speaker else ""
    losses = [f"| {what} | {value:.4f} |" for what, value in trained.losses.items()]
    lines = [
        "---",
        "license: apache-2.0",
        f"base_model: {trained.base}",
        "pipeline_tag: text-to-speech",
        "tags: [qwen3-tts, text-to-speech, fine-tuned]",
        "---",
        "",
        f"# {trained.base}, fine-tuned",
        "",
        f"A {trained.model_type.replace('_', '-')} model of Qwen3-TTS (12 Hz), trained by qwen3tts-np on "
        f"{trained.clips} clips, {trained.hours:.2f} hours of speech.",
        *([f"Voices: {', '.join(trained.speakers)}."] if trained.speakers else []),
        "",
        f'    qwen3tts-np say . "Good morning."{spoken}',
        "",
        "```python",
        "from qwen_tts import Qwen3TTSModel  # or, without PyTorch: from qwen3tts_np import Qwen3TTSModel",
        "",
        'model = Qwen3TTSModel.from_pretrained(".")',
        *(
            [f'wavs, rate = model.generate_custom_voice("Good morning.", speaker="{speaker}", language="auto")']
            if speaker
            else []
        ),
        "```",
        "",
        "| | |",
        "|---|--:|",
        f"| step | {trained.step} of {trained.steps} |",
        f"| epoch | {trained.epoch + 1} of {settings.num_epochs} |",
        f"| trained weights | {trained.trainable} |",
        f"| mode | {settings.mode} |",
        *([f"| rank, alpha | {settings.rank}, {settings.alpha:g} |"] if settings.mode == "lora" else []),
        f"| learning rate | {settings.rate:g}, {settings.schedule} |",
        f"| rows a step | {settings.batch_size} x {settings.gradient_accumulation_steps} |",
        f"| layers replaced, added | {settings.replace_last_n_layers}, {settings.add_new_layers} |",
        *losses,
    ]
    return "\n".join(lines) + "\n"
