"""The structure video's frames for a preview: small ones in memory, or those of a timeline's cache; none is healed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FrameCacheError, StructureFramesError
from structureflow.frames.cache import FrameCache
from structureflow.frames.manifest import FrameManifest
from structureflow.guide.ports import Gray
from structureflow.guide.structure import DecodedGrays

Image = NDArray[np.uint8]


class SmallGrays:
    """A `StructureFrames` over small frames in memory, of which the first has the number `first`."""

    def __init__(self, frames: Sequence[Image], first: int, height: int, width: int) -> None:
        last = len(frames) - 1
        self._grays = DecodedGrays(frames, height=height, width=width, first=0, last=max(0, last))
        self._first = first

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`."""
        return self._grays.gray([index - self._first for index in indices])


class CachedGrays:
    """A `StructureFrames` over a timeline's cached frames."""

    def __init__(self, cache: FrameCache, manifest: FrameManifest, height: int, width: int) -> None:
        self._cache = cache
        self._manifest = manifest
        self._size = height, width

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`."""
        try:
            return list(self._cache.iter_cached_grays(self._manifest, indices, *self._size))
        except FrameCacheError as error:
            raise StructureFramesError(error.message) from error
