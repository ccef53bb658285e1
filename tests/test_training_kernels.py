"""Every gradient of a kernel: its oracle against finite differences in float64, its compiled twin against the oracle.

A gradient that is wrong by a thousandth fails: ``test_a_spoiled_gradient_is_noticed`` spoils each in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels import activation, attention, linear, norm, rope, self_attention, softmax
from qwen3tts_np_kernels.activation_jit import swiglu, swiglu_backward
from qwen3tts_np_kernels.adamw import AdamWStep, adamw_ref, sum_of_squares_ref
from qwen3tts_np_kernels.adamw_jit import adamw, sum_of_squares
from qwen3tts_np_kernels.embedding import embedding_backward_ref, embedding_ref
from qwen3tts_np_kernels.norm_jit import rms_norm_backward
from qwen3tts_np_kernels.rope_jit import rotate

Arrays = tuple[Any, ...]
STEP, BOUND = 1e-5, 1e-6  # of finite differences; the error of the central difference is some 1e-9


class Case(NamedTuple):
    """A function, its gradients with respect to its first arguments, and arguments to try."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]  # dy and the arguments -> a tuple of gradients
    gradients: int  # how many
    draw: Callable[[np.random.Generator, int, int], Arrays]  # two sizes -> arguments


def _table_gradient(dy: Any, table: Any, ids: Any) -> Any:
    dtable = np.zeros_like(table)
    embedding_backward_ref(dy, ids, dtable)
    return (dtable,)


def _kept(dy: Any, q: Any, k: Any, v: Any) -> Any:
    return self_attention.self_attention_backward(dy, q, k, v, self_attention.self_attention(q, k, v)[1])


def _angles(r: np.random.Generator, t: int, d: int) -> Arrays:
    return rope.rope_angles_ref(r.integers(0, 100, t), 2 * d, 1e4)


CASES = {
    "linear": Case(
        linear.linear_ref,
        lambda dy, x, weight, _: linear.linear_backward_ref(dy, x, weight),
        3,
        lambda r, t, n: (r.normal(size=(2, t, n)), r.normal(size=(3, n)), r.normal(size=3)),
    ),
    "embedding": Case(
        lambda table, ids: embedding_ref(ids, table),
        _table_gradient,
        1,
        lambda r, t, n: (r.normal(size=(5, n)), r.integers(0, 5, (t, 3))),
    ),
    "rms_norm": Case(
        lambda x, w: norm.rms_norm_ref(x, w, 1e-2),
        lambda dy, x, w: norm.rms_norm_backward_ref(dy, x, w, 1e-2),
        2,
        lambda r, t, n: (r.normal(size=(2, t, n)), r.normal(size=n)),
    ),
    "rotate": Case(
        rope.rotate_ref,
        lambda dy, x, cos, sin: (rope.rotate_backward_ref(dy, cos, sin),),
        1,
        lambda r, t, d: (r.normal(size=(t, 2, 2 * d)), *_angles(r, t, d)),
    ),
    "silu": Case(
        activation.silu_ref,
        lambda dy, x: (activation.silu_backward_ref(dy, x),),
        1,
        lambda r, t, n: (3 * r.normal(size=(t, n)),),
    ),
    "swiglu": Case(
        activation.swiglu_ref,
        activation.swiglu_backward_ref,
        2,
        lambda r, t, n: (3 * r.normal(size=(t, n)), r.normal(size=(t, n))),
    ),
    "cross_entropy": Case(
        lambda x, labels: softmax.cross_entropy_ref(x, labels).sum(),
        lambda dy, x, labels: (dy * softmax.cross_entropy_backward_ref(x, labels),),
        1,
        lambda r, t, n: (2 * r.normal(size=(2, t, n)), r.integers(0, n, (2, t))),
    ),
    "attention": Case(
        attention.attention_ref,
        attention.attention_backward_ref,
        3,
        lambda r, t, s: (r.normal(size=(t, 4, 2)), r.normal(size=(t + s, 2, 2)), r.normal(size=(t + s, 2, 2))),
    ),
    "attention in a window": Case(
        lambda q, k, v: attention.attention_ref(q, k, v, 2),
        lambda dy, q, k, v: attention.attention_backward_ref(dy, q, k, v, 2),
        3,
        lambda r, t, s: (r.normal(size=(t, 4, 2)), r.normal(size=(t + s, 2, 2)), r.normal(size=(t + s, 2, 2))),
    ),
    "self_attention": Case(
        lambda q, k, v: self_attention.self_attention(q, k, v)[0],
        _kept,
        3,
        lambda r, b, t: (r.normal(size=(b, t, 4, 2)), r.normal(size=(b, t, 2, 2)), r.normal(size=(b, t, 2, 2))),
    ),
}
OUTPUTS = [(name, i) for name, case in CASES.items() for i in range(case.gradients)]


def finite_differences(f: Callable[..., Any], dy: Any, arguments: Arrays, which: int) -> Any:
    """The gradient of sum(dy f(arguments)) with respect to one of them, value by value."""
    found = np.zeros_like(arguments[which])
    for i in np.ndindex(found.shape):
        sides = []
        for sign in (1, -1):
            moved = [np.array(a) for a in arguments]
            moved[which][i] += sign * STEP
            sides.append(np.sum(dy * f(*moved)))
        found[i] = (sides[0] - sides[1]) / (2 * STEP)
    return found


def check(case: Case, seed: int, sizes: tuple[int, int]) -> None:
    r = np.random.default_rng(seed)
    arguments = case.draw(r, *sizes)
    dy = r.normal(size=np.shape(case.forward(*arguments)))
    for i, gradient in enumerate(case.backward(dy, *arguments)):
        assert gradient.dtype == np.float64 and gradient.shape == arguments[i].shape
        wanted = finite_differences(case.forward, dy, arguments, i)
        assert np.linalg.norm(gradient - wanted) <= BOUND * max(np.linalg.norm(wanted), 1e-3), f"gradient {i}"


