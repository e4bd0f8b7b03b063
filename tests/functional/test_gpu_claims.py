"""Who settles a GPU order: one at a time, all overdue tasks stopped before, and nothing begun that cannot end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs import settle_gpu as settle_module
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.extract_job import extract_and_commit
from structureflow.jobs.gpu_claim import CLAIM_LASTS, settling
from structureflow.jobs.settle_gpu import SettledOrder
from structureflow.models.results import JobRecord
from structureflow.testing.jobs import JobRunner, put_pan_clip
from tests.functional.gpu_orders import RecordingGpu, age_order, look, start, stopped


@pytest.fixture
def gpu(runner: JobRunner) -> RecordingGpu:
    """A GPU part that takes every order; the runner's services have it."""
    found = RecordingGpu()
    runner.services = replace(runner.services, gpu=found)
    return found


@pytest.fixture
def raft(request_document: dict[str, Any]) -> dict[str, Any]:
    """The request, for RAFT."""
    return {**request_document, "engine": "raft"}


def test_an_order_is_settled_by_one_at_a_time(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event of a task's end, and the schedule that found it overdue, at the same moment."""
    result = start(runner, raft)
    extractions: list[tuple[SettledOrder, ...]] = []
    extract = extract_and_commit

    def meanwhile(*args: Any, **options: Any) -> JobRecord:
        extractions.append(stopped(runner, result.run_id))
        return extract(*args, **options)

    monkeypatch.setattr(settle_module, "extract_and_commit", meanwhile)
    assert stopped(runner, result.run_id) == (SettledOrder(run_id=result.run_id, engine="dis"),)
    assert extractions == [()]
    assert runner.keys("work/") == []


def test_a_claim_of_a_process_that_was_killed_ends(runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any]) -> None:
    result = start(runner, raft)
    with settling(result.run_id, runner.services) as is_ours:
        assert is_ours
        assert stopped(runner, result.run_id) == ()
        later = runner.services.clock() + CLAIM_LASTS + timedelta(seconds=1)
        runner.services = replace(runner.services, clock=lambda: later)
        assert stopped(runner, result.run_id) == (SettledOrder(run_id=result.run_id, engine="dis"),)
    assert runner.keys("work/") == []


@pytest.mark.parametrize("spoiled", [b"", b"[]", b'{"until": "soon"}', b'{"until": "2026-01-01T00:00:00"}'])
def test_a_spoiled_claim_holds_nobody_back(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], spoiled: bytes
) -> None:
    result = start(runner, raft)
    runner.storage.put(keys.gpu_claim(result.run_id), spoiled)
    assert stopped(runner, result.run_id) == (SettledOrder(run_id=result.run_id, engine="dis"),)


def test_every_overdue_task_is_stopped_before_any_extraction(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, dx=3)
    runs = [start(runner, raft), start(runner, {**raft, "task_id": "t2", "structure_video": "videos/other.mp4"})]
    for result in runs:
        age_order(runner, result.run_id, 1)
    stopped_then: list[int] = []
    extract = extract_and_commit

    def looking(*args: Any, **options: Any) -> JobRecord:
        stopped_then.append(len(gpu.stopped))
        return extract(*args, **options)

    monkeypatch.setattr(settle_module, "extract_and_commit", looking)
    look(runner)
    assert stopped_then == [2, 2]


def test_what_half_of_the_time_does_not_do_is_left_to_the_next_look(
    runner: JobRunner, gpu: RecordingGpu, raft: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extraction that runs out of time fails its job, so none begins late."""
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, dx=3)
    runs = [start(runner, raft), start(runner, {**raft, "task_id": "t2", "structure_video": "videos/other.mp4"})]
    for result in runs:
        age_order(runner, result.run_id, 1)
    left = [900.0]
    extract = extract_and_commit

    def slow(*args: Any, **options: Any) -> JobRecord:
        record = extract(*args, **options)
        left[0] -= 600
        return record

    monkeypatch.setattr(settle_module, "extract_and_commit", slow)
    runner.services = replace(runner.services, deadline=Deadline(lambda: left[0]))
    (first,) = look(runner)
    left[0] = 900.0
    (second,) = look(runner)
    assert {first.run_id, second.run_id} == {result.run_id for result in runs}
