"""Functions as a service: pools of function processes, synchronous and asynchronous calls, dead letters."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.errors import FunctionProcessError, ThrottledError, UnknownResourceError
from structureflow_local.cloud.function_pool import FunctionPool, Invocation, InvocationResult, parse_payload
from structureflow_local.cloud.function_process import FunctionProcess
from structureflow_local.cloud.processes import Spawner
from structureflow_local.cloud.signature import Key, Keyring
from structureflow_local.cloud.template import FunctionSpec

MAX_SYNC_BYTES: Final = 6 * 1024 * 1024
MAX_ASYNC_BYTES: Final = 1024 * 1024
#: Before an asynchronous call that was throttled is tried again.
_THROTTLED_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        source: logical id of the function, or the place of the rule, that gave up.
        payload: the event.
        error: the last error's type.
        message: the last error's message.
        attempts: how often it was tried.
        destination_arn: where it was sent; None when the template names no place.
    """

    source: str
    payload: Any
    error: str
    message: str
    attempts: int
    destination_arn: str | None


class Functions:
    """All functions of the template.

    Args:
        specs: by logical id.
        keyring: gives every process a key of its own.
        endpoint_url: where the functions find the local AWS services.
        state_dir: logs go to ``logs/{logical id}/{number}.log`` below it, scratch folders to ``tmp/``.
        retry_delays_s: pauses before the second and third try of an asynchronous call.
        deliver: sends a failure record to a destination ARN.
        dead_letters: gets the events that were given up.
        concurrency: calls at a time; more are throttled. None lets them wait for a process.
    """

    def __init__(
        self,
        specs: Mapping[str, FunctionSpec],
        *,
        spawner: Spawner,
        keyring: Keyring,
        activity: Activity,
        endpoint_url: str,
        region: str,
        state_dir: Path,
        retry_delays_s: Sequence[float],
        deliver: Callable[[str, Any], None],
        dead_letters: list[DeadLetter],
        concurrency: int | None = None,
    ) -> None:
        self._places = None if concurrency is None else threading.Semaphore(concurrency)
        self.throttles = 0
        self._specs = specs
        self._spawner = spawner
        self._keyring = keyring
        self._activity = activity
        self._endpoint_url = endpoint_url
        self._region = region
        self._state_dir = state_dir
        self._retry_delays_s = tuple(retry_delays_s)
        self._deliver = deliver
        self._dead_letters = dead_letters
        cores = max(2, os.cpu_count() or 1)
        self._pools = {
            logical_id: FunctionPool(spec, min(spec.reserved_concurrency or cores, concurrency or cores), self._start)
            for logical_id, spec in specs.items()
        }
        self._by_name = {name: spec for spec in specs.values() for name in (spec.logical_id, spec.name, spec.arn)}
        self._owners: dict[str, str] = {}
        self._closing = threading.Event()
        self.invocations: list[Invocation] = []

    def find(self, name: str) -> FunctionSpec:
        """Return the function with that logical id, name or ARN (also with a qualifier ``:$LATEST``).

        Raises:
            UnknownResourceError: there is none.
        """
        spec = self._by_name.get(name) or self._by_name.get(name.removesuffix(":$LATEST"))
        if spec is None:
            raise UnknownResourceError(f"no function {name!r}; there are {', '.join(self._specs) or 'none'}")
        return spec

    def owner_of(self, access_key: str) -> str | None:
        """Return the logical id of the function whose process signs with `access_key`."""
        return self._owners.get(access_key)

    @property
    def with_routes(self) -> list[FunctionSpec]:
        """Functions that an HTTP API leads to."""
        return [spec for spec in self._specs.values() if spec.routes]

    def prewarm(self) -> None:
        """Start a process for every function; failures show at the first call."""
        for pool in self._pools.values():
            if self._closing.is_set():
                return
            try:
                pool.prewarm()
            except FunctionProcessError:
                return

    def invoke(self, name: str, payload: bytes) -> InvocationResult:
        """Call a function and wait for its result.

        Raises:
            UnknownResourceError: there is no such function.
            FunctionProcessError: its process cannot be started.
            ThrottledError: all places are taken.
        """
        with self._activity.busy(f"function {name}"):
            return self._call(self.find(name), payload, str(uuid.uuid4()), asynchronous=False, attempt=1)

    def invoke_async(self, name: str, payload: bytes) -> str:
        """Queue a call and return its request id; on errors it is tried again, then becomes a dead letter.

        Raises:
            UnknownResourceError: there is no such function.
        """
        spec = self.find(name)
        request_id = str(uuid.uuid4())
        token = self._activity.begin(f"function {spec.logical_id}")
        threading.Thread(
            target=self._run_async, args=(spec, payload, request_id, token), name=f"async-{spec.name}", daemon=True
        ).start()
        return request_id

    def close(self) -> None:
        """Start no further tries; running calls end when the spawner ends their processes."""
        self._closing.set()

    def _run_async(self, spec: FunctionSpec, payload: bytes, request_id: str, token: int) -> None:
        try:
            attempt = 1
            while True:
                try:
                    result = self._call(spec, payload, request_id, asynchronous=True, attempt=attempt)
                except ThrottledError:
                    # Lambda keeps asynchronous calls that are throttled, and that counts as no try.
                    if self._closing.wait(_THROTTLED_S):
                        return
                    continue
                except FunctionProcessError as error:
                    if self._closing.is_set():
                        return
                    self._give_up(spec, payload, request_id, attempt, error.code, error.message, None)
                    return
                if result.error is None:
                    return
                if attempt > spec.max_retries:
                    message = str(result.payload.get("errorMessage", "")) if isinstance(result.payload, dict) else ""
                    self._give_up(spec, payload, request_id, attempt, result.error, message, result.payload)
                    return
                delays = self._retry_delays_s or (0.0,)
                if self._closing.wait(delays[min(attempt, len(delays)) - 1]):
                    return
                attempt += 1
        finally:
            self._activity.end(token)

    def _give_up(
        self, spec: FunctionSpec, payload: bytes, request_id: str, attempts: int, error: str, message: str, reply: Any
    ) -> None:
        event = parse_payload(payload)
        destinations = [arn for arn in (spec.on_failure_arn, spec.dead_letter_arn) if arn is not None]
        for arn in destinations or (None,):
            self._dead_letters.append(DeadLetter(spec.logical_id, event, error, message, attempts, arn))
        if spec.dead_letter_arn is not None:
            self._deliver(spec.dead_letter_arn, event)
        if spec.on_failure_arn is not None:
            self._deliver(
                spec.on_failure_arn,
                {
                    "version": "1.0",
                    "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "requestContext": {
                        "requestId": request_id,
                        "functionArn": f"{spec.arn}:$LATEST",
                        "condition": "RetriesExhausted",
                        "approximateInvokeCount": attempts,
                    },
                    "requestPayload": event,
                    "responseContext": {
                        "statusCode": 200,
                        "executedVersion": "$LATEST",
                        "functionError": "Unhandled",
                    },
                    "responsePayload": reply,
                },
            )

    def _call(
        self, spec: FunctionSpec, payload: bytes, request_id: str, *, asynchronous: bool, attempt: int
    ) -> InvocationResult:
        pool = self._pools[spec.logical_id]
        if self._places is not None and not self._places.acquire(blocking=False):
            self.throttles += 1
            raise ThrottledError(f"{spec.logical_id}: Rate Exceeded.")
        try:
            result = pool.call(payload, request_id, asynchronous=asynchronous, attempt=attempt)
        finally:
            if self._places is not None:
                self._places.release()
        self.invocations.append(result.invocation)
        return result

    def _start(self, spec: FunctionSpec, number: int) -> FunctionProcess:
        log_dir = self._state_dir / "logs" / spec.logical_id
        scratch = self._state_dir / "tmp" / f"{spec.logical_id}-{number}"
        log_dir.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        key = self._keyring.issue()
        self._owners[key.access_key] = spec.logical_id
        return FunctionProcess(spec, self._spawner, self._environment(spec, key, scratch), log_dir / f"{number}.log")

    def _environment(self, spec: FunctionSpec, key: Key, scratch: Path) -> dict[str, str]:
        """Return the whole environment: Lambda's own variables, then the template's, then the local endpoint."""
        return {
            "HOME": str(scratch),
            "LANG": "en_US.UTF-8",
            "PATH": os.defpath,
            "TMPDIR": str(scratch),
            "TZ": ":UTC",
            "AWS_DEFAULT_REGION": self._region,
            **({"AWS_EXECUTION_ENV": f"AWS_Lambda_{spec.runtime}"} if spec.runtime is not None else {}),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": spec.name,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(spec.timeout_s),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": self._region,
            "LAMBDA_TASK_ROOT": str(spec.code_dir),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(map(str, (spec.code_dir, *spec.python_path)))),
            "PYTHONUNBUFFERED": "1",
            **spec.environment,
            "AWS_ACCESS_KEY_ID": key.access_key,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_SESSION_TOKEN": "local",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self._endpoint_url,
        }
