"""What the contract of the storage port is tried on: an adapter and a way around it, and keys of all sorts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from structureflow.storage.base import Storage

ODD_KEYS = (
    "a/plain.txt",
    "a/with space.txt",
    "a/plus+sign.txt",
    "a/percent%20.txt",
    "a/ümläut/日本.bin",
    "a/quote'\"&<>.bin",
    "a/(1)=[2];,@!$.bin",
    "a/...dots.bin",
    "a/~tilde^.bin",
)
BAD_KEYS = (
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    "a/./b",
    ".",
    "..",
    "a\nb",
    "a\x00b",
    "a\\b",
    "x" * 1025,
    "\ud800",
)


@dataclass(frozen=True)
class Subject:
    """An adapter under test, and a way around it.

    Attributes:
        storage: the adapter; empty at the start of every test.
        raw_put: stores bytes under a key without the adapter.
        raw_get: reads the bytes of a key without the adapter; None when there is no such object.
        atomic_creation: whether exactly one of many simultaneous creators, or swappers, can win.
        steady_reads: whether reading always succeeds while the object is being overwritten; else it may fail
            as transient.
    """

    storage: Storage
    raw_put: Callable[[str, bytes], None]
    raw_get: Callable[[str], bytes | None]
    atomic_creation: bool = True
    steady_reads: bool = True


def seeded_bytes(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that do not compress, the same ones each time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - test data
