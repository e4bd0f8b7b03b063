"""How far a job is, while it is: written seldom, never in anybody's way, gone with the run."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import StorageError, SupersededRunError
from structureflow.jobs import live_keys, progress
from structureflow.jobs.progress import PartReport, read_progress
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.models.results import JobStatus, PartProgress
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage, WrapperStorage

BEGIN = datetime(2026, 11, 26, tzinfo=UTC)
LIVE = "jobs/t1/runs/r1/progress/live/segment-002.json"


class Clock:
    """Passes only when told to."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def report(storage: Any, clock: Clock, **more: Any) -> PartReport:
    return PartReport(storage, "t1", "r1", "segment", 2, 100, clock=clock, **more)


def running(**changes: Any) -> JobStatus:
    status = JobStatus(task_id="t1", run_id="r1", state="running", stage="segments", updated_at=BEGIN, segments=3)
    return status.model_copy(update=changes)


def settle(part: PartReport) -> None:
    """Wait for the writing under way."""
    if part._writing is not None:
        part._writing.result()


def test_a_part_is_written_at_most_every_two_seconds_and_taken_away_at_its_end() -> None:
    storage, clock = CountingStorage(MemoryStorage()), Clock()
    with report(storage, clock) as part:
        for done in range(1, 101):
            clock.pass_s(0.1)
            part.advance(done)
            settle(part)
        written = PartProgress.model_validate_json(storage.get(LIVE).data)
        assert (written.done, written.total, written.updated_at) == (100, 100, BEGIN + timedelta(seconds=10))
    assert storage.requests["put"] == 5
    assert not storage.exists(LIVE)


def test_a_short_part_writes_nothing() -> None:
    storage, clock = CountingStorage(MemoryStorage()), Clock()
    with report(storage, clock) as part:
        clock.pass_s(1.9)
        part.advance(50)
    assert not storage.requests


def test_a_part_that_fails_leaves_nothing() -> None:
    storage, clock = MemoryStorage(), Clock()

    def fail() -> None:
        with report(storage, clock) as part:
            clock.pass_s(3)
            part.advance(50)
            settle(part)
            assert storage.exists(LIVE)
            raise RuntimeError("as a test")

    with pytest.raises(RuntimeError, match="as a test"):
        fail()
    assert list(storage.list("")) == []


def test_a_store_that_refuses_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    storage, clock = FaultStorage(MemoryStorage()), Clock()
    storage.add(Fault("put", "*/progress/*", error=StorageError("denied"), times=None))
    with caplog.at_level(logging.WARNING), report(storage, clock) as part:
        for done in range(1, 9):
            clock.pass_s(3)
            part.advance(done)
            settle(part)
        part.announce()
    assert len([one for one in caplog.records if "progress is not written" in one.message]) == 1


def test_reading_counts_whole_parts_and_reads_the_newest_live_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_PARTS", 2)
    clock = Clock()
    storage = CountingStorage(MemoryStorage(now=clock))
    for index in range(5):
        clock.pass_s(1)
        part = PartProgress(step="segment", index=index, done=index, total=9, updated_at=clock())
        storage.put(live_keys.run_progress("t1", "r1", "segment", index, ended=False), part.to_json())
    storage.put(live_keys.run_progress("t1", "r1", "segment", 4, ended=True), b"{}")
    storage.put("jobs/t1/runs/r1/progress/live/other.txt", b"{}")
    storage.requests.clear()
    found = read_progress(storage, running(segments=7))
    assert (found.segments_done, found.whole) == (1, frozenset({4}))
    assert [part.index for part in found.parts] == [2, 3]
    # two of parts under way, and of the whole one, for its cost
    assert storage.requests == {"list": 1, "get": 3}
    storage.requests.clear()
    assert read_progress(storage, running(segments=7), reads=0).segments_done == 1
    assert storage.requests == {"list": 1}


def test_the_cost_so_far_is_that_of_parts_under_way_of_whole_ones_and_of_what_came_before() -> None:
    clock = Clock()
    storage = CountingStorage(MemoryStorage(now=clock))

    def write(index: int, cost_usd: float | None, *, ended: bool) -> None:
        clock.pass_s(1)
        part = PartProgress(step="segment", index=index, done=3, total=9, updated_at=clock(), cost_usd=cost_usd)
        storage.put(live_keys.run_progress("t1", "r1", "segment", index, ended=ended), part.to_json())

    assert read_progress(storage, running(segments=30)).cost_usd is None
    write(0, None, ended=False)
    assert read_progress(storage, running(segments=30)).cost_usd is None, "nobody measures"
    write(0, 0.5, ended=False)
    assert read_progress(storage, running(segments=30)).cost_usd == 0.5
    for index in range(1, 21):
        write(index, 2.0, ended=True)
    storage.requests.clear()
    found = read_progress(storage, running(segments=30, cost_usd=0.25))
    assert found.cost_usd == 0.25 + 0.5 + 20 * 2.0
    assert storage.requests == {"list": 1, "get": 5}, (
        "of whole parts some are read, and the others are taken to be alike"
    )


