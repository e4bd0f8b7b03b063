"""The state machine's own definition, run in this process: its order, Choice, Map, Retry and Catch, on any clock.

Functions are calls, waiting is a call; so whole executions take milliseconds, and every Retry and every Catch that is
taken is the deployed one. What the definition does not use is refused, not guessed.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from structureflow.errors import StructureFlowError
from structureflow.jobs.assemble_job import AssembleJobInput, assemble_job
from structureflow.jobs.fail_job import FailJobInput, fail_job
from structureflow.jobs.plan_segments import PlanSegmentsInput, plan_segments
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.jobs.services import Services

__all__ = ["Execution", "Machine", "StateFailedError", "call_step"]

_INVOKE: Final = "arn:${Partition}:states:::lambda:invoke"
_READER: Final = "arn:${Partition}:states:::s3:getObject"
_QUEUE: Final = "arn:${Partition}:states:::sqs:sendMessage.waitForTaskToken"
#: Who works the queues off that states send to.
_QUEUES: Final = {"${SegmentsQueueUrl}": "RenderSegment"}
_QUEUE_TRIES: Final = 5
#: While a message waits for a place, and before one comes again whose function died.
_PLACE_S: Final = 20.0
_DIED_S: Final = 90.0
_FUNCTION: Final = re.compile(r"\$\{(\w+)FunctionArn\}")
_FORMAT: Final = re.compile(r"States\.Format\('([^']*)',\s*(.*)\)")

Invoke = Callable[[str, Any], Any]
"""Called as ``invoke(step, payload)``, as in ``invoke("PlanSegments", {…})``; raises `StateFailedError`."""

ReadItems = Callable[[str], Sequence[Any]]
"""Gives the items that lie in the bucket as JSON under a key, for a Map with an ItemReader."""

ForEach = Callable[[Sequence[Any], Callable[[Any], Any]], list[Any]]
"""Does a Map's items, in whatever order; gives their results in the items' order, or raises the first failure."""


class StateFailedError(Exception):
    """A state, or the whole execution, failed with an error of this name."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause

    @classmethod
    def of_function(cls, error_type: str, message: str) -> StateFailedError:
        """Return the failure that Step Functions makes of what Lambda reports."""
        return cls(error_type, json.dumps({"errorType": error_type, "errorMessage": message}))


def call_step(step: str, payload: Any, services: Services) -> Any:
    """Call a step's function with a payload as the state machine hands it over; return its result as JSON.

    Raises:
        StateFailedError: it raised one of our errors; any other goes through as it is.
    """
    # Each pair belongs together, which a table of them cannot say.
    try:
        if step == "PlanSegments":
            return plan_segments(PlanSegmentsInput.model_validate(payload), services).model_dump(mode="json")
        if step == "RenderSegment":
            return render_segment(RenderSegmentInput.model_validate(payload), services).model_dump(mode="json")
        if step == "AssembleJob":
            return assemble_job(AssembleJobInput.model_validate(payload), services).model_dump(mode="json")
        if step == "FailJob":
            status = fail_job(FailJobInput.model_validate(payload), services)
            return status and status.model_dump(mode="json")
    except StructureFlowError as error:
        raise StateFailedError.of_function(error.code, str(error)) from error
    raise ValueError(f"expected a step of the state machine, got {step!r}")


@dataclass(frozen=True)
class Execution:
    """What the context object says of an execution; `began` is ISO 8601."""

    execution_id: str
    began: str


