"""The state machine that is deployed, on an interpreter: every Retry and every Catch of every state, taken.

Its functions are stand-ins that fail as the job's name says: ``{step}-{error}-{times}``, errors of the classes' names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from structureflow_local.cloud import Execution, LocalCloud

REPO = Path(__file__).resolve().parents[2]
MACHINE = "SegmentsStateMachine"
STEPS = ("PlanSegments", "RenderSegment", "AssembleJob", "FailJob")
CAUGHT = STEPS[:-1]
FOREVER = 99

STAND_IN = """
import json
import os
import signal
from pathlib import Path

STEP, FOLDER = {step!r}, Path({folder!r})


def handler(event, context):
    if "Records" not in event:
        return do(event)
    import boto3

    (record,) = event["Records"]
    asked = json.loads(record["body"])
    states = boto3.client("stepfunctions")
    try:
        result = do(asked["segment"] | {{"queued": True}})
    except Exception as error:
        cause = json.dumps({{"errorMessage": str(error)}})
        states.send_task_failure(taskToken=asked["task_token"], error=type(error).__name__, cause=cause)
    else:
        states.send_task_success(taskToken=asked["task_token"], output=json.dumps(result))


def do(event):
    if "detail-type" in event:
        return None
    task_id = event.get("task_id") or event["key"].split("/")[1]
    index = event.get("index", 0)
    number = len(list(FOLDER.glob(f"{{task_id}}.{{STEP}}.{{index}}.*")))
    (FOLDER / f"{{task_id}}.{{STEP}}.{{index}}.{{number}}").write_text(json.dumps(event))
    for part in task_id.split("+"):
        step, error, times = part.split("-")
        if step == STEP and number < int(times) and index == 0:
            if error == "Killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise type(error.replace("_", "."), (Exception,), {{}})(f"try {{number + 1}} of {{STEP}}")
    claimed = "Duplicate" not in task_id
    plan = {{"segments": [0, 1, 2], "max_concurrency": 2, "many": False, "items_key": "", "usage": []}}
    return {{"task_id": task_id, "run_id": "r", "claimed": claimed, **plan}}
