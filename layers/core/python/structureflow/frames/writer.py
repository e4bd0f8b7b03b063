"""Writing a timeline's frames: encoded and stored in the background, committed by the manifest."""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.arguments import text, whole
from structureflow.errors import (
    FrameCacheConflictError,
    FrameCacheError,
    FrameCorruptError,
    MediaError,
    ObjectNotFoundError,
    StorageError,
    TimelineNotFoundError,
)
from structureflow.frames.fetch import fetch_frame
from structureflow.frames.jpeg import check_image, decode_jpeg, encode_jpeg, hash_distance, perceptual_hash
from structureflow.frames.manifest import ChunkEntry, FrameManifest, FrameRecord, compare_listing, read_manifest
from structureflow.frames.slot import ManifestSlot, Waiting
from structureflow.storage.base import Storage, StoredObject

_log = logging.getLogger(__name__)

DEFAULT_QUALITY: Final = 85
#: Pictures per encoding thread that wait for it: enough to keep it busy, whatever the decoder's rhythm.
_WAITING_PER_WORKER: Final = 4
#: Hashes of two encodings of the same frame differ in no more bits than this.
SAME_FRAME_BITS: Final = 6
_SETTLE_ROUNDS: Final = 6
#: Before each further try to clean up: frames of two videos in one timeline are worth some patience.
_CLEANING_PAUSES_S: Final = (0.2, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class _Pools:
    """What runs while the block is open.

    Few threads encode, for encoding takes a core each; many store, for storing is waiting. `waiting` bounds
    the JPEGs that are on their way to the store.
    """

    encoding: ThreadPoolExecutor
    storing: ThreadPoolExecutor
    invalidated: Future[None]
    waiting: threading.BoundedSemaphore


class FrameCacheWriter:
    """Writes the frames of one timeline while they are being decoded.

    Use it in a ``with`` block: `add` every frame, then `commit`. Encoding and storing happen in the background;
    `add` waits only when too many pixels are under way. Whatever was cached before counts as absent from the
    first frame on. Leaving the block without `commit` leaves no manifest, and removes the frames written.

    Two writers of the same timeline: each commits, looks at what lies there, and lists that; so the last
    manifest fits the frames. Only where the other one's frames show something else does it give up, with
    `FrameCacheConflictError`.
    """

    def __init__(
        self,
        storage: Storage,
        timeline_id: str,
        *,
        quality: int,
        source_identity: str,
        concurrency: int,
        workers: int,
        pixel_bytes: int,
        wait: Waiting | None = None,
    ) -> None:
        whole(1, 100)(quality, "quality")
        text(source_identity, "source_identity")
        self._storage = storage
        self._timeline_id = keys.check_id(timeline_id, "timeline_id")
        self._quality = quality
        self._source_identity = source_identity
        self._concurrency = concurrency
        self._pixel_bytes = pixel_bytes
        self._workers = workers
        self._pools: _Pools | None = None
        self._slots: threading.BoundedSemaphore | None = None
        self._records: dict[int, FrameRecord] = {}
        self._chunks: dict[str, ChunkEntry] = {}
        self._last = -1
        self._added = 0
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._committed = False
        self._wait = wait or Waiting()
        self._slot = ManifestSlot(storage, timeline_id, self._wait)

    def __enter__(self) -> FrameCacheWriter:
        encoding = ThreadPoolExecutor(self._workers, thread_name_prefix="frame-encode")
        storing = ThreadPoolExecutor(self._concurrency, thread_name_prefix="frame-store")
        # Before any frame is overwritten, what listed it must be gone; frames wait for this.
        invalidated = storing.submit(self._slot.empty)
        self._pools = _Pools(encoding, storing, invalidated, threading.BoundedSemaphore(self._concurrency))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pools is not None:
            self._pools.encoding.shutdown(wait=True, cancel_futures=True)
            self._pools.storing.shutdown(wait=True, cancel_futures=True)
            self._pools = None
        # After a conflict the frames are the other writer's to judge.
        if not self._committed and not isinstance(error, FrameCacheConflictError):
            self._remove_written()

    def add(self, sequence: int, image: NDArray[np.uint8], *, timestamp: float, chunk_id: str) -> None:
        """Hand over a frame; call it from one thread, with rising `sequence`.

        Args:
            sequence: zero-based.
            image: ``(H, W, 3) uint8 RGB``; kept until it is encoded, and must not be changed.
            timestamp: seconds on the clock of the timeline.
            chunk_id: the source chunk; frames of one chunk have one size.

        Raises:
            FrameCacheError: `sequence` does not rise, the size changes, or the block was left.
            NotAnImageError: no ``(H, W, 3) uint8``.
            StorageError: an earlier frame could not be stored.
        """
        pools = self._pools
        if pools is None or self._committed:
            raise FrameCacheError("frames can be added only inside the with block and before commit")
        self._raise_failure()
        check_image(image)
        if sequence <= self._last:
            raise FrameCacheError(f"expected a sequence number above {self._last}, got {sequence}", sequence=sequence)
        height, width = image.shape[:2]
        chunk = self._chunks.setdefault(chunk_id, ChunkEntry(chunk_id=chunk_id, width_px=width, height_px=height))
        if (chunk.width_px, chunk.height_px) != (width, height):
            raise FrameCacheError(
                f"frame {sequence}: expected {chunk.width_px}x{chunk.height_px} as in the rest of chunk {chunk_id!r}, "
                f"got {width}x{height}",
                sequence=sequence,
            )
        key = keys.timeline_frame(self._timeline_id, sequence)
        if self._slots is None:
            held = max(2, min(_WAITING_PER_WORKER * self._workers, self._pixel_bytes // image.nbytes))
            self._slots = threading.BoundedSemaphore(held)
        slots = self._slots
        slots.acquire()
        self._last = sequence
        self._added += 1
        record = FrameRecord(sequence, key, "", 0, 0, float(timestamp), chunk_id, "")
        pools.encoding.submit(self._encode, pools, slots, record, image).add_done_callback(self._finished)

    def commit(self) -> FrameManifest:
        """Wait for all frames, write the manifest, and see that it fits what lies there.

        Raises:
            FrameCacheError: no frame was added, or it was committed already.
            FrameCacheConflictError: another writer puts other frames there at the same time.
            StorageError: a frame or the manifest could not be stored.
        """
        pools = self._pools
        if pools is None or self._committed:
            raise FrameCacheError("commit is possible once, inside the with block")
        pools.encoding.shutdown(wait=True)
        pools.storing.shutdown(wait=True)
        self._raise_failure()
        if not self._added:
            raise FrameCacheError(f"timeline {self._timeline_id}: expected frames to cache, got none")
        manifest = self._settle()
        self._committed = True
        return manifest

    # --- in the background ---------------------------------------------------------------------------

    def _encode(
        self, pools: _Pools, slots: threading.BoundedSemaphore, record: FrameRecord, image: NDArray[np.uint8]
    ) -> None:
        try:
            if self._failure is not None:
                return
            data = encode_jpeg(image, self._quality)
            seen = perceptual_hash(image)
        finally:
            del image
            slots.release()
        encoded = replace(record, size_bytes=len(data), crc32=zlib.crc32(data), perceptual_hash=seen)
        pools.waiting.acquire()
        pools.storing.submit(self._store, pools, encoded, data).add_done_callback(self._finished)

    def _store(self, pools: _Pools, record: FrameRecord, data: bytes) -> None:
        try:
            pools.invalidated.result()
            if self._failure is not None:
                return
            info = self._storage.put(record.key, data, content_type="image/jpeg")
        finally:
            pools.waiting.release()
        with self._lock:
            self._records[record.sequence] = replace(record, etag=info.etag)

    def _finished(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            with self._lock:
                self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # --- committing ----------------------------------------------------------------------------------

    def _settle(self) -> FrameManifest:
        """Write the manifest until it fits the frames that lie there after it was written."""
        mine: str | None = None
        for _ in range(_SETTLE_ROUNDS):
            manifest = FrameManifest.build(
                self._timeline_id,
                self._records.values(),
                self._chunks.values(),
                quality=self._quality,
                source_identity=self._source_identity,
            )
            mine = self._slot.commit(manifest, mine).etag
            strangers = self._reconcile(manifest, mine)
            if not strangers:
                return manifest
        if mine is not None:
            self._slot.withdraw(mine)
        raise FrameCacheConflictError(
            f"timeline {self._timeline_id}: another writer keeps changing its frames", timeline_id=self._timeline_id
        )

    def _reconcile(self, manifest: FrameManifest, mine: str) -> int:
        """Take over what another writer of the same frames left; remove what belongs to no frame."""
        records = {record.key: record for record in self._records.values()}
        unseen = set(records)
        strangers: list[FrameRecord] = []
        extras: list[str] = []
        for info in self._storage.list(keys.timeline_frames_prefix(self._timeline_id)):
            record = records.get(info.key)
            if record is None:
                extras.append(info.key)
                continue
            unseen.discard(info.key)
            if (info.etag, info.size_bytes) != (record.etag, record.size_bytes):
                # The listing's ETag: the next listing is compared with it.
                strangers.append(replace(record, etag=info.etag))
        if unseen:
            gone = min(records[key].sequence for key in unseen)
            self._slot.withdraw(mine)
            raise FrameCacheConflictError(
                f"timeline {self._timeline_id}: frame {gone} was removed by another while it was being cached",
                timeline_id=self._timeline_id,
                sequence=gone,
            )
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="frame-adopt") as pool:
            try:
                for seen in pool.map(self._adopted, strangers):
                    self._records[seen.sequence] = seen
            except FrameCacheConflictError:
                self._slot.withdraw(mine)
                raise
        if extras:
            # Who committed since has frames of his own there, and his manifest where ours was.
            with self._slot.held(mine, keep=manifest) as held:
                if held:
                    self._storage.delete(extras)
        return len(strangers)

    def _adopted(self, record: FrameRecord) -> FrameRecord:
        """Return `record` as it describes what another writer left, if that shows the same frame."""
        try:
            seen, _ = describe_frame(record, fetch_frame(self._storage, record))
        except FrameCacheError as error:
            raise FrameCacheConflictError(
                f"timeline {self._timeline_id}: another writer left a bad frame {record.sequence}: {error}",
                sequence=record.sequence,
            ) from error
        same = (seen.size_bytes, seen.crc32) == (record.size_bytes, record.crc32)
        if not same and hash_distance(seen.perceptual_hash, record.perceptual_hash) > SAME_FRAME_BITS:
            raise FrameCacheConflictError(
                f"timeline {self._timeline_id}: another writer put something else at frame {record.sequence}",
                sequence=record.sequence,
            )
        return replace(seen, etag=record.etag)

    def _remove_written(self) -> None:
        """Remove the frames written, unless another writer has committed meanwhile, whose they may be."""
        for pause_s in (*_CLEANING_PAUSES_S, None):
            try:
                with self._slot.held(None) as held:
                    if held:
                        self._storage.delete([record.key for record in self._records.values()])
                if not held:
                    self._leave_fitting()
                return
            except (FrameCacheError, StorageError) as error:
                if pause_s is None or not error.transient:
                    _log.warning("timeline %s: uncommitted frames remain: %s", self._timeline_id, error)
                    return
            self._wait.sleep(pause_s)

    def _leave_fitting(self) -> None:
        """Withdraw the other writer's manifest if frames of ours have come into it."""
        key = keys.timeline_manifest(self._timeline_id)
        try:
            etag = self._storage.head(key).etag
            manifest = read_manifest(self._storage, self._timeline_id)
        except (ObjectNotFoundError, TimelineNotFoundError):
            return
        if not compare_listing(self._storage, manifest).whole:
            self._slot.withdraw(etag)


def describe_frame(record: FrameRecord, found: StoredObject) -> tuple[FrameRecord, tuple[int, ...]]:
    """Return `record` as it describes the object `found`, and the shape (height, width, 3) of its picture.

    Raises:
        FrameCorruptError: it is no JPEG.
    """
    image = decode_record(found.data, record)
    described = replace(
        record,
        etag=found.info.etag,
        size_bytes=len(found.data),
        crc32=zlib.crc32(found.data),
        perceptual_hash=perceptual_hash(image),
    )
    return described, image.shape


def decode_record(
    data: bytes, record: FrameRecord, decode: Callable[[bytes], NDArray[np.uint8]] = decode_jpeg
) -> NDArray[np.uint8]:
    """Decode the JPEG of `record` with `decode`; by default to ``(H, W, 3) uint8 RGB``.

    Raises:
        FrameCorruptError: the bytes are no JPEG; the sequence is named.
    """
    try:
        return decode(data)
    except MediaError as error:
        raise FrameCorruptError(
            f"frame {record.sequence}: {error}", sequence=record.sequence, key=record.key
        ) from error
