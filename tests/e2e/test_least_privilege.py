"""Least privilege, from a run: every S3 call that a function made is allowed by its policy, and nothing else is.

One local cloud runs jobs of every kind; the recorded calls are then put before the policies of the template.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import urllib.error
import urllib.request
from typing import get_args

import pytest

from structureflow import keys
from structureflow.jobs import live_keys
from structureflow.models.outputs import ExtraOutput
from structureflow.models.results import PartProgress
from structureflow.testing.iam import Request, allows, function_statements, requests_of, unused
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.gateway import Call
from tests.e2e.parts_ways import extract_in_parts
from tests.e2e.privilege_runs import Run
from tests.e2e.privileges import BUCKET, FUNCTIONS, GPU, LONG, REPO, SPARE, TEMPLATE, TOPS, is_probe, place_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e"), pytest.mark.timeout(900)]


def run_everything(run: Run) -> None:
    """Take every way through the functions that touches the bucket."""
    storage = run.storage
    everything = {"overlays": ["flow", "warp", "visibility", "guidance"], "outputs": list(get_args(ExtraOutput))}
    # A job, its flows found again by a second one, and the first put again over its own outputs.
    assert run.job("first", **everything) == "done"
    assert run.job("second") == "done"
    assert run.job("first", motion_strength=0.5, **everything) == "done"
    # The same event once more: another execution finds the run claimed.
    machine = run.cloud.physical_id("SegmentsStateMachine")
    (event, *_) = [one.input for one in run.cloud.executions("SegmentsStateMachine")][-1:]
    run.cloud.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(event))
    run.cloud.wait_idle(60)

    # More segments than one execution holds; refused at once; failed in a segment; an orchestrator that died.
    assert run.job("long", segments=[{"frames": 3, "guides": [{"at": 0, "image": "library/a.png"}]}] * 41) == "done"
    assert run.job("refused", structure_video="library/missing.mp4") == "failed"
    guides = [{"at": [0, 2], "video": "library/broken.mp4", "from": 0}]
    assert run.job("broken", segments=[{"frames": 9, "guides": guides}]) == "failed"
    for name in ("execution_aborted", "orchestrator_died"):
        assert run.invoke("fail_job", **json.loads((REPO / f"events/fail_job/{name}.json").read_text())).error is None

    # An earlier run that was killed: its folder, and an output that the next run does not have, are in the way.
    storage.put(keys.run_segment_file("second", "0" * 16, 0, "preview.json"), b"old")
    storage.put(keys.segment_file("second", 7, "guide.mp4"), b"old")
    assert run.job("second", motion_strength=2) == "done"
    assert run.invoke("assemble_job", task_id="second").error is None
    execution = run.cloud.executions("SegmentsStateMachine")[-1]
    failure = {"Error": "SomeError", "Cause": "as a test"}
    key = keys.job_flows("second")
    event = {"execution_id": execution.arn, "bucket": run.cloud.bucket(BUCKET), "key": key, "error": failure}
    assert run.invoke("fail_job", **event).payload is None
    run.reopen("second")
    assert run.invoke("fail_job", **event).payload["state"] == "failed"
    assert run.invoke("assemble_job", task_id="second").error == "SupersededRunError"
    # A publication that broke off is ended by FailJob.
    assert run.job("second") == "done"
    run.break_off("second")
    event["execution_id"] = run.cloud.executions("SegmentsStateMachine")[-1].arn
    assert run.invoke("fail_job", **event).payload["state"] == "done"

    # Ways down: another run's archive, no archive of the job, then no frames either.
    assert run.job("other", structure_video="library/other.mp4", timeline_id="another") == "done"
    run.reopen("first")
    record = run.record("first")
    storage.copy(keys.job_flows("other"), keys.job_flows("first"))
    run.cloud.wait_idle(60)
    assert run.invoke("render_segment", task_id="first", index=0).payload["flow_source"] == "cache"
    storage.delete([keys.job_flows("first")])
    assert run.invoke("render_segment", task_id="first", index=0).payload["flow_source"] == "frames"
    storage.delete([keys.timeline_manifest("reel")])
    assert run.invoke("render_segment", task_id="first", index=0).payload["flow_source"] == "video"

    # A shared archive that is no archive, and frames that nobody committed.
    assert record.flow_cache_key is not None
    storage.put(record.flow_cache_key, b"no archive")
    storage.put(keys.timeline_frame("reel", 999_999), b"left over")
    assert run.job("third") == "done"
    assert not run.record("third").flow_cache_hit


def look_at_everything(run: Run) -> None:
    """Ask the API for all that it knows, open what it signs, clear the timeline and rebuild it from its chunks."""
    assert run.ask("/jobs/third")[1]["state"] == "done"
    assert run.ask("/jobs/nobody")[0] == 404
    assert run.ask("/jobs/third/manifest")[1]["segments"]
    urls = run.ask("/jobs/third/outputs")[1]["urls"]
    assert set(urls) == {
        "structure_flows_third.npz",
        "report.html",
        "segments/000/guide.mp4",
        "segments/000/mask.mp4",
    }
    assert all(run.open(url) for url in urls.values())
    assert len(run.ask("/jobs?limit=200")[1]["jobs"]) >= 5
    assert run.ask("/jobs/third/request")[1]["timeline_id"] == "reel"
    assert run.ask("/jobs/third/segments")[1]["total"] == 1
    assert run.ask("/jobs/third/segments/0/frames")[1]["frames"] == 9
    assert run.ask("/jobs/third/downloads")[0] == 200
    done = run.client.status("third")
    assert done is not None
    run.reopen("third")
    part = PartProgress(step="segment", index=0, done=3, total=9, updated_at=done.updated_at)
    run.storage.put(live_keys.run_progress("third", done.run_id, "segment", 0, ended=False), part.to_json())
    whole = part.model_copy(update={"index": 1, "done": 9, "cost_usd": 0.25})
    run.storage.put(live_keys.run_progress("third", done.run_id, "segment", 1, ended=True), whole.to_json())
    looked_at = run.ask("/jobs/third")[1]
    assert looked_at["progress"]["parts"][0]["done"] == 3
    assert looked_at["cost_usd"] >= 0.25
    run.storage.put(keys.job_status("third"), done.to_json())
    assert [row["timeline_id"] for row in run.ask("/timelines")[1]["timelines"]] == ["another", "reel"]
    assert run.ask("/timelines/reel")[1]["can_rebuild"] is True
    assert run.ask("/timelines/reel/damaged")[1]["whole"] is True
    assert run.ask("/timelines/reel/overlays/jobs")[1]["jobs"]
    pages = run.ask("/timelines/reel/frames?limit=2&width_px=16")[1], run.ask("/timelines/reel/frames/urls")[1]
    assert [len(page["frames"]) for page in pages] == [2, 9]
    (archive, *_) = run.ask("/archives")[1]["archives"]
    assert run.ask(f"/archives/meta?key={archive['key']}")[1]["flows"] == 8
    assert run.picture(f"/archives/flow?key={keys.job_flows('third')}&flow=3").startswith(b"\xff\xd8")
    assert run.ask("/archives/meta?key=cache/flows/0123456789abcdef.npz")[0] == 404
    # A gap from the flows of a job, from cached frames, from a video that no job has seen, and of one that is missing.
    for changes, source in (
        ({}, "cache"),
        ({"quality": "fast"}, "frames"),
        ({"structure_video": "library/unseen.mp4", "timeline_id": None}, "video"),
    ):
        wish = {"request": run.document(task_id="seen", **changes), "segment": 0, "frames": 3}
        status, seen = run.ask("/previews", "POST", wish)
        assert (status, seen.get("flow_source")) == (200, source), seen
    assert run.ask("/forecasts", "POST", {"request": run.document(task_id="seen")})[1]["flows_found"] is True
    missing = {"request": run.document(task_id="seen", structure_video="library/none.mp4"), "segment": 0}
    assert run.ask("/previews", "POST", missing)[0] == 404
    overlays = run.ask("/timelines/reel/overlays?job_id=first")[1]["overlays"]
    for url in (pages[1]["frames"][0]["url"], overlays[0]["url"]):
        assert run.open(url)
    assert run.ask("/timelines/reel?overlays=true", "DELETE")[1]["removed"] == 9 + 1 + len(overlays)
    assert run.ask("/timelines/reel/frames")[0] == 404
    run.storage.put(keys.timeline_frame("reel", 999_999), b"left over")
    for _ in range(2):
        assert run.invoke("rebuild_timeline", timeline_id="reel").payload["frames"] == 9
    assert run.ask("/timelines/reel/frames?sequences=8")[0] == 200
    assert run.ask("/timelines/reel/rebuild", "POST", {})[0] == 202
    run.cloud.wait_idle(60)
    assert run.ask("/timelines/reel")[1]["rebuild"]["state"] == "done"
    # A job from its first file on.
    data = run.storage.get("library/a.png").data
    wish = {"name": "a.png", "size_bytes": len(data)}
    status, ticket = run.ask("/jobs/sent/uploads", "POST", wish)
    assert status == 201
    upload = urllib.request.Request(ticket["url"], data, ticket["headers"], method="PUT")  # noqa: S310 - loopback
    with urllib.request.urlopen(upload) as reply:  # noqa: S310 - loopback
        assert reply.status == 200
    longer = urllib.request.Request(ticket["url"], data + b"x", ticket["headers"], method="PUT")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(longer)  # noqa: S310 - loopback
    (sent,) = run.ask("/inputs?limit=50")[1]["inputs"]
    assert (sent["key"], run.open(sent["url"])) == (ticket["key"], data)
    guides = [{"at": [0, 2], "image": ticket["key"]}]
    document = run.document(task_id="sent", segments=[{"frames": 9, "guides": guides}])
    assert run.ask("/jobs/sent/check", "POST", document)[1]["valid"] is True
    assert run.ask("/jobs/sent", "PUT", document)[0] == 202
    assert run.ask("/jobs/sent", "PUT", document)[0] in {202, 409}
    assert run.ask("/jobs/sent", "PUT", document | {"fps": 8})[0] == 409
    assert run.client.wait("sent", timeout_s=120).state == "done"
    run.storage.put("timelines/reel/chunks/001.mp4", b"no video")
    assert run.invoke("rebuild_timeline", timeline_id="reel").error == "NotAVideoError"
    assert run.ask("/timelines/reel/frames")[0] == 404


def lose_a_task(run: Run) -> None:
    """Order flows from a GPU task that dies; look for overdue ones."""
    run.storage.put(keys.timeline_frame("reel", 999_999), b"left over")
    assert run.job("gpu", engine="raft") == "done"
    record = run.record("gpu")
    assert (record.engine, record.flow_cache_hit) == ("dis", False)
    assert record.flow_cache_key is not None
    run.storage.put(record.flow_cache_key, b"no archive")
    assert run.job("gpu-again", engine="raft") == "done"
    assert not run.record("gpu-again").flow_cache_hit
    overdue = json.loads((REPO / "events/settle_gpu/look_for_overdue.json").read_text())
    assert run.invoke("settle_gpu", **overdue).error is None


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Every S3 request of every kind of job, the bucket under its logical id."""
    folder = tmp_path_factory.mktemp("inputs")
    with LocalCloud(REPO / "template.yaml") as cloud:
        run = Run(cloud, folder)
        run_everything(run)
        look_at_everything(run)
        extract_in_parts(run, folder)
        found = calls_of(cloud)
    dying = {"RaftTaskDefinition": [sys.executable, "-c", "raise SystemExit(3)"]}
    with LocalCloud(REPO / "template.yaml", parameters=GPU, task_commands=dying) as cloud:
        lose_a_task(Run(cloud, folder))
        found += calls_of(cloud)
    with LocalCloud(REPO / "template.yaml", parameters=GPU) as cloud:
        assert Run(cloud, folder).job("gpu", engine="raft") == "done", "without capacity"
        found += calls_of(cloud)
    return found


