"""Guide videos and folders that a job cannot use: the error names what the request names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import InvalidRequestError
from structureflow.testing.jobs import JobRunner
from structureflow_local.client import clear_fetched


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
    assert runner.keys("jobs/t1/segments/") == runner.keys("work/") == []


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidRequestError, match="cannot be made"):
        clear_fetched(tmp_path / "file" / "out")


def test_the_folder_of_an_earlier_job_is_cleared_and_stays_one_for_the_next(tmp_path: Path) -> None:
    """A run clears the folder before it starts, and the download once more: nothing of the first may stay."""
    for name in (
        "status.json",
        "manifest.json",
        "report.html",
        "structure_flows_x.npz",
        "segments/000/guide.mp4",
        "segments/1000/result.json",
    ):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for _ in range(2):
        clear_fetched(tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_files_that_no_job_made_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-job.json").write_bytes(b"mine")
    with pytest.raises(InvalidRequestError, match="empty folder"):
        clear_fetched(tmp_path)
    (tmp_path / "status.json").write_bytes(b"{}")
    clear_fetched(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["my-job.json"]
