"""The frame cache: a timeline's frames as JPEGs in the store, the same copy for every job, machine and screen.

The manifest is the commit. It is written after the last frame and lists every frame with what its bytes must
be; without it there is no cache, whatever lies in the folder. Transfers are concurrent and in memory; how many
are in flight, and how many pixels they hold, is bounded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.arguments import checking, instance
from structureflow.errors import FrameCacheError, TimelineNotFoundError
from structureflow.frames.adopt import adopt_frames
from structureflow.frames.checks import CHECKS
from structureflow.frames.chunks import (
    Chunk,
    OpenVideo,
    chunks_identity,
    decode_chunks,
    fetch_chunks,
    list_chunks,
    open_video,
)
from structureflow.frames.fetch import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PIXEL_BYTES,
    pixel_window,
    read_frame,
    transfer,
)
from structureflow.frames.frame import Frame, frame_b64
from structureflow.frames.jpeg import decode_jpeg_gray
from structureflow.frames.manifest import (
    CacheCheck,
    FrameManifest,
    FrameRecord,
    compare_listing,
    read_manifest,
)
from structureflow.frames.pages import FrameB64, FramePage, FrameUrlPage
from structureflow.frames.screens import DEFAULT_PAGE_BYTES, THUMBNAIL_QUALITY, frame_page, frame_url_page
from structureflow.frames.slot import Waiting, clear_timeline, until_alone
from structureflow.frames.writer import DEFAULT_QUALITY, FrameCacheWriter, decode_record
from structureflow.processors import usable_cpus
from structureflow.storage.base import Storage

__all__ = ["CacheCheck", "Chunk", "Frame", "FrameCache", "FrameCacheWriter", "FrameManifest", "FrameRecord"]

_log = logging.getLogger(__name__)
_F = TypeVar("_F")
_T = TypeVar("_T")


@checking(CHECKS)
class FrameCache:
    """The frame caches of a store, one per timeline.

    Args:
        storage: where they are.
        concurrency: requests in flight.
        workers: threads that encode and decode; None takes one per CPU of this process.
        pixel_bytes: bytes of pixels that one reading or writing holds at once (at least two frames).

    >>> import numpy as np
    >>> from structureflow import MemoryStorage
    >>> cache = FrameCache(MemoryStorage())
    >>> picture = np.full((48, 64, 3), 90, np.uint8)
    >>> manifest = cache.cache_frames("walk", [Frame(0, "a.mp4", 0.0, picture), Frame(1, "a.mp4", 0.04, picture)])
    >>> cache.cache_exists("walk"), [frame.timestamp for frame in cache.load_cached_frames("walk")]
    (True, [0.0, 0.04])
    """

    def __init__(
        self,
        storage: Storage,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        workers: int | None = None,
        pixel_bytes: int = DEFAULT_PIXEL_BYTES,
        wait: Waiting | None = None,
    ) -> None:
        self._storage = storage
        self._concurrency = concurrency
        self._workers = workers or usable_cpus()
        self._pixel_bytes = pixel_bytes
        self._wait = wait or Waiting()

    @property
    def storage(self) -> Storage:
        """Where the caches are."""
        return self._storage

    # --- the manifest --------------------------------------------------------------------------------

    def manifest(self, timeline_id: str, *, source_identity: str | None = None) -> FrameManifest:
        """Read the manifest, in one request.

        Raises:
            TimelineNotFoundError: there is none; a run that died half-way leaves none.
            FrameCacheError: it cannot be used, or, with `source_identity`, its frames are of another source.
        """
        manifest = read_manifest(self._storage, timeline_id)
        if source_identity is not None and manifest.source_identity != source_identity:
            raise FrameCacheError(f"timeline {timeline_id}: its frames are of another video")
        return manifest

    def cache_exists(self, timeline_id: str, *, source_identity: str | None = None) -> bool:
        """Tell, in one request, whether a timeline's frames are there to the last one, in a format known here.

        With `source_identity`, tell whether they are those of that very source.
        """
        try:
            manifest = self.manifest(timeline_id)
        except TimelineNotFoundError:
            return False
        except FrameCacheError as error:
            _log.warning("%s: counted as absent", error)
            return False
        return source_identity is None or manifest.source_identity == source_identity

    def source_identity(self, timeline_id: str) -> str:
        """Return the identity of the source whose frames are cached; errors as `manifest`."""
        return self.manifest(timeline_id).source_identity

    def check_cache(self, timeline_id: str) -> CacheCheck:
        """Compare a listing with the manifest, a page in memory at a time; no frame is read.

        Raises:
            TimelineNotFoundError: there is no manifest.
            FrameCacheError: it cannot be used.
        """
        return compare_listing(self._storage, self.manifest(timeline_id))

    # --- writing -------------------------------------------------------------------------------------

    def writer(
        self, timeline_id: str, *, quality: int = DEFAULT_QUALITY, source_identity: str = ""
    ) -> FrameCacheWriter:
        """Return a writer of a timeline's frames, to be used in a ``with`` block; see `FrameCacheWriter`."""
        return FrameCacheWriter(
            self._storage,
            timeline_id,
            quality=quality,
            source_identity=source_identity,
            concurrency=self._concurrency,
            workers=self._workers,
            pixel_bytes=self._pixel_bytes,
            wait=self._wait,
        )

    def cache_frames(
        self,
        timeline_id: str,
        frames: Iterable[Frame],
        *,
        quality: int = DEFAULT_QUALITY,
        source_identity: str = "",
    ) -> FrameManifest:
        """Write all frames of a timeline, in rising order of sequence, and then the manifest.

        What was cached before is replaced. Images must not be changed while they are being written.

        Raises:
            FrameCacheError: no frames, or sequence numbers that do not rise.
            FrameCacheConflictError: another writer puts other frames there at the same time; a sequence
                (not an iterator) of frames is written again a few times before that.
            NotAnImageError: an image is no ``(H, W, 3) uint8``.
            StorageError: a frame cannot be stored; there is no manifest then.
        """

        def write() -> FrameManifest:
            with self.writer(timeline_id, quality=quality, source_identity=source_identity) as writer:
                for frame in frames:
                    instance(Frame, "Frame objects")(frame, "frames")
                    writer.add(frame.sequence, frame.image, timestamp=frame.timestamp, chunk_id=frame.chunk_id)
                return writer.commit()

        return until_alone(write, self._wait) if isinstance(frames, Sequence) else write()

    def cache_videos(
        self,
        timeline_id: str,
        chunks: Iterable[Chunk],
        *,
        quality: int = DEFAULT_QUALITY,
        source_identity: str = "",
        opener: OpenVideo = open_video,
    ) -> FrameManifest:
        """Decode local videos in order and write their frames as one timeline; see `cache_frames`.

        Raises:
            MediaError: a video cannot be decoded; there is no manifest then.
        """
        frames = (
            Frame(frame.sequence, frame.chunk_id, frame.timestamp, frame.image)
            for frame in decode_chunks(chunks, opener)
        )
        return self.cache_frames(timeline_id, frames, quality=quality, source_identity=source_identity)

    def rebuild(
        self,
        timeline_id: str,
        *,
        quality: int = DEFAULT_QUALITY,
        source_identity: str | None = None,
        max_chunk_bytes: int | None = None,
        opener: OpenVideo = open_video,
    ) -> FrameManifest:
        """Write a timeline's frames anew from its source chunks, whatever was cached before.

        Args:
            timeline_id: the timeline; its chunks lie below ``timelines/{timeline_id}/chunks/``.
            quality: of the JPEGs, 1 to 100.
            source_identity: None makes one of the chunks' keys, sizes and ETags.
            max_chunk_bytes: largest chunk.
            opener: the decoder.

        Raises:
            TimelineNotFoundError: it has no chunks; the cache stays as it was.
            MediaError: a chunk cannot be decoded.
        """
        chunks = list_chunks(self._storage, timeline_id)
        identity = chunks_identity(chunks) if source_identity is None else source_identity

        def write() -> FrameManifest:
            fetched = fetch_chunks(self._storage, timeline_id, chunks, max_bytes=max_chunk_bytes)
            with contextlib.closing(fetched):
                return self.cache_videos(timeline_id, fetched, quality=quality, source_identity=identity, opener=opener)

        return until_alone(write, self._wait)

    def clear_cache(self, timeline_id: str, *, overlays: bool = False) -> int:
        """Remove a timeline's manifest and frames, and its overlays if asked; return how many objects."""
        return clear_timeline(self._storage, timeline_id, overlays=overlays, wait=self._wait)

    def adopt_frames(self, timeline_id: str, *, fps: float, chunk_id: str = "") -> FrameManifest:
        """Write the manifest of frames that lie in the folder without one, as an older program left them.

        Keys without zero padding are understood. Timestamps were never stored: they become sequence / `fps`.

        Raises:
            TimelineNotFoundError: there are no frames.
            FrameCorruptError: one is no JPEG; it is named.
            FrameCacheError: two keys stand for one sequence number.
            InvalidArgumentError: `fps` is not above 0.
        """
        return adopt_frames(
            self._storage,
            timeline_id,
            fps=fps,
            chunk_id=chunk_id,
            concurrency=self._concurrency,
            workers=self._workers,
            wait=self._wait,
        )

    # --- reading -------------------------------------------------------------------------------------

    def iter_cached_frames(
        self, timeline_id: str, sequences: Iterable[int] | None = None, *, manifest: FrameManifest | None = None
    ) -> Iterator[Frame]:
        """Iterate over frames in the order asked for (all: in rising order), reading ahead, memory bounded.

        Only the frames asked for are read. Each is checked against the manifest.

        Args:
            timeline_id: the timeline.
            sequences: which frames; None means all.
            manifest: as `manifest` gave it before, where several readings must be of the very same frames: what
                was written since counts as corrupt.

        Raises:
            TimelineNotFoundError: no cached frames.
            FrameNotFoundError: a sequence is not in the timeline, or its object is gone; it is named.
            FrameCorruptError: its bytes are not those of the manifest; it is named.
        """
        listed = manifest or self.manifest(timeline_id)
        return self._transfer(listed.select(sequences), self._read, _loaded, window=self._window(listed))

    def iter_cached_grays(
        self, manifest: FrameManifest, sequences: Iterable[int], height: int, width: int
    ) -> Iterator[NDArray[np.uint8]]:
        """Iterate over the luma of a manifest's frames, ``(height, width)`` uint8, in the order asked for.

        They are decoded small at once; read, checked and refused as by `iter_cached_frames`.
        """

        instance(FrameManifest, "what manifest() gives")(manifest, "manifest")

        def small(record: FrameRecord, data: bytes) -> NDArray[np.uint8]:
            return decode_record(data, record, lambda found: decode_jpeg_gray(found, height, width))

        return self._transfer(manifest.select(sequences), self._read, small, window=self._concurrency)

    def load_cached_frames(self, timeline_id: str, sequences: Iterable[int] | None = None) -> list[Frame]:
        """Load frames: all, a range, or a list of sequence numbers; errors as `iter_cached_frames`."""
        return list(self.iter_cached_frames(timeline_id, sequences))

    def iter_cached_jpegs(
        self, timeline_id: str, sequences: Iterable[int] | None = None
    ) -> Iterator[tuple[FrameRecord, bytes]]:
        """Iterate over stored JPEGs as they are, checked but not decoded; otherwise as `iter_cached_frames`."""
        records = self.manifest(timeline_id).select(sequences)
        return self._transfer(records, self._read, _as_stored, window=self._concurrency)

    def list_timelines(self) -> Iterator[str]:
        """Iterate over the ids of all timelines that have frames, overlays or a manifest; one request each."""
        after: str | None = None
        while (info := next(self._storage.list(keys.TIMELINES_PREFIX, start_after=after), None)) is not None:
            timeline_id = info.key.removeprefix(keys.TIMELINES_PREFIX).partition("/")[0]
            yield timeline_id
            # Behind the last key that the timeline can have.
            after = f"{keys.TIMELINES_PREFIX}{timeline_id}/\U0010ffff"

    def _window(self, manifest: FrameManifest) -> int:
        return pixel_window(manifest, concurrency=self._concurrency, pixel_bytes=self._pixel_bytes)

    def _read(self, record: FrameRecord) -> bytes:
        return read_frame(self._storage, record)

    def _transfer(
        self,
        records: Iterable[FrameRecord],
        fetch: Callable[[FrameRecord], _F],
        work: Callable[[FrameRecord, _F], _T],
        *,
        window: int,
    ) -> Generator[_T]:
        return transfer(records, fetch, work, window=window, concurrency=self._concurrency, workers=self._workers)

    # --- screens -------------------------------------------------------------------------------------

    def load_cached_frames_b64(
        self,
        timeline_id: str,
        sequences: Iterable[int] | None = None,
        *,
        page: str | None = None,
        limit: int = 200,
        width_px: int | None = None,
        quality: int = THUMBNAIL_QUALITY,
        max_bytes: int = DEFAULT_PAGE_BYTES,
    ) -> FramePage:
        """Load a page of frames as base64 JPEGs; see `structureflow.frames.screens.frame_page`."""
        return frame_page(
            self._storage,
            timeline_id,
            sequences,
            page=page,
            limit=limit,
            width_px=width_px,
            quality=quality,
            max_bytes=max_bytes,
            concurrency=self._concurrency,
            workers=self._workers,
            pixel_bytes=self._pixel_bytes,
        )

    def load_frame_urls(
        self,
        timeline_id: str,
        sequences: Iterable[int] | None = None,
        *,
        page: str | None = None,
        limit: int = 1000,
        expires_s: int = 3600,
    ) -> FrameUrlPage:
        """Return a page of URLs that read the stored JPEGs; see `structureflow.frames.screens.frame_url_page`."""
        return frame_url_page(self._storage, timeline_id, sequences, page=page, limit=limit, expires_s=expires_s)

    @staticmethod
    def frames_to_b64(
        frames: Iterable[Frame], quality: int = THUMBNAIL_QUALITY, *, width_px: int | None = None
    ) -> list[FrameB64]:
        """Encode frames in memory for screens, scaled down to `width_px` if given.

        Raises:
            NotAnImageError: an image is no ``(H, W, 3) uint8``.
        """
        return [frame_b64(frame, quality, width_px) for frame in frames]


def _loaded(record: FrameRecord, data: bytes) -> Frame:
    image = decode_record(data, record)
    return Frame(record.sequence, record.chunk_id, record.timestamp, image, record.perceptual_hash)


def _as_stored(record: FrameRecord, data: bytes) -> tuple[FrameRecord, bytes]:
    return record, data