@pytest.mark.parametrize("reads", range(7))
def test_the_cost_so_far_by_a_few_reads(reads: int) -> None:
    """Alike parts: two reads, one of each sort, say what reading all says."""
    storage = CountingStorage(MemoryStorage())
    for index in range(30):
        ended = index < 20
        cost_usd = 2.0 if ended else 0.5
        part = PartProgress(step="segment", index=index, done=3, total=9, updated_at=BEGIN, cost_usd=cost_usd)
        storage.put(live_keys.run_progress("t1", "r1", "segment", index, ended=ended), part.to_json())
    storage.requests.clear()
    found = read_progress(storage, running(segments=30, cost_usd=0.25), reads=reads)
    assert found.segments_done == 20
    assert found.cost_usd == 0.25 + (20 * 2.0 if reads > 0 else 0) + (10 * 0.5 if reads > 1 else 0)
    assert storage.requests["get"] == reads


def test_few_reads_of_a_run_that_has_only_begun() -> None:
    storage = CountingStorage(MemoryStorage())
    for index in range(10):
        part = PartProgress(step="segment", index=index, done=3, total=9, updated_at=BEGIN, cost_usd=0.5)
        storage.put(live_keys.run_progress("t1", "r1", "segment", index, ended=False), part.to_json())
    storage.requests.clear()
    assert read_progress(storage, running(segments=30), reads=1).cost_usd == 5.0
    assert storage.requests == {"list": 1, "get": 1}


def test_a_part_says_what_it_has_taken() -> None:
    storage, clock = CountingStorage(MemoryStorage()), Clock()
    with report(storage, clock, cost=lambda: 0.125) as part:
        clock.pass_s(3)
        part.advance(50)
        settle(part)
        assert PartProgress.model_validate_json(storage.get(LIVE).data).cost_usd == 0.125
        part.announce()
    (ended,) = storage.list("jobs/t1/runs/r1/progress/ended/")
    assert PartProgress.model_validate_json(storage.get(ended.key).data).cost_usd == 0.125


def test_a_run_that_ended_is_not_looked_at() -> None:
    storage = CountingStorage(MemoryStorage())
    done = read_progress(storage, running(state="done"))
    assert (done.segments_done, done.whole, done.parts) == (3, frozenset({0, 1, 2}), ())
    assert read_progress(storage, running(state="failed")).segments_done is None
    assert not storage.requests


def test_a_job_says_how_far_it_is_while_it_is(runner: JobRunner, request_document: dict[str, Any]) -> None:
    """At every writing of a whole job: the extraction's frames, then each segment's, then which are whole."""
    seen: list[tuple[str, int, int, int]] = []
    whole: list[int] = []
    inner = runner.storage

    class Watching(WrapperStorage):
        def put(self, key: str, data: Any, **more: Any) -> Any:
            info = super().put(key, data, **more)
            if "/progress/live/" in key:
                part = PartProgress.model_validate_json(bytes(data))
                seen.append((part.step, part.index, part.done, part.total))
            elif "/progress/ended/" in key:
                status = runner.status("t1")
                whole.append(read_progress(inner, status).segments_done or 0)
            return info

    watching = Watching(inner)
    runner.services = dataclasses.replace(runner.services, storage=watching, progress_every_s=0.0)
    assert runner.run("t1", request_document).state == "done"
    assert {(step, index) for step, index, _, _ in seen} == {("extract", 0), ("segment", 0), ("segment", 1)}
    for step, index in {(step, index) for step, index, _, _ in seen}:
        counts = [done for one, other, done, _ in seen if (one, other) == (step, index)]
        assert counts == sorted(counts)
        assert counts[0] >= 1
    assert {total for step, _, _, total in seen if step == "extract"} == {9}
    assert {total for step, _, _, total in seen if step == "segment"} == {12}
    assert whole == [1, 2]
    assert not [key for key in runner.keys("jobs/") if "/progress/" in key]


def test_a_late_segment_of_an_ended_run_takes_its_word_back(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    plan = runner.plan("t1")
    status = runner.status("t1")
    inner = runner.storage

    class Ending(WrapperStorage):
        def put(self, key: str, data: Any, **more: Any) -> Any:
            info = super().put(key, data, **more)
            if key.endswith("result.json"):
                ended = status.model_copy(update={"state": "failed"})
                inner.put(keys.job_status("t1"), ended.to_json())
            return info

    services = dataclasses.replace(runner.services, storage=Ending(inner), progress_every_s=0.0)
    with pytest.raises(SupersededRunError, match="is failed already"):
        render_segment(RenderSegmentInput(task_id="t1", run_id=plan.run_id, index=0), services)
    assert not [key for key in runner.keys("jobs/") if "/progress/" in key or "/segments/" in key]
    assert runner.status("t1").state == "failed"