def calls_of(cloud: LocalCloud) -> list[Call]:
    """The requests to the data bucket so far, the bucket under its logical id."""
    name = cloud.bucket(BUCKET)
    found = [call for call in cloud.calls if call.service == "s3" and call.bucket == name and not is_probe(call)]
    return [dataclasses.replace(call, bucket=BUCKET) for call in found]


def denied(calls: list[Call]) -> list[str]:
    """Calls of functions that their policies do not allow."""
    policies = {name: function_statements(TEMPLATE, name) for name in FUNCTIONS}
    return sorted(
        {
            f"{call.function}: {call.operation} {call.key} needs {request.action}"
            for call in calls
            if call.function in policies
            for request in requests_of(call.operation, BUCKET, call.key, call.status)
            if not allows(policies[call.function], request)
        }
    )


def test_every_function_was_there(calls: list[Call]) -> None:
    assert {call.function for call in calls} - {None} == set(FUNCTIONS)


def test_every_call_is_allowed(calls: list[Call]) -> None:
    assert denied(calls) == []


def test_every_key_lies_where_the_layout_says(calls: list[Call]) -> None:
    strays = {call.key for call in calls if not call.operation.startswith("List") and not place_of(call.key or "")}
    assert strays == set()


def test_nothing_is_allowed_that_no_run_uses(calls: list[Call]) -> None:
    """For every key that anybody touched: who may do what with it, and never did?"""
    used = {
        (call.function, request.action, place_of(call.key or ""))
        for call in calls
        for request in requests_of(call.operation, BUCKET, call.key, call.status)
        if request.action != "s3:ListBucket"
    }
    named = {call.key for call in calls if call.key and not call.operation.startswith("List")}
    touched = {(place_of(key), key) for key in named if place_of(key)}
    samples = dict(sorted(touched, key=str))
    spare = set()
    for name in FUNCTIONS:
        statements = function_statements(TEMPLATE, name)
        for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:GetObjectAcl"):
            for place, key in samples.items():
                if allows(statements, Request(action, f"arn:aws:s3:::{BUCKET}/{key}")):
                    spare.add((name, action, place))
    unused = spare - used
    wide = {(name, action) for name, action, place in SPARE if place == "*"}
    assert {(name, action) for name, action, _ in unused} >= wide
    # whether a part takes long enough to say how far it is, is the machine's affair
    by_the_clock = {one for one, why in SPARE.items() if why == LONG}
    unused -= by_the_clock
    assert {one for one in unused if one[:2] not in wide} == {
        one for one in SPARE if one[:2] not in wide
    } - by_the_clock


