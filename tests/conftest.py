"""A deterministic hypothesis profile, synthetic checkpoints, and third-party reference files where they are there."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Before NumPy is loaded, and for the programs that tests start: on matrices as small as those of the tests a second
# thread of the BLAS only waits, which takes three times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Or a hundred programs that tests start would each compile all files. Kernels are kept in the same folders anyway.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False

import processes
import pytest
from ahead import Ahead, wait
from hypothesis import HealthCheck, settings
from qwen3tts_np_kernels import system
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np.checkpoint.published import Like, ModelType
from qwen3tts_np.compiled.engine import Engine, most_threads
from qwen3tts_np.errors import RequestError
from qwen3tts_np.synthetic.weights import write_checkpoint

logging.getLogger("qwen3tts_np.kernels").setLevel(logging.ERROR)  # that kernels are compiled is known here

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("deterministic"), max_examples=1000)
settings.register_profile("few", settings.get_profile("deterministic"), max_examples=25)
settings.load_profile("deterministic")
_AHEAD = pytest.StashKey[Ahead]()
_CORES = Engine.cores


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    processes.share(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile ahead of a complete run: in the process that it is started with, and for all of its processes."""
    if processes.is_complete(session.config) and not hasattr(session.config, "workerinput") and compiled():
        session.config.stash[_AHEAD] = Ahead()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    if _AHEAD in node.config.stash:
        node.workerinput["ahead"] = str(node.config.stash[_AHEAD].done)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if processes.is_complete(config):
        items[:] = processes.in_order(items)


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests, and the libraries: nothing that a collection would find


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.name in processes.NO_KERNELS:
        return
    if _AHEAD in item.config.stash:
        wait(item.config.stash[_AHEAD].done)
    elif "ahead" in (of_this_process := getattr(item.config, "workerinput", {})):
        wait(Path(of_this_process["ahead"]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _AHEAD in session.config.stash:
        session.config.stash[_AHEAD].close()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Kernels have one thread where a test names no number: on models as small as these a second one mostly waits,
    which costs as much as it computes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "cores", property(lambda self: min(self.threads or 1, most_threads())))
        yield


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """As many threads as a user's process has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "cores", _CORES)
        yield


@pytest.fixture(scope="session", autouse=True)
def _usual_signals() -> Iterator[None]:
    """Background jobs start with Ctrl-C ignored, jobs of nohup with SIGHUP: programs of the tests would inherit it."""
    usual = {signal.SIGINT: signal.default_int_handler} | dict.fromkeys(system.stop_signals(), signal.SIG_DFL)
    ignored = [number for number in usual if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """With NUMBA_DISABLE_JIT=1, skip a test once it asks for what only compiled kernels do."""
    try:
        return (yield)
    except RequestError as e:
        asked = "the kernels need float32", "the compiled kernels, which need float32"
        if not compiled() and any(words in str(e) for words in asked):
            pytest.skip(str(e))
        raise


@pytest.fixture(scope="session")
def reference() -> Path:
    """Official configurations, tensor lists and tokenizer, which are not part of this repository."""
    folder = Path(__file__).parents[2] / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("needs the official files in ../shared/reference")
    return folder


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``synthetic(like, model_type)``: a checkpoint with random weights of seed 0, written once a run."""

    @cache
    def checkpoint(like: Like, model_type: ModelType) -> Path:
        directory = tmp_path_factory.mktemp("checkpoints") / f"{like}-{model_type}"
        write_checkpoint(directory, like, model_type)
        return directory

    return checkpoint
