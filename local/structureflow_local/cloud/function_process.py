"""Function processes: AWS's runtime interface emulator around AWS's Python runtime client.

`FunctionProcess` is one execution environment of one function and serves one call at a time, as on Lambda.
"""

from __future__ import annotations

import http.client
import json
import platform
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from structureflow_local.cloud.errors import FunctionProcessError
from structureflow_local.cloud.processes import Spawner
from structureflow_local.cloud.spawner import descendants
from structureflow_local.cloud.template import FunctionSpec

_PORTS: Final = range(20_000, 32_000)
_START_TIMEOUT_S: Final = 20.0
_REPORT_TIMEOUT_S: Final = 2.0
#: How much longer than the function's own timeout to wait for the emulator to notice it.
_GRACE_S: Final = 10.0

_REPORT = re.compile(rb"REPORT RequestId: (\S+)\t.*?Duration: ([\d.]+) ms\tBilled Duration: (\d+) ms")
_INIT_REPORT = re.compile(rb"INIT REPORT\(durationMs: ([\d.]+)\)")
#: Lines of the emulator itself, which CloudWatch would not show.
_RAPID_LINE = re.compile(rb"^.*\(rapid\).*\n?", re.MULTILINE)


def emulator_path() -> Path:
    """Return the runtime interface emulator that ships inside aws-sam-cli.

    Raises:
        FunctionProcessError: it is not installed, or has none for this machine.
    """
    machine = platform.machine().lower()
    suffix = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}.get(machine)
    if suffix is None or sys.platform != "linux":
        raise FunctionProcessError(
            f"the runtime interface emulator exists for Linux on x86_64 and arm64, not for {sys.platform} on {machine}"
        )
    for folder in map(Path, sys.path):
        path = folder / "samcli" / "local" / "rapid" / f"aws-lambda-rie-{suffix}"
        if path.is_file():
            return path
    raise FunctionProcessError("aws-sam-cli is not installed in this environment; it brings the runtime emulator")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function process said to one call.

    Attributes:
        payload: the reply's text; of an error, an object with ``errorType`` and ``errorMessage``.
        error: the error's type as Lambda names it, None on success.
        broken: the process must not be used again.
        duration_ms, billed_ms: as reported; the wall time when nothing was reported.
        init_ms: time of the runtime's start when this call started it.
        max_memory_mb: highest resident memory of the runtime so far; None where it cannot be known.
        log_tail: the last 4 KB of what the function printed during this call.
    """

    payload: bytes
    error: str | None
    broken: bool
    duration_ms: float
    billed_ms: int
    init_ms: float | None
    max_memory_mb: int | None
    log_tail: str


class FunctionProcess:
    """One execution environment of a function: an emulator process and, from the first call on, its runtime.

    Args:
        environment: variables of the process, complete; nothing is inherited.

    Raises:
        FunctionProcessError: it does not start.
    """

    def __init__(self, spec: FunctionSpec, spawner: Spawner, environment: Mapping[str, str], log_path: Path) -> None:
        self.spec = spec
        self.calls = 0
        self._spawner = spawner
        self._log_path = log_path
        self._port = 0
        self.pid = 0
        emulator = emulator_path()
        for _ in range(5):
            if self._start(emulator, environment):
                return
            if spawner.gone:
                raise FunctionProcessError(f"{spec.logical_id}: the local cloud is closed")
        raise FunctionProcessError(f"{spec.logical_id}: the runtime emulator does not start; see {log_path}")

    def _start(self, emulator: Path, environment: Mapping[str, str]) -> bool:
        self._port, runtime_port = _free_ports(2)
        self.pid = self._spawner.spawn(
            [
                str(emulator),
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{self._port}",
                "--runtime-api-address",
                f"127.0.0.1:{runtime_port}",
                sys.executable,
                "-m",
                "awslambdaric",
                self.spec.handler,
            ],
            env=environment,
            cwd=self.spec.code_dir,
            log_path=self._log_path,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self.alive():
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.003)
                continue
            if self.alive():
                return True
        self._spawner.kill(self.pid)
        return False

    def invoke(self, payload: bytes, request_id: str) -> Answer:
        """Call the function once and wait for it.

        A failure of the function is not raised: a crash, a timeout or a lost process is an `Answer` with
        `error`, and `broken` when the process must be thrown away.

        Raises:
            FunctionProcessError: the local cloud was closed meanwhile.
        """
        self.calls += 1
        log_start = self._log_path.stat().st_size
        started = time.monotonic()
        error: str | None
        try:
            status, body = self._post(payload, request_id)
        except TimeoutError:
            text, error, broken = _timed_out(self.spec.timeout_s, request_id), "Sandbox.Timedout", True
        except (OSError, http.client.HTTPException) as failure:
            message = f"RequestId: {request_id} Error: the function process is gone: {failure}"
            text, error, broken = _error("Runtime.ExitError", message), "Runtime.ExitError", True
        else:
            text, error, broken = _judge(status, body, request_id, self.spec.timeout_s)
        if broken and self._spawner.gone:
            raise FunctionProcessError(f"{self.spec.logical_id}: the local cloud was closed during the call")
        wall_ms = (time.monotonic() - started) * 1000
        log, report = self._await_report(log_start, request_id, wait=not broken)
        init = _INIT_REPORT.search(log)
        duration_ms = float(report[2]) if report else wall_ms
        return Answer(
            payload=text,
            error=error,
            broken=broken,
            duration_ms=duration_ms,
            billed_ms=int(report[3]) if report else int(-(-wall_ms // 1)),
            init_ms=float(init[1]) if init else None,
            max_memory_mb=None if broken else _peak_memory_mb(self.pid),
            log_tail=_RAPID_LINE.sub(b"", log)[-4096:].decode("utf-8", "replace"),
        )

    def kill(self) -> None:
        """End the process and everything below it."""
        self._spawner.kill(self.pid)

    def alive(self) -> bool:
        """Tell whether the process still runs."""
        return not self._spawner.gone and self._spawner.exit_code(self.pid) is None

    def _post(self, payload: bytes, request_id: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self.spec.timeout_s + _GRACE_S)
        try:
            connection.request(
                "POST",
                "/2015-03-31/functions/function/invocations",
                body=payload,
                headers={"Content-Type": "application/json", "X-Amzn-RequestId": request_id},
            )
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _await_report(self, start: int, request_id: str, *, wait: bool) -> tuple[bytes, re.Match[bytes] | None]:
        """Return what was logged since `start`, and the REPORT line, which may follow the reply."""
        deadline = time.monotonic() + (_REPORT_TIMEOUT_S if wait else 0.1)
        while True:
            with self._log_path.open("rb") as file:
                file.seek(start)
                log = file.read()
            for report in _REPORT.finditer(log):
                if report[1].decode() == request_id:
                    return log, report
            if time.monotonic() > deadline:
                return log, None
            time.sleep(0.002)


def _judge(status: int, body: bytes, request_id: str, timeout_s: int) -> tuple[bytes, str | None, bool]:
    """Tell a result from an error: payload, error type, and whether the process is broken."""
    if body.startswith(b"Task timed out after"):
        return _timed_out(timeout_s, request_id), "Sandbox.Timedout", True
    try:
        document = json.loads(body) if body else None
    except ValueError:
        if status == 200:
            return body, None, False
        return _error("Runtime.Unknown", body.decode("utf-8", "replace")), "Runtime.Unknown", True
    if isinstance(document, dict) and "errorType" in document and "errorMessage" in document:
        if status != 200:
            return body, str(document["errorType"]), True
        # Only the runtime client writes the request id of this very call beside the two.
        if document.get("requestId") == request_id:
            kept = {
                key: document[key]
                for key in ("errorMessage", "errorType", "requestId", "stackTrace")
                if key in document
            }
            return json.dumps(kept).encode(), str(document["errorType"]), False
    if status != 200:
        return _error("Runtime.Unknown", body.decode("utf-8", "replace")), "Runtime.Unknown", True
    return body or b"null", None, False


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def _timed_out(timeout_s: int, request_id: str) -> bytes:
    return _error("Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds")


def _peak_memory_mb(root: int) -> int | None:
    if sys.platform != "linux":
        return None
    peak_kb = 0
    for pid in descendants(root):
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except OSError:
            continue
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak_kb += int(line.split()[1])
    return -(-peak_kb // 1024) or None


_port_lock = threading.Lock()
_ports_given: set[int] = set()


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, below the range that the kernel gives to outgoing connections."""
    ports: list[int] = []
    with _port_lock:
        # At random: two clouds on one machine seldom meet, and a start that fails is tried with other ports.
        for _ in range(len(_PORTS)):
            port = _PORTS[secrets.randbelow(len(_PORTS))]
            if port in _ports_given:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _ports_given.add(port)
            ports.append(port)
            if len(ports) == count:
                return ports
    raise FunctionProcessError("no free port is left")
