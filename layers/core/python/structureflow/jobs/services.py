"""What the steps of a job work with; `structureflow.runtime.wiring` builds it, tests build their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from structureflow.jobs.inputs import Inputs
from structureflow.storage.base import Storage

#: Called as ``count(name, value)``; the names are listed in `METRICS`.
Counter = Callable[[str, int], None]

#: Metrics that the steps count, by name.
METRICS = (
    "JobsStarted",
    "JobsDone",
    "JobsFailed",
    "FlowCacheHits",
    "FlowCacheMisses",
    "Fallbacks",
    "SegmentsRendered",
    "DuplicateEvents",
)


@dataclass(frozen=True)
class Services:
    """Adapters and limits of one function process.

    Attributes:
        storage: the data bucket.
        inputs: opens what a request names: keys, ``s3://`` URIs, ``https://`` URLs.
        max_video_frames: bound of every decoded video.
        max_input_bytes: bound of every downloaded input.
        workers: threads that computation may use: the vCPUs that the function pays for.
        work_dir: folder for temporary files.
        start_segments: starts the state machine as ``start_segments(execution_name, input)``; used only when
            the flow archive could not be written, for its arrival starts the machine otherwise.
        count: counts a metric.
    """

    storage: Storage
    inputs: Inputs
    max_video_frames: int
    max_input_bytes: int
    workers: int
    work_dir: Path
    start_segments: Callable[[str, Mapping[str, Any]], None]
    count: Counter

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a fresh temporary folder that is removed with all its files, also on an error."""
        with TemporaryDirectory(prefix="structureflow-", dir=self.work_dir) as folder:
            yield Path(folder)
