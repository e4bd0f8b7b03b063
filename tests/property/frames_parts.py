"""What the model of frame caches stores, and the stores it watches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import (
    FrameCacheError,
)
from structureflow.frames.cache import FrameCacheWriter
from structureflow.frames.jpeg import encode_jpeg
from structureflow.frames.manifest import read_manifest
from structureflow.storage.base import Storage
from structureflow.testing.storage import WrapperStorage
from structureflow.testing.videos import texture

HEIGHT, WIDTH = 24, 32
VIDEOS = 3
LONGEST = 5
TIMELINES = ("a", "b")
_T = TypeVar("_T")
#: A timeline: the stored JPEG of every sequence number; None where there is no cache.
Cached = dict[int, bytes] | None


@cache
def picture(video: int, sequence: int) -> NDArray[np.uint8]:
    """Return a frame of a video; those of two videos differ by far more than two encodings do."""
    image = texture(HEIGHT, WIDTH, seed=100 * video + 7 * sequence + 1)
    image.setflags(write=False)
    return image


@cache
def jpeg(video: int, sequence: int, quality: int) -> bytes:
    return encode_jpeg(picture(video, sequence), quality)


def cached(video: int, count: int, quality: int) -> dict[int, bytes]:
    return {sequence: jpeg(video, sequence, quality) for sequence in range(count)}


class Guarded(WrapperStorage):
    """Notes every frame that is deleted while the manifest that lies there lists it."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.torn: list[str] = []

    def delete(self, wanted: Iterable[str]) -> int:
        deleted = list(wanted)
        for timeline_id in TIMELINES:
            prefix = keys.timeline_frames_prefix(timeline_id)
            frames = {key for key in deleted if key.startswith(prefix)}
            if frames:
                try:
                    manifest = read_manifest(self.inner, timeline_id)
                except FrameCacheError:
                    continue
                self.torn += sorted(frames & {record.key for record in manifest.records()})
        return self.inner.delete(deleted)


@contextmanager
def watched(log: logging.Logger) -> Iterator[list[str]]:
    """Collect what is logged in the block."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect()
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


@dataclass
class Open:
    """A writer at work."""

    timeline_id: str
    video: int
    quality: int
    writer: FrameCacheWriter
    added: int = 0
