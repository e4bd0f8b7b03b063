"""What is going on in the local cloud, so that one can wait until nothing is."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator

from structureflow_local.cloud.errors import IdleTimeoutError


class Activity:
    """Counts work in progress: events on their way, calls, executions, tasks; may be used from several threads.

    Work that starts other work must begin it before it ends itself; then there is no moment of false idleness.
    """

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._running: dict[int, str] = {}
        self._changed = threading.Condition()

    def begin(self, what: str) -> int:
        """Note that `what` is under way; return the token for `end`."""
        token = next(self._tokens)
        with self._changed:
            self._running[token] = what
        return token

    def end(self, token: int) -> None:
        """Note that it is over; ending it twice is no error."""
        with self._changed:
            self._running.pop(token, None)
            if not self._running:
                self._changed.notify_all()

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Note `what` as under way inside the block."""
        token = self.begin(what)
        try:
            yield
        finally:
            self.end(token)

    def wait_idle(self, timeout_s: float) -> None:
        """Wait until nothing is under way.

        Raises:
            IdleTimeoutError: something still is after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._running:
                # Short waits, so that a Ctrl-C is noticed soon on every platform.
                left = deadline - time.monotonic()
                if left <= 0:
                    counts = Counter(self._running.values())
                    busy = ", ".join(f"{what} ({count})" for what, count in counts.items())
                    raise IdleTimeoutError(f"still busy after {timeout_s:g} s: {busy}")
                self._changed.wait(min(left, 0.5))
