"""What the state machines and the queues try again: every transient error by its name on the wire, and nothing else.

One table says which errors are tried how often; every task of every state machine must have exactly that.
"""

from __future__ import annotations

import ast
import heapq
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow import errors
from structureflow.jobs.publish import TURN
from structureflow.limits import (
    MAX_CONCURRENT_SEGMENTS,
    MAX_HISTORY_EVENTS,
    MAX_SEGMENTS,
    NEW_ACCOUNT_CONCURRENCY,
)
from structureflow_local.cloud.template import FunctionSpec, load_template

REPO = Path(__file__).resolve().parents[2]
LIBRARY = REPO / "layers" / "core" / "python" / "structureflow"


def transient_classes() -> dict[str, Path]:
    """Every transient error class of the library and the functions, by name; found by their bases, not imported."""
    bases: dict[str, tuple[set[str], Path]] = {}
    for path in (*LIBRARY.rglob("*.py"), *(REPO / "functions").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = ({ast.unparse(base).rpartition(".")[2] for base in node.bases}, path)
    found = {"TransientError"}
    while more := {name for name, (parents, _) in bases.items() if parents & found} - found:
        found |= more
    return {name: bases[name][1] for name in found}


#: Another publisher of the job has its turn; if it died, until the turn is over.
BUSY = {"JobBusyError"}
#: What a function raises on purpose, and what Lambda's service says of itself (Step Functions Developer Guide, "Handle
#: transient Lambda service exceptions").
TRANSIENT = {
    *(transient_classes().keys() - BUSY),
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
}
#: A container image that nobody called for weeks is made ready again, or a deployment is under way: minutes (Lambda
#: Developer Guide, "Function states").
NOT_READY = {"Lambda.CodeArtifactUserPendingException", "Lambda.ResourceConflictException"}
#: A new account's functions share a concurrency of 10: calls wait for each other, as long as the job may take.
THROTTLED = {"Lambda.TooManyRequestsException"}
#: The process died: killed, out of memory, past its time. Step Functions' documents call it Lambda.Unknown; the
#: others are what the runtime interface emulator, and Lambda since 2024, put into ``errorType``.
CRASHED = {
    "Lambda.Unknown",
    "Runtime.ExitError",
    "Runtime.OutOfMemory",
    "Runtime.Unknown",
    "Sandbox.Failure",
    "Sandbox.Timedout",
    "Sandbox.Timeout",
}


def retries(*, attempts: int, max_delay_s: int) -> list[dict[str, Any]]:
    """The table, for a state whose transient errors are tried `attempts` times more."""

    def block(names: set[str], **numbers: int) -> dict[str, Any]:
        return {"ErrorEquals": sorted(names), **numbers, "BackoffRate": 2, "JitterStrategy": "FULL"}

    return [
        block(TRANSIENT, IntervalSeconds=1, MaxAttempts=attempts, MaxDelaySeconds=max_delay_s),
        block(BUSY, IntervalSeconds=5, MaxAttempts=40, MaxDelaySeconds=20),
        block(NOT_READY, IntervalSeconds=5, MaxAttempts=20, MaxDelaySeconds=30),
        block(THROTTLED, IntervalSeconds=1, MaxAttempts=500, MaxDelaySeconds=400),
        block(CRASHED, IntervalSeconds=5, MaxAttempts=1, MaxDelaySeconds=5),
    ]


#: FailJob is the last chance to say what went wrong.
OF_STATE = {"FailJob": retries(attempts=8, max_delay_s=60)}
USUAL = retries(attempts=5, max_delay_s=30)


def tasks(states: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task below, however deep in maps and branches."""
    for name, state in states.items():
        if state["Type"] == "Task":
            yield name, state
        for inner in (state.get("ItemProcessor"), state.get("Iterator"), *state.get("Branches", ())):
            if inner is not None:
                yield from tasks(inner["States"])


TASKS = [
    (path.name, name, state)
    for path in sorted((REPO / "statemachines").glob("*.asl.json"))
    for name, state in tasks(json.loads(path.read_text())["States"])
]


@pytest.mark.parametrize(("machine", "name", "state"), TASKS, ids=[f"{machine}:{name}" for machine, name, _ in TASKS])
def test_every_task_retries_what_the_table_says(machine: str, name: str, state: dict[str, Any]) -> None:
    found = [{**block, "ErrorEquals": sorted(block["ErrorEquals"])} for block in state["Retry"]]
    assert found == OF_STATE.get(name, USUAL)


def test_the_table_knows_every_transient_class_wherever_it_stands() -> None:
    """A subclass in an adapter has a name of its own on the wire, should it ever get so far."""
    classes = transient_classes()
    assert {"TransientError", "TransientStorageError", "FrameCacheConflictError"} <= set(classes)
    assert {name for name, found in vars(errors).items() if getattr(found, "transient", False) is True} <= set(classes)
    assert any(path != LIBRARY / "errors.py" for path in classes.values()), "subclasses elsewhere are found too"


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_an_errors_name_is_its_code_and_stays(name: str) -> None:
    error = getattr(errors, name)("what came")
    assert error.code == type(error).__name__ == name
    assert error.within("somewhere").code == name
    assert error.as_dict()["code"] == name


def test_no_permanent_error_is_named() -> None:
    named = {error for _, _, state in TASKS for block in state["Retry"] for error in block["ErrorEquals"]}
    assert not {name for name in named if getattr(getattr(errors, name, None), "transient", True) is False}
    assert not [name for name in named if name.startswith("States.")], "a wildcard retries what fails again"


@pytest.mark.parametrize("function", ["AssembleJobFunction", "FailJobFunction"])
def test_who_publishes_waits_longer_than_a_dead_publisher_keeps_its_turn(function: str) -> None:
    (block,) = [block for block in USUAL if set(block["ErrorEquals"]) == BUSY]
    waits = [
        min(block["MaxDelaySeconds"], block["IntervalSeconds"] * 2**tries) for tries in range(block["MaxAttempts"])
    ]
    # jitter takes half of it away on average
    assert sum(waits) / 2 > 2 * TURN.total_seconds()
    spec = load_template(REPO / "template.yaml").functions[function]
    assert spec.timeout_s < TURN.total_seconds(), "its turn is not over while it lives"


# --- throttling ----------------------------------------------------------------------------------------


def run_throttled(
    items: int, seconds: float, *, slots: int, width: int, block: dict[str, Any], seed: int
) -> tuple[float, int] | None:
    """Run a Map of `width` whose tasks find `slots` places; None where one gives up, else seconds and retries."""
    source = random.Random(seed)
    waiting: list[tuple[float, int, bool, int]] = []
    number = busy = retried = started = 0

    def push(at: float, *, ends: bool, tries: int) -> None:
        nonlocal number
        number += 1
        heapq.heappush(waiting, (at, number, ends, tries))

    for _ in range(min(width, items)):
        push(0.0, ends=False, tries=0)
        started += 1
    now = 0.0
    while waiting:
        now, _, ends, tries = heapq.heappop(waiting)
        if ends:
            busy -= 1
            if started < items:
                push(now, ends=False, tries=0)
                started += 1
        elif busy < slots:
            busy += 1
            push(now + seconds, ends=True, tries=0)
        elif tries >= block["MaxAttempts"]:
            return None
        else:
            retried += 1
            longest = min(block["MaxDelaySeconds"], block["IntervalSeconds"] * block["BackoffRate"] ** min(tries, 30))
            push(now + source.uniform(0, longest), ends=False, tries=tries + 1)
    return now, retried


def throttling() -> dict[str, Any]:
    (block,) = [block for block in USUAL if set(block["ErrorEquals"]) == THROTTLED]
    return block


@pytest.mark.parametrize(("items", "seconds"), [(12, 35), (12, 300), (40, 300), (100, 60), (MAX_SEGMENTS, 35)])
def test_a_new_account_of_ten_ends_every_job(items: int, seconds: float) -> None:
    """The last segment may have fallen asleep for the longest wait at the moment at which a place became free."""
    ideal = -(-items // NEW_ACCOUNT_CONCURRENCY) * seconds
    for seed in range(20):
        ended = run_throttled(
            items, seconds, slots=NEW_ACCOUNT_CONCURRENCY, width=MAX_CONCURRENT_SEGMENTS, block=throttling(), seed=seed
        )
        assert ended is not None
        assert ended[0] < 1.1 * ideal + throttling()["MaxDelaySeconds"]
    five = {**throttling(), "MaxAttempts": 5, "MaxDelaySeconds": 30}
    assert (
        run_throttled(12, 35, slots=NEW_ACCOUNT_CONCURRENCY, width=MAX_CONCURRENT_SEGMENTS, block=five, seed=0) is None
    ), "five tries were never enough"


def test_the_longest_throttled_job_ends_and_fits_the_history() -> None:
    """A Standard execution holds 25,000 events: seven for an item's task, three more each time that it is tried."""
    seconds = load_template(REPO / "template.yaml").functions["RenderSegmentFunction"].timeout_s
    for seed in range(5):
        ended = run_throttled(
            MAX_SEGMENTS,
            seconds,
            slots=NEW_ACCOUNT_CONCURRENCY,
            width=MAX_CONCURRENT_SEGMENTS,
            block=throttling(),
            seed=seed,
        )
        assert ended is not None
        assert MAX_SEGMENTS * 7 + ended[1] * 3 < MAX_HISTORY_EVENTS


# --- asynchronous calls --------------------------------------------------------------------------------


def template() -> Any:
    gpu = {"EnableGpu": "true", "GpuImageUri": "image", "GpuVpcId": "vpc", "GpuSubnetIds": "subnet"}
    return load_template(REPO / "template.yaml", gpu)


def asynchronous() -> list[FunctionSpec]:
    """Functions that events call: of rules, schedules, and other functions' failures."""
    found = template()
    called = {rule.target_arn for rule in found.rules} | {spec.on_failure_arn for spec in found.functions.values()}
    return [spec for spec in found.functions.values() if spec.arn in called]


@pytest.mark.parametrize("spec", asynchronous(), ids=lambda spec: spec.logical_id)
def test_what_events_call_is_tried_again_and_never_lost(spec: FunctionSpec) -> None:
    """Lambda retries every error of an asynchronous call, by no name, and throttled ones until the event is too old."""
    assert spec.max_retries >= 1
    assert spec.on_failure_arn is not None, "an event that failed for good goes nowhere"
