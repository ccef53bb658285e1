"""Timing of the decode loop of one model in one format: frames, steps of the talker, prompts."""

from __future__ import annotations

import statistics
import time

import numpy as np
from machine import TEXT, any_voice
from qwen3tts_np_kernels.team import Team

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.compiled.generate import CompiledSession
from qwen3tts_np.compiled.talker.openings import Openings
from qwen3tts_np.talker.generator import TorchGenerator

POSITION = 200  # of a talker step timed separately


class Speaker:
    """Our model in one format with one number of threads."""

    def __init__(self, model: Qwen3TTSModel, team: Team) -> None:
        assert isinstance(model.frame_loop, FrameLoop)
        self.model, self.team, self.weights = model, team, model.frame_loop.compiled_weights
        self._seed = 0
        self._voice = any_voice(model)

    def session(self, items: int = 1, text: str = TEXT) -> tuple[CompiledSession, float]:
        """A session after its prompts, and the seconds per position of the prompt."""
        request = self.model.prepare(text, self._voice, language="english", streaming=False, max_new_tokens=200)
        nobody = Openings()  # has spoken: the whole prompt is read
        session = CompiledSession(self.weights, self.team, self.model.config, items, None, nobody)
        generator = TorchGenerator(self._seed)
        self._seed += 1
        prompt = range(len(request.prompt.prefill))
        for place in range(items):
            session.begin(place, request, generator)
        start = time.perf_counter()
        session.read_prompts([(place, prompt) for place in range(items)])
        return session, (time.perf_counter() - start) / (items * len(prompt))

    def frames(self, count: int, items: int = 1) -> tuple[float, float]:
        """Seconds and CPU seconds per frame of ``items`` items; a run that ends is followed by the next seed."""
        times: list[tuple[float, float]] = []
        session, _ = self.session(items)
        while len(times) < count:
            start = time.perf_counter(), time.process_time()
            step = session.write_frame(range(items), [])
            end = time.perf_counter(), time.process_time()
            if step.ended:
                session, _ = self.session(items)
                continue
            times.append((end[0] - start[0], end[1] - start[1]))
        seconds, cpu_seconds = zip(*times, strict=True)
        return statistics.median(seconds), statistics.median(cpu_seconds)

    def talker_steps(self, count: int) -> float:
        """Seconds per step of the talker alone, at ``POSITION``."""
        session, _ = self.session()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            session.talker_step(POSITION)
            times.append(time.perf_counter() - start)
        return min(times)

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values read per step of ``talker_steps``."""
        sizes = self.weights.model.talker.layers.sizes
        return sizes.layers * sizes.kv_heads * (POSITION + 1) * 2 * (2 * sizes.half) * 4

    @property
    def talker_bytes(self) -> int:
        """Bytes of weights read per talker step."""
        talker = self.weights.model.talker
        stacks = (talker.layers.qkv, talker.layers.o_proj, talker.layers.gate_up, talker.layers.down_proj, talker.head)
        return sum(array.nbytes for stack in stacks for array in stack if isinstance(array, np.ndarray))

    @property
    def predictor_bytes(self) -> int:
        """Bytes read by the code predictor per frame: its layers once per code, each head once."""
        predictor = self.weights.model.predictor
        layers = predictor.layers
        stacks = (layers.qkv, layers.o_proj, layers.gate_up, layers.down_proj)
        once = sum(array.nbytes for stack in stacks for array in stack if isinstance(array, np.ndarray))
        heads = sum(array.nbytes for array in predictor.heads if isinstance(array, np.ndarray))
        return once * (self.model.config.talker_config.num_code_groups - 1) + heads
