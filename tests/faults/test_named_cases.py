"""Faults by name, each at every moment at which it can strike one small job: where a seed may not come by, these do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from structureflow import keys
from structureflow.jobs import segment_files
from structureflow.limits import STOP_BEFORE_END_S
from structureflow.media.encode import EncoderSettings
from structureflow.testing.deployment import Deployment
from structureflow.testing.faults import Faults, Rates
from structureflow.testing.processes import Hostility, KilledError
from tests.faults.meddling import DAMAGE, Meddler, rot
from tests.faults.promises import Promises, is_typed, status_of
from tests.faults.scenes import DEFINITION, IMAGES, OTHER_VIDEO, TIMEOUTS_S, VIDEO, inputs, results_of
from tests.faults.test_whole_jobs import SEEDS

#: A request to the store: function and number, operation, key, how often that was asked by the process.
Moment = tuple[str, str, str, int]
#: So that the moments spread over processes.
SHARES = 5
#: CI takes every second moment of what seeds strike too; ``make faults SEEDS=2000`` takes all.
EVERY = 2 if SEEDS <= 200 else 1


@pytest.fixture(scope="module", autouse=True)
def same_bytes() -> Iterator[None]:
    """See `test_whole_jobs`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment_files, "GUIDE", EncoderSettings(17, "ultrafast"))
        yield


class Case:
    """One job, and one thing that goes wrong at one moment."""

    def __init__(self, folder: Path, job: str = "clip", *, gpu: bool = False, seed: int = 1) -> None:
        self.meddler = Meddler({"t1": job})
        self.promises = Promises(self.meddler)
        self.deployment = Deployment(DEFINITION, TIMEOUTS_S, Faults(seed, Rates()), Hostility(), folder, gpu=gpu)
        self.deployment.check = self.promises.at_any_moment
        for key, data in inputs().items():
            self.deployment.bucket.put(key, data)
        self.moments: list[Moment] = []
        self.deployment.at = lambda *moment: self.moments.append(moment)
        self.meddler.put(self.deployment, "t1", job)

    def at(self, moment: Moment, act: Callable[[], None]) -> None:
        """Do something at one moment, once."""

        def strike(*now: object) -> None:
            if now == moment:
                self.deployment.at = lambda *_: None
                act()

        self.deployment.at = strike

    def run(self, *, state: str | None = None) -> None:
        """Let the job end, in a state that is given or in any that may be."""
        self.deployment.run()
        self.promises.at_the_end(self.deployment)
        if state is not None:
            status = status_of(self.deployment.bucket, "t1")
            assert status is not None
            assert status.state == state, status

    def again(self, *, extracts: int | None = None) -> None:
        """Put the request again in peace: it ends as it would have, with so many extractions."""
        deployment = self.deployment
        before = deployment.counts.copy()
        self.meddler.restore(deployment)
        self.meddler.forged.clear()
        self.meddler.put(deployment, "t1", self.meddler.tasks["t1"])
        deployment.run()
        self.meddler.spoiled.clear()
        self.promises.at_any_moment(deployment)
        self.run(state="done")
        made = deployment.counts - before
        assert made["SegmentsRendered"] == len(results_of(deployment.bucket, "t1"))
        if extracts is not None:
            assert made["FlowCacheMisses"] == extracts


