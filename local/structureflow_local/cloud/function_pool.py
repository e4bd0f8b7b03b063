"""Pools of function processes: one call of a function at a time each, and what a call was."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from structureflow_local.cloud.function_process import FunctionProcess
from structureflow_local.cloud.template import FunctionSpec


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function, as its REPORT line and the pool saw it.

    Attributes:
        function: logical id.
        started_at: seconds since the epoch.
        duration_ms, billed_ms, init_ms: of the REPORT line; `init_ms` is None for a warm process.
        memory_mb: as the template declares it.
        max_memory_mb: highest resident memory of the process so far; None where it cannot be known.
        cold: the call started its process's runtime.
        asynchronous: the caller did not wait.
        attempt: 1 for the first try, up to 3 for asynchronous calls.
        error: the error's type, None on success.
    """

    function: str
    request_id: str
    started_at: float
    duration_ms: float
    billed_ms: int
    init_ms: float | None
    memory_mb: int
    max_memory_mb: int | None
    cold: bool
    asynchronous: bool
    attempt: int
    error: str | None


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """Result of a synchronous call.

    Attributes:
        payload: what the handler returned, or the error object (``errorType``, ``errorMessage``, …).
        error: the error's type, None on success.
        log_tail: the last 4 KB that the function printed.
    """

    payload: Any
    error: str | None
    log_tail: str
    invocation: Invocation


class FunctionPool:
    """The processes of one function: reused when idle, more when all are busy, never more than `capacity`."""

    def __init__(
        self, spec: FunctionSpec, capacity: int, start: Callable[[FunctionSpec, int], FunctionProcess]
    ) -> None:
        self.spec = spec
        self._capacity = capacity
        self._start = start
        self._idle: list[FunctionProcess] = []
        self._alive = 0
        self._started = 0
        self._changed = threading.Condition()

    def prewarm(self) -> None:
        """Start one process if there is none, so that the next call finds it."""
        with self._changed:
            if self._alive:
                return
            self._alive += 1
        self._put_back(self._new_process())

    def call(self, payload: bytes, request_id: str, *, asynchronous: bool, attempt: int) -> InvocationResult:
        """Call the function on a free process; wait for one when all are busy.

        Raises:
            FunctionProcessError: no process can be started.
        """
        process = self._take()
        cold = process.calls == 0
        started_at = time.time()
        try:
            answer = process.invoke(payload, request_id)
        except BaseException:
            self._throw_away(process)
            raise
        if answer.broken:
            self._throw_away(process)
        else:
            self._put_back(process)
        invocation = Invocation(
            function=self.spec.logical_id,
            request_id=request_id,
            started_at=started_at,
            duration_ms=answer.duration_ms,
            billed_ms=answer.billed_ms,
            init_ms=answer.init_ms,
            memory_mb=self.spec.memory_mb,
            max_memory_mb=answer.max_memory_mb,
            cold=cold,
            asynchronous=asynchronous,
            attempt=attempt,
            error=answer.error,
        )
        return InvocationResult(parse_payload(answer.payload), answer.error, answer.log_tail, invocation)

    def _take(self) -> FunctionProcess:
        with self._changed:
            while True:
                while self._idle:
                    process = self._idle.pop()
                    if process.alive():
                        return process
                    self._alive -= 1
                if self._alive < self._capacity:
                    self._alive += 1
                    break
                self._changed.wait()
        return self._new_process()

    def _new_process(self) -> FunctionProcess:
        with self._changed:
            self._started += 1
            number = self._started
        try:
            return self._start(self.spec, number)
        except BaseException:
            with self._changed:
                self._alive -= 1
                self._changed.notify()
            raise

    def _put_back(self, process: FunctionProcess) -> None:
        with self._changed:
            self._idle.append(process)
            self._changed.notify()

    def _throw_away(self, process: FunctionProcess) -> None:
        try:
            process.kill()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify()


def parse_payload(payload: bytes) -> Any:
    """Return a payload as JSON; as text where it is none."""
    try:
        return json.loads(payload) if payload else None
    except ValueError:
        return payload.decode("utf-8", "replace")
