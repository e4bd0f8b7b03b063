"""Guide videos and folders that a job cannot use: the error names what the request names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import InvalidRequestError, StorageError
from structureflow.jobs import guides as guides_module
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.media.decode import VideoReader
from structureflow.storage.base import Storage
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png
from structureflow.testing.storage import CountingStorage, Fault, FaultStorage
from structureflow.testing.videos import Image, decode_rgb
from structureflow_local.client import JobClient, check_target


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(b"no video", "NotAVideoError", "expected a video"), (b"", "MediaLimitError", "empty")],
)
def test_a_guide_video_that_is_none_fails_by_the_name_that_the_request_gives(
    runner: JobRunner, request_document: dict[str, Any], content: bytes, code: str, said: str
) -> None:
    runner.storage.put("videos/bad.mp4", content)
    document = {name: request_document[name] for name in ("task_id", "structure_video")}
    status = runner.run(
        "t1", {**document, "segments": [{"frames": 9, "guides": [{"at": [0, 3], "video": "videos/bad.mp4"}]}]}
    )
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == code
    assert "videos/bad.mp4: " in status.error.message
    assert said in status.error.message
    assert runner.keys("jobs/t1/segments/") == runner.keys("jobs/t1/runs/") == []


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidRequestError, match="cannot be made"):
        check_target(tmp_path / "file" / "out")


def put_job(storage: MemoryStorage, **files: bytes) -> None:
    """Put a job's folder; names with a double underscore for a slash and a single one for the dot."""
    storage.delete([info.key for info in storage.list("jobs/t1/")])
    for name, data in files.items():
        storage.put("jobs/t1/" + name.replace("__", "/").replace("_", "."), data)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_download_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    storage, out = MemoryStorage(), tmp_path / "deep" / "out"
    put_job(storage, status_json=b"1", manifest_json=b"1", segments__000__guide_mp4=b"1", segments__001__guide_mp4=b"1")
    files = JobClient(storage).fetch("t1", out)
    assert files == sorted(out.rglob("*.*"))
    (out / "notes.txt").write_bytes(b"mine")
    (out / "segments" / "000" / "mine.png").write_bytes(b"mine")
    put_job(storage, status_json=b"2", manifest_json=b"2", segments__000__guide_mp4=b"2")
    JobClient(storage).fetch("t1", out)
    assert tree(out) == {
        "status.json": b"2",
        "manifest.json": b"2",
        "segments/000/guide.mp4": b"2",
        "notes.txt": b"mine",
        "segments/000/mine.png": b"mine",
    }
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_download_that_breaks_off_leaves_the_earlier_one(tmp_path: Path) -> None:
    storage, out = MemoryStorage(), tmp_path / "out"
    put_job(storage, status_json=b"1", manifest_json=b"1", segments__000__guide_mp4=b"1")
    JobClient(storage).fetch("t1", out)
    before = tree(out)
    put_job(storage, status_json=b"2", manifest_json=b"2", segments__000__guide_mp4=b"2")
    broken = FaultStorage(storage, Fault("get_to_file", "jobs/t1/status.json", error=StorageError("no answer")))
    with pytest.raises(StorageError, match="no answer"):
        JobClient(broken).fetch("t1", out)
    assert tree(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_that_no_job_made_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-job.json").write_bytes(b"mine")
    storage = MemoryStorage()
    put_job(storage, status_json=b"1")
    with pytest.raises(InvalidRequestError, match="empty folder"):
        JobClient(storage).fetch("t1", tmp_path)
    assert tree(tmp_path) == {"my-job.json": b"mine"}


# --- nothing twice ------------------------------------------------------------------------------------


def put_images(runner: JobRunner, count: int) -> list[str]:
    names = [f"images/{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        runner.storage.put(name, png(np.full((96, 160, 3), 20 * number, np.uint8)))
    return names


def rendered(runner: JobRunner, document: dict[str, Any], storage: Storage, folder: Path) -> list[Image]:
    """Render the first segment of a job through `storage`; return its decoded guide."""
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    run = runner.plan("t1").run_id
    render_segment(RenderSegmentInput(task_id="t1", run_id=run, index=0), JobRunner(storage, folder).services)
    path = folder / "guide.mp4"
    runner.storage.get_to_file(keys.run_segment_file("t1", run, 0, "guide.mp4"), path)
    return list(decode_rgb(path))


def test_an_image_that_comes_again_is_fetched_once(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    """More images than are kept in memory, each of them three times."""
    names = put_images(runner, 9)
    guides = [{"at": at, "image": names[at % 9]} for at in range(27)]
    segments = [{"frames": 27, "guides": guides}]
    document = {"task_id": "t1", "structure_video": request_document["structure_video"], "segments": segments}
    counting = CountingStorage(runner.storage)
    frames = rendered(runner, document, counting, tmp_path)
    read = Counter(key for operation, key in counting.keys if operation in ("get", "get_to_file"))
    assert {name: read[name] for name in names} == dict.fromkeys(names, 1)
    for at, frame in enumerate(frames):
        assert abs(float(frame.mean()) - 20 * (at % 9)) < 3, at


def test_a_guide_video_is_fetched_once_and_read_on(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    reader = VideoReader

    def counted(path: Path, *arguments: Any) -> Any:
        opened.append(path)
        return reader(path, *arguments)

    monkeypatch.setattr(guides_module, "VideoReader", counted)
    video = request_document["structure_video"]
    guides = [
        {"at": [0, 2], "video": video, "from": 1},
        {"at": [4, 5], "video": video, "from": 5},
        {"at": [7, 8], "video": video, "from": 2},
    ]
    document = {"task_id": "t1", "structure_video": video, "segments": [{"frames": 9, "guides": guides}]}
    counting = CountingStorage(runner.storage)
    frames = rendered(runner, document, counting, tmp_path)
    assert Counter(counting.keys)["get_to_file", video] == 1
    assert len(opened) == 2, "forward it is read on, backward it must be opened again"
    video_path = tmp_path / "video.mp4"
    runner.storage.get_to_file(video, video_path)
    truth = list(decode_rgb(video_path))
    for at, number in ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (7, 2), (8, 3)):
        assert np.abs(frames[at].astype(int) - truth[number]).mean() < 4, at
