"""Distributed Maps as AWS runs them, in place of moto's own.

moto runs a Map with ``"Mode": "DISTRIBUTED"`` too, but a child that fails becomes a null among the results, and its
failure is forgotten. On AWS the Map fails when more children failed than are tolerated, none by default. Here also:
children that still run are stopped, those that wait are not started, and each child is an execution of its own, with
an id of its own.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from structureflow_local.cloud.patches import Patches

#: What AWS says; which child failed, and why, is only in the child's own history.
ERROR: Final = "States.ExceedToleratedFailureThreshold"
CAUSE: Final = "The specified tolerated failure threshold was exceeded"
#: Children at a time where the state names no bound; functions run in fewer processes anyway.
_MOST_AT_ONCE: Final = 200


def run_distributed_maps(patches: Patches) -> None:
    """Replace how moto runs the items of a distributed Map."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration import (
        distributed_iteration_component,
    )

    component = distributed_iteration_component.DistributedIterationComponent

    def map_run(self: Any, env: Any, eval_input: Any) -> None:
        items: list[Any] = env.stack.pop()
        run = _MapRun(env, eval_input, items, self._get_iteration_program)
        env.stack.append(run.outputs())

    patches.replace(component, "_map_run", map_run)


class _MapRun:
    """The children of one distributed Map.

    Args:
        env: the environment of the Map state.
        eval_input: what moto knows of the state.
        items: an item for each child.
        program: makes what a child runs.
    """

    def __init__(self, env: Any, eval_input: Any, items: Sequence[Any], program: Callable[[], Any]) -> None:
        self._env = env
        self._input = eval_input
        self._record = eval_input.map_run_record
        self._items = items
        self._program = program
        self._state_input = env.states.get_input()
        self._lock = threading.Lock()
        self._next = 0
        self._failed = 0
        self._outputs: list[Any] = [None] * len(items)
        self._running: dict[int, Any] = {}
        self._broken: Exception | None = None

    def outputs(self) -> list[Any]:
        """Run all children and return what they return, in the order of their items.

        Raises:
            FailureEventException: of moto, when more children failed than are tolerated.
        """
        workers = [
            threading.Thread(target=self._work, name="map run", daemon=True)
            for _ in range(min(len(self._items), self._record.max_concurrency or _MOST_AT_ONCE, _MOST_AT_ONCE))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self._broken is not None:
            raise self._broken
        if self._is_lost():
            raise self._failure()
        return self._outputs

    def _work(self) -> None:
        while (index := self._take()) is not None:
            try:
                self._run_child(index)
            except Exception as error:  # noqa: BLE001 - the interpreter's own, or a selector's: the Map's thread raises it
                with self._lock:
                    self._broken = self._broken or error

    def _take(self) -> int | None:
        with self._lock:
            if self._next == len(self._items) or self._broken is not None or self._is_lost():
                return None
            if not self._env.is_running():
                return None
            self._next += 1
            return self._next - 1

    def _is_lost(self) -> bool:
        share = 100 * self._failed / max(1, len(self._items))
        tolerated, percentage = self._record.tolerated_failure_count, self._record.tolerated_failure_percentage
        # Without either, none is tolerated; with both, the first one that is exceeded counts.
        return self._failed > 0 and (
            (self._failed > tolerated and (tolerated > 0 or percentage <= 0)) or (percentage > 0 and share > percentage)
        )

    def _run_child(self, index: int) -> None:
        from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded

        counters = (self._record.item_counter, self._record.execution_counter)
        for counter in counters:
            counter.total.count()
            counter.running.count()
        frame = self._env.open_inner_frame()
        try:
            self._select(frame, index)
            with self._lock:
                self._running[index] = frame
            self._program().eval(frame)
            ended = frame.program_state()
            succeeded = isinstance(ended, ProgramEnded)
            with self._lock:
                del self._running[index]
                if succeeded:
                    self._outputs[index] = frame.states.get_input()
                else:
                    self._failed += 1
                stopped = list(self._running.values()) if self._is_lost() else []
            for counter in counters:
                (counter.succeeded if succeeded else counter.failed).count()
            for other in stopped:
                other.set_stop(datetime.now(UTC), CAUSE, ERROR)
        finally:
            for counter in counters:
                counter.running.offset(-1)
            self._env.delete_frame(frame)

    def _select(self, frame: Any, index: int) -> None:
        """Give the frame its child's input, which the state makes of the item, and its child's context."""
        from moto.stepfunctions.parser.asl.eval.states import ItemData, MapData

        item = self._items[index]
        context = frame.states.context_object.context_object_data
        selector = self._input.item_selector or self._input.parameters
        frame.states.reset(input_value=item)
        if selector is not None:
            context["Map"] = MapData(Item=ItemData(Index=index, Value=item))
            frame.states.reset(input_value=self._state_input)
            frame.stack.append(self._state_input)
            selector.eval(frame)
            frame.states.reset(input_value=frame.stack[-1])
            frame.stack.clear()
            context.pop("Map")
        parent = context["Execution"]
        name = str(uuid.uuid4())
        machine = self._record.map_state_machine_arn.replace(":stateMachine:", ":execution:")
        context["Execution"] = {
            **parent,
            "Id": f"{machine}:{name}",
            "Name": name,
            "Input": frame.states.get_input(),
            "StartTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _failure(self) -> Exception:
        from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
        from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
            FailureEvent,
            FailureEventException,
        )
        from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
        from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import (
            StatesErrorNameType,
        )
        from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

        return FailureEventException(
            FailureEvent(
                env=self._env,
                error_name=StatesErrorName(StatesErrorNameType.StatesExceedToleratedFailureThreshold),
                event_type=HistoryEventType.MapRunFailed,
                event_details=EventDetails(  # type: ignore[typeddict-item]
                    taskFailedEventDetails=TaskFailedEventDetails(error=ERROR, cause=CAUSE)
                ),
            )
        )
