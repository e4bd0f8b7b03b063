"""The steps of a job, from request to report, and every way they can go wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import JobStateError, StructureFlowError
from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.jobs.fail_job import fail_request
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.models.results import JobRecord, Manifest, SegmentResult
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import count_frames, decode_rgb

HEIGHT, WIDTH = 96, 160


def fetch(runner: JobRunner, key: str, folder: Path) -> Path:
    path = folder / key.replace("/", "_")
    runner.storage.get_to_file(key, path)
    return path


def result_of(runner: JobRunner, index: int, task_id: str = "t1") -> SegmentResult:
    return SegmentResult.model_validate_json(runner.storage.get(keys.segment_file(task_id, index, "result.json")).data)


def test_a_job_leaves_everything_that_the_design_lists(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    status = runner.run("t1", request_document)

    assert status.state == "done", status
    assert set(runner.keys("jobs/")) == {
        "jobs/t1/request.json",
        "jobs/t1/job.json",
        "jobs/t1/structure_flows_t1.npz",
        "jobs/t1/status.json",
        "jobs/t1/manifest.json",
        "jobs/t1/report.html",
        *(f"jobs/t1/segments/{i:03d}/{n}" for i in (0, 1) for n in ("guide.mp4", "mask.mp4", "result.json")),
    } | set(runner.keys("jobs/t1/runs/"))
    run = runner.status("t1").run_id
    assert runner.keys("jobs/t1/runs/") == [keys.run_claim("t1", run), keys.run_record("t1", run)]
    with np.load(fetch(runner, "jobs/t1/structure_flows_t1.npz", tmp_path), allow_pickle=False) as archive:
        assert archive["flows"].shape[0] == archive["flows_backward"].shape[0] == archive["total_flows"] == 8
        assert archive["flows"].dtype == np.float32
        assert list(archive["original_resolution"]) == [WIDTH, HEIGHT]
    for index in (0, 1):
        guide = fetch(runner, keys.segment_file("t1", index, "guide.mp4"), tmp_path)
        mask = fetch(runner, keys.segment_file("t1", index, "mask.mp4"), tmp_path)
        assert count_frames(guide) == count_frames(mask) == 12
        result = result_of(runner, index)
        assert result.unguided == ((3, 9),)
        assert (result.flow_source, result.engine) == ("cache", "dis")
    manifest = Manifest.model_validate_json(runner.storage.get("jobs/t1/manifest.json").data)
    assert [segment.index for segment in manifest.segments] == [0, 1]
    assert manifest.fallbacks == ()


def test_the_mask_is_white_exactly_where_a_frame_stayed_unguided(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """`clip` with fewer flows than unguided frames leaves the rest to the generator."""
    document = {**request_document, "treatment": "clip", "frames": 20}
    assert runner.run("t1", document).state == "done"

    result = result_of(runner, 0)
    assert result.unguided == ((3, 17),)
    assert result.filled == ((3, 10),)
    assert result.left_unguided == ((11, 17),)
    masks = list(decode_rgb(fetch(runner, keys.segment_file("t1", 0, "mask.mp4"), tmp_path)))
    guides = list(decode_rgb(fetch(runner, keys.segment_file("t1", 0, "guide.mp4"), tmp_path)))
    assert len(masks) == 20
    for index, (mask, guide) in enumerate(zip(masks, guides, strict=True)):
        if 11 <= index <= 17:
            assert mask.min() == 255, index
            assert abs(guide.astype(int) - 128).max() <= 3, index
        else:
            assert mask.max() == 0, index
            assert guide.std() > 10, index


def test_a_pan_to_the_right_moves_content_to_the_right(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """The anchor moves 2 px per frame with the clip: a reversed warp moves it the other way."""
    document = {**request_document, "treatment": "clip", "frames": 12}
    assert runner.run("t1", document).state == "done"
    frames = list(decode_rgb(fetch(runner, keys.segment_file("t1", 0, "guide.mp4"), tmp_path)))
    anchor, moved = frames[2].astype(float), frames[7].astype(float)
    right = np.abs(moved[16:-16, 42:-32] - anchor[16:-16, 32:-42]).mean()
    left = np.abs(moved[16:-16, 32:-42] - anchor[16:-16, 42:-32]).mean()
    still = np.abs(moved[16:-16, 32:-32] - anchor[16:-16, 32:-32]).mean()
    assert right < 0.5 * still
    assert right < 0.5 * left


def test_frames_are_cached_in_the_same_pass(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.run("t1", request_document)
    record = JobRecord.model_validate_json(runner.storage.get("jobs/t1/job.json").data)
    cached = runner.keys(keys.timeline_frames_prefix(record.timeline_id))
    assert cached == [keys.timeline_frame(record.timeline_id, i) for i in range(9)]
    assert runner.storage.exists(keys.timeline_manifest(record.timeline_id))


def test_a_second_job_finds_the_flows(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.run("t1", request_document)
    runner.storage.delete(["cache/timelines/none"])
    status = runner.run("t2", {**request_document, "task_id": "t2"})
    assert status.state == "done"
    assert (runner.counts["FlowCacheMisses"], runner.counts["FlowCacheHits"]) == (1, 1)
    first, second = (runner.storage.get(f"jobs/{name}/structure_flows_{name}.npz").data for name in ("t1", "t2"))
    assert first == second
    assert len(runner.keys("cache/flows/")) == 1


def test_another_quality_is_another_cache_entry(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.run("t1", request_document)
    runner.run("t2", {**request_document, "task_id": "t2", "quality": "fast"})
    assert len(runner.keys("cache/flows/")) == 2


def test_extra_outputs_and_overlays_come_when_asked_for(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    stages = ["flow", "visibility", "guidance", "warp"]
    document = {**request_document, "outputs": ["flow_vis", "visibility"], "overlays": stages, "anchors": "both"}
    assert runner.run("t1", document).state == "done"

    result = result_of(runner, 0)
    assert set(result.outputs) == {"guide", "mask", "flow_vis", "visibility"}
    colours = list(decode_rgb(fetch(runner, keys.segment_file("t1", 0, "flow_vis.mp4"), tmp_path)))
    assert len(colours) == 12
    assert colours[0].min() > 240, "no motion where a frame is given: white"
    # Motion to the right is red on the wheel.
    red, green, blue = colours[6].reshape(-1, 3).mean(axis=0)
    assert red > green + 40
    assert red > blue + 40
    record = JobRecord.model_validate_json(runner.storage.get("jobs/t1/job.json").data)
    for stage, frames in {"flow": 12, "visibility": 12, "guidance": 12, "warp": 7}.items():
        found = runner.keys(keys.timeline_overlays_prefix(record.timeline_id, "t1", stage))
        assert len(found) == 2 * frames, stage
    assert keys.timeline_overlay(record.timeline_id, "t1", "warp", 3, "segment000") in runner.keys("cache/")


def test_the_report_shows_structure_flow_and_guide(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.run("t1", request_document)
    page = runner.storage.get("jobs/t1/report.html").data.decode()
    assert page.count("data:image/jpeg;base64,") >= 2 * (7 + 7 + 10)
    assert "segments/000/guide.mp4" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_second_delivery_of_the_archive_is_a_duplicate(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    first, second, again = runner.plan("t1", "e1"), runner.plan("t1", "e2"), runner.plan("t1", "e1")
    assert (first.claimed, second.claimed, again.claimed) == (True, False, True)
    assert second.segments == ()
    assert runner.counts["DuplicateEvents"] == 1


def test_a_second_delivery_of_the_request_changes_nothing(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    first = runner.orchestrate("t1")
    second = runner.orchestrate("t1")
    assert first.run_id == second.run_id
    assert runner.counts["FlowCacheHits"] == 1


def test_the_same_task_run_again_mixes_nothing(runner: JobRunner, request_document: dict[str, Any]) -> None:
    assert runner.run("t1", request_document).state == "done"
    first = runner.status("t1").run_id
    one = {**request_document, "images": request_document["images"][:2], "frames": 14}
    assert runner.run("t1", one).state == "done"
    assert runner.status("t1").run_id != first
    assert [key for key in runner.keys("jobs/t1/segments/") if "/001/" in key] == []
    assert result_of(runner, 0).frames == 14


def test_a_step_of_an_older_run_is_refused(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    stale = RenderSegmentInput(task_id="t1", run_id="0" * 16, index=0)
    with pytest.raises(JobStateError, match="started again"):
        render_segment(stale, runner.services)


def test_steps_may_run_twice(runner: JobRunner, request_document: dict[str, Any]) -> None:
    """A retried task finds its own leftovers and does the same again."""
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    plan = runner.plan("t1", "e1")
    for index in plan.segments:
        for _ in range(2):
            render_segment(RenderSegmentInput(task_id="t1", run_id=plan.run_id, index=index), runner.services)
    closing = AssembleJobInput(task_id="t1", run_id=plan.run_id)
    first = assemble_job(closing, runner.services)
    assert assemble_job(closing, runner.services) == first
    assert runner.status("t1").state == "done"


def test_assembling_names_a_missing_object(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    plan = runner.plan("t1", "e1")
    for index in plan.segments:
        render_segment(RenderSegmentInput(task_id="t1", run_id=plan.run_id, index=index), runner.services)
    gone = keys.run_segment_file("t1", plan.run_id, 1, "mask.mp4")
    runner.storage.delete([gone])
    with pytest.raises(StructureFlowError, match=gone) as caught:
        assemble_job(AssembleJobInput(task_id="t1", run_id=plan.run_id), runner.services)
    assert caught.value.code == "IncompleteJobError"
    assert not runner.storage.exists("jobs/t1/manifest.json")


def test_an_image_that_vanishes_fails_the_job_and_clears_it(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    runner.storage.delete(["images/b.png"])
    status = runner.segments("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InputNotFoundError"
    assert "segment 0" in status.error.message
    assert "images/b.png" in status.error.message
    assert runner.keys("jobs/t1/segments/") == []
    assert runner.keys("jobs/t1/runs/") == [keys.run_claim("t1", status.run_id)], "late events are known by it"


def test_a_duplicate_that_fails_does_not_fail_the_job(runner: JobRunner, request_document: dict[str, Any]) -> None:
    from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job

    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    runner.plan("t1", "e1")
    error = CaughtError(Error="States.Timeout", Cause="")
    event = FailJobInput(execution_id="e2", bucket="data", key=keys.job_flows("t1"), error=error)
    assert fail_job(event, runner.services) is None
    assert runner.status("t1").state == "running"


def test_an_orchestrator_that_died_fails_the_job(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    fail_request("jobs/t1/request.json", "", "Sandbox.Timedout", "Task timed out after 900.00 seconds", runner.services)
    status = runner.status("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert (status.error.code, status.error.stage) == ("Sandbox.Timedout", "orchestrate")


def corrupt(data: bytes) -> bytes:
    damaged = bytearray(data)
    for position in range(600, len(damaged) - 5000, 97):
        damaged[position] ^= 0x55
    return bytes(damaged)


@pytest.mark.parametrize("damage", ["missing", "truncated", "corrupt"])
def test_a_segment_without_a_readable_archive_extracts_from_the_cached_frames(
    runner: JobRunner, request_document: dict[str, Any], damage: str
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    key = keys.job_flows("t1")
    data = runner.storage.get(key).data
    runner.storage.delete([key])
    if damage != "missing":
        runner.storage.put(key, data[: len(data) // 2] if damage == "truncated" else corrupt(data))

    assert runner.segments("t1").state == "done"

    result = result_of(runner, 0)
    assert result.flow_source == "frames"
    assert [(f.wanted, f.used) for f in result.fallbacks] == [("cache", "frames")]
    assert result.filled == ((3, 9),)
    manifest = Manifest.model_validate_json(runner.storage.get("jobs/t1/manifest.json").data)
    assert len(manifest.fallbacks) == 2
    assert runner.counts["Fallbacks"] == 2


def test_a_segment_without_archive_and_frames_extracts_from_the_video(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    runner.storage.delete([keys.job_flows("t1"), *runner.keys("cache/timelines/")])
    assert runner.segments("t1").state == "done"
    result = result_of(runner, 0)
    assert result.flow_source == "video"
    assert [(f.wanted, f.used) for f in result.fallbacks] == [("cache", "frames"), ("frames", "video")]


def test_fallbacks_carry_the_same_motion(runner: JobRunner, request_document: dict[str, Any], tmp_path: Path) -> None:
    document = {**request_document, "treatment": "clip"}
    runner.run("t1", document)
    runner.put_request("t2", {**document, "task_id": "t2"})
    runner.orchestrate("t2")
    runner.storage.delete([keys.job_flows("t2"), *runner.keys("cache/timelines/")])
    runner.segments("t2")
    ours, theirs = (
        list(decode_rgb(fetch(runner, keys.segment_file(task, 0, "guide.mp4"), tmp_path))) for task in ("t1", "t2")
    )
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert np.abs(a.astype(int) - b.astype(int)).mean() < 2, index


def test_nothing_left_to_read_fails_the_job(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    runner.storage.delete([keys.job_flows("t1"), "videos/pan.mp4", *runner.keys("cache/timelines/")])
    status = runner.segments("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InputNotFoundError"
