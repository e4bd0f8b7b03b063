"""A clock of events, processes that wait by it, and what they wait for.

A process is a generator. It yields seconds, or something to wait for: a function that is given what to call when the
wait is over.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable

Resume = Callable[[], None]
Wait = Callable[[Resume], None]
Process = Generator[float | Wait]


class Loop:
    """Runs processes; `now` is the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, Resume]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, resume: Resume) -> None:
        """Call `resume` in so many seconds; at the same moment, in the order of asking."""
        heapq.heappush(self._waiting, (self.now + seconds, next(self._numbers), resume))

    def start(self, process: Process, done: Resume = lambda: None) -> None:
        """Begin a process; call `done` at its end."""

        def step() -> None:
            try:
                wait = next(process)
            except StopIteration:
                done()
                return
            if callable(wait):
                wait(step)
            else:
                self.after(wait, step)

        self.after(0.0, step)

    def run(self) -> None:
        """Run until nothing waits any more."""
        while self._waiting:
            self.now, _, resume = heapq.heappop(self._waiting)
            resume()

    def together(self, processes: Iterable[Process]) -> Wait:
        """Wait for the ends of processes that run side by side."""

        def wait(resume: Resume) -> None:
            begun = list(processes)
            left = len(begun)
            if not left:
                self.after(0.0, resume)
                return

            def one_done() -> None:
                nonlocal left
                left -= 1
                if not left:
                    resume()

            for process in begun:
                self.start(process, one_done)

        return wait


class Places:
    """So many at a time; who comes first is served first."""

    def __init__(self, loop: Loop, count: int) -> None:
        self._loop = loop
        self._free = count
        self._queue: deque[Resume] = deque()

    def take(self, resume: Resume) -> None:
        """Wait for a place."""
        if self._free:
            self._free -= 1
            self._loop.after(0.0, resume)
        else:
            self._queue.append(resume)

    def give_back(self) -> None:
        """Let the next one in."""
        if self._queue:
            self._loop.after(0.0, self._queue.popleft())
        else:
            self._free += 1


class Rate:
    """So many a second, and `burst` at once: a bucket of tokens."""

    def __init__(self, loop: Loop, per_s: float, burst: float) -> None:
        self._loop = loop
        self._per_s = per_s
        self._burst_s = burst / per_s
        self._filled_at = -self._burst_s

    def take(self, count: int = 1) -> Wait:
        """Wait until `count` more may be had."""

        def wait(resume: Resume) -> None:
            self._filled_at = max(self._filled_at, self._loop.now - self._burst_s) + count / self._per_s
            self._loop.after(max(0.0, self._filled_at - self._loop.now), resume)

        return wait


class Cores:
    """Processors that work is shared over: each piece gets its share, and at most what it can use."""

    def __init__(self, loop: Loop, count: float) -> None:
        self._loop = loop
        self._count = count
        self._left: dict[int, tuple[float, float, Resume]] = {}
        self._numbers = itertools.count()
        self._since = 0.0
        self._version = 0

    def work(self, core_s: float, most: float = 1.0) -> Wait:
        """Wait until `core_s` seconds of one core are done, on at most so many at a time."""

        def wait(resume: Resume) -> None:
            self._advance()
            self._left[next(self._numbers)] = (core_s, most, resume)
            self._plan()

        return wait

    def _rate(self, most: float) -> float:
        return min(most, self._count / len(self._left))

    def _advance(self) -> None:
        """Do what was done since the last look."""
        passed_s, self._since = self._loop.now - self._since, self._loop.now
        done = {
            number: (left_s - passed_s * self._rate(most), most, resume)
            for number, (left_s, most, resume) in self._left.items()
        }
        over = [number for number, (left_s, _, _) in done.items() if left_s <= 1e-9]
        self._left = {number: piece for number, piece in done.items() if number not in over}
        for number in over:
            done[number][2]()

    def _plan(self) -> None:
        """Look again when the next piece is done, unless something changes before."""
        self._version += 1
        version = self._version
        if not self._left:
            return

        def look() -> None:
            if version == self._version:
                self._advance()
                self._plan()

        self._loop.after(min(left_s / self._rate(most) for left_s, most, _ in self._left.values()), look)
