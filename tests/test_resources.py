"""Many requests in one process leave its memory, threads and open files as they were.

python tests/test_resources.py         # 1,000 requests and their streams; prints what is left of them
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.synthetic.weights import write_checkpoint

LINUX = sys.platform == "linux"
WARM = 10  # requests until whatever is made once has been made
GROWTH = 2 << 20  # bytes; a single frame's arrays kept by each request would be more


class Held(NamedTuple):
    """What the system has given to this process."""

    memory: int  # bytes in memory that are its own
    threads: int
    files: int


def held() -> Held:
    gc.collect()
    resident, shared = (int(word) for word in Path("/proc/self/statm").read_text().split()[1:3])
    own = (resident - shared) * os.sysconf("SC_PAGESIZE")
    return Held(own, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))


def speak(model: Qwen3TTSModel, seed: int = 1) -> list[int]:
    """Codes of a short request."""
    found: Any = model.generate_custom_voice("Hello there.", "ryan", seed=seed, max_new_tokens=3, return_codes=True)
    return [int(code) for code in np.ravel(found[2][0])]


def leave_a_stream(model: Qwen3TTSModel) -> None:
    """A listener who goes after the first packet."""
    stream = model.stream_custom_voice("Hello there.", "ryan", seed=1, max_new_tokens=12, packet_frames=1)
    next(iter(stream))


def left_of(count: int, model: Qwen3TTSModel) -> Held:
    """What ``count`` requests, a tenth of them streams that are left, have added."""
    calls: list[Callable[[], object]] = [lambda: leave_a_stream(model), *[lambda: speak(model)] * 9]
    for i in range(WARM):
        calls[i % len(calls)]()
    before = held()
    for i in range(count):
        calls[i % len(calls)]()
    after = held()
    return Held(*(new - old for new, old in zip(after, before, strict=True)))


@pytest.fixture
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=2)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_many_requests_leave_nothing(model: Qwen3TTSModel) -> None:
    spans = [left_of(30, model) for _ in range(2)]
    assert {(left.threads, left.files) for left in spans} == {(0, 0)}
    assert min(left.memory for left in spans) < GROWTH // 2  # a leak grows in each


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_models_that_are_gone_leave_no_threads_and_no_files(synthetic: Callable[..., Path]) -> None:
    def use() -> None:
        speak(Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=2))

    use()
    before = held()
    for _ in range(3):
        use()
    after = held()
    assert (after.threads, after.files) == (before.threads, before.files)


def test_eight_threads_share_a_model(model: Qwen3TTSModel) -> None:
    """Each request has the codes of its own seed, whatever is spoken beside it."""
    seeds = [1, 2, 3, 4] * 2
    alone = [speak(model, seed) for seed in seeds]
    start = threading.Barrier(len(seeds))

    def together(seed: int) -> list[int]:
        start.wait()
        return speak(model, seed)

    with ThreadPoolExecutor(len(seeds)) as pool:
        assert list(pool.map(together, seeds)) == alone


def test_a_stream_is_closed_while_another_thread_waits_for_its_packet(model: Qwen3TTSModel) -> None:
    stream = model.stream_custom_voice("Hello there.", "ryan", seed=1, max_new_tokens=3000, packet_frames=2000)
    heard: list[object] = []
    listener = threading.Thread(target=lambda: heard.extend(stream))
    listener.start()
    while not len(stream.codes):
        time.sleep(0.01)
    stream.close()
    listener.join(60)
    assert not listener.is_alive()
    assert not heard
    assert list(stream) == []


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_that_is_forked_speaks_with_the_model_of_its_parent(model: Qwen3TTSModel) -> None:
    want = speak(model)
    child = os.fork()
    if not child:
        os._exit(speak(model) != want)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "m", "tiny", "custom_voice")
        print(left_of(1000, Qwen3TTSModel.from_pretrained(Path(folder) / "m", threads=2)))
