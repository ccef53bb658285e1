"""A server that stands in for a hub, and processes that ask it: its library reads its variables when it is imported."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tiny_world


@contextmanager
def answering(server: http.server.ThreadingHTTPServer) -> Iterator[None]:
    """The server answers in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def command(url: str, folder: Path, *first: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``qwen3tts-np FIRST ...`` in a process of its own, in ``folder``, with the hub at ``url``.

    Keywords are variables of its environment.
    """
    path = os.pathsep.join([str(tiny_world.ROOT), str(tiny_world.ROOT / "kernels")])
    usual = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and "PROXY" not in name}
    usual |= {"HF_ENDPOINT": url, "HF_HOME": str(folder / "home"), "PYTHONPATH": path}

    def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "qwen3tts_np", *first, *map(str, words)]
        return subprocess.run(line, env=usual | variables, cwd=folder, capture_output=True, text=True, check=False)

    return run
