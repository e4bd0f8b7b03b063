"""The structure video's frames that a segment's paths are anchored in: from the frame cache, else from the video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import (
    FrameCacheError,
    InputChangedError,
    InputNotAllowedError,
    InputNotFoundError,
    MediaError,
    StorageError,
    StructureFramesError,
    TransientError,
)
from structureflow.flow.extract import prepare_frame
from structureflow.frames.cache import FrameCache
from structureflow.frames.manifest import FrameManifest
from structureflow.guide.ports import Gray
from structureflow.guide.structure import gray_frames
from structureflow.jobs.flow_sources import fetch_structure_video
from structureflow.jobs.services import Services
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.models.results import Fallback, JobRecord

STAGE: Final = "tracking"
#: Bytes of frames from the video that may lie on disk; a longer segment is then composed.
_DISK_BYTES: Final = 200 * 2**20

_log = logging.getLogger(__name__)


class SegmentFrames:
    """A `StructureFrames` of one job; falls back by itself, and remembers that it did.

    Attributes:
        fallbacks: every step down.
    """

    def __init__(
        self, record: JobRecord, services: Services, folder: Path, *, height: int, width: int, first: int, last: int
    ) -> None:
        """Give frames `first` to `last`, inclusive, on a grid of `height` x `width`; `folder` is for the video."""
        self.fallbacks: tuple[Fallback, ...] = ()
        self._record = record
        self._services = services
        self._folder = folder
        self._size = height, width
        self._first = first
        self._count = last + 1 - first
        self._manifest: FrameManifest | None = None
        self._decoded: NDArray[np.uint8] | None = None

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`; for one thread at a time."""
        if self._decoded is None:
            try:
                return self._cached(indices)
            except TransientError:
                raise
            except (FrameCacheError, StorageError) as error:
                self._fall_back("video", str(error))
                self._decoded = self._from_video()
        return [self._decoded[index - self._first] for index in indices]

    def _cached(self, indices: Sequence[int]) -> list[Gray]:
        cache = FrameCache(self._services.storage, workers=self._services.workers)
        return list(cache.iter_cached_grays(self._listed(cache), indices, *self._size))

    def _listed(self, cache: FrameCache) -> FrameManifest:
        """Return the manifest of the timeline's frames, always the same one."""
        record = self._record
        if self._manifest is None:
            self._manifest = cache.manifest(record.timeline_id, source_identity=record.source.identity)
        return self._manifest

    def pictures(self, wanted: Sequence[int], *, keep_grays: bool) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Iterate over frames in colour, each read and decoded once; exhaust it before `gray` is called.

        Args:
            wanted: frame numbers, rising, of those that the object was made for.
            keep_grays: whether `gray` will be called for any of its frames; it then reads nothing any more.

        Yields:
            Frame number, and ``(H, W, 3)`` uint8 RGB of the video's own size.

        Raises:
            StructureFramesError: neither the cached frames nor the video can be read.
        """
        # more than fits on the disk is read once more, small
        grays = self._gray_file() if keep_grays and self._fits_disk() else None
        numbers: Sequence[int] = wanted if grays is None else range(self._first, self._first + self._count)
        asked = set(wanted)
        begin = numbers[0] if numbers else 0
        try:
            for sequence, image in self._cached_pictures(numbers):
                begin = sequence + 1
                self._keep(grays, sequence, image)
                if sequence in asked:
                    yield sequence, image
        except TransientError:
            raise
        except (FrameCacheError, StorageError) as error:
            self._fall_back("video", str(error))
            for sequence, image in self._video_pictures(begin):
                self._keep(grays, sequence, image)
                if sequence in asked:
                    yield sequence, image
        self._decoded = grays

    def _keep(self, grays: NDArray[np.uint8] | None, sequence: int, image: NDArray[np.uint8]) -> None:
        if grays is not None:
            grays[sequence - self._first] = prepare_frame(image, *self._size, "gray")

    def _cached_pictures(self, numbers: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        cache = FrameCache(self._services.storage, workers=self._services.workers)
        manifest = self._listed(cache)
        for frame in cache.iter_cached_frames(self._record.timeline_id, numbers, manifest=manifest):
            yield frame.sequence, frame.image

    def _fits_disk(self) -> bool:
        return self._count * self._size[0] * self._size[1] <= _DISK_BYTES

    def _gray_file(self) -> NDArray[np.uint8]:
        # not in the job's own folder, which some systems do not remove while a file in it is in use
        return gray_frames(self._count, *self._size, folder=self._services.work_dir)

    def _from_video(self) -> NDArray[np.uint8]:
        """Decode the segment's part of the video once, into a file of its size."""
        if not self._fits_disk():
            height, width = self._size
            raise StructureFramesError(f"{self._count} frames of {width}x{height} px are too many to keep on disk")
        grays = self._gray_file()
        for sequence, image in self._video_pictures(self._first):
            self._keep(grays, sequence, image)
        return grays

    def _video_pictures(self, begin: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Iterate over the frames from `begin` to the segment's last one, decoded from the video.

        Raises:
            StructureFramesError: it is gone, damaged, or ends before.
        """
        last = self._first + self._count - 1
        decoded = begin
        try:
            video = fetch_structure_video(self._record, self._services, self._folder)
            with VideoReader(video, DecodeLimits(max_frames=self._services.max_video_frames)) as reader:
                reader.skip(begin)
                for frame in reader:
                    yield frame.index, frame.image
                    decoded += 1
                    if frame.index == last:
                        break
        except TransientError:
            raise
        except (InputNotAllowedError, InputNotFoundError, InputChangedError, MediaError, StorageError) as error:
            raise StructureFramesError(str(error)) from error
        if decoded <= last:
            raise StructureFramesError(
                f"expected {self._count} frames from {self._first} on, got {decoded - self._first}"
            )

    def _fall_back(self, used: str, reason: str) -> None:
        _log.warning("structure frames: %s instead of the frame cache: %s", used, reason)
        self.fallbacks += (Fallback(stage=STAGE, wanted="frames", used=used, reason=reason),)
