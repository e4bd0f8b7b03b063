"""Jobs whose video is extracted in parts, in one process: the state machine's own file over a store in memory."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs import extraction_parts, orchestrate
from structureflow.models.results import JobRecord
from structureflow.runtime.machine import Execution, Machine, StateFailedError, call_step
from structureflow.storage.base import Storage
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import pan_frames, write_clip

EXTRACTION: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "statemachines" / "extraction.asl.json").read_text()
)
VIDEO = "videos/long.mp4"
FRAMES = 34


def small_parts(patch: pytest.MonkeyPatch, *, alone: int = 20, part: int = 8) -> None:
    """Make parts of a few frames."""
    patch.setattr(extraction_parts, "MAX_ALONE_FRAMES", alone)
    patch.setattr(orchestrate, "MAX_ALONE_FRAMES", alone)
    patch.setattr(extraction_parts, "PART_FRAMES", part)


def put_long_clip(storage: Storage, folder: Path, *, frames: int = FRAMES, gop: int = 8, crf: int = 12) -> None:
    """Put a clip that has a key frame every `gop` frames."""
    path = folder / "long.mp4"
    write_clip(path, pan_frames(frames, 96, 160, dx=2, dy=0), gop=gop, crf=crf)
    storage.put(VIDEO, path.read_bytes())


class PartsRunner(JobRunner):
    """Plays the state machine of extractions too; `starts` are its executions, with their inputs."""

    def __init__(self, storage: Storage, work_dir: Path) -> None:
        super().__init__(storage, work_dir)
        self.starts: list[tuple[str, Mapping[str, Any]]] = []
        self.calls: list[tuple[str, Any]] = []
        self.services = dataclasses.replace(
            self.services, start_extraction=lambda name, payload: self.starts.append((name, payload))
        )

    def invoke(self, step: str, payload: Any) -> Any:
        """Call a function as the state machine does."""
        self.calls.append((step, payload))
        return call_step(step, payload, self.services)

    def extract(self) -> StateFailedError | None:
        """Run the execution that was started last; return how it failed, None where it did not."""
        machine = Machine(
            EXTRACTION, invoke=self.invoke, sleep=lambda _: None, source=random.Random(1), read_items=lambda _: []
        )
        name, payload = self.starts[-1]
        try:
            machine.run(Execution(name, "2026-11-26T00:00:00Z"), json.loads(json.dumps(payload)))
        except StateFailedError as failure:
            return failure
        return None

    def record(self, task_id: str) -> JobRecord:
        """Return the record of the run that the job is at."""
        status = self.status(task_id)
        return JobRecord.model_validate_json(self.storage.get(keys.run_record(task_id, status.run_id)).data)

    def parts_done(self) -> list[int]:
        """Return the numbers of the parts that were called for, in order."""
        return [payload["part"] for step, payload in self.calls if step == "ExtractPart"]
