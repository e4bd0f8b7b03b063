"""AWS as jobs meet it: calls of functions, executions, requests to S3, by quotas; what they cost is added up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from bench.simulation.loop import Cores, Loop, Places, Process, Rate, Wait
from structureflow.limits import MB_PER_VCPU, NEW_ACCOUNT_MEMORY_MB, TIME_RESERVE
from structureflow.models.cost import PRICES


@dataclass(frozen=True, slots=True)
class Quotas:
    """Of an account and region; the defaults are those of a used account in us-east-1 (AWS's documents, 2026-11).

    Attributes:
        concurrency: functions at the same time.
        cold_starts_per_s, cold_starts_burst: further sandboxes of one function (Lambda: 1,000 each 10 s).
        executions_per_s, executions_burst: new executions, children of Distributed Maps among them (1,000 each 10 s).
        children: of one Distributed Map at the same time.
        writes_per_s: PUTs under one prefix.
        reads_per_s: GETs under one prefix.
        function_bytes_per_s: of a function's network (625 Mbps).
        jobs_at_once: `MaxConcurrentJobs` of the stack.
        segments_at_once: `MaxConcurrentSegments` of the stack, for jobs of many segments.
        memory_mb: of the functions with pixels.
        cores: that all functions share; None where each has its own, as on AWS.
        slowness: seconds for what was measured as one.
    """

    concurrency: int = 1_000
    cold_starts_per_s: float = 100.0
    cold_starts_burst: float = 1_000.0
    executions_per_s: float = 100.0
    executions_burst: float = 1_000.0
    children: int = 10_000
    writes_per_s: float = 3_500.0
    reads_per_s: float = 5_500.0
    function_bytes_per_s: float = 625e6 / 8
    jobs_at_once: int = 100
    segments_at_once: int = 1_000
    memory_mb: int = NEW_ACCOUNT_MEMORY_MB
    cores: float | None = None
    slowness: float = TIME_RESERVE

    @property
    def processors(self) -> float:
        """Of one function."""
        return self.memory_mb / MB_PER_VCPU


#: Seconds. A request to S3 on a warm connection, and an event's way, are of AWS's documents and users' reports; cold
#: starts are the imports that `bench.cold` measured, at half the speed, and the start of a sandbox.
REQUEST_S: Final = 0.03
EVENT_S: Final = 0.5
TRANSITION_S: Final = 0.05
WARM_S: Final = 0.02
COLD_S: Final = {"image": 2.5, "zip": 1.2}


@dataclass
class Used:
    """What was used; `usd` is its price."""

    gb_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    def usd(self) -> float:
        """Return US dollars by list prices, without storage."""
        count = self.counts
        return (
            self.gb_s * PRICES.lambda_gb_second_x86_64
            + count["calls"] * PRICES.lambda_request
            + count["writes"] * (PRICES.s3_write + PRICES.event)
            + count["reads"] * PRICES.s3_read
            + count["transitions"] * PRICES.state_transition
        )


class Cloud:
    """The services of one account."""

    def __init__(self, loop: Loop, quotas: Quotas) -> None:
        self.loop = loop
        self.quotas = quotas
        self.used = Used()
        self.functions = Places(loop, quotas.concurrency)
        self.orchestrators = Places(loop, quotas.jobs_at_once)
        self.executions = Rate(loop, quotas.executions_per_s, quotas.executions_burst)
        self._cores = None if quotas.cores is None else Cores(loop, quotas.cores)
        self._warm: Counter[str] = Counter()
        self._cold: dict[str, Rate] = {}

    def call(self, function: str, work: Process, *, memory_mb: int, kind: str) -> Process:
        """Call a function: wait for a place and a sandbox, then do its work."""
        yield self.functions.take
        if self._warm[function]:
            self._warm[function] -= 1
            yield WARM_S
        else:
            rate = self._cold.setdefault(
                function, Rate(self.loop, self.quotas.cold_starts_per_s, self.quotas.cold_starts_burst)
            )
            yield rate.take()
            yield COLD_S[kind]
        began = self.loop.now
        yield from work
        self.used.gb_s += (self.loop.now - began) * memory_mb / 1024
        self.used.counts["calls"] += 1
        self._warm[function] += 1
        self.functions.give_back()

    def compute(self, core_s: float, threads: float) -> Wait:
        """Wait for work that was measured as `core_s` seconds of a core, on as many threads as there are or it has."""
        core_s *= self.quotas.slowness
        most = min(threads, self.quotas.processors)
        if self._cores is not None:
            return self._cores.work(core_s, most)
        return lambda resume: self.loop.after(core_s / most, resume)

    def transfer(self, count_bytes: float) -> float:
        """Return the seconds that one function takes to read or write bytes."""
        return REQUEST_S + count_bytes / self.quotas.function_bytes_per_s

    def small_requests(self, *, writes: int = 0, reads: int = 0, at_once: int = 16) -> float:
        """Return the seconds that small requests take, so many in flight; they are counted."""
        self.used.counts["writes"] += writes
        self.used.counts["reads"] += reads
        return REQUEST_S * -(-(writes + reads) // at_once)
