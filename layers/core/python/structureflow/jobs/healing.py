"""What jobs share heals: an archive or a frame that is found rotten is replaced, and used again by the next job.

Whoever reads is the first to know. An archive is removed once a second reading has found the shared copy itself
rotten, so that the next job on the video extracts it anew. A frame is put anew from the video, which a segment that
could not read the frame decodes anyway. Neither ever fails the job that found it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import (
    FlowCacheError,
    FlowCacheVersionError,
    FrameCacheError,
    FrameCorruptError,
    FrameNotFoundError,
    ObjectNotFoundError,
    StorageError,
    StructureFlowError,
)
from structureflow.flow.archive import open_flow_archive
from structureflow.flow.fields import Direction
from structureflow.frames.manifest import FrameManifest
from structureflow.frames.repair import repair_frame
from structureflow.jobs.services import Services
from structureflow.limits import MAX_WORKING_GRID_PX

_log = logging.getLogger(__name__)
_READINGS: Final = 2

#: Direction, and the flows from (inclusive) to (exclusive).
FlowRange = tuple[Direction, int, int]


def remove_rotten_flows(key: str | None, found: FlowRange | None, services: Services) -> None:
    """Remove the shared archive at `key` if two readings of a part of it fail; a job's own copy may be rotten alone.

    Args:
        key: of the archive; None where the job has no shared one.
        found: the part that could not be read; None when the archive could not be opened.
        services: adapters; metrics are counted here.
    """
    if key is None:
        return
    try:
        if all(_is_rotten(key, found, services) for _ in range(_READINGS)):
            services.count("SharedDamaged", 1)
            services.storage.delete([key])
            services.count("SharedRepaired", 1)
            _log.warning("%s: is rotten and was removed; the next job on the video extracts it anew", key)
    except StorageError as error:
        _log.warning("%s: cannot be checked or removed: %s", key, error)


def _is_rotten(key: str, found: FlowRange | None, services: Services) -> bool:
    try:
        # As segments read it: a plain archive may have fields that do not fit into memory whole.
        archive = open_flow_archive(services.storage, key, workers=services.workers).within(MAX_WORKING_GRID_PX)
        if found is not None:
            archive.read(*found)
    except FlowCacheVersionError:
        # Of a newer program, for which it is whole.
        return False
    except FlowCacheError:
        return True
    except ObjectNotFoundError:
        return False
    return False


class FrameRepair:
    """Remembers a frame that was found gone or damaged, and puts it anew when its picture comes by."""

    def __init__(self, manifest: FrameManifest, error: FrameCacheError, services: Services) -> None:
        self._manifest = manifest
        self._services = services
        damaged = isinstance(error, FrameCorruptError | FrameNotFoundError)
        self._sequence: int | None = error.detail.get("sequence") if damaged else None
        if self._sequence is not None:
            services.count("SharedDamaged", 1)

    def watch(self, first: int, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Hand frames on, of which the first has the sequence number `first`."""
        for sequence, image in enumerate(frames, start=first):
            if sequence == self._sequence:
                self._sequence = None
                self._repair(sequence, image)
            yield image

    def _repair(self, sequence: int, image: NDArray[np.uint8]) -> None:
        timeline_id = self._manifest.timeline_id
        try:
            if repair_frame(self._services.storage, self._manifest, sequence, image):
                self._services.count("SharedRepaired", 1)
                _log.warning("timeline %s: frame %d was damaged and is put anew", timeline_id, sequence)
        except StructureFlowError as error:
            _log.warning("timeline %s: frame %d is damaged and stays so: %s", timeline_id, sequence, error)
