"""A small process of its own that starts function processes, and ends them all when its parent is gone.

Run as a script with nothing but the standard library. It reads one JSON command per line from standard input
and writes one JSON answer per line to standard output:

* ``{"id": 1, "op": "spawn", "argv": [...], "env": {...}, "cwd": "...", "log": "..."}`` answers with ``pid``
  (or ``error``); output of the process is appended to the file ``log``;
* ``{"id": 2, "op": "kill", "pid": 123}`` ends that process and everything it started, then answers;
* ``{"id": 3, "op": "signal", "pid": 123, "signal": 15}`` sends that one process a signal, then answers;
* ``{"exit": 123, "code": 0}`` is said, unasked, when a process ended.

The folders named as arguments are removed at the very end.

The end of standard input means that the parent is gone, however it went (also by SIGKILL): everything is
ended, then this process ends. It has its own session, so a Ctrl-C on the terminal reaches the parent only. It
starts children from its only thread: the kernel sends the parent-death signal when the *thread* that forked
ends, which in the parent, with its many threads, would be too early.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.5


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _parents() -> dict[int, int]:
    """Return the parent of every process."""
    parents = {}
    if sys.platform == "linux":
        for entry in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and this runs after every call
            if entry.isdigit():
                try:
                    stat = Path("/proc", entry, "stat").read_bytes()
                except OSError:
                    continue
                state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
                if state != b"Z":
                    parents[int(entry)] = int(parent)
    else:
        listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True, text=True)
        for line in listing.stdout.splitlines():
            pid, parent_pid = line.split()
            parents[int(pid)] = int(parent_pid)
    return parents


def descendants(root: int) -> set[int]:
    """Return all processes below `root`, without itself."""
    parents = _parents()
    found = {root}
    grew = True
    while grew:
        below = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        grew = bool(below)
        found |= below
    return found - {root}


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def kill_tree(root: int) -> None:
    """End `root` and everything below it; first stop all, so that nothing is started meanwhile."""
    stopped: set[int] = set()
    while True:
        found = {root} | descendants(root)
        if found <= stopped:
            break
        for pid in found - stopped:
            _signal(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


class Spawner:
    """The loop of the process; see the module."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._parent = os.getppid()

    def run(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._stop)
        pending = b""
        try:
            while os.getppid() == self._parent:
                ready, _, _ = select.select([0, wake_read], [], [], _POLL_S)
                if wake_read in ready:
                    os.read(wake_read, 4096)
                self._reap()
                if 0 in ready:
                    chunk = os.read(0, 65536)
                    if not chunk:
                        break
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._answer(json.loads(line))
        except BrokenPipeError:
            return
        finally:
            self._end_all()

    @staticmethod
    def _stop(*_: object) -> None:
        raise BrokenPipeError

    def _answer(self, command: dict[str, object]) -> None:
        answer: dict[str, object] = {"id": command["id"]}
        if command["op"] == "spawn":
            try:
                answer["pid"] = self._spawn(command)
            except OSError as error:
                answer["error"] = str(error)
        else:
            pid = int(str(command["pid"]))
            child = self._children.get(pid)
            if child is not None and command["op"] == "signal":
                _signal(pid, int(str(command["signal"])))
            elif child is not None:
                kill_tree(pid)
                child.wait()
                self._reap()
        _say(answer)

    def _spawn(self, command: dict[str, object]) -> int:
        argv, env = command["argv"], command["env"]
        if not isinstance(argv, list) or not isinstance(env, dict):
            raise OSError("a command without argv and env")
        with Path(str(command["log"])).open("ab", buffering=0) as log:
            child = subprocess.Popen(
                argv,
                cwd=str(command["cwd"]),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self._children[child.pid] = child
        return child.pid

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[pid]
                _say({"exit": pid, "code": code})
        while True:
            try:
                orphan = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if orphan is None or orphan.si_pid in self._children:
                return
            os.waitpid(orphan.si_pid, os.WNOHANG)

    def _end_all(self) -> None:
        for pid in list(self._children):
            kill_tree(pid)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            left = descendants(os.getpid())
            if not left:
                return
            for pid in left:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.005)


def _say(message: dict[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    try:
        Spawner().run()
    finally:
        for folder in sys.argv[1:]:
            shutil.rmtree(folder, ignore_errors=True)
