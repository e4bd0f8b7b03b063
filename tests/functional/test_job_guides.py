"""Guide videos and folders that a job cannot use: the error names what the request names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import InvalidRequestError, StorageError
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner
from structureflow.testing.storage import Fault, FaultStorage
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
