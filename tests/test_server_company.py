"""Random requests, many at once, some of whose clients go away: every answer is that of its request alone.

python tests/test_server_company.py        # 200 requests; prints what they have added to the server's process
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from speech_server import running
from test_serve_command import serving

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.speech import live
from qwen3tts_np.synthetic.weights import write_checkpoint

LINUX = sys.platform == "linux"
WORDS = "so hello there one more sentence which is said to take some time and then it stops again".split()
CLIENTS = 6
WARM = 30  # requests until whatever is made once has been made
GROWTH = 8 << 20  # bytes; the samples of a tenth of the answers would be more


class Held(NamedTuple):
    """What the system has given to a process."""

    memory: int  # bytes in memory that are its own
    threads: int
    files: int


def held(process: int) -> Held:
    proc = Path(f"/proc/{process}")
    resident, shared = (int(word) for word in (proc / "statm").read_text().split()[1:3])
    own = (resident - shared) * os.sysconf("SC_PAGESIZE")
    return Held(own, len(os.listdir(proc / "task")), len(os.listdir(proc / "fd")))


@dataclass(frozen=True)
class Asked:
    """A request, and how much of its answer the client waits for."""

    body: dict[str, Any]
    most: int | None  # bytes; None: all of it

    @classmethod
    def drawn(cls, of: random.Random) -> Asked:
        lengths = [of.randint(1, 12) for _ in range(of.randint(1, 4))]
        sentences = [" ".join(of.choices(WORDS, k=length)).capitalize() + "." for length in lengths]
        body = {
            "input": " ".join(sentences),
            "voice": of.choice(["ryan", "vivian"]),
            "seed": of.randrange(100),
            "max_new_tokens": of.randint(2, 30),
            "temperature": of.choice([0.7, 0.9]),
            "response_format": "pcm",
        }
        return cls(body, of.choice([None, None, 0, of.randint(1, 40_000)]))

    def ask(self, port: int) -> bytes | None:
        """The answer; None where the client went away."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/audio/speech", json.dumps(self.body), {"Content-Type": "application/json"})
        try:
            if self.most == 0:
                time.sleep(self.body["seed"] / 2000)
                return None
            response = connection.getresponse()
            assert response.status == 200, response.read()
            content = response.read(self.most)
            return content if self.most is None else None
        finally:
            connection.close()

    def alone(self, model: Qwen3TTSModel) -> bytes:
        """The same without a server."""
        given = {name: value for name, value in self.body.items() if name not in ("input", "voice", "response_format")}
        speech = live.stream(model, self.body["input"], speaker=self.body["voice"], runaway_guard=True, **given)
        return np.concatenate(list(speech)).tobytes()


def company(folder: Path, count: int) -> Held:
    """What ``count`` requests have added to the process of a server; AssertionError for a wrong answer."""
    model = Qwen3TTSModel.from_pretrained(folder, threads=1)
    of = random.Random(0)
    with serving(f"qwen3tts-np serve {folder} --places 3 --queue 100 --threads 1", folder) as (process, url):
        port = int(url.rpartition(":")[2])

        def round_of(requests: list[Asked]) -> Held:
            with ThreadPoolExecutor(CLIENTS) as pool:
                answers = list(pool.map(lambda asked: asked.ask(port), requests))
            for asked, answer in zip(requests, answers, strict=True):
                assert answer is None or answer == asked.alone(model), asked
            until = time.monotonic() + 60
            while not re.search(r"_queue\S+ 0\n[^$]*_places_in_use\S+ 0\n", numbers := metrics(port)):
                assert time.monotonic() < until, numbers
                time.sleep(0.05)
            time.sleep(0.2)  # for connections to close
            return held(process.pid)

        before = round_of([Asked.drawn(of) for _ in range(WARM)])
        after = round_of([Asked.drawn(of) for _ in range(count)])
    return Held(*(new - old for new, old in zip(after, before, strict=True)))


def metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    content = connection.getresponse().read().decode()
    connection.close()
    return content


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_every_answer_is_that_of_its_request_alone_and_nothing_stays(synthetic: Callable[..., Path], tmp_path) -> None:
    (tmp_path / "m").symlink_to(synthetic("tiny", "custom_voice"))
    left = company(tmp_path / "m", 30)
    assert left.threads <= (os.cpu_count() or 1) + 4  # the event loop's pool may not have been complete
    assert left.files <= 0
    assert left.memory < GROWTH


def test_the_threads_that_come_are_those_of_the_event_loops_pool(synthetic: Callable[..., Path]) -> None:
    """Which makes one where none of its threads is idle, so the last may come late; then there are no more."""
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)
    of = random.Random(1)
    with running({"custom_voice": model}, places=2, queue=20) as server:
        port = int(server.url.rpartition(":")[2])
        before = set(threading.enumerate())
        with ThreadPoolExecutor(CLIENTS) as pool:
            assert any(pool.map(lambda asked: asked.ask(port), [Asked.drawn(of) for _ in range(12)]))
        come = {thread.name for thread in set(threading.enumerate()) - before}
    assert come and all(re.fullmatch(r"asyncio_\d+", name) for name in come), come
    assert len(come) <= (os.cpu_count() or 1) + 4


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name) / "m", "tiny", "custom_voice")
        print(company(Path(name) / "m", 200))
