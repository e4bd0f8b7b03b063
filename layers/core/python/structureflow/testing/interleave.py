"""Two runs of a job, their steps interleaved at every request to the store, from a seed.

A `World` holds a store in memory and everything that would act on it on AWS: the orchestrator for every request that
arrives, an execution of the state machine for every flow archive, FailJob for every execution that failed. Each acts
in a thread of its own, but only one thread moves at a time: before every request to the store it waits until the
world lets it go on. Which one goes on is drawn from a seed, and so is which event is delivered once more, and which
step dies. Time stands still but when all wait for it.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from structureflow import keys
from structureflow.errors import StructureFlowError, TransientError
from structureflow.jobs.fail_job import CaughtError, FailJobInput, fail_job, fail_request
from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate
from structureflow.jobs.services import Services
from structureflow.runtime.machine import Execution, Machine, StateFailedError, call_step
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import BUCKET, services_over
from structureflow.testing.storage import WrapperStorage

#: As Lambda does with events.
_EVENT_TRIES: Final = 3
_RETRY_AFTER: Final = timedelta(seconds=60)
#: A thread that does not come to its next request in this time hangs.
_PATIENCE_S: Final = 60.0

_Result = TypeVar("_Result")


class KilledError(Exception):
    """The process of a step is gone: it makes no further request."""


@dataclass
class _Actor:
    """Somebody who acts: a function, or an execution of the state machine."""

    name: str
    thread: threading.Thread
    waiting: int = 0
    granted: int = 0
    wakes_at: datetime | None = None
    killed: bool = False
    ended: bool = False
    failure: BaseException | None = None


@dataclass
class Chances:
    """How likely things are, from 0 to 1.

    Attributes:
        again: an event is delivered once more, at any later moment.
        kill: the step that is about to make a request dies instead.
    """

    again: float = 0.0
    kill: float = 0.0


@dataclass
class World:
    """A store and all who act on it; see the module.

    Attributes:
        seed: draws everything.
        work_dir: for temporary files.
        definition: of the state machine.
        chances: of what goes wrong.
        watch: is called after every request, with the store at rest.
        log: every request made: (who, operation, key).
    """

    seed: int
    work_dir: Path
    definition: Mapping[str, Any]
    chances: Chances = field(default_factory=Chances)
    watch: Callable[[Storage], None] = lambda _: None
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - replayed, not secret
        self._lock = threading.Condition()
        self._actors: list[_Actor] = []
        self._events: list[tuple[str, str, str]] = []
        self._executions = 0
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    # --- who acts ------------------------------------------------------------------------------------

    def act(self, name: str, action: Callable[[Storage], None]) -> None:
        """Let somebody act through a store of their own, from the next `run` on."""
        actor = _Actor(name, threading.Thread(target=lambda: None))

        def live() -> None:
            try:
                action(_Turns(self, actor))
            except BaseException as error:  # noqa: BLE001 - told by `run`
                actor.failure = error
            with self._lock:
                actor.ended = True
                self._lock.notify_all()

        actor.thread = threading.Thread(target=live, name=name, daemon=True)
        self._actors.append(actor)
        actor.thread.start()

    def put_request(self, task_id: str, document: Mapping[str, Any]) -> None:
        """Let a user put a request."""
        data = json.dumps(document).encode()
        self.act("user", lambda storage: _ignore(storage.put(keys.job_request(task_id), data)))

    def run(self) -> None:
        """Go on until nobody acts any more and every event was delivered.

        Raises:
            RuntimeError: somebody hangs.
            Whatever an actor raised that is no error of this package.
        """
        while True:
            with self._lock:
                self._wait_until_all_rest()
                self._finish()
                choice = self._choose()
                if choice is None:
                    return
                if isinstance(choice, _Actor):
                    self._grant(choice)
                    continue
            self._deliver(*choice)

    def _wait_until_all_rest(self) -> None:
        def at_rest() -> bool:
            return all(actor.ended or actor.waiting > 0 or actor.wakes_at is not None for actor in self._actors)

        if not self._lock.wait_for(at_rest, _PATIENCE_S):
            busy = [a.name for a in self._actors if not a.ended and not a.waiting]
            raise RuntimeError(f"seed {self.seed}: expected a request within {_PATIENCE_S} s from {busy}")

    def _finish(self) -> None:
        for actor in [actor for actor in self._actors if actor.ended]:
            self._actors.remove(actor)
            if actor.failure is not None:
                raise actor.failure

    def _choose(self) -> _Actor | tuple[str, str, str] | None:
        ready = [actor for actor in self._actors if actor.waiting]
        choices: list[_Actor | tuple[str, str, str]] = [*ready, *self._events]
        if not choices:
            asleep = [actor for actor in self._actors if actor.wakes_at is not None]
            if not asleep:
                return None
            first = min(asleep, key=lambda actor: (actor.wakes_at, actor.name))
            self.now = max(self.now, first.wakes_at or self.now)
            first.wakes_at = None
            self._lock.notify_all()
            self._wait_until_all_rest()
            return self._choose()
        chosen = self._random.choice(choices)
        if isinstance(chosen, tuple) and self._random.random() >= self.chances.again:
            self._events.remove(chosen)
        return chosen

    def _grant(self, actor: _Actor) -> None:
        if not actor.killed and actor.name != "user" and self._random.random() < self.chances.kill:
            actor.killed = True
        actor.waiting -= 1
        actor.granted += 1
        self._lock.notify_all()
        # until it has made its request, and waits for the next or computes
        if not self._lock.wait_for(lambda: actor.granted == 0, _PATIENCE_S):
            raise RuntimeError(f"seed {self.seed}: {actor.name} does not make its request")
        self.watch(self.storage)

    # --- what happens on AWS -------------------------------------------------------------------------

    def _notice(self, key: str) -> None:
        """An object was created."""
        for kind, parse in (("request", keys.parse_job_request), ("flows", keys.parse_job_flows)):
            try:
                parse(key)
            except StructureFlowError:
                continue
            self._events.append((kind, key, self.storage.head(key).etag))

    def _deliver(self, kind: str, key: str, etag: str) -> None:
        self._executions += 1
        name = f"{kind}-{self._executions}"
        # By the store's clock, whose times it is compared with.
        began = datetime.now(UTC)
        if kind == "request":
            self.act(name, lambda storage: self._orchestrate(storage, key, etag))
        elif kind == "flows":
            self.act(name, lambda storage: self._execute(storage, Execution(name, began.isoformat()), key))
        else:
            self.act(name, lambda storage: self._end(storage, key, *etag.split("|")))

    def _orchestrate(self, storage: Storage, key: str, etag: str) -> None:
        services = self._services(storage)
        for _ in range(_EVENT_TRIES):
            try:
                self._living(storage, lambda: orchestrate(OrchestrateInput(bucket=BUCKET, key=key), services))
            except (KilledError, TransientError):
                self._sleep(storage, _RETRY_AFTER)
                continue
            return
        self._insist(storage, lambda: fail_request(key, etag, "Runtime.ExitError", "killed", services))

    def _execute(self, storage: Storage, execution: Execution, key: str) -> None:
        def invoke(step: str, payload: Any) -> Any:
            try:
                return self._living(storage, lambda: call_step(step, payload, services))
            except KilledError as error:
                raise StateFailedError.of_function("Runtime.ExitError", str(error)) from error

        services = self._services(storage)
        machine = Machine(
            self.definition,
            invoke=invoke,
            sleep=lambda seconds: self._sleep(storage, timedelta(seconds=seconds)),
            source=random.Random(f"{self.seed} {execution.execution_id}"),  # noqa: S311 - replayed, not secret
            read_items=lambda key: json.loads(storage.get(key).data),
        )
        try:
            machine.run(execution, {"detail": {"bucket": {"name": BUCKET}, "object": {"key": key}}})
        except StateFailedError as failed:
            # An execution that failed is told of once more, also where FailJob could not be run.
            with self._lock:
                self._events.append(("ended", key, f"{execution.execution_id}|{execution.began}|{failed.error}"))

    def _end(self, storage: Storage, key: str, execution_id: str, began: str, error: str) -> None:
        services = self._services(storage)
        event = FailJobInput(
            execution_id=execution_id,
            bucket=BUCKET,
            key=key,
            error=CaughtError(Error=error, Cause=""),
            started_at=datetime.fromisoformat(began),
        )
        self._insist(storage, lambda: fail_job(event, services))

    def _living(self, storage: Storage, call: Callable[[], _Result]) -> _Result:
        """Call a function in a process of its own: the next one lives."""
        try:
            return call()
        finally:
            _actor_of(storage).killed = False

    def _insist(self, storage: Storage, call: Callable[[], Any]) -> None:
        """Call a function whose event is delivered again until it has ended without being killed."""
        while True:
            try:
                self._living(storage, call)
            except (KilledError, TransientError):
                self._sleep(storage, _RETRY_AFTER)
                continue
            return

    def _sleep(self, storage: Storage, time: timedelta) -> None:
        actor = _actor_of(storage)
        with self._lock:
            actor.wakes_at = self.now + time
            self._lock.notify_all()
            self._lock.wait_for(lambda: actor.wakes_at is None)

    def _services(self, storage: Storage) -> Services:
        services = services_over(storage, self.work_dir, self.counts, lambda _, payload: self._start(payload))
        return replace(services, workers=1, requests_at_once=1, clock=lambda: self.now)

    def _start(self, payload: Mapping[str, Any]) -> None:
        with self._lock:
            self._events.append(("flows", payload["detail"]["object"]["key"], ""))


class _Turns(WrapperStorage):
    """The store as one actor sees it: every request waits for its turn."""

    def __init__(self, world: World, actor: _Actor) -> None:
        super().__init__(world.storage)
        self.actor = actor
        self._world = world

    @contextmanager
    def _request(self, operation: str, key: str) -> Iterator[None]:
        world, actor = self._world, self.actor
        lock = world._lock  # noqa: SLF001 - one of its parts
        with lock:
            actor.waiting += 1
            lock.notify_all()
            lock.wait_for(lambda: actor.granted > 0)
            try:
                if actor.killed:
                    raise KilledError(f"{actor.name} dies before {operation} {key}")
                world.log.append((actor.name, operation, key))
                yield
            finally:
                actor.granted -= 1
                lock.notify_all()

    def put(self, key: str, *args: Any, **options: Any) -> Any:
        """See `Storage.put`; the world notices what arrives."""
        return self._noticed(key, super().put(key, *args, **options))

    def copy(self, source_key: str, target_key: str, **options: Any) -> Any:
        """See `Storage.copy`; the world notices what arrives."""
        return self._noticed(target_key, super().copy(source_key, target_key, **options))

    def _noticed(self, key: str, info: Any) -> Any:
        with self._world._lock:  # noqa: SLF001 - one of its parts
            self._world._notice(key)  # noqa: SLF001 - one of its parts
        return info


def _actor_of(storage: Storage) -> _Actor:
    if not isinstance(storage, _Turns):
        raise TypeError("expected the store of an actor")
    return storage.actor


def _ignore(_: object) -> None:
    """Drop a value."""
