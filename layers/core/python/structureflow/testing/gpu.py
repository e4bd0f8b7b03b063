"""What stands for the GPU part where there is no GPU: an engine that knows the truth about the small pan, its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import numpy as np

from structureflow.errors import GpuUnavailableError, JobStateError, StructureFlowError
from structureflow.flow.engines import EngineName, Finish, Frame, Result
from structureflow.jobs.extract_job import extract_and_commit, finish_commit
from structureflow.jobs.extraction_order import committed_record, load_order, note_failure, order_source
from structureflow.jobs.services import Services
from structureflow.testing.faults import Faults
from structureflow.testing.processes import Hostility


class PanEngine:
    """Says what `put_pan_clip` makes: two pixels to the right, everywhere."""

    name: EngineName = "raft"
    colour: Literal["gray", "rgb"] = "rgb"

    def params(self) -> dict[str, Any]:
        """See `FlowEngine.params`."""
        return {"model": "pan"}

    def run(self, frames: Iterable[Frame], finish: Finish[Result], *, workers: int) -> Iterator[Result]:
        """See `FlowEngine.run`; in the caller's thread."""
        if workers < 1:
            raise ValueError(f"workers: expected 1 or more, got {workers}")
        previous: Frame | None = None
        for frame in frames:
            if previous is not None:
                flow = np.zeros((*frame.shape[:2], 2), np.float32)
                flow[..., 0] = 2
                yield finish(previous, frame, flow, -flow)
            previous = frame


def carry_out(order_key: str, services: Services) -> None:
    """Do what the GPU task's process does, with `PanEngine` in place of RAFT.

    Raises:
        StructureFlowError: as `carry_out_order`; the order says why.
    """
    try:
        order = load_order(services.storage, order_key)
        committed = committed_record(services.storage, order)
        if committed is not None:
            finish_commit(order, committed, services)
            return
        extract_and_commit(order, order_source(order, services), services, engine=PanEngine())
    except JobStateError:
        raise
    except StructureFlowError as error:
        note_failure(services.storage, order_key, error)
        raise


class AddEvent(Protocol):
    """Adds an event to those that wait."""

    def __call__(self, kind: str, key: str, **detail: str) -> None:
        """Add one of that kind, on that key."""
        ...


class SeededGpu:
    """Starts GPU tasks, or has no capacity, by seed; a second call for the same run starts no second one."""

    timeout_s = 1800.0
    auto_pixel_frames = 10**12

    def __init__(self, faults: Faults, hostility: Hostility, add: AddEvent, note: Callable[[str], None]) -> None:
        self._faults = faults
        self._hostility = hostility
        self._add = add
        self._note = note
        self._started: set[str] = set()

    def start(self, order_key: str, run_id: str) -> str:
        """See `GpuLauncher.start`."""
        if self._faults.active and self._faults.chance("gpu", len(self._started)) < self._hostility.no_gpu:
            raise GpuUnavailableError("no capacity")
        if run_id not in self._started:
            self._started.add(run_id)
            self._add("task", order_key, run=run_id)
        return f"arn:aws:ecs:::task/{run_id}"

    def stop(self, run_id: str, reason: str) -> None:
        """See `GpuLauncher.stop`."""
        self._note(f"stop a task: {reason}, {run_id in self._started}")
