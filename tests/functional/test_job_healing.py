"""What jobs share heals: whoever finds it rotten says so, has it replaced, and the next job uses it again."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.flow.archive import open_flow_archive
from structureflow.frames.cache import FrameCache
from structureflow.frames.repair import repair_frame
from structureflow.jobs.documents import load_record
from structureflow.jobs.healing import remove_rotten_flows
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.testing.jobs import JobRunner
from structureflow.testing.storage import Fault, FaultStorage


def record_of(runner: JobRunner, task_id: str) -> JobRecord:
    return load_record(runner.storage, task_id)


def results_of(runner: JobRunner, task_id: str) -> list[SegmentResult]:
    return [
        SegmentResult.model_validate_json(runner.storage.get(info.key).data)
        for info in runner.storage.list(f"jobs/{task_id}/segments/")
        if info.key.endswith("result.json")
    ]


def rot(data: bytes) -> bytes:
    """Return an archive with rotten bytes all over its blocks; the tables at its end stay as they are."""
    changed = bytearray(data)
    for position in range(len(data) // 20, len(data) * 3 // 4, 97):
        changed[position] ^= 0x55
    return bytes(changed)


def request(document: dict[str, Any], task_id: str) -> dict[str, Any]:
    return {**document, "task_id": task_id}


def test_a_rotten_archive_is_reported_replaced_and_used_again(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    assert runner.run("t1", request_document).state == "done"
    key = record_of(runner, "t1").flow_cache_key
    assert key is not None
    good = runner.storage.get(key).data
    runner.storage.put(key, rot(good))

    assert runner.run("t2", request(request_document, "t2")).state == "done"
    assert record_of(runner, "t2").flow_cache_hit
    struck = results_of(runner, "t2")
    assert {result.flow_source for result in struck} <= {"cache", "frames"}
    assert any(step.wanted == "cache" for result in struck for step in result.fallbacks)
    assert runner.counts["SharedDamaged"] >= 1
    assert runner.counts["SharedRepaired"] >= 1
    assert not runner.storage.exists(key)

    assert runner.run("t3", request(request_document, "t3")).state == "done"
    assert not record_of(runner, "t3").flow_cache_hit
    archive = open_flow_archive(runner.storage, key)
    assert np.isfinite(archive.read("forward", 0, archive.meta.total_flows)).all()

    assert runner.run("t4", request(request_document, "t4")).state == "done"
    assert record_of(runner, "t4").flow_cache_hit
    assert {result.flow_source for result in results_of(runner, "t4")} == {"cache"}


def test_a_job_whose_own_copy_is_rotten_leaves_the_shared_one(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    own = keys.job_flows("t1")
    runner.storage.put(own, rot(runner.storage.get(own).data))
    assert runner.segments("t1").state == "done"
    key = record_of(runner, "t1").flow_cache_key
    assert key is not None
    assert runner.storage.exists(key)
    assert runner.counts["SharedRepaired"] == 0


def test_a_flipped_bit_on_the_way_is_no_rot(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """Ranges come without a checksum of the store's: the part is read once more, and nothing is given up."""
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    size = runner.storage.head(keys.job_flows("t1")).size_bytes

    def flip(data: bytes) -> bytes:
        # Tables and directory come in small reads; a block is most of the archive.
        if len(data) < size // 4:
            return data
        return rot(data)

    store = FaultStorage(runner.storage)
    store.add(Fault("get", keys.job_flows("t1"), change=flip, times=1, skip=1))
    struck = JobRunner(store, tmp_path)
    assert struck.segments("t1").state == "done"
    for result in results_of(runner, "t1"):
        assert result.flow_source == "cache"
        assert result.fallbacks == ()


@pytest.mark.parametrize("gone", [True, False])
def test_a_rotten_frame_is_reported_replaced_and_used_again(
    runner: JobRunner, request_document: dict[str, Any], *, gone: bool
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    record = record_of(runner, "t1")
    cache = FrameCache(runner.storage)
    before = [frame.image for frame in cache.load_cached_frames(record.timeline_id)]
    frame = keys.timeline_frame(record.timeline_id, 4)
    if gone:
        runner.storage.delete([frame])
    else:
        runner.storage.put(frame, b"rotten")
    own = keys.job_flows("t1")
    runner.storage.put(own, rot(runner.storage.get(own).data))

    assert runner.segments("t1").state == "done"
    assert any(step.used == "video" for result in results_of(runner, "t1") for step in result.fallbacks)
    assert runner.counts["SharedDamaged"] >= 1
    assert runner.counts["SharedRepaired"] >= 1
    assert cache.check_cache(record.timeline_id).whole
    after = [frame.image for frame in cache.load_cached_frames(record.timeline_id)]
    for found, wanted in zip(after, before, strict=True):
        assert np.abs(found.astype(int) - wanted).mean() < 1


def test_frames_of_another_video_are_not_repaired_by_this_one(
    runner: JobRunner, request_document: dict[str, Any]
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    record = record_of(runner, "t1")
    cache = FrameCache(runner.storage)
    manifest = cache.manifest(record.timeline_id)
    other = np.zeros((96, 160, 3), np.uint8)
    other[:, 80:] = 255
    runner.storage.put(keys.timeline_frame(record.timeline_id, 4), b"rotten")
    with pytest.raises(Exception, match="is not the one that was cached"):
        repair_frame(runner.storage, manifest, 4, other)
    assert runner.storage.get(keys.timeline_frame(record.timeline_id, 4)).data == b"rotten"


def test_a_repair_gives_way_to_another_writer(runner: JobRunner, request_document: dict[str, Any]) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    timeline_id = record_of(runner, "t1").timeline_id
    cache = FrameCache(runner.storage)
    stale = cache.manifest(timeline_id)
    image = cache.load_cached_frames(timeline_id, [4])[0].image
    with cache.writer(timeline_id, quality=50, source_identity=stale.source_identity) as writer:
        for frame in range(stale.total):
            writer.add(frame, image, timestamp=0.0, chunk_id="source")
        writer.commit()
    assert not repair_frame(runner.storage, stale, 4, image)
    assert cache.manifest(timeline_id).quality == 50


def test_looking_whether_a_giant_archive_is_rotten_takes_no_more_memory_than_reading_it(runner: JobRunner) -> None:
    """A plain archive may have any grid; segments read it averaged down, some flows at a time, and so does a check."""
    buffer = io.BytesIO()
    flows = np.broadcast_to(np.float32(0), (24, 1200, 1600, 2))
    np.savez_compressed(buffer, flows=flows)
    key = keys.flow_cache("0" * 64)
    runner.storage.put(key, buffer.getvalue())
    tracemalloc.start()
    try:
        remove_rotten_flows(key, ("forward", 0, 24), runner.services)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert runner.storage.exists(key)
    assert flows.nbytes > 360e6
    assert peak < 260e6, peak
