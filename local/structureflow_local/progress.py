"""How far a job is: one display for all commands that wait.

On a terminal a bar with frames, segments and the time that is left, below lines of what is new; elsewhere the lines
alone, each at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from structureflow import Storage, keys
from structureflow.jobs.documents import get_document, load_record
from structureflow.jobs.progress import read_progress
from structureflow.models.problems import counted
from structureflow.models.results import JobStatus, PartProgress, SegmentResult
from structureflow_local.output import Output

_STAGES: Final = {
    "orchestrate": "the request arrived",
    "gpu": "RAFT runs as a task of its own; without a GPU a pair takes seconds",
    "batch": "beyond a function: a Batch job extracts it, a process here",
    "extract": "decoding once: frames and flows",
    "segments": "the state machine fans out",
    "publish": "results take the places of those before",
}
#: Between two looks at parts under way; they write how far they are every two seconds.
_LOOK_S: Final = 1.0
_LEFT: Final = (TextColumn("left", markup=False), TimeRemainingColumn())


@contextmanager
def counting(output: Output, what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show how much of something is done, on a terminal; elsewhere its result alone is said, at its end.

    Args:
        what: is done, in a word.
        total: how much there is; None where nobody knows.
        unit: of `total`, as in ``frames``; ``bytes`` are shown as megabytes.

    Yields:
        A function that is called with how much more is done.
    """
    if not output.live:
        yield lambda _: None
        return
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), amount]
    if unit != "bytes":
        columns.append(TextColumn(unit, markup=False))
    with Progress(*columns, TimeElapsedColumn(), *_LEFT, console=output.console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class JobProgress:
    """A context manager that shows a job's progress, from what lies in its bucket.

    Args:
        output: where it goes; with JSON asked for, nowhere.
        storage: the job's bucket; None until `watch_in`.
        named: calls the user's files in a text what the user calls them.
    """

    def __init__(self, output: Output, storage: Storage | None = None, *, named: Callable[[str], str] = str) -> None:
        self._output = output
        self._named = named
        self._storage = storage
        self._begin = time.perf_counter()
        self._stage = ""
        self._recorded = False
        self._ended: set[int] = set()
        self._parts: tuple[PartProgress, ...] = ()
        self._next_look = self._begin
        self._segment_frames: tuple[int, ...] = ()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if output.live:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames, {task.fields[segments]}", markup=False),
                TimeElapsedColumn(),
                *_LEFT,
                console=output.console,
                transient=True,
            )
            self._task = self._bar.add_task("waiting", total=None, segments="no segments yet")

    def __enter__(self) -> Self:
        """Begin to show it."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away; the lines stay."""
        if self._bar is not None:
            self._bar.stop()

    def watch_in(self, storage: Storage) -> None:
        """Look into this bucket from now on."""
        self._storage = storage

    def say(self, stage: str, text: str) -> None:
        """Print a line of what is new."""
        elapsed = time.perf_counter() - self._begin
        line = Text.assemble((f"{elapsed:7.2f} s", "dim"), "  ", (f"{stage:<12}", "bold"), f" {self._named(text)}")
        if not self._output.as_json:
            self._output.console.print(line)

    def watch(self, status: JobStatus | None) -> None:
        """Show what is new since the last look."""
        if status is None or self._storage is None:
            return
        if not self._recorded:
            self._say_record(self._storage, status)
        if status.stage != self._stage and status.state == "running":
            self._stage = status.stage
            self.say(status.stage, _STAGES.get(status.stage, ""))
            self._move(description=status.stage)
        if self._recorded and status.segments is not None:
            self._say_segments(self._storage, status, status.segments)
        if self._bar is not None and status.state == "running" and time.perf_counter() >= self._next_look:
            # a listing and a request for each part under way
            self._next_look = time.perf_counter() + _LOOK_S
            self._parts = read_progress(self._storage, status).parts
            self._move()

    def _say_record(self, storage: Storage, status: JobStatus) -> None:
        if not storage.exists(keys.run_record(status.task_id, status.run_id)):
            return
        record = load_record(storage, status.task_id, status.run_id)
        self._recorded = True
        self._segment_frames = tuple(segment.frames for segment in record.request.segments)
        source, origin = record.source, "found in the cache" if record.flow_cache_hit else "extracted"
        if record.flow_cache is not None:
            origin = f"given as {record.flow_cache.reference}"
        self.say(
            "flows",
            f"{counted(source.frames - 1, 'flow')} by {record.engine}, {origin}; "
            f"video {source.width_px}x{source.height_px}, "
            f"{counted(source.frames, 'frame')}, {source.fps:g} fps, {counted(len(record.scene_cuts), 'cut')}",
        )
        self._move()

    def _say_segments(self, storage: Storage, status: JobStatus, count: int) -> None:
        for index in range(count):
            if status.state == "done":
                key = keys.segment_file(status.task_id, index, "result.json")
            else:
                key = keys.run_segment_file(status.task_id, status.run_id, index, "result.json")
            if index in self._ended or not storage.exists(key):
                continue
            self._ended.add(index)
            result = get_document(storage, key, SegmentResult, made_by="RenderSegment")
            filled = sum(last - first + 1 for first, last in result.filled)
            left = sum(last - first + 1 for first, last in result.left_unguided)
            self.say(
                f"segment {index}",
                f"{counted(result.frames, 'frame')} {result.width_px}x{result.height_px}: {filled} filled by motion, "
                f"{left} left to the generator; flow from {result.flow_source}, "
                f"made in {result.timings_s['segment']:.2f} s",
            )
            self._move()

    def _move(self, description: str | None = None) -> None:
        if self._bar is None:
            return
        frames = self._segment_frames
        step = "segment" if frames else "extract"
        under_way = [part for part in self._parts if part.step == step and part.index not in self._ended]
        self._bar.update(
            self._task,
            description=description or self._stage or "waiting",
            total=sum(frames or (part.total for part in under_way)) or None,
            completed=sum(frames[index] for index in self._ended if index < len(frames))
            + sum(part.done for part in under_way),
            segments=f"{len(self._ended)} of {counted(len(frames), 'segment')}" if frames else "no segments yet",
        )
