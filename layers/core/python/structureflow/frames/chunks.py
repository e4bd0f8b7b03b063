"""Frames of source chunks: several videos in order, on one clock."""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import InputChangedError, TimelineNotFoundError
from structureflow.extras import importing
from structureflow.media.limits import DecodeLimits
from structureflow.ordered import ordered_map
from structureflow.storage.base import ObjectInfo, Storage
from structureflow.storage.verified import fetch_verified

__all__ = ["DecodedChunkFrame", "OpenVideo", "open_video"]

#: A chunk may have a single frame.
CHUNK_LIMITS: Final = DecodeLimits(min_frames=1)
_FALLBACK_FPS: Final = 25.0
_DIGITS = re.compile(r"(\d+)")


class DecodedChunkFrame(Protocol):
    """What a decoder yields: `image` ``(H, W, 3) uint8 RGB``, time in seconds since the chunk's start."""

    @property
    def timestamp_s(self) -> float:
        """Presentation time in the chunk."""
        ...

    @property
    def image(self) -> NDArray[np.uint8]:
        """``(H, W, 3) uint8 RGB``."""
        ...


#: Opens a local video for one walk through its frames.
OpenVideo = Callable[[Path], AbstractContextManager[Iterable[DecodedChunkFrame]]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A source chunk that is a local file."""

    chunk_id: str
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class ChunkFrame:
    """A frame of a timeline: `timestamp` in seconds on its clock, `image` ``(H, W, 3) uint8 RGB``."""

    sequence: int
    chunk_id: str
    timestamp: float
    image: NDArray[np.uint8]


def open_video(path: Path) -> AbstractContextManager[Iterable[DecodedChunkFrame]]:
    """Open a chunk with the decoder of this package."""
    # only where it is needed: frames can be cached and read without a decoder of videos
    with importing("decoding chunks"):
        from structureflow.media.decode import VideoReader

    return VideoReader(path, CHUNK_LIMITS)


def decode_chunks(chunks: Iterable[Chunk], opener: OpenVideo = open_video) -> Iterator[ChunkFrame]:
    """Decode chunks one after the other, numbering frames through and letting the clock run on.

    Inside a chunk timestamps are the container's, whatever its frame rate does. A chunk begins where the last
    frame of the one before it ends; that frame is taken to last as long as the median of its chunk's frames.
    """
    sequence = 0
    offset_s = 0.0
    for chunk in chunks:
        times: list[float] = []
        with opener(chunk.path) as frames:
            for frame in frames:
                times.append(frame.timestamp_s)
                yield ChunkFrame(sequence, chunk.chunk_id, round(offset_s + frame.timestamp_s, 6), frame.image)
                sequence += 1
        if times:
            steps = [after - before for before, after in pairwise(times)]
            offset_s += times[-1] + (statistics.median(steps) if steps else 1 / _FALLBACK_FPS)


def list_chunks(storage: Storage, timeline_id: str) -> list[ObjectInfo]:
    """List the source chunks of a timeline in order; numbers in names count as numbers (2 before 10).

    Raises:
        TimelineNotFoundError: there are none.
    """
    found = list(storage.list(keys.timeline_chunks_prefix(timeline_id)))
    if not found:
        raise TimelineNotFoundError(
            f"timeline {timeline_id} has no source chunks below {keys.timeline_chunks_prefix(timeline_id)}",
            timeline_id=timeline_id,
        )
    return sorted(found, key=lambda info: (_natural(info.key), info.key))


def chunks_identity(chunks: Iterable[ObjectInfo]) -> str:
    """Return an identity that changes whenever a chunk's bytes, or their order, may have changed."""
    digest = hashlib.sha256()
    for info in chunks:
        digest.update(f"{info.key}\0{info.etag}\0{info.size_bytes}\n".encode())
    return f"chunks:{digest.hexdigest()[:32]}"


def fetch_chunks(
    storage: Storage, timeline_id: str, chunks: Iterable[ObjectInfo], *, max_bytes: int | None = None
) -> Generator[Chunk]:
    """Download chunks one at a time, the next one while the caller works; each file goes when it is done with.

    Their bytes are verified, and after the last one it is seen that all are still the chunks that were listed. The
    listing is compared with another one, for some stores tag listings otherwise than replies.

    Raises:
        InputChangedError: a chunk was added, overwritten or removed since.
        StorageError: a chunk is larger than `max_bytes`, or cannot be read.
    """
    listed = list(chunks)
    prefix = keys.timeline_chunks_prefix(timeline_id)
    with tempfile.TemporaryDirectory(prefix=f"structureflow-{os.getpid()}-") as folder, ThreadPoolExecutor(1) as pool:

        def fetch(numbered: tuple[int, ObjectInfo]) -> Chunk:
            number, info = numbered
            # Under its own name, which decoding errors tell.
            path = Path(folder) / str(number) / Path(info.key).name
            path.parent.mkdir()
            fetch_verified(storage, info.key, path, max_bytes=max_bytes)
            return Chunk(info.key.removeprefix(prefix), path)

        for chunk in ordered_map(enumerate(listed), fetch, 1, pool=pool):
            yield chunk
            chunk.path.unlink()
    if chunks_identity(storage.list(prefix)) != chunks_identity(sorted(listed, key=lambda info: info.key.encode())):
        raise InputChangedError(f"timeline {timeline_id}: its source chunks changed while they were read")


def _natural(key: str) -> list[tuple[int, int, str]]:
    """Split a key so that runs of digits compare as numbers."""
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in _DIGITS.split(key)]