@pytest.mark.parametrize("name", CASES)
@settings(settings.get_profile("few"), max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.tuples(st.integers(1, 4), st.integers(1, 5)))
def test_gradients_are_finite_differences(name: str, seed: int, sizes: tuple[int, int]) -> None:
    check(CASES[name], seed, sizes)


@pytest.mark.parametrize(("name", "output"), OUTPUTS)
def test_a_spoiled_gradient_is_noticed(name: str, output: int) -> None:
    case = CASES[name]

    def spoiled(*arguments: Any) -> Any:
        return tuple(g * (1.001 if i == output else 1) for i, g in enumerate(case.backward(*arguments)))

    with pytest.raises(AssertionError, match=f"gradient {output}"):
        check(case._replace(backward=spoiled), 0, (3, 4))


SHAPES = [(3, 5), (2, 16), (1, 37), (2, 3, 128)]
F32_ERROR = 4e-6  # relative: sums of some dozens of products in float32


def near(found: Any, wanted: Any) -> None:
    assert found.dtype == np.float32 and found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= F32_ERROR * np.linalg.norm(wanted)


def in_float64(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments))


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_gradients_are_their_oracles(shape: tuple[int, ...]) -> None:
    r = np.random.default_rng(0)
    dy, x, up = (r.standard_normal(shape, np.float32) for _ in range(3))
    weight = r.standard_normal(shape[-1], np.float32)
    near(swiglu(x, up), in_float64(activation.swiglu_ref, x, up))
    for found, wanted in zip(
        swiglu_backward(dy, x, up), in_float64(activation.swiglu_backward_ref, dy, x, up), strict=True
    ):
        near(found, wanted)
    for found, wanted in zip(
        rms_norm_backward(dy, x, weight, 1e-6), in_float64(norm.rms_norm_backward_ref, dy, x, weight, 1e-6), strict=True
    ):
        near(found, wanted)


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 4, 22), (2, 3, 128)])
def test_rotation_is_its_oracle(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    cos, sin = rope.rope_angles_ref(np.arange(5, 5 + shape[0]), shape[2], 1e4)
    np.testing.assert_array_equal(rotate(x, cos, sin), rope.rotate_ref(x, cos, sin))
    np.testing.assert_array_equal(rotate(x, cos, -sin), rope.rotate_backward_ref(x, cos, sin))


def test_what_does_not_fit_is_refused() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"swiglu: float32 \[2, 3\], float32 \[2\]"):
        swiglu(x, x[:, 0])
    with pytest.raises(ValueError, match="swiglu_backward"):
        swiglu_backward(x, x, x.astype(np.float64))
    with pytest.raises(TypeError, match="rms_norm_backward"):
        rms_norm_backward(x, x, np.zeros(3), 1e-6)
    with pytest.raises(ValueError, match="rms_norm_backward"):
        rms_norm_backward(x, x[:1], x[0], 1e-6)
    with pytest.raises(TypeError, match="rotate: x, cos and sin are float32, float64, float64, not float32"):
        rotate(x[None], np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"rotate: x\[2, 1, 3\], cos\[2, 1\]"):
        rotate(x[:, None], x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match="adamw"):
        adamw(x, x, x, x.T, AdamWStep(1, 0, 1, 0, 0, 0, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adamw_is_its_oracle(dtype: Any) -> None:
    r = np.random.default_rng(0)
    ours = [r.standard_normal((7, 5)).astype(dtype) for _ in range(3)] + [r.random((7, 5)).astype(dtype)]
    oracle = [array.copy() for array in ours]
    for step in (AdamWStep(1 - 1e-5, 1e-3, 0.03, 0.9, 0.999, 1e-8, 0.25), AdamWStep(1, 1e-2, 0.5, 0.8, 0.99, 1e-6, 1)):
        adamw(*ours, step)
        adamw_ref(*oracle, step)
        for a, b in zip(ours, oracle, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not ours[1].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 3, 8, 1003])
def test_sums_of_squares(dtype: Any, size: int) -> None:
    x = np.random.default_rng(0).standard_normal(size).astype(dtype)
    assert sum_of_squares(x) == pytest.approx(sum_of_squares_ref(x), rel=1e-14)
    assert np.isnan(sum_of_squares(np.array([1, np.nan], dtype)))


def test_attention_in_steps_is_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    r, found = np.random.default_rng(0), []
    dy, q = r.normal(size=(2, 2, 7, 4, 3))
    k, v = r.normal(size=(2, 2, 7, 2, 3))
    for queries in (7, 3, 1):
        monkeypatch.setattr(self_attention, "QUERIES", queries)
        y, kept = self_attention.self_attention(q, k, v)
        assert [p.shape for p in kept][-1] == (2, 2, 2, 7 % queries or queries, 7)
        found.append((y, *self_attention.self_attention_backward(dy, q, k, v, kept)))
    for i in range(2):
        np.testing.assert_allclose(found[0][0][i], attention.attention_ref(q[i], k[i], v[i]), rtol=1e-13, atol=1e-15)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-12, atol=1e-14)


def test_confident_probabilities_leave_no_denormals() -> None:
    q = np.full((1, 3, 1, 4), 8, np.float32)
    q[:, 1:] *= -1
    _, (p,) = self_attention.self_attention(q, q, q)
    assert p.min() == 0 and not ((p > 0) & (p < 1e-30)).any()
    assert self_attention.flush(np.array([1e-31, -1e-31, 1e-29, 0])).tolist() == [0, 0, 1e-29, 0]