@functools.cache
def moments(job: str = "clip", *, gpu: bool = False) -> tuple[Moment, ...]:
    """Every request to the store of a job in peace, in order."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), job, gpu=gpu)
        case.run(state="done")
        return tuple(dict.fromkeys(case.moments))


def every_moment(share: int, folder: Path, act: Callable[[Case, Moment], None], *, every: int = 1) -> None:
    """Run the job once for each moment of a share; what fails says at which."""
    for moment in moments()[share::SHARES][::every]:
        case = Case(folder)
        try:
            act(case, moment)
        except BaseException as error:
            error.add_note(f"at {moment}")
            error.add_note("\n".join(case.deployment.history[-30:]))
            raise


def test_a_job_makes_enough_requests_to_be_worth_it() -> None:
    """The tests below are as good as this list is long."""
    functions = {function.partition(" ")[0] for function, *_ in moments()}
    assert functions == {"Orchestrator", "PlanSegments", "RenderSegment", "AssembleJob"}
    assert len(moments()) > 60


@pytest.mark.parametrize("share", range(SHARES))
def test_a_function_killed_at_any_request_runs_again_and_the_job_is_done(share: int, tmp_path: Path) -> None:
    def act(case: Case, moment: Moment) -> None:
        def kill() -> None:
            raise KilledError("Runtime.ExitError", f"killed at {moment}")

        case.at(moment, kill)
        case.run(state="done")
        assert any("killed at" in line for line in case.deployment.history)

    every_moment(share, tmp_path, act)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_request_put_again_at_any_moment_gives_one_runs_results(share: int, tmp_path: Path) -> None:
    def act(case: Case, moment: Moment) -> None:
        case.at(moment, lambda: case.meddler.put(case.deployment, "t1", "short"))
        case.run(state="done")
        assert len(results_of(case.deployment.bucket, "t1")) == 1

    every_moment(share, tmp_path, act, every=EVERY)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_job_deleted_at_any_moment_stays_deleted(share: int, tmp_path: Path) -> None:
    """Nothing of it comes back, but for a flow archive that was on its way."""

    def act(case: Case, moment: Moment) -> None:
        case.at(moment, lambda: case.meddler._delete_job(case.deployment, "t1"))
        case.run()
        left = {info.key for info in case.deployment.bucket.list("jobs/")}
        assert left <= {keys.job_flows("t1")}, left
        case.again()

    every_moment(share, tmp_path, act, every=EVERY)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_job_whose_request_is_deleted_at_any_moment_ends(share: int, tmp_path: Path) -> None:
    def act(case: Case, moment: Moment) -> None:
        case.at(moment, lambda: case.meddler._delete_request(case.deployment, "t1"))
        case.run()
        case.again()

    every_moment(share, tmp_path, act, every=EVERY)


@pytest.mark.parametrize("function", ["PlanSegments", "RenderSegment", "AssembleJob"])
def test_a_function_that_dies_each_time_fails_the_job_which_names_it(function: str, tmp_path: Path) -> None:
    case = Case(tmp_path)

    def kill(name: str, operation: str, *_: object) -> None:
        if name.startswith(function):
            raise KilledError("Runtime.OutOfMemory", f"killed before {operation}")

    case.deployment.at = kill
    case.run(state="failed")
    status = status_of(case.deployment.bucket, "t1")
    assert status is not None
    assert status.error is not None
    assert status.error.code == "Runtime.OutOfMemory"
    if function == "RenderSegment":
        segment = status.error.detail["segment"]
        assert status.error.message.startswith(f"segment {segment}: killed before")
    case.deployment.at = lambda *_: None
    case.again(extracts=0)


@pytest.mark.parametrize("operation", ["get", "get_to_file", "copy"])
def test_an_orchestrator_that_dies_each_time_fails_the_job(operation: str, tmp_path: Path) -> None:
    """At its first request, with the video, and between the record and the archive; its run leaves no files."""
    case = Case(tmp_path)

    def kill(name: str, doing: str, *_: object) -> None:
        if name.startswith("Orchestrator") and doing == operation:
            raise KilledError("Sandbox.Timedout", "its time is over")

    case.deployment.at = kill
    case.run(state="failed")
    assert case.deployment.counts["Orchestrator"] == 5
    assert not list(case.deployment.bucket.list(keys.runs_prefix("t1")))
    case.deployment.at = lambda *_: None
    case.again(extracts=0 if operation == "copy" else 1)


def test_a_gpu_task_killed_at_any_request_leaves_the_flows_to_dis(tmp_path: Path) -> None:
    for moment in moments("gpu", gpu=True):
        if not moment[0].startswith("GpuTask"):
            continue
        case = Case(tmp_path, "gpu", gpu=True)

        def kill(moment: Moment = moment) -> None:
            raise KilledError("Killed", f"killed at {moment}")

        case.at(moment, kill)
        case.run(state="done")
        results = results_of(case.deployment.bucket, "t1")
        assert {result.engine for result in results} in ({"dis"}, {"raft"})
        assert not list(case.deployment.bucket.list(keys.GPU_ORDERS_PREFIX))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", ["archive", "own archive", "frames", "frame manifest"])
def test_caches_damaged_before_the_segments_change_no_result(what: str, damage: str, tmp_path: Path) -> None:
    """Segments take the next source; what is rotten is taken away, and the next job has it whole again."""
    case = Case(tmp_path)

    def strike() -> None:
        prefixes = {
            "archive": "cache/flows/",
            "own archive": keys.job_flows("t1"),
            "frames": "cache/timelines/",
            "frame manifest": "cache/timelines/",
        }
        for info in list(case.deployment.bucket.list(prefixes[what])):
            if (what == "frames") is info.key.endswith(".jpg") or what in ("archive", "own archive"):
                case.meddler._damage(case.deployment, info.key, damage)

    case.at(next(moment for moment in moments() if moment[0].startswith("RenderSegment")), strike)
    case.run(state="done")
    case.again()
    case.again(extracts=0)
    assert {result.flow_source for result in results_of(case.deployment.bucket, "t1")} == {"cache"}


@pytest.mark.parametrize("damage", ["gone", "rotten", "replaced"])
@pytest.mark.parametrize("what", ["video", "image"])
def test_inputs_changed_before_the_segments_are_a_typed_error_or_not_needed(
    what: str, damage: str, tmp_path: Path
) -> None:
    """An image is read by each segment, the video only where caches are gone: never other bytes than were looked up."""
    case = Case(tmp_path)
    bucket = case.deployment.bucket
    key, other = (VIDEO, OTHER_VIDEO) if what == "video" else IMAGES

    def strike() -> None:
        if damage == "gone":
            bucket.delete([key])
        else:
            bucket.put(key, rot(bucket.get(key).data) if damage == "rotten" else inputs()[other])

    case.at(next(moment for moment in moments() if moment[0].startswith("RenderSegment")), strike)
    case.run(state="done" if what == "video" else "failed")
    status = status_of(bucket, "t1")
    assert status is not None
    if status.error is not None:
        assert status.error.code == ("InputNotFoundError" if damage == "gone" else "InputChangedError")
        assert status.error.message.startswith(f"segment {status.error.detail['segment']}: {key}")
    case.again(extracts=0)


RUN_FILES = {
    "record": "job.json",
    "claim": "claim.json",
    "result": "segments/001/result.json",
    "guide": "segments/001/guide.mp4",
    "manifest": "manifest.json",
    "report": "report.html",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", RUN_FILES)
def test_files_of_a_run_damaged_at_any_moment_never_reach_the_documented_keys(
    what: str, damage: str, tmp_path: Path
) -> None:
    """Between a step and the next one: the job is done with whole results, or failed with none."""
    relevant = [moment for moment in moments() if moment[0].startswith(("AssembleJob", "RenderSegment 2"))]
    for moment in relevant[:: EVERY * (2 if what == "guide" else 4)]:
        case = Case(tmp_path)

        def strike(case: Case = case) -> None:
            run = status_of(case.deployment.bucket, "t1")
            assert run is not None
            case.meddler._damage(case.deployment, keys.run_prefix("t1", run.run_id) + RUN_FILES[what], damage)

        case.at(moment, strike)
        try:
            case.run()
        except BaseException as error:
            error.add_note(f"at {moment}")
            raise
        status = status_of(case.deployment.bucket, "t1")
        assert status is not None
        assert status.error is None or is_typed(status.error.code)
        case.again(extracts=0)


@pytest.mark.parametrize("when", ["before it is claimed", "while it runs"])
def test_a_claim_that_nobody_can_read_keeps_no_job_open(when: str, tmp_path: Path) -> None:
    """FailJob knows runs by their claims; one that somebody spoiled is nobody's."""
    case = Case(tmp_path)
    bucket = case.deployment.bucket
    function = "PlanSegments" if when == "before it is claimed" else "RenderSegment"

    def spoil(name: str, *_: object) -> None:
        status = status_of(bucket, "t1")
        if not name.startswith(function) or status is None:
            return
        bucket.put(keys.run_claim("t1", status.run_id), b"{")
        if function == "RenderSegment":
            raise KilledError("Runtime.ExitError", "killed")

    case.meddler.forged.add("t1")
    case.deployment.at = spoil
    case.run(state="failed")
    case.deployment.at = lambda *_: None
    case.again(extracts=0)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_status_damaged_at_any_moment_leaves_a_typed_end_or_none(damage: str, tmp_path: Path) -> None:
    """Who takes the status away takes the job back; who spoils it gets a typed error, or the next run."""
    for moment in moments()[:: 4 * EVERY]:
        case = Case(tmp_path)
        case.at(moment, partial(case.meddler._damage, case.deployment, keys.job_status("t1"), damage))
        try:
            case.run()
            case.again()
        except BaseException as error:
            error.add_note(f"at {moment}")
            raise


