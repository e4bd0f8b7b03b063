"""Jobs on an archive of flows that the request names: what is taken, what is refused, and what a rotten copy costs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow import keys
from structureflow.flow.archive import FlowArchiveWriter, open_flow_archive
from structureflow.jobs.documents import load_record
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.old_archives import format_1_archive
from structureflow.testing.videos import decode_rgb, texture

#: As many as the clip of the fixture has, which moves 2 px a frame: an archive that says otherwise shows who is read.
FLOWS, HEIGHT, WIDTH = 8, 48, 80
GIVEN = "archives/motion.npz"


def flows(dx: float) -> NDArray[np.float32]:
    field = np.zeros((FLOWS, HEIGHT, WIDTH, 2), np.float32)
    field[..., 0] = dx
    return field


def saved(save: Any = np.savez_compressed, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def seekable(forward: NDArray[np.float32], folder: Path, **meta: Any) -> bytes:
    path = folder / "ours.npz"
    with FlowArchiveWriter(path, height=HEIGHT, width=WIDTH) as writer:
        for field in forward:
            writer.feed(field, -field)
        said: dict[str, Any] = {
            "original_height": 96,
            "original_width": 160,
            "original_fps": 25.0,
            "engine": "raft",
            "engine_params": {"model": "raft_large"},
            "timestamps_s": np.arange(FLOWS + 1) / 25,
            "display_max_px": 4.0,
            "source_identity": "s3:of-another-copy:1",
        }
        writer.finish(**said | meta)
    return path.read_bytes()


def archive_of(kind: str, dx: float, folder: Path) -> bytes:
    forward = flows(dx)
    plain: dict[str, Any] = {"original_resolution": (160, 96)}
    match kind:
        case "format 2":
            return seekable(forward, folder)
        case "format 1":
            return format_1_archive(forward, -forward, scene_cuts=())
        case "savez":
            return saved(np.savez, flows=forward, flows_backward=-forward, **plain)
        case "original":
            # as the original design writes it: forward only, with its four facts
            facts = {
                "source_video": "https://files.example.com/a.mp4?sig=1",
                "total_flows": FLOWS,
                "original_fps": 25.0,
            }
            return saved(flows=forward, **facts, **plain)
        case "fortran":
            return saved(flows=np.asfortranarray(forward), **plain)
        case "float64":
            return saved(flows=forward.astype(np.float64), **plain)
    raise AssertionError(kind)


KINDS = ("format 2", "format 1", "savez", "original", "fortran", "float64")


def request(**fields: Any) -> dict[str, Any]:
    return {
        "task_id": "t1",
        "flow_cache": GIVEN,
        "treatment": "clip",
        "mask": "filled",
        "segments": [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}],
        **fields,
    }


def guide(runner: JobRunner, folder: Path) -> list[NDArray[np.float64]]:
    path = folder / "guide.mp4"
    runner.storage.get_to_file(keys.segment_file("t1", 0, "guide.mp4"), path)
    return [frame.astype(float) for frame in decode_rgb(path)]


def moved_px(frames: list[NDArray[np.float64]], steps: int = 3) -> int:
    """By how many pixels the first frame went to the right in so many steps, as it looks."""
    first, later = frames[0][16:-16], frames[steps][16:-16]
    return min(range(-16, 17), key=lambda by: np.abs(later[:, 24:-24] - np.roll(first, by, axis=1)[:, 24:-24]).mean())


def result_of(runner: JobRunner) -> SegmentResult:
    return SegmentResult.model_validate_json(runner.storage.get(keys.segment_file("t1", 0, "result.json")).data)


def record_of(runner: JobRunner) -> JobRecord:
    return load_record(runner.storage, "t1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_any_kind_is_the_motion(runner: JobRunner, tmp_path: Path, kind: str) -> None:
    """2 px of its grid are 4 px of the output; no video is named, and none is read."""
    given = archive_of(kind, 2.0, tmp_path)
    runner.storage.put(GIVEN, given)
    assert runner.run("t1", request()).state == "done"
    assert moved_px(guide(runner, tmp_path)) == 12
    result, record = result_of(runner), record_of(runner)
    assert (result.flow_source, result.fallbacks, result.tracking) == ("cache", (), "composed")
    assert record.flow_cache is not None
    assert record.flow_cache.reference == GIVEN
    assert record.source.frames == FLOWS + 1
    assert (record.source.width_px, record.source.height_px) == (160, 96)
    assert record.engine == ({"format 2": "raft", "format 1": "dis"}.get(kind, "unknown"))
    with np.load(io.BytesIO(runner.storage.get(keys.job_flows("t1")).data), allow_pickle=False) as written:
        np.testing.assert_array_equal(written["flows"], flows(2.0))
        assert written["flows"].dtype == np.float32
        assert str(written["source_etag"]) == record.flow_cache.identity
        assert "given" in json.loads(str(written["engine_params"]))
        assert "sig=1" not in str(written["source_video"])


def test_flows_are_taken_to_a_sixteenth_of_a_pixel(runner: JobRunner, tmp_path: Path) -> None:
    exact = np.random.default_rng(5).normal(0, 3, (FLOWS, HEIGHT, WIDTH, 2)).astype(np.float32)
    runner.storage.put(GIVEN, saved(flows=exact, flows_backward=-exact))
    assert runner.run("t1", request()).state == "done"
    archive = open_flow_archive(runner.storage, keys.job_flows("t1"))
    np.testing.assert_allclose(archive.read("forward", 0, FLOWS), exact, atol=1 / 32)
    np.testing.assert_allclose(archive.read("backward", 0, FLOWS), -exact, atol=1 / 32)


def test_an_archive_is_read_once_whatever_jobs_use_it(runner: JobRunner, tmp_path: Path) -> None:
    runner.storage.put(GIVEN, archive_of("original", 2.0, tmp_path))
    runner.run("t1", request())
    assert (runner.counts["FlowCacheMisses"], runner.counts["FlowCacheHits"]) == (1, 0)
    assert runner.run("t2", request(task_id="t2")).state == "done"
    assert (runner.counts["FlowCacheMisses"], runner.counts["FlowCacheHits"]) == (1, 1)
    assert len(runner.keys("cache/flows/")) == 1


def test_the_video_beside_an_archive_gives_the_frames(runner: JobRunner, tmp_path: Path) -> None:
    """Paths are looked at in them: flows of 1.9 px where the video moves by 2 are put right."""
    runner.storage.put(GIVEN, archive_of("original", 0.95, tmp_path))
    document = request(structure_video="videos/pan.mp4", outputs=["raw"], treatment="retime")
    assert runner.run("t1", document).state == "done"
    result, record = result_of(runner), record_of(runner)
    assert (result.tracking, result.fallbacks, record.fallbacks) == ("anchored", (), ())
    assert record.source.reference == "videos/pan.mp4"
    assert len(runner.keys(keys.timeline_frames_prefix(record.timeline_id))) == FLOWS + 1
    assert "raw" in result.outputs
    assert moved_px(guide(runner, tmp_path), 7) == 14


def test_the_originals_name_asks_for_the_originals_behaviour(runner: JobRunner, tmp_path: Path) -> None:
    runner.storage.put(GIVEN, archive_of("original", 2.0, tmp_path))
    document = {
        "orchestrator_task_id": "t1",
        "structure_video_path": "videos/pan.mp4",
        "structure_flow_cache_url": GIVEN,
        "images": ["images/a.png", "images/b.png"],
        "frames": 12,
        "overlap": 3,
        "fade": 2,
    }
    assert runner.run("t1", document).state == "done"
    result = result_of(runner)
    assert (result.treatment, result.anchors, result.mask) == ("adjust", "start", "keyframes")
    assert result.fallbacks == ()


# --- what is refused -----------------------------------------------------------------------------------------


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def bad_archive(kind: str, folder: Path) -> bytes:
    ours = archive_of("format 2", 2.0, folder)
    noise = np.random.default_rng(1).normal(0, 2, (FLOWS, HEIGHT, WIDTH, 2)).astype(np.float32)
    match kind:
        case "picture":
            return png(texture(32, 32, seed=1))
        case "cut short":
            return ours[: len(ours) // 2]
        case "flipped block":
            noisy = seekable(noise, folder)
            return flip(noisy, len(noisy) // 3)
        case "flipped plain":
            noisy = saved(flows=noise)
            return flip(noisy, len(noisy) // 3)
        case "newer version":
            return seekable_of_version(99, ours)
        case "not finite":
            noise[3, 5, 5, 0] = np.nan
            return saved(flows=noise)
        case "no flows":
            return saved(motion=noise)
        case "pickled":
            return saved(flows=np.array([{"a": 1}], dtype=object))
        case "whole numbers":
            return saved(flows=noise.astype(np.int16))
        case "another shape":
            return saved(flows=noise[..., 0])
        case "giant":
            return saved(flows=np.broadcast_to(np.float16(0), (2, 5000, 8, 2)))
    raise AssertionError(kind)


def seekable_of_version(version: int, archive: bytes) -> bytes:
    """The same archive with another number in its member ``format_version``, checksums set right."""
    source, out = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "format_version.npy":
                buffer = io.BytesIO()
                np.save(buffer, np.array(version, np.int64))
                data = buffer.getvalue()
            target.writestr(info.filename, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("picture", "FlowCacheFormatError"),
        ("cut short", "FlowCacheFormatError"),
        ("flipped block", "FlowCacheCorruptError"),
        ("flipped plain", "FlowCacheCorruptError"),
        ("newer version", "FlowCacheVersionError"),
        ("not finite", "FlowCacheFormatError"),
        ("no flows", "FlowCacheFormatError"),
        ("pickled", "FlowCacheFormatError"),
        ("whole numbers", "FlowCacheFormatError"),
        ("another shape", "FlowCacheFormatError"),
        ("giant", "FlowCacheLimitError"),
    ],
)
def test_a_bad_archive_ends_the_job_before_anything_starts(
    runner: JobRunner, tmp_path: Path, kind: str, code: str
) -> None:
    runner.storage.put(GIVEN, bad_archive(kind, tmp_path))
    status = runner.run("t1", request())
    assert status.state == "failed"
    assert status.error is not None
    assert (status.error.code, status.error.stage) == (code, "orchestrate")
    assert status.error.message.startswith("flow_cache: ")
    assert str(tmp_path) not in status.error.message
    assert runner.keys("cache/") == []
    assert runner.keys(keys.job_flows("t1")) == []
    assert list(tmp_path.glob("structureflow-*")) == []


def test_an_archive_that_is_not_there_is_said_by_name(runner: JobRunner) -> None:
    status = runner.run("t1", request())
    assert status.error is not None
    assert (status.error.code, status.error.detail["reference"]) == ("InputNotFoundError", GIVEN)


@pytest.mark.parametrize("frames", [8, 10])
def test_flows_of_another_video_are_refused(runner: JobRunner, tmp_path: Path, frames: int) -> None:
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, frames=frames)
    runner.storage.put(GIVEN, archive_of("original", 2.0, tmp_path))
    status = runner.run("t1", request(structure_video="videos/other.mp4"))
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert f"expected the {frames - 1} flows of the structure video's {frames} frames, got 8" in status.error.message
    assert runner.keys(keys.job_flows("t1")) == []


def test_flows_of_a_video_of_another_shape_are_refused(runner: JobRunner, tmp_path: Path) -> None:
    put_pan_clip(runner.storage, "videos/other.mp4", tmp_path, height=160, width=160)
    runner.storage.put(GIVEN, archive_of("original", 2.0, tmp_path))
    status = runner.run("t1", request(structure_video="videos/other.mp4"))
    assert status.error is not None
    assert "expected flows of 160x160, as the structure video has, got those of 160x96" in status.error.message


# --- what breaks later ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("video", [None, "videos/pan.mp4"])
def test_a_rotten_copy_is_made_good_by_the_archive_itself(runner: JobRunner, tmp_path: Path, video: str | None) -> None:
    runner.storage.put(GIVEN, archive_of("format 2", 2.0, tmp_path))
    extra = {} if video is None else {"structure_video": video, "tracking": "composed"}
    runner.put_request("t1", request(**extra))
    runner.orchestrate("t1")
    shared = record_of(runner).flow_cache_key
    assert shared is not None
    for key in (keys.job_flows("t1"), shared):
        runner.storage.put(key, b"rotten")
    assert runner.segments("t1").state == "done"
    result = result_of(runner)
    assert [(step.wanted, step.used) for step in result.fallbacks] == [("cache", "flow_cache")]
    assert moved_px(guide(runner, tmp_path)) == 12


def test_with_the_archive_gone_too_the_video_is_what_is_left(runner: JobRunner, tmp_path: Path) -> None:
    runner.storage.put(GIVEN, archive_of("format 2", 2.0, tmp_path))
    runner.put_request("t1", request(structure_video="videos/pan.mp4", tracking="composed"))
    runner.orchestrate("t1")
    runner.storage.delete([GIVEN, keys.job_flows("t1"), str(record_of(runner).flow_cache_key)])
    assert runner.segments("t1").state == "done"
    result = result_of(runner)
    assert [(step.wanted, step.used) for step in result.fallbacks] == [("flow_cache", "none"), ("cache", "frames")]
    assert moved_px(guide(runner, tmp_path)) == 6


def test_without_a_video_nothing_is_left_and_the_job_says_so(runner: JobRunner, tmp_path: Path) -> None:
    runner.storage.put(GIVEN, archive_of("format 2", 2.0, tmp_path))
    runner.put_request("t1", request())
    runner.orchestrate("t1")
    runner.storage.delete([GIVEN, keys.job_flows("t1"), str(record_of(runner).flow_cache_key)])
    status = runner.segments("t1")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "ObjectNotFoundError"
    assert runner.keys(keys.segments_prefix("t1")) == []