def test_functions_list_only_where_they_read(calls: list[Call]) -> None:
    for name in FUNCTIONS:
        statements = function_statements(TEMPLATE, name)
        own = [call for call in calls if call.function == name]
        for top in TOPS:
            # An input may lie anywhere, and must be told missing wherever it may be read.
            here = allows(statements, Request("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{top}x/y")) or any(
                (call.key or "").startswith(top) for call in own if call.method == "GET" or call.method == "HEAD"
            )
            listed = allows(statements, Request("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", f"{top}x/"))
            assert listed <= here, f"{name} may list {top}, where it reads nothing"
            assert not allows(statements, Request("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", "")), name
            assert not allows(statements, Request("s3:ListBucket", f"arn:aws:s3:::{BUCKET}")), name


def test_statements_allow_nothing_that_is_not_exercised(calls: list[Call]) -> None:
    """A pattern in a policy that fits no call of the function is a mistake, or a leftover."""
    for name in FUNCTIONS:
        own = [call for call in calls if call.function == name]
        asked = [r for call in own for r in requests_of(call.operation, BUCKET, call.key, call.status)]
        for statement, action, resource in unused(function_statements(TEMPLATE, name), asked, BUCKET):
            spare = (name, action, resource.removeprefix(f"arn:aws:s3:::{BUCKET}/")) in SPARE
            assert spare, f"{name}.{statement.sid}: {action} on {resource} is never used"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("jobs/", "tasks/"),
        ("work/", "scratch/"),
        ("cache/flows/", "flows/"),
        ("/frames/", "/pictures/"),
        ("/overlays/", "/debug/"),
        ("/runs/", "/claims/"),
        ("/segments/", "/pieces/"),
        ("job.json", "record.json"),
        ("report.html", "index.html"),
    ],
)
def test_a_changed_prefix_is_denied(calls: list[Call], old: str, new: str) -> None:
    """Every kind of key that the code may rename makes `test_every_call_is_allowed` fail."""
    renamed = [dataclasses.replace(call, key=(call.key or "").replace(old, new)) for call in calls]
    assert denied(renamed)
