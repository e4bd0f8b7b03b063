"""Shared by all tests: where the real clips are, seeded property tests, no sockets below the contract tier."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent
MEDIA = REPO.parent / "shared" / "media"

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
#: Another run each time; a failure prints the lines that repeat it.
settings.register_profile("nightly", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


def seeds(in_ci: int) -> int:
    """Return how many runs a test by seeds makes: `in_ci`, or what ``SEEDS`` in the environment says instead."""
    return int(os.environ.get("SEEDS") or in_ci)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit and property tests touch nothing: a socket there is an error."""
    for item in items:
        tier = Path(item.path).relative_to(REPO / "tests").parts[0]
        if tier in {"unit", "property"}:
            item.add_marker(pytest.mark.disable_socket)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """Codecs may give their thread real-time priority (SVT-AV1 does, as root): then nothing else gets a turn."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "the test left this thread with real-time priority"


def real_clip(name: str) -> Path:
    """Return a real clip, or skip the test where the folder of clips is absent."""
    path = MEDIA / name
    if not path.exists():
        pytest.skip(f"{path} is absent: this test measures on a real clip")
    return path


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def bigbuckbunny() -> Path:
    """The reference clip: 1280x720 H.264, 132 frames at 25 fps."""
    return real_clip("bigbuckbunny.mp4")


@pytest.fixture(scope="session")
def corrupted_clip() -> Path:
    """A 1280x720 H.264 clip with a damaged bitstream."""
    return real_clip("corrupted.mp4")


@pytest.fixture(scope="session")
def rotated_clip() -> Path:
    """A 568x320 H.264 clip of 3 frames with a 90-degree rotation in its metadata."""
    return real_clip("rotated_90.mov")
