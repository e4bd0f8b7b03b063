"""The frames of several structure videos as those of the video that their parts are joined to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import StructureFramesError
from structureflow.flow.engines import DEFAULT_ENGINES, working_size
from structureflow.flow.joined import Size, resized_gray
from structureflow.guide.ports import Gray
from structureflow.jobs.flow_sources import source_folder
from structureflow.jobs.services import Services
from structureflow.jobs.structure_frames import SegmentFrames
from structureflow.models.results import Fallback, JobRecord, JoinedSource


class JoinedFrames:
    """A `StructureFrames` of a job of several sources; each source falls back by itself.

    Args:
        record: of the job.
        services: adapters and limits.
        folder: for temporary files.
        height, width: the grid on which frames are given.
        first, last: the frames of the joined video that may be asked for, inclusive.
    """

    def __init__(
        self, record: JobRecord, services: Services, folder: Path, *, height: int, width: int, first: int, last: int
    ) -> None:
        source = record.source
        self._size = Size(source.height_px, source.width_px, height, width)
        self._parts: list[tuple[JoinedSource, Size, SegmentFrames]] = []
        area_px = DEFAULT_ENGINES.preset(record.engine, record.request.quality).area_px
        for number, part in enumerate(record.sources):
            begin, end = max(first, part.first_frame), min(last, part.first_frame + part.part_frames - 1)
            if begin > end:
                continue
            size = Size(part.height_px, part.width_px, *working_size(part.height_px, part.width_px, area_px))
            if (size.height, size.width) == (self._size.height, self._size.width):
                size = self._size
            offset = part.source_start_frame - part.first_frame
            frames = SegmentFrames(
                record.of_source(number),
                services,
                source_folder(folder, number),
                height=size.grid_height,
                width=size.grid_width,
                first=begin + offset,
                last=end + offset,
            )
            self._parts.append((part, size, frames))

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Every step down of any source."""
        return tuple(step for _, _, frames in self._parts for step in frames.fallbacks)

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`; for one thread at a time."""
        found: dict[int, Gray] = {}
        for part, size, frames in self._parts:
            own = [index for index in indices if 0 <= index - part.first_frame < part.part_frames]
            offset = part.source_start_frame - part.first_frame
            if own:
                for index, gray in zip(own, frames.gray([index + offset for index in own]), strict=True):
                    found[index] = resized_gray(gray, size, self._size)
        missing = sorted(set(indices) - found.keys())
        if missing:
            raise StructureFramesError(f"expected frames of the sources, got {missing[:5]}")
        return [found[index] for index in indices]

    def pictures(self, wanted: Sequence[int], *, keep_grays: bool) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See `SegmentFrames.pictures`; each picture has the size of its source."""
        for part, _, frames in self._parts:
            offset = part.source_start_frame - part.first_frame
            own = [index + offset for index in wanted if 0 <= index - part.first_frame < part.part_frames]
            for sequence, picture in frames.pictures(own, keep_grays=keep_grays):
                yield sequence - offset, picture