def test_a_good_result_stays_while_a_worse_request_fails(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.run(state="done")
    bucket = case.deployment.bucket
    good = {info.key: info.etag for info in bucket.list(keys.segments_prefix("t1"))}
    bucket.delete([IMAGES[1]])
    case.meddler.put(case.deployment, "t1", "short")
    case.run(state="failed")
    assert {info.key: info.etag for info in bucket.list(keys.segments_prefix("t1"))} == good
    case.again(extracts=0)


@pytest.mark.parametrize(("function", "key"), [("Orchestrator", VIDEO), ("RenderSegment", "job.json")])
def test_time_that_runs_out_is_a_permanent_error_thirty_seconds_early(function: str, key: str, tmp_path: Path) -> None:
    case = Case(tmp_path)
    moment = next(moment for moment in moments() if moment[0] == f"{function} 1" and moment[2].endswith(key))
    case.at(moment, lambda: case.deployment.clock.sleep(TIMEOUTS_S[function] - STOP_BEFORE_END_S))
    case.run(state="failed")
    status = status_of(case.deployment.bucket, "t1")
    assert status is not None
    assert status.error is not None
    assert status.error.code == "DeadlineError"
    assert function != "RenderSegment" or status.error.message.startswith(f"segment {status.error.detail['segment']}: ")
    case.again()


@pytest.mark.parametrize("times", [1, 5, 60])
def test_throttled_calls_wait_and_the_job_is_done(times: int, tmp_path: Path) -> None:
    case = Case(tmp_path)
    chance, left = case.deployment.faults.chance, [times]

    def throttled(*what: object) -> float:
        if what[0] == "throttle" and "Segment" in str(what[1]) and left[0]:
            left[0] -= 1
            return -1.0
        return chance(*what)

    case.deployment.faults.chance = throttled  # type: ignore[method-assign]
    case.run(state="done")
    assert left == [0]
