"""Two runs of one job at once, step by step in any order: one run's results, the newest one's, never a mix."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.jobs import segment_files
from structureflow.jobs.documents import read_status
from structureflow.media.encode import EncoderSettings
from structureflow.models.results import JobStatus, Manifest
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.interleave import Chances, World
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture

#: Seeds of each kind; more by the environment, as `make faults` does.
SEEDS = int(os.environ.get("INTERLEAVINGS", "500"))
#: Of these seeds each test takes a share, so that they spread over processes.
SHARES = 10
TASK = "t1"
DEFINITION = json.loads((Path(__file__).resolve().parents[2] / "statemachines" / "segments.asl.json").read_text())


def request(*frames: int, image: str) -> dict[str, Any]:
    guides = [{"at": 0, "image": image}]
    return {
        "task_id": TASK,
        "structure_video": "pan.mp4",
        "treatment": "clip",
        "segments": [{"frames": count, "guides": guides} for count in frames],
    }


LONG, SHORT = request(3, 2, image="a.png"), request(4, image="b.png")


@dataclass(frozen=True)
class Base:
    """A store with inputs and caches, and what each request makes when nothing disturbs it: ETags by key."""

    storage: MemoryStorage
    long: dict[str, str]
    short: dict[str, str]

    def fork(self) -> MemoryStorage:
        copied = MemoryStorage()
        for info in self.storage.list(""):
            copied.put(info.key, self.storage.get(info.key).data)
        return copied


def videos(storage: Storage) -> dict[str, str]:
    """ETag of every published video."""
    return {info.key: info.etag for info in storage.list(keys.segments_prefix(TASK)) if info.key.endswith(".mp4")}


@pytest.fixture(scope="module", autouse=True)
def same_bytes() -> Iterator[None]:
    """x264's trees look at memory that nobody wrote, so the same frames may become other bytes; without, never."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segment_files, "GUIDE", EncoderSettings(17, "ultrafast"))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, same_bytes: None) -> Base:
    folder = tmp_path_factory.mktemp("base")
    storage = MemoryStorage()
    runner = JobRunner(storage, folder)
    put_pan_clip(storage, "pan.mp4", folder, frames=4, height=32, width=48)
    for name, seed in (("a.png", 1), ("b.png", 2)):
        storage.put(name, png(texture(32, 48, seed=seed)))
    made = []
    for document in (LONG, SHORT):
        assert runner.run(TASK, document).state == "done"
        made.append(videos(storage))
    storage.delete(runner.keys("jobs/"))
    assert len(made[0]) == 4
    assert len(made[1]) == 2
    return Base(storage, *made)


def check_published(storage: Storage) -> None:
    """At any moment: what the manifest lists is there as listed, but while somebody is publishing."""
    status = read_status(storage, TASK)
    if status is None or status.publishing is not None or not storage.exists(keys.job_manifest(TASK)):
        return
    manifest = Manifest.model_validate_json(storage.get(keys.job_manifest(TASK)).data)
    assert manifest.run_id == status.published
    listed = {one.key: one.etag for result in manifest.segments for one in result.outputs.values()}
    assert videos(storage) == listed
    assert manifest.report is not None
    assert storage.head(manifest.report.key).etag == manifest.report.etag


def whole_results(storage: Storage) -> dict[str, str]:
    """What is published, after every document was found to be of one run; empty where nothing is."""
    check_published(storage)
    status = read_status(storage, TASK)
    assert status is not None
    assert status.publishing is None
    if status.published is None:
        assert [info.key for info in storage.list(keys.segments_prefix(TASK))] == []
        assert not storage.exists(keys.job_manifest(TASK))
        return {}
    results = [info.key for info in storage.list(keys.segments_prefix(TASK)) if info.key.endswith(".json")]
    for key in [*results, keys.job_manifest(TASK), keys.job_record(TASK)]:
        assert json.loads(storage.get(key).data)["run_id"] == status.published, key
    return videos(storage)


def outcome(world: World) -> tuple[JobStatus, dict[str, str]]:
    status = read_status(world.storage, TASK)
    assert status is not None
    assert status.state != "running"
    return status, whole_results(world.storage)


def check_tidy(storage: Storage) -> None:
    """Of all runs, nothing is left but the claim and the record of the one that was published."""
    run = read_status(storage, TASK)
    assert run is not None
    assert [info.key for info in storage.list(keys.runs_prefix(TASK))] == [
        keys.run_claim(TASK, run.run_id),
        keys.run_record(TASK, run.run_id),
    ]


def newest(base: Base, storage: Storage) -> dict[str, str]:
    return base.short if json.loads(storage.get(keys.job_request(TASK)).data) == SHORT else base.long


def every_seed(share: int, run: Callable[[int], None]) -> None:
    for seed in range(share, SEEDS, SHARES):
        try:
            run(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("share", range(SHARES))
def test_the_newest_of_two_runs_is_what_stays(base: Base, tmp_path: Path, share: int) -> None:
    """A long job is replaced by a short one at any moment; every event may come again, at any later one."""

    def run(seed: int) -> None:
        world = World(seed, tmp_path, DEFINITION, Chances(again=0.2), check_published, base.fork())
        world.put_request(TASK, LONG)
        world.put_request(TASK, SHORT)
        world.run()
        status, published = outcome(world)
        assert (status.state, status.published) == ("done", status.run_id)
        assert published == newest(base, world.storage)
        check_tidy(world.storage)

    every_seed(share, run)


@pytest.mark.parametrize("share", range(SHARES))
def test_steps_that_die_leave_whole_results_or_none(base: Base, tmp_path: Path, share: int) -> None:
    """As above, and any function may be gone before any request that it makes; the next request makes it all good."""

    def run(seed: int) -> None:
        world = World(seed, tmp_path, DEFINITION, Chances(again=0.1, kill=0.01), check_published, base.fork())
        world.put_request(TASK, LONG)
        world.put_request(TASK, SHORT)
        world.run()
        status, published = outcome(world)
        assert published in ({}, base.long, base.short)
        if status.state == "done":
            assert published == newest(base, world.storage)
        else:
            assert status.error is not None
        world.chances = Chances()
        world.put_request(TASK, LONG)
        world.run()
        status, published = outcome(world)
        assert (status.state, published) == ("done", base.long)
        check_tidy(world.storage)

    every_seed(share, run)
