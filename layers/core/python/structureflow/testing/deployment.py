"""Whole jobs under faults by seed: everything that acts on a bucket on AWS, in one process, on a clock of its own.

Events are delivered at least once, in any order, some of them late; one may come while another's function is at a
request. Functions are killed at any request to the store, before or after it was done, run out of time, are throttled,
and their answers get lost; GPU tasks are refused or killed; and somebody else may do anything to the bucket at any
request (`Deployment.meddle`).

What happens at a request follows from the seed, the function, the operation, the key and how often that was asked
before, as in `structureflow.testing.faults`. So a failure is replayed by its seed.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from structureflow import keys
from structureflow.errors import InvalidKeyError, StructureFlowError
from structureflow.jobs.deadline import Deadline
from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job, fail_request
from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.jobs.services import Services
from structureflow.jobs.settle_gpu import SettleGpuInput, settle_gpu
from structureflow.runtime.machine import Execution, Machine, StateFailedError, call_step
from structureflow.testing.faults import Faults, SeededStorage
from structureflow.testing.gpu import SeededGpu, carry_out
from structureflow.testing.jobs import BUCKET, services_over
from structureflow.testing.processes import Bucket, Hostility, KilledError, Process

#: So often a request, or an event of a GPU task, is taken up at most.
_EVENT_TRIES: Final = 5
_EVENT_PAUSE_S: Final = 60.0
_REQUEST_S: Final = 0.02
#: Functions within each other's requests.
_MAX_DEPTH: Final = 3
#: More than any job takes that is not going round in circles.
_MAX_DELIVERIES: Final = 400
_RUN: Final = re.compile(r"(?<=/)[0-9a-f]{16}(?=[/.])")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Event:
    """Something that starts a function: `kind` says which, `key` on what, `detail` how it came about."""

    number: int
    kind: str
    key: str
    detail: Mapping[str, str] = field(default_factory=dict)


class Deployment:
    """A bucket and all that acts on it; see the module.

    Args:
        definition: of the state machine.
        timeouts_s: of every function, by its step's name; ``Orchestrator`` and ``SettleGpu`` among them.
        faults: decide everything, and strike at the store; their clock is the only one.
        hostility: what else goes wrong.
        work_dir: for temporary files.
        gpu: whether there is a GPU part.

    Attributes:
        bucket: what really lies there; whoever uses it directly meets no faults.
        counts: metrics, and calls of functions by name.
        history: what was done and what went wrong, in order.
        meddle: does something to the bucket; called with the deployment and a number from 0 to 1 to choose by.
        check: is called after every function, with the bucket as it is.
        at: is called before every request with (function and number, operation, key, number); may raise `KilledError`.
    """

    def __init__(
        self,
        definition: Mapping[str, Any],
        timeouts_s: Mapping[str, float],
        faults: Faults,
        hostility: Hostility,
        work_dir: Path,
        *,
        gpu: bool = False,
    ) -> None:
        self.faults = faults
        self.hostility = hostility
        self.clock = faults.clock
        self.bucket = Bucket(self.clock, self._notice)
        self.counts: Counter[str] = Counter()
        self.history: list[str] = []
        self.meddle: Callable[[Deployment, float], None] = lambda _, __: None
        self.check: Callable[[Deployment], None] = lambda _: None
        self.at: Callable[[str, str, str, int], None] = lambda *_: None
        self._definition = definition
        self._timeouts_s = timeouts_s
        self._work_dir = work_dir
        self._gpu = SeededGpu(self.faults, hostility, self._add, self.note) if gpu else None
        self._events: list[_Event] = []
        self._late: list[_Event] = []
        self._numbers: Counter[str] = Counter()
        self._runs: dict[str, str] = {}
        self._left = Counter(kills=hostility.kills, meddlings=hostility.meddlings)
        self._depth = 0
        self._main = threading.get_ident()

    # --- what goes on -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Deliver events until none is left.

        Raises:
            RuntimeError: they never end.
            Whatever a function raised that is none of our errors.
        """
        for _ in range(_MAX_DELIVERIES):
            if not self._events and self._late:
                self._events, self._late = self._late, []
            if self._events:
                self._deliver(self._drawn("next", self._numbers["delivery"]))
            elif not self._look_for_overdue():
                return
        raise RuntimeError(f"expected an end within {_MAX_DELIVERIES} deliveries; the last: {self.history[-20:]}")

    def put_request(self, task_id: str, document: Mapping[str, Any]) -> None:
        """Put a request, at a moment of its own: the same one again asks for another run."""
        self.clock.sleep(1)
        self.bucket.put(keys.job_request(task_id), json.dumps(document).encode())

    def note(self, text: str) -> None:
        """Add to the history."""
        # Without what depends on the moment, or on threads.
        self.history.append(self._named(text).partition(", faults of seed")[0])

    def relieve(self) -> None:
        """Let nothing go wrong from now on."""
        self.faults.active = False
        self.hostility = Hostility()

    def _drawn(self, *what: object) -> _Event:
        self._numbers["delivery"] += 1
        return self._events.pop(int(self.faults.chance(*what) * len(self._events)))

    def _look_for_overdue(self) -> bool:
        """Let the schedule look for orders of GPU tasks that are overdue; False where there are none."""
        if not any(True for _ in self.bucket.list(keys.GPU_ORDERS_PREFIX)):
            return False
        self.clock.sleep(900)
        self._deliver(self._event("schedule", ""))
        return True

    def _notice(self, key: str, etag: str) -> None:
        for kind, parse in (("request", keys.parse_job_request), ("flows", keys.parse_job_flows)):
            try:
                parse(key)
            except InvalidKeyError:
                continue
            self._add(kind, key, etag=etag)

    def _event(self, kind: str, key: str, **detail: str) -> _Event:
        self._numbers[kind] += 1
        return _Event(self._numbers[kind], kind, key, detail)

    def _add(self, kind: str, key: str, **detail: str) -> None:
        event = self._event(kind, key, **detail)
        self._events.append(event)
        if self.faults.chance("again", kind, event.number) < self.hostility.again:
            late = self.faults.chance("late", kind, event.number) < self.hostility.late
            (self._late if late else self._events).append(event)

    def _deliver(self, event: _Event) -> None:
        self._numbers["delivered"] += 1
        self.note(f"event {event.kind} {event.number} {self._named(event.key)}")
        self._depth += 1
        try:
            {
                "request": self._request_arrived,
                "flows": self._flows_arrived,
                "ended": self._execution_ended,
                "task": self._task_started,
                "stopped": self._task_stopped,
                "schedule": self._schedule_struck,
            }[event.kind](event)
        finally:
            self._depth -= 1

    # --- what events start ------------------------------------------------------------------------------

    def _request_arrived(self, event: _Event) -> None:
        wanted = OrchestrateInput(bucket=BUCKET, key=event.key)
        failure = self._tried("Orchestrator", lambda services: orchestrate(wanted, services))
        if failure is not None:
            etag, error = event.detail["etag"], failure.error
            self._insist("FailJob", lambda services: fail_request(event.key, etag, error, failure.cause, services))

    def _flows_arrived(self, event: _Event) -> None:
        self._numbers["execution"] += 1
        name, began = f"execution-{self._numbers['execution']}", self.clock.now().isoformat()
        machine = Machine(
            self._definition,
            invoke=self._invoke,
            sleep=self.clock.sleep,
            source=random.Random(f"{self.faults.seed} {name}"),  # noqa: S311 - replayed, not secret
            each=lambda items, do: self._in_any_order(name, items, do),
            read_items=lambda key: json.loads(self.bucket.get(key).data),
        )
        try:
            machine.run(Execution(name, began), {"detail": {"bucket": {"name": BUCKET}, "object": {"key": event.key}}})
        except StateFailedError as failure:
            self.note(f"{name} failed: {failure}"[:300])
            self._add("ended", event.key, execution=name, began=began, error=failure.error, cause=failure.cause)

    def _execution_ended(self, event: _Event) -> None:
        detail = event.detail
        wanted = FailJobInput(
            execution_id=detail["execution"],
            bucket=BUCKET,
            key=event.key,
            error=CaughtError(Error=detail["error"], Cause=detail["cause"]),
            started_at=datetime.fromisoformat(detail["began"]),
        )
        self._insist("FailJob", lambda services: fail_job(wanted, services))

    def _task_started(self, event: _Event) -> None:
        failure = self._once("GpuTask", lambda services: carry_out(event.key, services))
        self.note(f"task {self._named(event.key)} stopped: {failure}"[:300])
        self._add(
            "stopped", event.key, run=event.detail["run"], reason="exit code 0" if failure is None else "exit 137"
        )

    def _task_stopped(self, event: _Event) -> None:
        wanted = SettleGpuInput(run_id=event.detail["run"], reason=event.detail["reason"])
        self._insist("SettleGpu", lambda services: settle_gpu(wanted, services))

    def _schedule_struck(self, _: _Event) -> None:
        self._tried("SettleGpu", lambda services: settle_gpu(SettleGpuInput(), services))

    # --- calls of functions -----------------------------------------------------------------------------

    def _invoke(self, step: str, payload: Any) -> Any:
        result = self._call(step, lambda services: call_step(step, payload, services))
        if self._happens("unheard", step, self._numbers[step]):
            raise StateFailedError("Lambda.ClientExecutionTimeoutException", "Read timed out")
        return result

    def _once(self, function: str, call: Callable[[Services], Any]) -> StateFailedError | None:
        """Call a function as an event does, once."""
        try:
            self._call(function, call)
        except StateFailedError as failure:
            return failure
        except StructureFlowError as error:
            return StateFailedError(error.code, str(error))
        return None

    def _tried(self, function: str, call: Callable[[Services], Any]) -> StateFailedError | None:
        """Call a function as Lambda does for an event; return how the last try failed, None where one did not."""
        failure: StateFailedError | None = None
        for _ in range(_EVENT_TRIES):
            failure = self._once(function, call)
            if failure is None:
                return None
            self.clock.sleep(_EVENT_PAUSE_S)
        return failure

    def _insist(self, function: str, call: Callable[[Services], Any]) -> None:
        """Call a function whose event is kept, by a queue of dead letters in the end, until it did its work."""
        failure: StateFailedError | None = None
        for _ in range(20):
            failure = self._tried(function, call)
            if failure is None:
                return
        raise RuntimeError(f"{function} fails again and again: {failure}")

    def _call(self, function: str, call: Callable[[Services], _Result]) -> _Result:
        self._numbers[function] += 1
        self.counts[function] += 1
        name = f"{function} {self._numbers[function]}"
        if self._happens("throttle", name):
            raise StateFailedError("Lambda.TooManyRequestsException", "Rate Exceeded")
        store = SeededStorage(self.bucket, self.faults, checks_objects=True)
        process = Process(store, name, self._timeouts_s[function], self.clock, self)
        try:
            result = call(self._services(process))
        except KilledError as error:
            self.note(f"{name} {error}")
            raise StateFailedError.of_function(error.error_type, str(error)) from error
        except StructureFlowError as error:
            self.note(f"{name} {error.code}: {error}"[:300])
            raise
        except StateFailedError as failure:
            self.note(f"{name} {failure}"[:300])
            raise
        finally:
            process.dead = True
            self.check(self)
        return result

    def _happens(self, what: str, *where: object) -> bool:
        rate: float = getattr(self.hostility, what)
        if self.faults.chance(what, *where) >= rate:
            return False
        self.note(f"{what}: {' '.join(map(str, where))}")
        return True

    def _services(self, process: Process) -> Services:
        services = services_over(
            process,
            self._work_dir,
            self.counts,
            lambda _, payload: self._add("flows", payload["detail"]["object"]["key"], etag=""),
        )
        return replace(
            services,
            workers=1,
            gpu=self._gpu,
            requests_at_once=1,
            clock=self.clock.now,
            deadline=Deadline(process.remaining_s),
        )

    def _in_any_order(self, execution: str, items: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
        """Do a Map's items in any order; after one failed, those that run already run on, as on AWS."""
        order = sorted(range(len(items)), key=lambda place: self.faults.chance("order", execution, items[place]))
        results: dict[int, Any] = {}
        failure: StateFailedError | None = None
        for place in order:
            if failure is not None and self.faults.chance("running", execution, items[place]) < 0.5:
                continue
            try:
                results[place] = do(items[place])
            except StateFailedError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return [results[place] for place in range(len(items))]

    # --- requests to the store --------------------------------------------------------------------------

    def before(self, process: Process, operation: str, key: str, number: int) -> None:
        """Let happen what happens before a request of a function."""
        where = (process.name, operation, self._named(key), number)
        self.clock.sleep(_REQUEST_S)
        self.at(*where)
        self._maybe_kill("before", where)
        if self._left["meddlings"] and self.faults.chance("meddle", *where) < self.hostility.meddle:
            self._left["meddlings"] -= 1
            self.note(f"at {' '.join(map(str, where))}:")
            self.meddle(self, self.faults.chance("which", *where))
        if (
            self._events
            and self._depth < _MAX_DEPTH
            and threading.get_ident() == self._main
            and self.faults.chance("between", *where) < self.hostility.between
        ):
            self._deliver(self._drawn("between event", *where))
        if process.remaining_s() <= 0:
            raise KilledError("Sandbox.Timedout", f"killed before {operation} {key}: its time is over")

    def after(self, process: Process, operation: str, key: str, number: int) -> None:
        """Let happen what happens after a request of a function."""
        self._maybe_kill("after", (process.name, operation, self._named(key), number))

    def _maybe_kill(self, when: str, where: Sequence[object]) -> None:
        if self._left["kills"] and self.faults.chance("kill", when, *where) < self.hostility.kill:
            self._left["kills"] -= 1
            raise KilledError("Runtime.ExitError", f"killed {when} {' '.join(map(str, where[1:3]))}")

    def _named(self, key: str) -> str:
        """Return a key with the names of runs, which follow from the time, replaced by their order."""
        return _RUN.sub(lambda found: self._runs.setdefault(found[0], f"run{len(self._runs) + 1}"), key)
