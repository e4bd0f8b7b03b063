"""Where the renderer's frames go: hand-over files for the encoder, pictures for the report."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.guide.render import unguided_ranges
from structureflow.jobs.services import Services
from structureflow.media.handover import HandoverWriter
from structureflow.models.job import Segment
from structureflow.models.results import JobRecord
from structureflow.report.previews import PreviewCollector


class SegmentFiles:
    """A `SegmentSink` that writes one segment's frames to files, and stores them when the segment ends."""

    def __init__(self, record: JobRecord, index: int, segment: Segment, services: Services, folder: Path) -> None:
        width, height = record.resolution
        self._record = record
        self._index = index
        self._services = services
        self._frames_path = folder / "frames.sfh"
        self._frames = HandoverWriter(
            self._frames_path,
            height=height,
            width=width,
            frames=segment.frames,
            fps=record.request.fps,
            workers=services.workers,
        )
        self._previews = PreviewCollector(segment.frames, unguided_ranges(segment))

    def __enter__(self) -> Self:
        self._frames.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.__exit__(kind, error, trace)

    def write(self, index: int, guide: NDArray[np.uint8], mask: int) -> None:
        """Take frame `index`: ``(H, W, 3) uint8 RGB`` and its mask, 0 or 255; copied before return."""
        self._frames.write(guide, mask)
        self._previews.guide(index, guide, mask)

    def finish(self) -> None:
        """Close the files and store them."""
        self._frames.finish()
        storage, task_id = self._services.storage, self._record.task_id
        storage.put_file(keys.work_file(task_id, self._index, "frames.sfh"), self._frames_path)
        storage.put(
            keys.work_file(task_id, self._index, "preview.json"),
            self._previews.to_json(),
            content_type="application/json",
        )
