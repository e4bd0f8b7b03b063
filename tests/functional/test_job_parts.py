"""A long video is extracted in parts: the job gets what one function would have made, or a typed error."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs import extract_part, join_flows
from structureflow.jobs.extraction_parts import load_plan
from structureflow.runtime.machine import StateFailedError
from structureflow.storage.local import LocalStorage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.videos import texture
from tests.functional.parts import FRAMES, VIDEO, PartsRunner, put_long_clip, small_parts


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)


@pytest.fixture(params=["memory", "folder"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> PartsRunner:
    storage = MemoryStorage() if request.param == "memory" else LocalStorage(tmp_path / "store")
    put_long_clip(storage, tmp_path)
    storage.put("images/a.png", png(texture(96, 160, seed=1)))
    return PartsRunner(storage, tmp_path)


DOCUMENT: dict[str, Any] = {
    "task_id": "t1",
    "structure_video": VIDEO,
    "quality": "fast",
    "segments": [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}],
}


def whole(runner: JobRunner, folder: Path) -> JobRunner:
    """Do the same job in one function, in a store of its own."""
    storage = MemoryStorage()
    for info in runner.storage.list(""):
        if info.key.startswith(("videos/", "images/")):
            storage.put(info.key, runner.storage.get(info.key).data)
    other = JobRunner(storage, folder)
    assert other.run("t1", DOCUMENT).state == "done"
    return other


def start(runner: PartsRunner) -> None:
    runner.put_request("t1", DOCUMENT)
    result = runner.orchestrate("t1")
    assert (result.state, result.error) == ("running", None)
    assert result.flows_key is None


def test_a_long_video_gets_the_archive_and_the_frames_of_one_extraction(runner: PartsRunner, tmp_path: Path) -> None:
    start(runner)
    ((_, payload),) = runner.starts
    assert payload["join"]["parts"] == [0, 1, 2, 3]
    assert payload["max_concurrency"] == runner.services.max_concurrent_parts
    assert runner.extract() is None
    assert runner.segments("t1").state == "done"
    other = whole(runner, tmp_path)
    # ETags, by which an archive names its video, are the store's own.
    same_store = isinstance(runner.storage, MemoryStorage)
    mine = {key for key in runner.keys("cache/") if same_store or not key.startswith("cache/flows/")}
    if same_store:
        assert mine == set(other.keys("cache/"))
        for key in sorted(mine - {key for key in mine if key.endswith("manifest.json")}):
            assert runner.storage.get(key).data == other.storage.get(key).data, key
    record = runner.record("t1")
    assert record.source.frames == FRAMES
    assert (record.flow_cache_hit, record.fallbacks, record.notices) == (False, (), ())
    assert not runner.keys("work/"), "what the parts left is removed"


def test_a_part_reads_its_own_bytes_and_nobody_the_whole_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structureflow.storage import ranged

    # each part looks at the file's beginning too, so parts are of some length here
    small_parts(monkeypatch, part=60)
    monkeypatch.setattr(ranged, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(ranged, "_AHEAD", 1)
    storage = MemoryStorage()
    put_long_clip(storage, tmp_path, frames=180, crf=1)
    storage.put("images/a.png", png(texture(96, 160, seed=1)))
    runner = PartsRunner(storage, tmp_path)
    size = storage.head(VIDEO).size_bytes
    read: list[int] = []
    get = storage.get

    def counted(key: str, **arguments: Any) -> Any:
        found = get(key, **arguments)
        if key == VIDEO:
            read.append(len(found.data))
        return found

    monkeypatch.setattr(storage, "get", counted)
    monkeypatch.setattr(storage, "get_to_file", lambda *_, **__: pytest.fail("the whole video was fetched"))
    start(runner)
    assert sum(read) < size / 2, "the plan is made of the index"
    read.clear()
    assert runner.extract() is None
    assert len(runner.parts_done()) == 3
    assert sum(read) < 2.5 * size


def test_a_part_that_dies_is_done_again_alone(runner: PartsRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed each time that its state tries it: the Map fails, JoinFlows finds the part missing, and it alone comes."""
    start(runner)
    deaths = iter(range(2))
    call = PartsRunner.invoke

    def invoke(self: PartsRunner, step: str, payload: Any) -> Any:
        if step == "ExtractPart" and payload["part"] == 2 and next(deaths, None) is not None:
            self.calls.append((step, payload))
            raise StateFailedError("Runtime.ExitError", "killed")
        return call(self, step, payload)

    monkeypatch.setattr(PartsRunner, "invoke", invoke)
    assert runner.extract() is None
    # after the failure, those that wait are not started
    assert runner.parts_done() == [0, 1, 2, 2, 2, 3]
    assert runner.segments("t1").state == "done"


