"""A long video in parts, under faults: processes killed at any request, requests put again meanwhile."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.deployment import Deployment
from structureflow.testing.faults import Faults, Rates
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.processes import Hostility, KilledError
from structureflow.testing.videos import texture
from tests.faults.promises import status_of
from tests.faults.scenes import TIMEOUTS_S
from tests.faults.test_named_cases import Moment
from tests.functional.parts import EXTRACTION, put_long_clip, small_parts
from tests.functional.test_job_parts import DOCUMENT

SHARES = 3
#: What segments do with their flows is shown elsewhere.
NO_SEGMENTS = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        small_parts(patched)
        yield


@functools.cache
def inputs() -> dict[str, bytes]:
    store = MemoryStorage()
    with tempfile.TemporaryDirectory() as folder:
        put_long_clip(store, Path(folder), frames=27)
    store.put("images/a.png", png(texture(96, 160, seed=1)))
    return {info.key: store.get(info.key).data for info in store.list("")}


@functools.cache
def expected() -> bytes:
    """The archive that one function writes."""
    store = MemoryStorage()
    for key, data in inputs().items():
        store.put(key, data)
    with tempfile.TemporaryDirectory() as folder:
        assert JobRunner(store, Path(folder)).run("t1", DOCUMENT).state == "done"
    return store.get(keys.job_flows("t1")).data


def deployment(folder: Path, hostility: Hostility | None = None, seed: int = 1) -> Deployment:
    found = Deployment(
        NO_SEGMENTS, TIMEOUTS_S, Faults(seed, Rates()), hostility or Hostility(), folder, extraction=EXTRACTION
    )
    for key, data in inputs().items():
        found.bucket.put(key, data)
    found.put_request("t1", DOCUMENT)
    return found


def has_its_flows(case: Deployment) -> None:
    """The job has the archive that one function writes, and no part of it is left."""
    status = status_of(case.bucket, "t1")
    assert status is not None
    assert status.state == "running", (status, case.history[-30:])
    assert case.bucket.get(keys.job_flows("t1")).data == expected()
    assert not [info.key for info in case.bucket.list("work/.parts/")]


@functools.cache
def moments() -> tuple[Moment, ...]:
    """Every request to the store until the segments start, in order."""
    found: list[Moment] = []
    with tempfile.TemporaryDirectory() as folder:
        case = deployment(Path(folder))
        case.at = lambda *moment: found.append(moment)
        case.run()
        has_its_flows(case)
    return tuple(
        moment for moment in dict.fromkeys(found) if moment[0].startswith(("Orchestrator", "ExtractPart", "JoinFlows"))
    )


def every_moment(share: int, folder: Path, act: Callable[[Deployment, Moment], None]) -> None:
    for moment in moments()[share::SHARES]:
        case = deployment(folder)

        def strike(*now: object, case: Deployment = case, moment: Moment = moment) -> None:
            if now == moment:
                case.at = lambda *_: None
                act(case, moment)

        case.at = strike
        try:
            case.run()
            has_its_flows(case)
        except BaseException as error:
            error.add_note(f"at {moment}")
            error.add_note("\n".join(case.history[-30:]))
            raise


def test_parts_make_enough_requests_to_be_worth_it() -> None:
    assert {function.partition(" ")[0] for function, *_ in moments()} == {"Orchestrator", "ExtractPart", "JoinFlows"}
    assert len(moments()) > 60


@pytest.mark.parametrize("share", range(SHARES))
def test_a_process_killed_at_any_request_runs_again_and_the_job_is_done(share: int, tmp_path: Path) -> None:
    def kill(case: Deployment, moment: Moment) -> None:
        raise KilledError("Runtime.ExitError", f"killed at {moment}")

    every_moment(share, tmp_path, kill)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_request_put_again_at_any_moment_gives_the_newer_runs_results(share: int, tmp_path: Path) -> None:
    """Two extractions of one video then run side by side, and neither's parts come into the other's archive."""

    every_moment(share, tmp_path, lambda case, _: case.put_request("t1", DOCUMENT))


@pytest.mark.parametrize("seed", range(8))
def test_parts_end_right_whatever_goes_wrong(seed: int, tmp_path: Path) -> None:
    """Killed, throttled, unheard, told twice: flows, or a typed failure; and flows once it is put again in peace."""
    hostility = Hostility(kill=0.02, again=0.4, late=0.3, between=0.02, throttle=0.1, unheard=0.05)
    case = deployment(tmp_path, hostility, seed)
    case.run()
    status = status_of(case.bucket, "t1")
    assert status is not None
    if status.state != "failed":
        has_its_flows(case)
    case.relieve()
    case.put_request("t1", DOCUMENT)
    case.run()
    has_its_flows(case)
