"""One engine for all parts of a model: what runs, the threads, and NumPy's own threads left as they were found."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.system import usable_cores
from threadpoolctl import ThreadpoolController

from qwen3tts_np import Qwen3TTSModel, RequestError, trace
from qwen3tts_np.compiled.blas import limited_blas
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS, Engine
from qwen3tts_np.training.threads import training_threads

pytestmark = pytest.mark.usefixtures("all_cores")
SINGLE = np.dtype(np.float32)
BLAS = ThreadpoolController().select(user_api="blas")


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in BLAS.info()}


@pytest.fixture
def four() -> Iterator[None]:
    """A setting of the process to be found again."""
    with BLAS.limit(limits=4):
        if blas_threads() != {4}:
            pytest.skip("needs a BLAS whose number of threads can be set")
        yield


@pytest.mark.filterwarnings("ignore:threads=")
def test_more_threads_than_blas_can_be_told_of(synthetic):
    with training_threads(2**63 - 1):
        pass
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference", threads=2**64)
    model.generate_custom_voice("Hello.", "vivian", max_new_tokens=2)


# ---- NumPy's threads ----


def test_calls_that_overlap_leave_the_setting_as_it_was(four: None) -> None:
    """The first to begin is the first to end: what each alone would restore is not what was there."""
    first, second = limited_blas(1), limited_blas(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == {4}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, 1, 2, 3])), max_size=12))
def test_the_lowest_limit_of_those_inside_holds(steps: list[tuple[int, int | None]]) -> None:
    """In any order: who is inside leaves, who is not enters."""
    before, inside = blas_threads(), {}
    with BLAS.limit(limits=4):
        for who, threads in steps:
            if who in inside:
                inside.pop(who)[0].__exit__(None, None, None)
            else:
                inside[who] = limited_blas(threads), threads
                inside[who][0].__enter__()
            assert blas_threads() <= {min((limit for _, limit in inside.values() if limit is not None), default=4)}
        for context, _ in inside.values():
            context.__exit__(None, None, None)
        assert blas_threads() <= {4}
    assert blas_threads() == before


def test_a_failure_inside_restores(four: None) -> None:
    with pytest.raises(KeyError), limited_blas(2):
        raise KeyError(blas_threads())
    assert blas_threads() == {4}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_the_setting_from_before(four: None) -> None:
    with limited_blas(1):
        child = os.fork()
        if child == 0:
            with limited_blas(2):
                inside = blas_threads() == {2}
            os._exit(0 if inside and blas_threads() == {4} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("backend", ["reference", "compiled"])
def test_concurrent_calls_leave_the_setting_as_it_was(four: None, synthetic, backend: str) -> None:
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend=backend, threads=1)
    alone = [model.generate_custom_voice("Hello.", "ryan", seed=seed, max_new_tokens=8)[0][0] for seed in range(3)]
    together = {}

    def speak(seed: int) -> None:
        together[seed] = np.concatenate(
            list(model.stream_custom_voice("Hello.", "ryan", seed=seed, max_new_tokens=8, packet_frames=seed + 1))
        )

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, wave in enumerate(alone):
        np.testing.assert_allclose(together[seed], wave, rtol=0, atol=0 if backend == "compiled" else 5e-6)
    assert blas_threads() == {4}


# ---- what runs ----


@pytest.mark.skipif(not compiled(), reason="NUMBA_DISABLE_JIT is set")
def test_kernels_run_in_float32_except_in_a_trace() -> None:
    engine = Engine.choose("auto", SINGLE, threads=3)
    assert engine.runs_kernels
    assert (engine.blas_threads, engine.team.size, engine.cores) == (1, 3, 3)
    with trace("nothing"):
        assert not engine.runs_kernels
        assert engine.blas_threads == 3
    assert not Engine.choose("auto", np.dtype(np.float64)).compiled
    reference = Engine.choose("reference", SINGLE, threads=2)
    assert not reference.runs_kernels
    assert reference.blas_threads == 2


def test_more_threads_than_cores_are_warned_about_and_hundreds_are_not_started() -> None:
    cores = usable_cores()
    with pytest.warns(UserWarning, match=f"threads={cores + 1} is more than the {cores} cores .* slower$") as told:
        assert Engine.choose("auto", SINGLE, threads=cores + 1).cores == cores + 1
    assert [w.filename for w in told] == [__file__]
    with pytest.warns(UserWarning, match=f"threads=5000 .*; {4 * cores} are started"):
        assert Engine.choose("auto", SINGLE, threads=5000).cores == 4 * cores
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Engine.choose("auto", SINGLE, threads=cores).cores == cores


def test_one_team_serves_all_parts_of_all_models(synthetic) -> None:
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"), backend="compiled", threads=2)
    clip = (np.sin(np.arange(30000) / 20).astype(np.float32), 24000)
    before = threading.active_count()
    prompt = model.create_voice_clone_prompt(clip, "Hello.")
    model.generate_voice_clone("Hello.", voice_clone_prompt=prompt, max_new_tokens=3, seed=0)
    assert model.engine is model.speech_tokenizer.engine
    assert threading.active_count() - before in (0, 2), "a team of two, or that of a model of another test"
    other = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="compiled", threads=2)
    assert other.engine.team is model.engine.team
    before = threading.active_count()
    other.generate_custom_voice("Hello.", speaker="ryan", max_new_tokens=3, seed=0)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu", SINGLE), "backend='gpu' must be 'auto', 'compiled' or 'reference'"),
        (("auto", SINGLE, "int3"), f"weights_format='int3' must be 'auto' or one of {', '.join(WEIGHT_FORMATS)}"),
        (("auto", SINGLE, "auto", 0), "threads=0 must be a whole number of at least 1"),
        (("reference", SINGLE, "int8"), "weight formats are for the compiled kernels"),
        (("compiled", np.dtype(np.float64)), "backend='compiled' with dtype=float64: the kernels need float32"),
    ],
)
def test_what_an_engine_cannot_be(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(RequestError) as e:
        Engine.choose(*arguments)
    assert message in str(e.value)


def test_the_reference_needs_no_numba(synthetic) -> None:
    code = (
        "import sys, numpy\n"
        "from qwen3tts_np import Qwen3TTSModel\n"
        "model = Qwen3TTSModel.from_pretrained(sys.argv[1], backend='reference')\n"
        "clip = (numpy.tile(numpy.float32([0.1, -0.1]), 10000), 24000)\n"
        "prompt = model.create_voice_clone_prompt(clip, 'Hello.')\n"
        "model.generate_voice_clone('Hello.', voice_clone_prompt=prompt, max_new_tokens=3)\n"
        "assert not {'numba', 'llvmlite'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, synthetic("tiny", "base")], check=True)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_compiled_model_is_not_copied(synthetic: Callable[..., Path], copied: Callable[[object], object]) -> None:
    """Trap: it knows its kernels and weights by their addresses, and calls them; another process has others there."""
    model = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="compiled", threads=1)
    for one in (model, model.speech_tokenizer, model.open_batch(places=1)):
        with pytest.raises(TypeError, match="a compiled model is neither copied nor pickled"):
            copied(one)
    copied(Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend="reference"))