def test_a_part_that_never_comes_fails_the_job_by_its_number(
    runner: PartsRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(runner)
    call = PartsRunner.invoke

    def invoke(self: PartsRunner, step: str, payload: Any) -> Any:
        if step == "ExtractPart" and payload["part"] == 1:
            raise StateFailedError("Runtime.OutOfMemory", "killed")
        return call(self, step, payload)

    monkeypatch.setattr(PartsRunner, "invoke", invoke)
    failure = runner.extract()
    assert failure is not None
    assert failure.error == "IncompleteJobError"
    status = runner.status("t1")
    assert status.error is not None
    assert (status.state, status.error.code, status.error.stage) == ("failed", "IncompleteJobError", "extract")
    assert "1" in status.error.message
    assert not runner.keys("work/")
    assert not runner.keys("cache/"), "frames that nobody commits are removed"


@pytest.mark.parametrize("damage", ["gone", "other bytes", "result gone", "result spoiled"])
def test_a_part_that_is_not_whole_is_done_again(
    runner: PartsRunner, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(runner)
    storage = runner.storage
    run = runner.status("t1").run_id
    call = PartsRunner.invoke
    struck: list[str] = []

    def invoke(self: PartsRunner, step: str, payload: Any) -> Any:
        if step == "JoinFlows" and not struck:
            (blocks,) = self.keys(f"{keys.parts_prefix(run)}001/blocks-")
            struck.append(blocks)
            if damage == "gone":
                storage.delete([blocks])
            elif damage == "other bytes":
                storage.put(blocks, bytes(storage.head(blocks).size_bytes))
            elif damage == "result gone":
                storage.delete([keys.parts_file(run, "result.json", 1)])
            else:
                storage.put(keys.parts_file(run, "result.json", 1), b"{}")
        return call(self, step, payload)

    monkeypatch.setattr(PartsRunner, "invoke", invoke)
    assert runner.extract() is None
    assert runner.parts_done() == [0, 1, 2, 3, 1]
    assert runner.counts["PartsRepeated"] == 1
    assert runner.segments("t1").state == "done"


def test_blocks_that_change_while_they_are_joined_are_done_again(
    runner: PartsRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(runner)
    storage = runner.storage
    look = join_flows._look
    struck: list[str] = []

    def looked(plan: Any, services: Any) -> Any:
        found = look(plan, services)
        if not struck and len(found) == 4:
            struck.append(found[3].blocks_key)
            storage.put(struck[0], b"x" * storage.head(struck[0]).size_bytes)
        return found

    monkeypatch.setattr(join_flows, "_look", looked)
    assert runner.extract() is None
    assert runner.parts_done() == [0, 1, 2, 3, 3]
    assert runner.segments("t1").state == "done"


def test_a_permanent_error_of_a_part_is_the_jobs(runner: PartsRunner) -> None:
    """The video is overwritten: the error is that of one extraction, and nothing is done again."""
    start(runner)
    runner.storage.put(VIDEO, runner.storage.get(VIDEO).data[:-1])
    failure = runner.extract()
    assert failure is not None
    assert failure.error == "InputChangedError"
    status = runner.status("t1")
    assert status.error is not None
    assert status.error.code == "InputChangedError"
    assert runner.parts_done() == [0]


def test_a_damaged_frame_is_named_by_its_number_in_the_whole(tmp_path: Path) -> None:
    storage = MemoryStorage()
    put_long_clip(storage, tmp_path)
    storage.put("images/a.png", png(texture(96, 160, seed=1)))
    data = bytearray(storage.get(VIDEO).data)
    data[-2500:] = bytes(2500)
    storage.put(VIDEO, bytes(data))
    runner = PartsRunner(storage, tmp_path)
    start(runner)
    failure = runner.extract()
    assert failure is not None
    other = JobRunner(storage, tmp_path)
    assert other.run("t2", {**DOCUMENT, "task_id": "t2"}).state == "failed"
    one, whole_error = runner.status("t1").error, other.status("t2").error
    assert one is not None
    assert whole_error is not None
    assert failure.error == one.code == whole_error.code == "CorruptMediaError"
    found = [re.findall(r"damaged at frame (\d+)", error.message) for error in (one, whole_error)]
    assert found[0] == found[1] != []


def test_a_video_that_has_no_parts_after_all_is_extracted_by_one_function(
    runner: PartsRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from structureflow.errors import VideoPartsError
    from structureflow.media.parts import PartReader

    start(runner)
    decoded = PartReader._decoded

    def unfit(self: PartReader) -> Any:
        if self.part.first == 16:
            raise VideoPartsError("long.mp4: frame 17 is interlaced")
        return decoded(self)

    monkeypatch.setattr(PartReader, "_decoded", unfit)
    assert runner.extract() is None
    record = runner.record("t1")
    (step,) = record.fallbacks
    assert (step.stage, step.wanted, step.used) == ("extract", "parts", "one function")
    assert "interlaced" in step.reason
    assert runner.segments("t1").state == "done"
    if isinstance(runner.storage, MemoryStorage):
        other = whole(runner, tmp_path)
        (key,) = runner.keys("cache/flows/")
        assert runner.storage.get(key).data == other.storage.get(key).data
    assert not runner.keys("work/")


def test_a_video_that_cannot_be_cut_is_extracted_at_once_and_says_so(tmp_path: Path) -> None:
    storage = MemoryStorage()
    put_long_clip(storage, tmp_path, gop=100)
    storage.put("images/a.png", png(texture(96, 160, seed=1)))
    runner = PartsRunner(storage, tmp_path)
    assert runner.run("t1", DOCUMENT).state == "done"
    assert not runner.starts
    (notice,) = runner.record("t1").notices
    assert "no key frame" in notice


def test_a_short_video_is_extracted_at_once_and_says_nothing(tmp_path: Path) -> None:
    storage = MemoryStorage()
    put_long_clip(storage, tmp_path, frames=12)
    storage.put("images/a.png", png(texture(96, 160, seed=1)))
    runner = PartsRunner(storage, tmp_path)
    assert runner.run("t1", DOCUMENT).state == "done"
    assert not runner.starts
    assert runner.record("t1").notices == ()


def test_a_second_delivery_of_the_request_starts_the_same_execution(runner: PartsRunner) -> None:
    start(runner)
    plan = load_plan(runner.storage, runner.status("t1").run_id)
    assert runner.orchestrate("t1").state == "running"
    (one, other) = runner.starts
    assert one[0] == other[0], "Step Functions takes a second start of that name for the first"
    assert json.dumps(one[1]) == json.dumps(other[1])
    assert load_plan(runner.storage, plan.order.run_id) == plan, "the first plan counts"


def test_a_join_that_is_told_twice_joins_once(runner: PartsRunner) -> None:
    start(runner)
    assert runner.extract() is None
    (key,) = runner.keys("cache/flows/")
    etag = runner.storage.head(key).etag
    (payload,) = [payload for step, payload in runner.calls if step == "JoinFlows"]
    state = runner.invoke("JoinFlows", payload)
    assert state["joined"]
    assert runner.storage.head(key).etag == etag
    assert runner.segments("t1").state == "done"
    assert runner.invoke("JoinFlows", payload)["joined"], "also when the job is done"


def test_a_run_that_was_superseded_leaves_the_job_alone(runner: PartsRunner) -> None:
    start(runner)
    runner.put_request("t1", {**DOCUMENT, "quality": "balanced"})
    runner.orchestrate("t1")
    old, new = runner.starts
    runner.starts.remove(new)
    failure = runner.extract()
    assert failure is not None
    assert failure.error == "SupersededRunError"
    assert runner.status("t1").state == "running"
    runner.starts.append(new)
    assert old[0] != new[0]
    assert runner.extract() is None
    assert runner.segments("t1").state == "done"
    assert not runner.keys("work/")


def test_a_store_that_takes_no_archive_starts_the_segments_all_the_same(
    runner: PartsRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from structureflow.errors import StorageError

    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("AccessDenied")

    start(runner)
    monkeypatch.setattr(runner.storage, "assemble", refuse)
    assert runner.extract() is None
    record = runner.record("t1")
    assert record.flows_key is None
    assert [step.stage for step in record.fallbacks] == ["store"]
    assert len(runner.started) == 1


def test_parts_whose_frames_cannot_be_kept_still_give_flows(
    runner: PartsRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from structureflow.errors import StorageError

    put = type(runner.storage).put

    def refuse(self: Any, key: str, *arguments: Any, **named: Any) -> Any:
        if "/frames/000012" in key:
            raise StorageError("AccessDenied")
        return put(self, key, *arguments, **named)

    start(runner)
    monkeypatch.setattr(type(runner.storage), "put", refuse)
    assert runner.extract() is None
    assert [step.stage for step in runner.record("t1").fallbacks] == ["frames"]
    assert not runner.keys("cache/timelines/")
    assert runner.segments("t1").state == "done"


def test_a_part_is_not_done_twice(runner: PartsRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    start(runner)
    payload = {"task_id": "t1", "run_id": runner.status("t1").run_id, "part": 1}
    first = runner.invoke("ExtractPart", payload)
    monkeypatch.setattr(extract_part, "extract_flows", lambda *_, **__: pytest.fail("extracted again"))
    assert runner.invoke("ExtractPart", payload) == first == {"part": 1, "flows": 8}


def test_a_part_that_has_no_time_says_so(runner: PartsRunner) -> None:
    from structureflow.jobs.deadline import Deadline

    start(runner)
    runner.services = dataclasses.replace(runner.services, deadline=Deadline(lambda: 1.0))
    failure = runner.extract()
    assert failure is not None
    assert failure.error == "DeadlineError"
