"""Passes that are recorded and run by a team, and the kernels between convolutions: each against its oracle."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels.activation_jit import silu_gate
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.norm import layer_norm_ref
from qwen3tts_np_kernels.norm_jit import layer_norm_rows, rms_norm_rows
from qwen3tts_np_kernels.program_jit import Memory, Recorder
from qwen3tts_np_kernels.rope import rope_angles_ref, rotate_ref
from qwen3tts_np_kernels.rope_jit import rotate_into
from qwen3tts_np_kernels.rows_jit import copy_rows, pass_on
from qwen3tts_np_kernels.rvq import lookup_ref
from qwen3tts_np_kernels.rvq_jit import look_up
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.together_jit import ALONE

F32 = np.float32
needs_compiler = pytest.mark.skipif(not compiled(), reason="only kernels are recorded")
seeds = st.integers(0, 2**32 - 1)
teams = Team(1), Team(2), Team(3)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, F32)


def in_both_ways(function, *arrays):
    """What ``function(run, *arrays)`` returns alone, and in a recorded pass of each team."""
    yield function(ALONE, *(array.copy() for array in arrays))
    for team in teams if compiled() else ():
        recorder = Recorder(team.size, Memory())
        result = function(recorder, *recorder.given(arrays, None))
        program = recorder.program()
        program.prepare([arrays], [])
        program.run(team, "test")
        yield result


# ---- kernels ----


@settings(max_examples=30)
@given(seeds, st.integers(1, 5), st.integers(1, 600) | st.integers(1000, 3000), st.integers(0, 40))
def test_layer_norm_has_the_bits_of_numpy(seed, count, size, padding):
    x, weight, bias = normal(seed, count, size + padding) * 7 + 1, *normal(seed, 2, size)
    expected = layer_norm_ref(x[:, :size], weight, bias, 1e-6)
    for y in in_both_ways(lambda run, x: layer_norm_rows(x, weight, bias, 1e-6, run), x):
        np.testing.assert_array_equal(y, expected)


def test_layer_norm_of_the_longest_rows():
    x, weight, bias = normal(0, 2, 8190), *normal(1, 2, 8190)
    np.testing.assert_array_equal(layer_norm_rows(x, weight, bias, 1e-6), layer_norm_ref(x, weight, bias, 1e-6))
    with pytest.raises(ValueError, match="rows of 8193 values, expected up to 8192"):
        layer_norm_rows(np.ones((1, 8193), F32), np.ones(8193, F32), np.ones(8193, F32), 1e-6)


@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 35), st.integers(0, 30))
def test_queries_keys_and_values_are_rotated_to_their_places(seed, t, heads, kv_heads, half, padding):
    d = 2 * half
    qkv, rope = normal(seed, t, (heads + 2 * kv_heads) * d + padding), rope_angles_ref(np.arange(5, 5 + t), d, 1e4)
    parts = qkv[:, : (heads + 2 * kv_heads) * d].reshape(t, -1, d)
    rotated = rotate_ref(parts[:, : heads + kv_heads], *rope)

    def rotate(run, qkv):
        queries, kv = run.empty(t, heads, d + padding), run.empty(t, 2, kv_heads, d + padding)
        rotate_into(qkv, rope, d, queries, kv, run)
        return queries, kv

    for queries, kv in in_both_ways(rotate, qkv):
        np.testing.assert_array_equal(queries[..., :d], rotated[:, :heads])
        np.testing.assert_array_equal(kv[:, 0, :, :d], rotated[:, heads:])
        np.testing.assert_array_equal(kv[:, 1, :, :d], parts[:, heads + kv_heads :])
        assert not queries[..., d:].any()
        assert not kv[..., d:].any()


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 40))
def test_the_sum_of_entries_is_that_of_numpy(seed, t, groups, size):
    codes = np.random.default_rng(seed).integers(0, 9, (t, groups + 2))
    books = tuple(normal(seed, groups, 9, size))
    expected = lookup_ref(codes[:, 1 : 1 + groups], books)
    for y in in_both_ways(lambda run, codes: look_up(codes, 1, books, run), codes):
        np.testing.assert_array_equal(y, expected)
    with pytest.raises(ValueError, match=r"codes int64 \[\d, \d\], \d codebooks from 3 on do not fit"):
        look_up(codes, 3, books)


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(1, 50))
def test_rows_are_handed_on(seed, past, rows, width):
    x, kept = normal(seed, past + rows, width), normal(seed + 1, past * width)
    expected = np.concatenate([kept.reshape(past, width), x[past:]])

    def hand_on(run, x, kept):
        pass_on(x, past, kept, run)
        return x, kept

    for whole, now in in_both_ways(hand_on, x, kept):
        np.testing.assert_array_equal(whole, expected)
        np.testing.assert_array_equal(now, expected[rows:].reshape(-1))


@given(seeds, st.integers(1, 6), st.integers(1, 40), st.integers(0, 20))
def test_rows_are_copied(seed, count, width, more):
    x = normal(seed, count, width + more)

    def copy(run, x):
        y = run.empty(count, width)
        copy_rows(x, y, run)
        return y

    for y in in_both_ways(copy, x):
        np.testing.assert_array_equal(y, x[:, :width])


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"copy_rows: x\[2, 3\] and y\[2, 4\] do not fit"):
        copy_rows(np.zeros((2, 3), F32), np.zeros((2, 4), F32))
    with pytest.raises(ValueError, match=r"pass_on: x is float32 \[2, 3\], kept\[5\], expected"):
        pass_on(np.zeros((2, 3), F32), 2, np.zeros(5, F32))
    with pytest.raises(ValueError, match=r"rotate_into: qkv\[2, 7\]"):
        rotate_into(np.zeros((2, 7), F32), (F32(0), F32(0)), 2, np.zeros((2, 2, 2), F32), np.zeros((2, 2, 1, 2), F32))


# ---- passes ----


@needs_compiler
@pytest.mark.parametrize("team", teams)
def test_a_pass_computes_anew_what_it_is_given(team):
    weight, (kept, other) = normal(0, 32), np.zeros((2, 32), F32)

    def work(run, x, kept):
        whole = run.empty(4, 32)
        copy_rows(x, whole[1:], run)
        pass_on(whole, 1, kept, run)
        y = run.empty(4, 16)
        silu_gate(rms_norm_rows(whole, weight, 1e-6, run), y, run)
        return y

    recorder = Recorder(team.size, Memory())
    (given_x,) = recorder.given([normal(1, 3, 32)], "x")
    result = work(recorder, given_x, recorder.kept(kept, "kept"))
    assert (recorder.labels_of_given, recorder.labels_of_kept) == (["x"], ["kept"])
    program = recorder.program()
    assert not kept.any()  # nothing has run
    apart = kept.copy(), other.copy()
    for i, (mine, theirs) in enumerate(zip((kept, other, kept), (*apart, apart[0]), strict=True)):
        x = normal(2 + i, 3, 32)
        program.prepare([[x]], [mine.ctypes.data])
        program.run(team, "test")
        np.testing.assert_array_equal(result, work(ALONE, x, theirs))
        np.testing.assert_array_equal(mine, theirs)


def test_memory_is_used_again_when_no_view_is_left():
    memory = Memory()
    first = memory.empty(3, 5)
    view, address = first[1:].reshape(-1), first.ctypes.data
    del first
    second = memory.empty(15)
    assert second.ctypes.data - address == 64  # in the next cache line
    assert memory.has(view.ctypes.data)
    assert not memory.has(np.zeros(3, F32).ctypes.data)
    del view
    gc.collect()
    assert memory.empty(2, 7).ctypes.data == address
    assert address % 64 == 0


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=60))
def test_living_arrays_share_no_memory(steps):
    """Each step makes an array of this size, and drops the eldest or does not. What was free is whole at the end."""
    memory, living = Memory(), []
    for i, (size, drops) in enumerate(steps):
        living.append((memory.empty(size), i))
        living[-1][0][:] = i
        if drops:
            del living[0]
    assert all((array == i).all() for array, i in living)
    took = memory.nbytes
    living.clear()
    assert memory.empty(took // 4).nbytes == took == memory.nbytes or not steps


@needs_compiler
def test_a_pass_keeps_alive_what_it_reads_and_not_what_is_kept():
    recorder, y = Recorder(1, Memory()), np.empty((1, 32), F32)
    copy_rows(np.full((1, 32), 5, F32), y, recorder)  # held by nobody else
    kept = recorder.kept(np.zeros(32, F32), None)
    gone = threading.Event()

    class Noticed(np.ndarray):
        def __del__(self):
            gone.set()

    del kept
    recorder.kept(np.zeros(32, F32).view(Noticed), None)
    program = recorder.program()
    del recorder
    gc.collect()
    assert gone.is_set()
    program.prepare([], [])
    program.run(teams[0], "test")
    assert (y == 5).all()
