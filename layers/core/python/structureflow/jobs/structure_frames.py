"""The structure video's frames that a segment's paths are anchored in: from the frame cache, else from the video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
        timeline_id = self._record.timeline_id
        if self._manifest is None:
            manifest = cache.manifest(timeline_id)
            if manifest.source_identity != self._record.source.identity:
                raise FrameCacheError(f"timeline {timeline_id}: its frames are of another video")
            self._manifest = manifest
        return list(cache.iter_cached_grays(self._manifest, indices, *self._size))

    def _from_video(self) -> NDArray[np.uint8]:
        """Decode the segment's part of the video once, into a file of its size."""
        height, width = self._size
        if self._count * height * width > _DISK_BYTES:
            raise StructureFramesError(f"{self._count} frames of {width}x{height} px are too many to keep on disk")
        frames = np.memmap(self._folder / "structure_frames", np.uint8, "w+", shape=(self._count, height, width))
        last = self._first + self._count - 1
        decoded = 0
        try:
            video = fetch_structure_video(self._record, self._services, self._folder)
            with VideoReader(video, DecodeLimits(max_frames=self._services.max_video_frames)) as reader:
                reader.skip(self._first)
                for frame in reader:
                    frames[frame.index - self._first] = prepare_frame(frame.image, height, width, "gray")
                    decoded += 1
                    if frame.index == last:
                        break
        except TransientError:
            raise
        except (InputNotAllowedError, InputNotFoundError, InputChangedError, MediaError, StorageError) as error:
            raise StructureFramesError(str(error)) from error
        if decoded < self._count:
            raise StructureFramesError(f"expected {self._count} frames from {self._first} on, got {decoded}")
        return frames

    def _fall_back(self, used: str, reason: str) -> None:
        _log.warning("structure frames: %s instead of the frame cache: %s", used, reason)
        self.fallbacks += (Fallback(stage=STAGE, wanted="frames", used=used, reason=reason),)
