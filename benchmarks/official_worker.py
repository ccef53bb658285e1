"""The official package as a worker for speed.py: reads one JSON request per line, answers with seconds.

Runs in the environment of golden/setup_official.sh; the only file here that imports PyTorch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the package prints, even during import; only answers go to the pipe

import numpy as np  # noqa: E402
import torch  # noqa: E402
from qwen_tts import Qwen3TTSModel  # noqa: E402


class Worker:
    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = Qwen3TTSModel.from_pretrained(model, device_map="cpu", dtype=torch.float32)
        self.tokenizer = self.model.model.speech_tokenizer
        self.voice: Any = None

    def decode_frames(self, frames: int, text: str) -> float:
        """Seconds for ``frames`` more frames: a long run minus a short one, so that the prompt does not count."""
        return self._speak(frames + 3, text) - self._speak(3, text)

    def _speak(self, tokens: int, text: str) -> float:
        ends: list[float] = []
        decode = self.tokenizer.decode
        self.tokenizer.decode = lambda *_, **__: ends.append(time.perf_counter()) or ([np.zeros(1)], 24000)
        try:
            torch.manual_seed(0)
            start = time.perf_counter()
            # No end of speech: exactly the requested frames are timed.
            self.model.model.config.talker_config.codec_eos_token_id = 10**9
            self._generate(text, max_new_tokens=tokens)
            return ends[0] - start
        finally:
            self.tokenizer.decode = decode

    def _generate(self, text: str, **options: Any) -> None:
        kind = self.model.model.tts_model_type
        if kind == "base":
            if self.voice is None:
                self.voice = self.model.create_voice_clone_prompt((self._noise(96000), 24000), x_vector_only_mode=True)
            self.model.generate_voice_clone(text, voice_clone_prompt=self.voice, non_streaming_mode=True, **options)
        elif kind == "custom_voice":
            self.model.generate_custom_voice(text, self.model.get_supported_speakers()[0], **options)
        else:
            self.model.generate_voice_design(text, "A calm voice.", **options)

    def _noise(self, samples: int) -> Any:
        return np.random.RandomState(0).uniform(-0.3, 0.3, samples).astype(np.float32)

    def codec_decode(self, frames: int) -> float:
        config = self.tokenizer.model.config.decoder_config
        codes = np.random.RandomState(0).randint(0, config.codebook_size, (frames, config.num_quantizers))
        start = time.perf_counter()
        self.tokenizer.decode({"audio_codes": torch.from_numpy(codes)})
        return time.perf_counter() - start

    def codec_encode(self, samples: int) -> float:
        wave = self._noise(samples)
        start = time.perf_counter()
        self.tokenizer.encode(wave, sr=24000)
        return time.perf_counter() - start

    def speaker_embedding(self, samples: int) -> float:
        wave = self._noise(samples)
        start = time.perf_counter()
        self.model.model.extract_speaker_embedding(wave, 24000)
        return time.perf_counter() - start


def main() -> None:
    worker: Any = None
    for line in sys.stdin:
        name, arguments = json.loads(line)
        if name == "load":
            worker = Worker(**arguments)
            seconds = 0.0
        else:
            seconds = getattr(worker, name)(**arguments)
        print(json.dumps(seconds), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
