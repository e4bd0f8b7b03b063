"""What the state machines and the queues try again: every transient error by its name on the wire, and nothing else.

One table says which errors are tried how often; every task of every state machine must have exactly that.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structureflow import errors
from structureflow.jobs.publish import TURN
from structureflow.limits import MAX_HISTORY_EVENTS, MAX_INLINE_SEGMENTS, NEW_ACCOUNT_CONCURRENCY
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
#: A new account's functions share a concurrency of 10: calls wait for each other. A segment is tried three times more,
#: and waits in a queue then; what an execution has one of at a time is tried for hours.
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


def retries(*, attempts: int, max_delay_s: int, throttled: tuple[int, int] = (2000, 60)) -> list[dict[str, Any]]:
    """The table, for a state whose transient errors are tried `attempts` times more."""

    def block(names: set[str], **numbers: int) -> dict[str, Any]:
        return {"ErrorEquals": sorted(names), **numbers, "BackoffRate": 2, "JitterStrategy": "FULL"}

    return [
        block(TRANSIENT, IntervalSeconds=1, MaxAttempts=attempts, MaxDelaySeconds=max_delay_s),
        block(BUSY, IntervalSeconds=5, MaxAttempts=40, MaxDelaySeconds=20),
        block(NOT_READY, IntervalSeconds=5, MaxAttempts=20, MaxDelaySeconds=30),
        block(THROTTLED, IntervalSeconds=1, MaxAttempts=throttled[0], MaxDelaySeconds=throttled[1]),
        block(CRASHED, IntervalSeconds=5, MaxAttempts=1, MaxDelaySeconds=5),
    ]


USUAL = retries(attempts=5, max_delay_s=30)


def asked(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of a state that asks by a queue: Lambda's own errors come to the queue's poller, not here."""
    transient, busy, *_ = table
    own = {name for name in transient["ErrorEquals"] if not name.startswith("Lambda.")}
    return [{**transient, "ErrorEquals": sorted(own | {"SQS.AmazonSQSException", "SQS.SdkClientException"})}, busy]


OF_STATE = {
    # The last chance to say what went wrong.
    "FailJob": retries(attempts=8, max_delay_s=60),
    # Many are waiting, and one that sleeps while a place is free makes the whole video wait.
    "ExtractPart": retries(attempts=5, max_delay_s=30, throttled=(2000, 20)),
    "RenderSegment": retries(attempts=5, max_delay_s=30, throttled=(3, 4)),
    "QueueSegment": asked(USUAL),
}


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


SEGMENT_GRAPHS = [
    state["ItemProcessor"]
    for state in json.loads((REPO / "statemachines" / "segments.asl.json").read_text())["States"].values()
    if state["Type"] == "Map"
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


def throttling(state: str) -> dict[str, Any]:
    (block,) = [block for block in OF_STATE.get(state, USUAL) if set(block["ErrorEquals"]) == THROTTLED]
    return block


def test_a_throttled_segment_waits_in_the_queue() -> None:
    """Tries in vain take a few seconds, whatever the load; then nothing is tried, and nothing fails for want of it."""
    for graph in SEGMENT_GRAPHS:
        first, last = graph["States"]["RenderSegment"]["Catch"]
        assert first == {"ErrorEquals": sorted(THROTTLED), "ResultPath": None, "Next": "QueueSegment"}
        assert last["ErrorEquals"] == ["States.ALL"]
    block = throttling("RenderSegment")
    assert sum(min(block["MaxDelaySeconds"], 2**number) for number in range(block["MaxAttempts"])) <= 8


def test_a_message_waits_longer_than_the_state_that_asked_and_the_machine_longer_than_both() -> None:
    template = load_template(REPO / "template.yaml")
    kept_s = int(template.queues["SegmentsQueue"].attributes["MessageRetentionPeriod"])
    machine = json.loads((REPO / "statemachines" / "segments.asl.json").read_text())
    for graph in SEGMENT_GRAPHS:
        assert graph["States"]["QueueSegment"]["TimeoutSeconds"] < kept_s <= machine["TimeoutSeconds"]


@pytest.mark.parametrize("name", ["Jobs", "Segments"])
def test_a_queue_hides_what_lambda_holds_and_gives_up_what_the_function_does(name: str) -> None:
    found = load_template(REPO / "template.yaml")
    queue, source = found.queues[f"{name}Queue"], found.event_sources[f"{name}WorkedOff"]
    (function,) = [spec for spec in found.functions.values() if spec.name == source.function_arn]
    assert int(queue.attributes["VisibilityTimeout"]) >= 6 * function.timeout_s
    redrive = json.loads(queue.attributes["RedrivePolicy"])
    assert redrive["maxReceiveCount"] == int(function.environment["MAX_TRIES"]) >= 5
    given_up = found.queues["GivenUpQueue"]
    assert redrive["deadLetterTargetArn"] == given_up.arn
    assert function.environment["QUEUE_URL"] == found.physical_ids[f"{name}Queue"]
    assert int(given_up.attributes["VisibilityTimeout"]) >= 6 * found.functions["FailJobFunction"].timeout_s
    assert found.event_sources["GivenUpWorkedOff"].queue_arn == given_up.arn


def test_a_new_account_leaves_places_for_what_is_no_segment() -> None:
    source = load_template(REPO / "template.yaml").event_sources["SegmentsWorkedOff"]
    assert source.max_concurrency < NEW_ACCOUNT_CONCURRENCY


def test_every_try_of_every_state_fits_the_history() -> None:
    """A Standard execution holds 25,000 events: seven for a task, three more each time that it is tried again."""

    def most(state: str) -> int:
        return 7 + 3 * sum(int(block["MaxAttempts"]) for block in OF_STATE.get(state, USUAL))

    one_each = sum(most(state) for state in ("PlanSegments", "AssembleJob", "FailJob"))
    # An item is begun and ended too; a message is sent and answered.
    of_item = 2 + most("RenderSegment") + most("QueueSegment")
    assert one_each < MAX_HISTORY_EVENTS, of_item
    # All tries of all three, or all tries of every segment: not both, for a job that waits begins nothing else.
    assert MAX_INLINE_SEGMENTS * of_item < MAX_HISTORY_EVENTS


def test_what_is_one_of_at_a_time_waits_for_hours_and_no_minute_in_vain() -> None:
    block = throttling("AssembleJob")
    assert block["MaxDelaySeconds"] <= 60, "a place that became free is taken within a minute"
    assert block["MaxAttempts"] * block["MaxDelaySeconds"] / 2 > 12 * 3600


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
