"""One deterministic hypothesis profile, and the third-party reference folder where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Official configurations, tensor lists and tokenizer, which are not part of this repository."""
    folder = Path(__file__).parents[2] / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("needs the official files in ../shared/reference")
    return folder