def one_by_one(items: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
    """Do a Map's items one after the other."""
    return [do(item) for item in items]


class Machine:
    """Runs executions of one definition.

    Args:
        definition: the state machine file, parsed.
        invoke: calls a function.
        sleep: lets seconds pass before a retry.
        source: draws the jitter of retries.
        each: does a Map's items.
        read_items: reads the items of a Map that lie in the bucket.
    """

    def __init__(
        self,
        definition: Mapping[str, Any],
        *,
        invoke: Invoke,
        sleep: Callable[[float], None],
        source: random.Random,
        read_items: ReadItems,
        each: ForEach = one_by_one,
    ) -> None:
        self._definition = definition
        self._invoke = invoke
        self._sleep = sleep
        self._source = source
        self._each = each
        self._read_items = read_items

    def run(self, execution: Execution, payload: Any) -> Any:
        """Run one execution and return its output.

        Raises:
            StateFailedError: it ended in a Fail state, or in an error that nothing caught.
        """
        context = {"Execution": {"Id": execution.execution_id, "StartTime": execution.began}}
        return self._run(self._definition, payload, context)

    def _run(self, machine: Mapping[str, Any], data: Any, context: dict[str, Any]) -> Any:
        name = machine["StartAt"]
        while True:
            state = machine["States"][name]
            try:
                data, following = self._enter(state, data, context)
            except StateFailedError as failure:
                catch = _matching(state.get("Catch", ()), failure.error)
                if catch is None:
                    raise
                data = _placed(catch["ResultPath"], data, {"Error": failure.error, "Cause": failure.cause})
                following = catch["Next"]
            if following is None:
                return data
            name = following

    def _enter(self, state: Mapping[str, Any], data: Any, context: dict[str, Any]) -> tuple[Any, str | None]:
        """Do a state; return its output and the next state's name, None at the end."""
        kind = state["Type"]
        if kind == "Succeed":
            return data, None
        if kind == "Fail":
            raise StateFailedError(
                str(_value(state["ErrorPath"], data, context)), str(_value(state["CausePath"], data, context))
            )
        if kind == "Choice":
            return data, _chosen(state, data, context)
        if kind == "Task":
            result = self._retried(state, lambda: self._call(state, data, context))
        elif kind == "Map":
            result = self._map(state, data, context)
        else:
            raise ValueError(f"expected Task, Map, Choice, Succeed or Fail, got {kind}")
        if state.get("OutputPath", "$") is None:
            # Only states at an end have it.
            return {}, None
        if "ResultSelector" in state:
            result = _filled(state["ResultSelector"], result, context)
        following = None if state.get("End") else state["Next"]
        return _placed(state.get("ResultPath", "$"), data, result), following

    def _call(self, state: Mapping[str, Any], data: Any, context: dict[str, Any]) -> Any:
        parameters = _filled(state["Parameters"], data, {**context, "Task": {"Token": "token"}})
        if state["Resource"] == _QUEUE:
            return self._queued(_QUEUES[parameters["QueueUrl"]], parameters["MessageBody"], state["TimeoutSeconds"])
        if state["Resource"] != _INVOKE:
            raise ValueError(f"expected {_INVOKE} or {_QUEUE}, got {state['Resource']}")
        function = _FUNCTION.fullmatch(parameters["FunctionName"])
        if function is None:
            raise ValueError(f"expected ${{…FunctionArn}}, got {parameters['FunctionName']}")
        # Across the wire, as Lambda takes and gives it.
        payload = json.loads(json.dumps(parameters["Payload"]))
        return {"Payload": json.loads(json.dumps(self._invoke(function[1], payload)))}

    def _queued(self, function: str, message: Mapping[str, Any], left_s: float) -> Any:
        """Work a message off as the queue's event source mapping does: it waits for a place, and comes again."""
        payload = json.loads(json.dumps(message["segment"]))
        died = 0
        while left_s > 0:
            try:
                return json.loads(json.dumps(self._invoke(function, payload)))
            except StateFailedError as failure:
                if failure.error == "Lambda.TooManyRequestsException":
                    pause_s = _PLACE_S
                elif failure.error.startswith(("Runtime.", "Sandbox.", "Lambda.")):
                    died += 1
                    if died >= _QUEUE_TRIES:
                        raise StateFailedError.of_function("SegmentDied", "as FailJob says") from failure
                    pause_s = _DIED_S
                else:
                    raise
            self._sleep(pause_s)
            left_s -= pause_s
        raise StateFailedError("States.Timeout")

    def _retried(self, state: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        tries: Counter[int] = Counter()
        while True:
            try:
                return call()
            except StateFailedError as failure:
                retry = _matching(state.get("Retry", ()), failure.error)
                if retry is None or tries[id(retry)] >= retry["MaxAttempts"]:
                    raise
                longest = retry["IntervalSeconds"] * retry["BackoffRate"] ** tries[id(retry)]
                longest = min(longest, retry.get("MaxDelaySeconds", longest))
                tries[id(retry)] += 1
                self._sleep(self._source.uniform(0, longest) if retry.get("JitterStrategy") == "FULL" else longest)

    def _map(self, state: Mapping[str, Any], data: Any, context: dict[str, Any]) -> list[Any]:
        def do(item: Any) -> Any:
            inner = {**context, "Map": {"Item": {"Value": item}}}
            return self._run(state["ItemProcessor"], _filled(state["ItemSelector"], data, inner), inner)

        if "ItemReader" in state:
            if state["ItemReader"]["Resource"] != _READER:
                raise ValueError(f"expected {_READER}, got {state['ItemReader']['Resource']}")
            items = self._read_items(str(_filled(state["ItemReader"]["Parameters"], data, context)["Key"]))
        else:
            items = _value(state["ItemsPath"], data, context)
        return self._each(items, do)


def _matching(blocks: Sequence[Mapping[str, Any]], error: str) -> Mapping[str, Any] | None:
    """Return the first Retry or Catch that names an error."""
    return next((block for block in blocks if {error, "States.ALL"} & set(block["ErrorEquals"])), None)


def _chosen(state: Mapping[str, Any], data: Any, context: dict[str, Any]) -> str:
    for choice in state["Choices"]:
        if _value(choice["Variable"], data, context) is choice["BooleanEquals"]:
            return str(choice["Next"])
    return str(state["Default"])


def _filled(template: Any, data: Any, context: dict[str, Any]) -> Any:
    """Return a payload template with its ``.$`` fields read from data and context object."""
    if not isinstance(template, Mapping):
        return template
    return {
        name.removesuffix(".$"): _value(value, data, context) if name.endswith(".$") else _filled(value, data, context)
        for name, value in template.items()
    }


def _value(path: str, data: Any, context: dict[str, Any]) -> Any:
    """Return what a path or ``States.Format`` gives."""
    formatted = _FORMAT.fullmatch(path)
    if formatted is not None:
        values = [str(_value(argument.strip(), data, context)) for argument in formatted[2].split(",")]
        texts = formatted[1].split("{}")
        return "".join(text + value for text, value in zip(texts, [*values, ""], strict=True))
    source, _, rest = path.partition(".")
    found = {"$": data, "$$": context}[source]
    for name in filter(None, rest.split(".")):
        found = found[name]
    return found


def _placed(path: str | None, data: Any, result: Any) -> Any:
    """Return a state's output: its result in its input, as ``ResultPath`` says."""
    if path is None:
        return data
    if path == "$":
        return result
    return {**data, path.removeprefix("$."): result}
