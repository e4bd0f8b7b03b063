"""More than an account has places for, and more than an execution holds: all of it is done in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.limits import MAX_INLINE_SEGMENTS
from structureflow.models.results import Manifest
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.client import JobClient, PreparedJob
from structureflow_local.cloud import LocalCloud
from structureflow_local.run import bucket_of

REPO = Path(__file__).resolve().parents[2]
PLACES = 3

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("many")
    write_clip(folder / "clip.mp4", pan_frames(3, 48, 64, dx=1, dy=0), fps=25)
    with LocalCloud(REPO / "template.yaml", concurrency=PLACES) as running:
        storage = bucket_of(running)
        storage.put_file("library/clip.mp4", folder / "clip.mp4")
        storage.put("library/a.png", png(texture(48, 64, seed=1)))
        yield running


def put(cloud: LocalCloud, task_id: str, segments: int) -> None:
    guides = [{"at": 0, "image": "library/a.png"}]
    document = {"structure_video": "library/clip.mp4", "segments": [{"frames": 3, "guides": guides}] * segments}
    request = json.dumps({"task_id": task_id, **document}).encode()
    JobClient(bucket_of(cloud)).submit(PreparedJob(task_id, request, {}))


def manifest_of(cloud: LocalCloud, task_id: str) -> Manifest:
    return Manifest.model_validate_json(bucket_of(cloud).get(keys.job_manifest(task_id)).data)


def test_jobs_without_a_place_wait_and_are_done(cloud: LocalCloud) -> None:
    names = [f"job-{number}" for number in range(8)]
    for name in names:
        put(cloud, name, 3)
    cloud.wait_idle(500)
    client = JobClient(bucket_of(cloud))
    assert {name: status and status.state for name in names for status in [client.status(name)]} == dict.fromkeys(
        names, "done"
    )
    rendered = Counter(one.error for one in cloud.invocations if one.function == "RenderSegmentFunction")
    assert rendered == {None: 8 * 3}, "each once"
    assert cloud.throttles > 0
    queued = [call for call in cloud.calls if call.operation == "SendMessage" and "SegmentsQueue" in str(call.resource)]
    answered = [call for call in cloud.calls if call.operation == "SendTaskSuccess"]
    assert len(queued) == len(answered) > 0, "segments that found no place waited in the queue"
    assert {call.function for call in answered} == {"RenderSegmentFunction"}
    assert cloud.dead_letters == []


def test_more_segments_than_an_execution_holds_are_executions_of_their_own(cloud: LocalCloud) -> None:
    count = MAX_INLINE_SEGMENTS + 1
    put(cloud, "long", count)
    cloud.wait_idle(500)
    manifest = manifest_of(cloud, "long")
    assert [result.index for result in manifest.segments] == list(range(count))
    storage = bucket_of(cloud)
    assert not storage.exists(keys.run_segment_list("long", manifest.run_id)), "gone with the run's other files"
    (execution,) = [
        one
        for one in cloud.executions("SegmentsStateMachine")
        if one.input["detail"]["object"]["key"] == keys.job_flows("long")
    ]
    assert execution.status == "SUCCEEDED"
    plan = execution.output["plan"]
    assert (plan["many"], plan["segments"]) == (True, [])
    assert len(json.dumps(execution.output)) < 4_000, "no list that grows with the job"
    listed = [call for call in cloud.calls if call.key == keys.run_segment_list("long", manifest.run_id)]
    assert {(call.function, call.operation) for call in listed} >= {
        ("PlanSegmentsFunction", "PutObject"),
        (None, "GetObject"),
    }


def test_what_the_plan_used_is_in_the_manifest(cloud: LocalCloud) -> None:
    steps = [usage.step for usage in manifest_of(cloud, "long").usage]
    assert steps == ["Orchestrator", "PlanSegments", "AssembleJob"]


def test_a_segment_that_never_wrote_its_result_fails_the_job(cloud: LocalCloud) -> None:
    """A Distributed Map's child may be lost without a word: AssembleJob looks for every one that was planned."""
    run = manifest_of(cloud, "long").run_id
    before = cloud.invoke("AssembleJobFunction", {"task_id": "long", "run_id": run})
    assert before.error is None, "published already"
    storage = bucket_of(cloud)
    status = JobClient(storage).status("long")
    assert status is not None
    running = status.model_copy(update={"state": "running", "published": None})
    storage.put(keys.job_status("long"), running.to_json())
    result = cloud.invoke("AssembleJobFunction", {"task_id": "long", "run_id": run})
    assert result.error in {"IncompleteJobError", "JobStateError"}
