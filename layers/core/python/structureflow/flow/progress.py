"""An engine that tells how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from structureflow.flow.engines import EngineName, Finish, FlowEngine, Frame

Result = TypeVar("Result")
#: Called as ``report(pairs_done, elapsed_s)``.
Report = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class ReportingEngine:
    """Runs `engine`, and reports after the first pair, then every `every_s` seconds, and at the end.

    Attributes:
        engine: does the work; flows and parameters are its own.
        report: gets the pairs that are done and the seconds since `run` began; called in the caller's thread.
        every_s: least time between two reports, but for the last.
        clock: tells seconds.
    """

    engine: FlowEngine
    report: Report
    every_s: float = 10.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @property
    def name(self) -> EngineName:
        """The engine's."""
        return self.engine.name

    @property
    def colour(self) -> Literal["gray", "rgb"]:
        """The engine's."""
        return self.engine.colour

    def params(self) -> dict[str, Any]:
        """Return the engine's parameters."""
        return self.engine.params()

    def run(self, frames: Iterable[Frame], finish: Finish[Result], *, workers: int) -> Iterator[Result]:
        """See `FlowEngine.run`."""
        begin = self.clock()
        due = begin
        done = reported = 0
        for done, result in enumerate(self.engine.run(frames, finish, workers=workers), 1):
            if self.clock() >= due:
                self.report(done, self.clock() - begin)
                reported, due = done, self.clock() + self.every_s
            yield result
        if done > reported:
            self.report(done, self.clock() - begin)
