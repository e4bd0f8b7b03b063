"""Runs of the model: one job, many jobs."""

from __future__ import annotations

from dataclasses import dataclass

from bench.simulation.cloud import Cloud, Quotas, Used
from bench.simulation.job import Job, Outcome, Work
from bench.simulation.loop import Loop, Process


@dataclass(frozen=True, slots=True)
class Crowd:
    """What became of many jobs: their outcomes in the order of their requests, and what all used."""

    outcomes: tuple[Outcome, ...]
    used: Used
    took_s: float

    def share(self, share: float) -> float:
        """Return the seconds within which so large a share of the jobs was done."""
        done = sorted(outcome.done_s for outcome in self.outcomes)
        return done[min(len(done) - 1, int(share * len(done)))]


def one(work: Work, quotas: Quotas) -> tuple[Outcome, Used]:
    """Run one job alone."""
    crowd = many(work, quotas, jobs=1, within_s=0.0)
    return crowd.outcomes[0], crowd.used


def many(work: Work, quotas: Quotas, *, jobs: int, within_s: float, segment_s: float | None = None) -> Crowd:
    """Run jobs that are put at even distances within so many seconds.

    Args:
        segment_s: seconds of one core for a segment, in place of the estimate.
    """
    loop = Loop()
    cloud = Cloud(loop, quotas)
    begun = [Job(cloud, work, segment_s=segment_s) for _ in range(jobs)]

    def put(number: int, job: Job) -> Process:
        yield within_s * number / jobs
        yield from job.run()

    for number, job in enumerate(begun):
        loop.start(put(number, job))
    loop.run()
    return Crowd(tuple(job.outcome for job in begun), cloud.used, loop.now)
