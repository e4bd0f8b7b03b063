"""Whole jobs under faults by seed: as in peace, or a typed failure; and whole once the request is put again.

``make faults SEEDS=2000`` runs more of them, ``make faults SEED=17`` one of them, whose history it prints.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from structureflow.jobs import segment_files
from structureflow.media.encode import EncoderSettings
from structureflow.testing.deployment import Deployment
from structureflow.testing.faults import Faults, Rates
from structureflow.testing.processes import Hostility
from tests.faults.meddling import Meddler
from tests.faults.promises import Promises, status_of
from tests.faults.scenes import DEFINITION, JOBS, TIMEOUTS_S, inputs

SEEDS = int(os.environ.get("JOB_SEEDS") or 200)
ONE = os.environ.get("SEED")
#: So that the seeds spread over processes.
SHARES = 10


@dataclass(frozen=True)
class Kind:
    """What goes wrong in a kind of runs."""

    rates: Rates = field(default_factory=Rates)
    hostility: Hostility = field(default_factory=Hostility)
    gpu: bool = False


STORE = Rates(error=0.015, lost=0.01, flip=0.02, truncate=0.01, delay=0.05)
EVENTS = Hostility(again=0.5, late=0.5, between=0.03)
KINDS: dict[str, Kind] = {
    "events": Kind(hostility=Hostility(again=0.8, late=0.4, between=0.1)),
    "kills": Kind(hostility=Hostility(kill=0.015, again=0.2)),
    "store": Kind(rates=STORE),
    "meddling": Kind(hostility=Hostility(meddle=0.012)),
    "slow": Kind(rates=Rates(delay=0.06, delay_s=400), hostility=Hostility(again=0.2)),
    "calls": Kind(hostility=Hostility(throttle=0.3, unheard=0.2, again=0.2)),
    "gpu": Kind(hostility=Hostility(kill=0.02, again=0.3, no_gpu=0.2, between=0.03), gpu=True),
    "all": Kind(
        rates=STORE,
        hostility=Hostility(
            kill=0.006, again=0.3, late=0.3, between=0.03, throttle=0.05, unheard=0.05, no_gpu=0.2, meddle=0.005
        ),
        gpu=True,
    ),
}


class Run:
    """One seed: jobs, what goes wrong, and what must hold all the same."""

    def __init__(self, seed: int, folder: Path) -> None:
        source = random.Random(seed)
        name, kind = list(KINDS.items())[seed % len(KINDS)]
        self.kind = name
        jobs = [job for job in JOBS if kind.gpu or job != "gpu"]
        chosen = ["gpu" if name == "gpu" else source.choice(jobs), *source.sample(jobs, source.randrange(2))]
        self.meddler = Meddler({f"t{number}": "" for number in range(1, len(chosen) + 1)})
        self.deployment = Deployment(
            DEFINITION, TIMEOUTS_S, Faults(seed, kind.rates), kind.hostility, folder, gpu=kind.gpu
        )
        self.promises = Promises(self.meddler)
        self.deployment.meddle = self.meddler
        self.deployment.check = self.promises.at_any_moment
        for key, data in inputs().items():
            self.deployment.bucket.put(key, data)
        for task_id, job in zip(self.meddler.tasks, chosen, strict=True):
            self.meddler.put(self.deployment, task_id, job)

    def whole(self) -> None:
        """Let everything happen, then put every request again, twice, in peace."""
        deployment, meddler = self.deployment, self.meddler
        deployment.run()
        self.promises.at_the_end(deployment)
        deployment.note("--- in peace")
        deployment.relieve()
        meddler.restore(deployment)
        for _ in range(2):
            self.again()

    def again(self) -> None:
        """Put every request again, and expect it done, with no more work than is missing."""
        deployment, meddler = self.deployment, self.meddler
        for task_id, job in list(meddler.tasks.items()):
            before = deployment.counts.copy()
            cached = {info.key: info.etag for info in deployment.bucket.list("cache/flows/")}
            meddler.forged.discard(task_id)
            meddler.put(deployment, task_id, job)
            deployment.run()
            meddler.spoiled.discard(task_id)
            self.promises.at_any_moment(deployment)
            status = status_of(deployment.bucket, task_id)
            assert status is not None
            assert (status.state, status.published) == ("done", status.run_id), status
            self.promises.same_as_in_peace(deployment.bucket, task_id)
            made = deployment.counts - before
            assert made["SegmentsRendered"] == status.segments == made["RenderSegment"], made
            assert made["Orchestrator"] == made["AssembleJob"] == 1, made
            if made["FlowCacheHits"]:
                after = {info.key: info.etag for info in deployment.bucket.list("cache/flows/")}
                assert after.items() <= cached.items(), "flows that were there were made again"
        meddler.spoiled_caches = False


@pytest.fixture(scope="module", autouse=True)
def same_bytes() -> Iterator[None]:
    """x264's trees look at memory that nobody wrote, so the same frames may become other bytes; without, never."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment_files, "GUIDE", EncoderSettings(17, "ultrafast"))
        yield


def run_seed(seed: int, folder: Path) -> Run:
    """Run a seed; a failure says how to have it again, and what happened before."""
    run = Run(seed, folder)
    try:
        run.whole()
    except BaseException as error:
        error.add_note(f"seed {seed} ({run.kind}); again, with its history: make faults SEED={seed}")
        error.add_note("\n".join(run.deployment.history[-30:] if ONE is None else run.deployment.history))
        raise
    return run


@pytest.mark.skipif(ONE is not None, reason="one seed is asked for")
@pytest.mark.parametrize("share", range(SHARES))
def test_jobs_under_faults_end_as_in_peace_or_say_why(share: int, tmp_path: Path) -> None:
    for seed in range(share, SEEDS, SHARES):
        run_seed(seed, tmp_path)


@pytest.mark.skipif(ONE is None, reason="no seed is asked for")
def test_one_seed(tmp_path: Path) -> None:
    run = run_seed(int(ONE or 0), tmp_path)
    print("\n".join(run.deployment.history))


def test_a_seed_is_the_same_each_time(tmp_path: Path) -> None:
    """What happens follows from the seed; so a failure can be had again."""
    seed = list(KINDS).index("all") + 3 * len(KINDS)
    first, second = (run_seed(seed, tmp_path).deployment.history for _ in range(2))
    assert first == second
    assert len(first) > 20