"""


def states() -> dict[str, Any]:
    """The deployed definition's states, those of the Map's items among them."""
    top: dict[str, Any] = json.loads((REPO / "statemachines" / "segments.asl.json").read_text())["States"]
    inner: dict[str, Any] = top["Segments"]["ItemProcessor"]["States"]
    return top | inner


TRANSIENT = sorted({name for step in STEPS for retry in states()[step]["Retry"] for name in retry["ErrorEquals"]})


class Machine:
    """Runs executions, and tells how often each stand-in was called."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self._cloud = cloud
        self._folder = folder

    def run(self, *names: str) -> dict[str, Execution]:
        """Run one execution per job at the same time; return them by the job's name."""
        client = self._cloud.client("stepfunctions")
        machine = self._cloud.physical_id(MACHINE)

        def start(name: str) -> str:
            key = f"jobs/{name}/structure_flows_{name}.npz"
            detail = {"bucket": {"name": "bucket"}, "object": {"key": key}}
            arn: str = client.start_execution(stateMachineArn=machine, input=json.dumps({"detail": detail}))[
                "executionArn"
            ]
            return arn

        with ThreadPoolExecutor(4) as pool:
            arns = dict(zip(pool.map(start, names), names, strict=True))
        self._cloud.wait_idle(120)
        return {arns[one.arn]: one for one in self._cloud.executions(MACHINE) if one.arn in arns}

    def calls(self, name: str, step: str, index: int = 0) -> list[dict[str, Any]]:
        """The events that a stand-in got for a job, in order."""
        found = sorted(self._folder.glob(f"{name}.{step}.{index}.*"), key=lambda path: int(path.suffix[1:]))
        return [json.loads(path.read_text()) for path in found]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The deployed template and definition with stand-ins for the functions, and a second between tries."""
    project, folder = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("calls")
    shutil.copy(REPO / "template.yaml", project)
    (project / "layers").symlink_to(REPO / "layers")
    (project / "functions").mkdir()
    for code in (REPO / "functions").iterdir():
        (project / "functions" / code.name).symlink_to(code)
    for step in STEPS:
        stem = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in step).lstrip("_")
        (project / "functions" / stem).unlink()
        (project / "functions" / stem).mkdir()
        code = project / "functions" / stem / "app.py"
        code.write_text(STAND_IN.format(step=step, folder=str(folder)))
    (project / "statemachines").mkdir()
    definition = json.loads((REPO / "statemachines" / "segments.asl.json").read_text(), object_hook=hurried)
    shutil.copy(REPO / "statemachines" / "extraction.asl.json", project / "statemachines")
    (project / "statemachines" / "segments.asl.json").write_text(json.dumps(definition))
    with LocalCloud(project / "template.yaml") as cloud:
        yield Machine(cloud, folder)


def hurried(node: dict[str, Any]) -> dict[str, Any]:
    """A Retry that waits a second at most, each time; all else as it is."""
    return node | {"IntervalSeconds": 1, "BackoffRate": 1} if "IntervalSeconds" in node else node


@pytest.mark.parametrize("step", STEPS)
def test_every_transient_error_of_every_state_is_retried(machine: Machine, step: str) -> None:
    first = "" if step != "FailJob" else "PlanSegments-SomeError-99+"
    names = [f"{first}{step}-{error.replace('.', '_')}-1" for error in TRANSIENT]
    for name, ran in machine.run(*names).items():
        assert ran.status == ("SUCCEEDED" if step != "FailJob" else "FAILED"), name
        assert len(machine.calls(name, step)) == 2, name
        if step != "FailJob":
            assert machine.calls(name, "FailJob") == []
            assert [len(machine.calls(name, "RenderSegment", index)) for index in (1, 2)] == [1, 1]
        else:
            assert ran.error == "SomeError"


@pytest.mark.parametrize("step", CAUGHT)
def test_every_other_error_is_caught_at_once_and_told(machine: Machine, step: str) -> None:
    name = f"{step}-InvalidRequestError-{FOREVER}"
    ran = machine.run(name)[name]
    assert (ran.status, ran.error) == ("FAILED", "InvalidRequestError")
    assert len(machine.calls(name, step)) == 1
    (told,) = machine.calls(name, "FailJob")
    assert told["error"]["Error"] == "InvalidRequestError"
    # What leaves the Map says of which item it is.
    of_segment = "segment 0: " if step == "RenderSegment" else ""
    assert told["error"]["Cause"].startswith(of_segment)
    assert json.loads(told["error"]["Cause"].removeprefix(of_segment))["errorMessage"] == f"try 1 of {step}"
    assert told["execution_id"] == ran.arn
    assert told["key"] == f"jobs/{name}/structure_flows_{name}.npz"
    assert machine.calls(name, "AssembleJob") == [] or step == "AssembleJob"


def test_retries_end_and_the_job_fails(machine: Machine) -> None:
    names = {step: f"{step}-TransientStorageError-{FOREVER}" for step in CAUGHT}
    ran = machine.run(*names.values())
    for step, name in names.items():
        assert (ran[name].status, ran[name].error) == ("FAILED", "TransientStorageError"), step
        assert len(machine.calls(name, step)) == 1 + states()[step]["Retry"][0]["MaxAttempts"], step
        assert len(machine.calls(name, "FailJob")) == 1, step


THROTTLED = "RenderSegment-Lambda_TooManyRequestsException-4"


def test_a_segment_that_finds_no_place_waits_in_the_queue(machine: Machine) -> None:
    """Once and three times more it is called directly; then it is asked for by a message, and answered by its token."""
    ran = machine.run(THROTTLED)[THROTTLED]
    assert ran.status == "SUCCEEDED"
    calls = machine.calls(THROTTLED, "RenderSegment")
    assert [call.get("queued", False) for call in calls] == [False] * 4 + [True]
    assert calls[-1] == {**calls[0], "queued": True}
    assert [len(machine.calls(THROTTLED, "RenderSegment", index)) for index in (1, 2)] == [1, 1]


def test_what_the_answer_says_is_tried_again_or_caught_as_if_lambda_had_said_it(machine: Machine) -> None:
    busy, bad = (
        f"{THROTTLED}+RenderSegment-TransientStorageError-6",
        f"{THROTTLED}+RenderSegment-InvalidRequestError-99",
    )
    ran = machine.run(busy, bad)
    assert ran[busy].status == "SUCCEEDED"
    assert [call.get("queued", False) for call in machine.calls(busy, "RenderSegment")] == [False] * 4 + [True] * 3
    assert (ran[bad].status, ran[bad].error) == ("FAILED", "InvalidRequestError")
    assert len(machine.calls(bad, "RenderSegment")) == 5
    (told,) = machine.calls(bad, "FailJob")
    assert told["error"]["Cause"] == 'segment 0: {"errorMessage": "try 5 of RenderSegment"}'


def test_a_function_that_is_killed_once_runs_again(machine: Machine) -> None:
    """As the kernel does for want of memory; what Lambda then reports is a name of its own."""
    names = {step: f"{step}-Killed-1" for step in CAUGHT}
    ran = machine.run(*names.values())
    for step, name in names.items():
        assert ran[name].status == "SUCCEEDED", step
        assert len(machine.calls(name, step)) == 2, step


def test_a_function_that_is_killed_again_and_again_fails_the_job(machine: Machine) -> None:
    name = f"RenderSegment-Killed-{FOREVER}"
    ran = machine.run(name)[name]
    assert (ran.status, ran.error) == ("FAILED", "Runtime.ExitError")
    assert len(machine.calls(name, "RenderSegment")) == 2
    (told,) = machine.calls(name, "FailJob")
    assert told["error"]["Error"] == "Runtime.ExitError"
    assert told["error"]["Cause"].startswith("segment 0: ")


def test_a_fail_job_that_never_works_ends_the_execution_under_its_own_error(machine: Machine) -> None:
    name = f"PlanSegments-SomeError-{FOREVER}+FailJob-TransientStorageError-{FOREVER}"
    ran = machine.run(name)[name]
    assert (ran.status, ran.error) == ("FAILED", "TransientStorageError")
    assert len(machine.calls(name, "FailJob")) == 1 + states()["FailJob"]["Retry"][0]["MaxAttempts"]


def test_a_permanent_error_of_fail_job_is_not_retried(machine: Machine) -> None:
    name = f"PlanSegments-SomeError-{FOREVER}+FailJob-OtherError-{FOREVER}"
    ran = machine.run(name)[name]
    assert (ran.status, ran.error) == ("FAILED", "OtherError")
    assert len(machine.calls(name, "FailJob")) == 1


def test_a_duplicate_ends_well_and_does_nothing(machine: Machine) -> None:
    name = "Duplicate-None-0"
    assert machine.run(name)[name].status == "SUCCEEDED"
    assert [len(machine.calls(name, step)) for step in STEPS] == [1, 0, 0, 0]
