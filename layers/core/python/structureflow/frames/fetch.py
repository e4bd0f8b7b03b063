"""Reading stored frames: the JPEGs as they are, checked, many at a time; nothing here decodes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from structureflow.errors import FrameCorruptError, FrameNotFoundError, ObjectNotFoundError
from structureflow.frames.manifest import FrameManifest, FrameRecord
from structureflow.ordered import ordered_map
from structureflow.storage.base import Storage, StoredObject

_F = TypeVar("_F")
_T = TypeVar("_T")

#: Requests in flight, as many as `S3Settings` keeps connections; at S3's 0.1 s each, 100 frames take two rounds.
DEFAULT_CONCURRENCY: Final = 64
#: Bytes of pixels that transfers may hold at once: 64 frames of 720p and a few.
DEFAULT_PIXEL_BYTES: Final = 192 << 20


def fetch_frame(storage: Storage, record: FrameRecord) -> StoredObject:
    """Read the object of a frame, whatever bytes it has.

    Raises:
        FrameNotFoundError: it is gone; the sequence is named.
    """
    try:
        return storage.get(record.key)
    except ObjectNotFoundError as error:
        raise FrameNotFoundError(
            f"frame {record.sequence} is listed in the manifest, but {record.key} is gone; rebuild the timeline",
            sequence=record.sequence,
            key=record.key,
        ) from error


def read_frame(storage: Storage, record: FrameRecord) -> bytes:
    """Read the JPEG of a frame, and see that it is the one of the manifest.

    It is read twice before it counts as damaged: a bit that flips on the way must not pass for one in the store.

    Raises:
        FrameNotFoundError: it is gone; the sequence is named.
        FrameCorruptError: its bytes are not those of the manifest; it is named.
    """
    for _ in range(2):
        data = fetch_frame(storage, record).data
        # The content decides, not the ETag: a copy of the cache in another store has other ETags.
        if len(data) == record.size_bytes and zlib.crc32(data) == record.crc32:
            return data
    raise FrameCorruptError(
        f"frame {record.sequence}: expected {record.size_bytes} bytes with CRC-32 {record.crc32:08x}, "
        f"got {len(data)} with {zlib.crc32(data):08x}",
        sequence=record.sequence,
        key=record.key,
    )


def pixel_window(manifest: FrameManifest, *, concurrency: int, pixel_bytes: int) -> int:
    """Return how many frames of a timeline may be held decoded at once: at least two, at most `concurrency`."""
    largest = max((chunk.width_px * chunk.height_px * 3 for chunk in manifest.chunks), default=1)
    return max(2, min(concurrency, pixel_bytes // largest))


def transfer(
    records: Iterable[FrameRecord],
    fetch: Callable[[FrameRecord], _F],
    work: Callable[[FrameRecord, _F], _T],
    *,
    window: int,
    concurrency: int,
    workers: int,
) -> Generator[_T]:
    """Fetch records and work on what came, `window` of them ahead of the caller; give results in order.

    Many threads fetch, for that is waiting; few work, for that takes a core each.
    """
    working = ThreadPoolExecutor(workers, thread_name_prefix="frame-decode")
    fetching = ThreadPoolExecutor(min(window, concurrency), thread_name_prefix="frame-fetch")

    def fetch_then_work(record: FrameRecord) -> Future[_T]:
        return working.submit(work, record, fetch(record))

    try:
        # `map`, for it keeps no result while the caller works on it
        yield from map(Future.result, ordered_map(records, fetch_then_work, window, pool=fetching))
    finally:
        fetching.shutdown(wait=True, cancel_futures=True)
        working.shutdown(wait=True, cancel_futures=True)
