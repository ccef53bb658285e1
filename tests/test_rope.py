"""Rotary tables far out, where the type of each step shows: the official ones are float32 throughout."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3tts_np.ops import rope_angles, rotate

LATE = np.array([8191, 32767, 65535])


def tables(positions: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each product rounded to float32, then cosine and sine as exactly as float64 gives them."""
    angles = (positions.astype(np.float32)[:, None] * frequencies.astype(np.float32)).astype(np.float64)
    return np.cos(angles), np.sin(angles)


def unlike(found: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> np.ndarray:
    """Per frequency, the largest difference at any position."""
    return np.maximum(*(np.abs(f - w).max(axis=0) for f, w in zip(found, wanted, strict=True)))


@pytest.mark.parametrize(("head_dim", "theta"), [(128, 1e6), (64, 1e4)])
def test_late_positions_have_the_angles_of_float32(head_dim: int, theta: float) -> None:
    """A power may be off by a unit of its last place, the same one at every position; nothing else may be."""
    found = rope_angles(LATE, head_dim, theta)
    assert [table.dtype for table in found] == [np.float32, np.float32]
    exact = theta ** -(np.arange(0, head_dim, 2) / head_dim)  # [D/2], float64
    rounded = exact.astype(np.float32)
    units = [np.nextafter(rounded, np.float32(0)), rounded, np.nextafter(rounded, np.float32(2))]
    nearest = np.min([unlike(found, tables(LATE, frequencies)) for frequencies in units], axis=0)
    np.testing.assert_allclose(nearest, 0, atol=2e-7)

    wide = LATE[:, None] * exact
    assert (unlike(found, (np.cos(wide), np.sin(wide))) > 1e-5).mean() > 0.25  # tables of float64 are told apart
    wide = LATE[:, None] * rounded.astype(np.float64)
    assert (unlike(found, (np.cos(wide), np.sin(wide))) > 1e-5).mean() > 0.25  # and products that were not rounded


def test_rotation_multiplies_pairs_as_complex_numbers() -> None:
    """Pair (j, j + D/2) is one complex number, turned by the angle of its frequency."""
    x = np.random.default_rng(0).standard_normal((3, 2, 64))  # [T, heads, D]
    cos, sin = (table.astype(np.float64) for table in rope_angles(LATE, 64, 1e4))  # each [T, D/2]
    turned = (x[..., :32] + 1j * x[..., 32:]) * (cos + 1j * sin)[:, None]
    np.testing.assert_allclose(rotate(x, cos, sin), np.concatenate([turned.real, turned.imag], -1), atol=1e-13)


def test_the_first_frequency_turns_by_one_radian_a_position() -> None:
    cos, sin = rope_angles(LATE, 128, 1e6)
    np.testing.assert_allclose(cos[:, 0], np.cos(LATE.astype(np.float64)), atol=1e-7)
    np.testing.assert_allclose(sin[:, 0], np.sin(LATE.astype(np.float64)), atol=1e-7)
