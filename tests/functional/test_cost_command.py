"""``structureflow cost``: from a job file and its video alone, without a cloud and without decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from structureflow.jobs.forecast import Plan, batch_forecast, forecast
from structureflow.media.probe import VideoInfo
from structureflow.models.cost import estimate_cost, fargate_usd, transitions_of
from structureflow.models.job import JobRequest
from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local.cli import main

INFO = VideoInfo(frames=100, fps=25.0, width_px=1280, height_px=720, duration_s=4.0)
PLAN = Plan(orchestrator_mb=3008, segment_mb=3008, concurrency=40)


def request(segments: int = 3, **changes: Any) -> JobRequest:
    one = {"frames": 49, "guides": [{"at": 0, "image": "a"}, {"at": 48, "image": "b"}]}
    return JobRequest.parse({"task_id": "t", "structure_video": "v", "segments": [one] * segments, **changes})


def usd(job: JobRequest, info: VideoInfo = INFO, plan: Plan = PLAN) -> float:
    found = forecast(job, [info], plan)
    transitions = transitions_of(len(job.segments))
    return sum(estimate_cost(found.usage, transitions=transitions, stored_bytes=found.stored_bytes).values())


def test_every_step_is_called_once_and_rendering_once_a_segment() -> None:
    steps = [one.step for one in forecast(request(3), [INFO], PLAN).usage]
    assert steps == ["Orchestrator", "PlanSegments", *["RenderSegment"] * 3, "AssembleJob"]


def test_more_costs_more_and_what_is_cached_less() -> None:
    base = usd(request())
    longer = VideoInfo(frames=1000, fps=25.0, width_px=1280, height_px=720, duration_s=40.0)
    assert usd(request(), longer) > 2 * base
    assert usd(request(6)) > 1.3 * base
    assert usd(request(outputs=["flow_vis"])) > base
    assert usd(request(quality="best")) > base
    assert usd(request(), plan=Plan(3008, 3008, 40, cached=True)) < 0.9 * base
    assert usd(request(), plan=Plan(3008, 3008, 40, architecture="arm64")) < base


def test_fewer_at_a_time_take_longer_and_cost_the_same() -> None:
    wide, narrow = (forecast(request(8), [INFO], Plan(3008, 3008, width)) for width in (8, 2))
    assert narrow.wall_s > wide.wall_s
    assert narrow.usage == wide.usage
    assert narrow.wall_s - wide.wall_s == pytest.approx(3 * wide.usage[2].duration_s)


# --- beyond a function -------------------------------------------------------------------------------

HOUR = VideoInfo(frames=90_000, fps=25.0, width_px=3840, height_px=2160, duration_s=3600.0)


def test_what_a_function_can_do_needs_no_batch_job() -> None:
    assert batch_forecast(request(), [INFO], PLAN) is None
    assert batch_forecast(request(), [HOUR], Plan(3008, 3008, 40, cached=True)) is None
    assert batch_forecast(request(), [], PLAN) is None


def test_hours_of_video_are_a_batch_jobs_and_their_price_is_fargates() -> None:
    found = batch_forecast(request(quality="best"), [HOUR], PLAN)
    assert found is not None
    assert 3 * 3600 < found.seconds < 6 * 3600
    assert found.usd == pytest.approx(0.253 * found.seconds / 3600, rel=0.02)
    arm = batch_forecast(request(quality="best"), [HOUR], Plan(3008, 3008, 40, architecture="arm64"))
    assert arm is not None
    assert arm.usd < found.usd
    # 8K is more than the least memory of a function takes, however short it is.
    large = VideoInfo(frames=5, fps=25.0, width_px=8192, height_px=4608, duration_s=0.2)
    assert batch_forecast(request(), [large], PLAN) is None
    assert batch_forecast(request(), [large], Plan(1769, 3008, 40)) is not None


def test_fargate_bills_a_minute_at_least() -> None:
    assert fargate_usd(1, vcpus=4) == fargate_usd(60, vcpus=4) == pytest.approx(fargate_usd(3600, vcpus=4) / 60)
    assert fargate_usd(3600, vcpus=8) > 1.8 * fargate_usd(3600, vcpus=4)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", pan_frames(20, 96, 160, dx=2, dy=0), fps=25)
    path = tmp_path / "job.json"
    document = {"task_id": "t1", "structure_video": "clip.mp4", "segments": [{"frames": 17}]}
    path.write_text(json.dumps(document))
    return path


def test_it_prints_both_jobs_and_what_the_stack_costs(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", str(job), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second = document["jobs"]["first"], document["jobs"]["next"]
    assert first["usd"] > second["usd"] > 0
    assert first["usd"] == pytest.approx(sum(first["items_usd"].values()), abs=1e-6)
    assert set(document["stack_usd_per_month"]) == {
        "alarms",
        "dashboard",
        "metrics, in months with jobs",
        "image in ECR",
    }
    assert main(["cost", str(job)]) == 0
    out = capsys.readouterr().out
    assert "Lambda Orchestrator" in out
    assert "US dollars a month" in out


def test_a_video_that_is_elsewhere_is_asked_for(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(job.read_text()) | {"structure_video": "s3://bucket/videos/clip.mp4"}
    job.write_text(json.dumps(document))
    assert main(["cost", str(job)]) == 2
    assert "give a copy with --video FILE" in capsys.readouterr().err
    assert main(["cost", str(job), "--video", str(job.with_name("clip.mp4"))]) == 0


def test_a_bad_job_is_refused_as_the_orchestrator_would(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.write_text(json.dumps(json.loads(job.read_text()) | {"qualty": "best"}))
    assert main(["cost", str(job)]) == 2
    assert "qualty" in capsys.readouterr().err


def test_the_command_tells_of_a_batch_job(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from structureflow_local import cost_command

    assert main(["cost", str(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_job"] is None
    monkeypatch.setattr(cost_command, "_videos", lambda *_: [HOUR])
    assert main(["cost", str(job)]) == 0
    printed = capsys.readouterr()
    assert "EnableBatch" in printed.out + printed.err
    assert main(["cost", str(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_job"]["usd"] > 0.1
