"""What the steps of a job work with; `structureflow.runtime.wiring` builds it, tests build their own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from structureflow.errors import MemoryLimitError
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.inputs import Inputs
from structureflow.jobs.progress import EVERY_S, PartReport, Step
from structureflow.limits import MAX_CONCURRENT_PARTS, MAX_CONCURRENT_SEGMENTS, MEMORY_SHARE
from structureflow.models.cost import StepUsage, spent_usd
from structureflow.models.results import now
from structureflow.storage.base import Storage

__all__ = ["Services"]

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
    "TimelinesRebuilt",
    "SharedDamaged",
    "SharedRepaired",
    "PartsRepeated",
)

#: Names of temporary folders begin with it; the number of the process follows.
_SCRATCH: Final = "structureflow-"


class TaskLauncher(Protocol):
    """Starts and stops what carries out orders beside the functions."""

    @property
    def timeout_s(self) -> float:
        """After which a task counts as lost, waiting for capacity included."""
        ...

    def start(self, order_key: str, run_id: str) -> str:
        """Start a task for an order and return its ARN; a second call for the same run starts no second task.

        Raises:
            EngineUnavailableError: refused, or no capacity.
            TransientError: it is not known whether it was started; a later try may succeed.
        """
        ...

    def stop(self, run_id: str, reason: str) -> None:
        """Stop the tasks of a run; none running is no error.

        Raises:
            EngineUnavailableError: the call was refused.
        """
        ...


class GpuLauncher(TaskLauncher, Protocol):
    """Starts and stops GPU tasks; its errors are `GpuUnavailableError`."""

    @property
    def auto_pixel_frames(self) -> int:
        """``engine: auto`` takes the GPU from this many pixels times frames on."""
        ...


class BatchLauncher(TaskLauncher, Protocol):
    """Submits and ends Batch jobs; its errors are `BatchJobError`, and `TransientError` where it is asked too often."""

    @property
    def max_video_bytes(self) -> int:
        """Of the largest video that a Batch job takes."""
        ...


@dataclass(frozen=True)
class Services:
    """Adapters and limits of one function process.

    Attributes:
        storage: the data bucket.
        inputs: opens what a request names: keys, ``s3://`` URIs, ``https://`` URLs.
        max_video_frames: bound of every decoded video.
        max_input_bytes: bound of every downloaded input; a larger structure video is a Batch job's.
        workers: threads that computation may use: the vCPUs that the function pays for, one begun included.
        work_dir: folder for temporary files.
        start_extraction: starts the state machine that extracts in parts, likewise; None where there is none.
        start_segments: starts the state machine as ``start_segments(execution_name, input)``; used only when
            the flow archive could not be written, for its arrival starts the machine otherwise.
        count: counts a metric.
        gpu: starts GPU tasks; None where the GPU part is not deployed.
        batch: submits Batch jobs, for what is beyond a function; None where the Batch part is not deployed.
        max_concurrent_parts: parts of one video that are extracted at the same time.
        max_concurrent_segments: segments of one job that are rendered at the same time.
        allowed_origins: of pages that may ask the API, beside its own host's.
        requests_at_once: small requests to the store that are in flight at the same time.
        clock: tells the time, in UTC.
        vcpus: what those threads get in all; None where each has a processor of its own.
        memory_mb: of the function; None where nothing bounds it.
        deadline: when the call under way must be over.
        sent: called with the id of a job whose request the API has put; None where nothing carries jobs out.
        rebuild: starts the rebuilding of a timeline's frames, as ``rebuild(timeline_id, quality)``; None where
            nothing does.
        progress_every_s: least time between two writings of how far a part of a run is.
        usage: tells what the call under way has used until now, as ``usage(step)``; empty where nobody measures.
    """

    storage: Storage
    inputs: Inputs
    max_video_frames: int
    max_input_bytes: int
    workers: int
    work_dir: Path
    start_segments: Callable[[str, Mapping[str, Any]], None]
    count: Counter
    gpu: GpuLauncher | None = None
    batch: BatchLauncher | None = None
    start_extraction: Callable[[str, Mapping[str, Any]], None] | None = None
    max_concurrent_parts: int = MAX_CONCURRENT_PARTS
    max_concurrent_segments: int = MAX_CONCURRENT_SEGMENTS
    allowed_origins: tuple[str, ...] = ()
    requests_at_once: int = 16
    clock: Callable[[], datetime] = now
    vcpus: float | None = None
    memory_mb: int | None = None
    deadline: Deadline = field(default_factory=Deadline)
    progress_every_s: float = EVERY_S
    sent: Callable[[str], None] | None = None
    rebuild: Callable[[str, int | None], None] | None = None
    usage: Callable[[str], tuple[StepUsage, ...]] = lambda _: ()

    @property
    def processors(self) -> float:
        """Processors that computation gets, a part of one included: what estimates of time divide by."""
        return float(self.workers) if self.vcpus is None else min(self.vcpus, self.workers)

    def check_memory(self, needs_mb: float, doing: str) -> None:
        """Go on, if work of about that size fits into the function's memory.

        Raises:
            MemoryLimitError: it takes more than `MEMORY_SHARE` of it.
        """
        if self.memory_mb is not None and needs_mb > MEMORY_SHARE * self.memory_mb:
            raise MemoryLimitError(
                f"{doing} needs about {needs_mb:.0f} MB, and the function has {self.memory_mb} MB, of which "
                f"{MEMORY_SHARE * self.memory_mb:.0f} may be counted on",
                needs_mb=round(needs_mb),
                memory_mb=self.memory_mb,
            )

    def report(self, task_id: str, run_id: str, step: Step, index: int, total: int) -> PartReport:
        """Return what writes down how far a part of a run is, whose frames are `total`."""
        return PartReport(
            self.storage,
            task_id,
            run_id,
            step,
            index,
            total,
            every_s=self.progress_every_s,
            clock=self.clock,
            cost=lambda: spent_usd(self.usage(step)),
        )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a fresh temporary folder that is removed with all its files, also on an error."""
        with TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-", dir=self.work_dir) as folder:
            yield Path(folder)


def clear_leftovers(work_dir: Path) -> int:
    """Remove the temporary folders of processes that were killed; return how many.

    A sandbox keeps its disk when the runtime kills its process, and the next process may have the same number. So
    this must be called before the process has folders of its own.
    """
    count = 0
    for folder in work_dir.glob(f"{_SCRATCH}*-*"):
        number = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if number.isascii() and number.isdigit() and (int(number) == os.getpid() or not _is_alive(int(number))):
            shutil.rmtree(folder, ignore_errors=True)
            count += 1
    return count


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":
        # Signal 0 is Ctrl-C there. No sandbox is, and folders of users are not cleared for them.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
