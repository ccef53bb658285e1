"""What a checkpoint is worth: its losses on rows it has not seen, and what it says when it speaks their texts.

Speech is made by the checkpoint that has just been written, read back as any other, so a checkpoint that does not load,
or does not stop, is noticed here. It is measured by ``evaluate/``: the voice by the base model's own speaker encoder,
against the recording of the row or its reference clip; the words by pocketsphinx, where it is installed and the text is
English.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..audio.files import write_audio
from ..cloning import VoiceCloner
from ..evaluate.evaluation import evaluate
from ..evaluate.judge import Judges
from ..evaluate.normalise import language_of
from ..evaluate.recogniser import recogniser
from ..extras import install, obstacle
from ..files.output import scratch_folder
from ..manifest import Row
from ..model import Qwen3TTSModel
from ..ops import Array
from .batch import Batch
from .data import Clip
from .network import Network, mean_losses

SLACK = 25  # frames, beyond twice the row's own, after which a text that does not end is cut
SIMILARITY, WER = "speaker_embedding_similarity", "wer"
HEARING = ("pocketsphinx", "jiwer", "whisper_normalizer")
MEASURED = {"similarity_own": SIMILARITY, "wer": WER}


def validation_losses(network: Network, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean losses over all labels of ``batches``, of which the code predictor reads every frame."""
    found = mean_losses([network.loss(batch, learn=False) for batch in batches])
    return {**found, "perplexity": math.exp(min(found["talker"], 700.0))}


@dataclass
class SpeechJudge:
    """Speaks the first ``texts`` of ``clips`` with a checkpoint, and measures them."""

    base: Path
    base_type: str
    clips: Sequence[Clip]
    texts: int
    seed: int
    threads: int | None = None

    def measure(self, checkpoint: Path, adapter: Path | None = None) -> dict[str, float]:
        """Means by the names of validation_log.jsonl; a measure that is impossible here is absent."""
        clips = self.clips[: self.texts]
        if not clips or not self._groups:
            return {}
        model = Qwen3TTSModel.from_pretrained(checkpoint, adapter=adapter, threads=self.threads)
        with scratch_folder() as folder:
            rows = [self._spoken(model, clip, i, folder) for i, clip in enumerate(clips)]
            found = evaluate(rows, self._judges, checkpoint.name)
        return {MEASURED[name]: mean.value for name, mean in found.means.items() if name in MEASURED}

    def _spoken(self, model: Qwen3TTSModel, clip: Clip, i: int, folder: Path) -> Row:
        asked: Mapping[str, object] = {"speaker": clip.speaker, "instruct": clip.instruct}
        voice = model.voice(**{name: value for name, value in asked.items() if value})
        most = 2 * len(clip.codes) + SLACK
        request = model.prepare(
            clip.text,
            voice,
            language=clip.language,
            streaming=clip.streaming,
            seed=self.seed,
            max_new_tokens=most,
        )
        (spoken,) = model.generate([request])
        file = folder / f"{i}.wav"
        write_audio(file, spoken.samples, model.speech_tokenizer.get_output_sample_rate())
        return Row(i + 1, clip.name, id=str(i), text=clip.text, audio=str(file), ref_audio=_recording(clip))

    @property
    def impossible(self) -> tuple[str, ...]:
        """What cannot be measured here, and why."""
        return tuple(f"{name}: {why}" for name, why in self._obstacles.items() if why is not None)

    @cached_property
    def _obstacles(self) -> dict[str, str | None]:
        """Why each measure is impossible here; None where it is not."""
        clips = self.clips[: self.texts]
        voice = None if any(map(_recording, clips)) else "no row has audio or ref_audio that is there"
        if self.base_type != "base":
            voice = f"a {self.base_type} model has no speaker encoder"
        words = obstacle(HEARING, "it", install("evaluate"))
        if words is None and any(language_of(clip.text, clip.language) != "english" for clip in clips):
            words = "the texts are not English"
        return {SIMILARITY: voice, WER: words}

    @property
    def _groups(self) -> tuple[str, ...]:
        """Of ``evaluate/``."""
        named = {SIMILARITY: "speaker", WER: "words"}
        return tuple(group for name, group in named.items() if self._obstacles[name] is None)

    @cached_property
    def _judges(self) -> Judges:
        groups = self._groups
        return Judges(
            groups=groups,
            recogniser=recogniser("pocketsphinx") if "words" in groups else None,
            cloner=self._cloner if "speaker" in groups else None,
            independent=False,
            level=False,
        )

    @property
    def embed(self) -> Callable[[str], Array] | None:
        """The x-vector [H] of a clip by the base model's encoder; None in a model that has none."""
        return self._embedding if self.base_type == "base" else None

    def _embedding(self, path: str) -> Array:
        (voice,) = self._cloner.voices(path, None, True)
        return voice.ref_spk_embedding

    @cached_property
    def _cloner(self) -> VoiceCloner:
        return Qwen3TTSModel.for_prompts(self.base).cloner


def _recording(clip: Clip) -> str | None:
    """A file with the voice that the clip is to have."""
    return next((path for path in (clip.audio, clip.ref_audio) if path is not None and os.path.isfile(path)), None)
