"""Processes of the local cloud: `Spawner` talks to the process that starts and ends them (see `spawner.py`)."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from structureflow_local.cloud.errors import FunctionProcessError


class Spawner:
    """Starts and ends processes through the spawner process; may be used from several threads.

    Args:
        log_path: for what the spawner itself has to say.
        remove_at_end: a folder that is removed when all processes are gone, however this process ends.

    Raises:
        FunctionProcessError: from `spawn`, once the spawner itself is gone.
    """

    def __init__(self, log_path: Path, *, remove_at_end: Path | None = None) -> None:
        script = [sys.executable, "-I", "-S", str(Path(__file__).with_name("spawner.py"))]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*script, *([str(remove_at_end)] if remove_at_end is not None else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._answers: dict[int, dict[str, Any]] = {}
        self._exits: dict[int, int] = {}
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._changed = threading.Condition()
        self._gone = False
        self._closing = False
        self._reader = threading.Thread(target=self._read, name="spawner-reader", daemon=True)
        self._reader.start()

    @property
    def gone(self) -> bool:
        """Whether it was closed or has died; then nothing that it started runs any more."""
        return self._closing or self._gone

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_path: Path,
        on_exit: Callable[[int], None] | None = None,
    ) -> int:
        """Start a process in a session of its own, its output appended to `log_path`; return its id.

        `on_exit` is called with its exit code (negative: the signal) on a thread of its own.
        """
        answer = self._ask({"op": "spawn", "argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log_path)})
        if "error" in answer:
            raise FunctionProcessError(f"cannot start {argv[0]}: {answer['error']}")
        pid = int(answer["pid"])
        if on_exit is not None:
            with self._changed:
                self._callbacks[pid] = on_exit
                code = self._exits.get(pid)
            if code is not None:
                self._call_back(pid, code)
        return pid

    def kill(self, pid: int) -> None:
        """End a process that `spawn` started and everything below it; return when it is gone.

        Once the spawner is closed, or gone, nothing that it started is left; then this does nothing.
        """
        if not self.gone:
            self._ask({"op": "kill", "pid": pid})

    def send_signal(self, pid: int, number: int) -> None:
        """Send a process that `spawn` started a signal; does nothing when it is gone."""
        if not self.gone:
            self._ask({"op": "signal", "pid": pid, "signal": int(number)})

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a process, None while it runs."""
        with self._changed:
            return self._exits.get(pid)

    def close(self) -> None:
        """End every process that was started, and the spawner."""
        self._closing = True
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            # A spawner that was killed has left a command in the buffer that cannot be written any more.
            with self._lock, contextlib.suppress(BrokenPipeError):
                stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        line = json.dumps({"id": number, **command}).encode() + b"\n"
        with self._lock:
            stdin = self._process.stdin
            if stdin is None or stdin.closed:
                raise FunctionProcessError("the local cloud is closed")
            try:
                stdin.write(line)
                stdin.flush()
            except BrokenPipeError as error:
                raise FunctionProcessError("the spawner process is gone") from error
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._gone)
            if number not in self._answers:
                raise FunctionProcessError("the spawner process is gone")
            return self._answers.pop(number)

    def _read(self) -> None:
        stdout = self._process.stdout
        for line in stdout or ():
            message = json.loads(line)
            with self._changed:
                if "exit" in message:
                    self._exits[message["exit"]] = message["code"]
                else:
                    self._answers[message["id"]] = message
                self._changed.notify_all()
            if "exit" in message:
                self._call_back(message["exit"], message["code"])
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _call_back(self, pid: int, code: int) -> None:
        with self._changed:
            callback = self._callbacks.pop(pid, None)
        if callback is not None:
            threading.Thread(target=callback, args=(code,), name=f"exit-{pid}", daemon=True).start()
