"""Requests that cannot be done end as failed, with a typed error and nothing half-made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from structureflow.errors import InvalidKeyError
from structureflow.testing.jobs import JobRunner, put_pan_clip

BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("not JSON", b"{oops", "InvalidRequestError", "expected JSON"),
    ("no object", b"[]", "InvalidRequestError", "JSON object"),
    ("unknown field", {"colour": 1}, "InvalidRequestError", "colour: unknown field"),
    ("unknown treatment", {"treatment": "stretch"}, "InvalidRequestError", "treatment"),
    ("unknown engine", {"engine": "magic"}, "InvalidRequestError", "engine"),
    ("a climbing task id", {"task_id": "../t1"}, "InvalidRequestError", "task_id"),
    ("another task id", {"task_id": "t9"}, "InvalidRequestError", "task_id"),
    ("missing video", {"structure_video": "videos/none.mp4"}, "InputNotFoundError", "videos/none.mp4"),
    ("no video", {"structure_video": "videos/text.mp4"}, "NotAVideoError", ""),
    ("one frame", {"structure_video": "videos/one.mp4"}, "VideoTooShortError", ""),
    ("tiny video", {"structure_video": "videos/tiny.mp4"}, "MediaLimitError", ""),
    ("empty video", {"structure_video": "videos/empty.mp4"}, "MediaLimitError", "empty"),
    ("missing image", {"images": ["images/a.png", "images/z.png"]}, "InputNotFoundError", "images/z.png"),
    ("no image", {"images": ["images/a.png", "videos/text.mp4"]}, "NotAnImageError", "videos/text.mp4"),
    ("a key of the system", {"structure_video": "work/t1/000/x"}, "InputNotAllowedError", "system's own"),
    ("a climbing key", {"structure_video": "videos/../x"}, "InputNotAllowedError", "plain key"),
    ("another bucket", {"structure_video": "s3://other/x.mp4"}, "InputNotAllowedError", "other"),
    ("a host", {"structure_video": "https://example.com/x.mp4"}, "InputNotAllowedError", "https"),
    ("a scheme", {"structure_video": "file:///etc/passwd"}, "InputNotAllowedError", "s3:// or https://"),
    (
        "no guide video",
        {
            "images": None,
            "frames": None,
            "overlap": None,
            "fade": None,
            "segments": [{"frames": 9, "guides": [{"at": [0, 4], "video": "videos/text.mp4"}]}],
        },
        "NotAVideoError",
        "guide video videos/text.mp4",
    ),
    (
        "overlapping guides",
        {
            "images": None,
            "frames": None,
            "overlap": None,
            "fade": None,
            "segments": [{"frames": 9, "guides": [{"at": [0, 4], "image": "a"}, {"at": 4, "image": "b"}]}],
        },
        "InvalidRequestError",
        "segments[0].guides[1].at: expected frames that no other guide has, got 4",
    ),
    (
        "guides outside",
        {
            "images": None,
            "frames": None,
            "overlap": None,
            "fade": None,
            "segments": [{"frames": 9, "guides": [{"at": 9, "image": "a"}]}],
        },
        "InvalidRequestError",
        "segments[0].guides[0].at: expected frames 0 to 8 of the segment, got 9",
    ),
]


@pytest.mark.parametrize(("name", "change", "code", "said"), BAD_REQUESTS, ids=[case[0] for case in BAD_REQUESTS])
def test_bad_input_ends_as_failed_with_a_typed_error_and_nothing_half_made(
    runner: JobRunner,
    request_document: dict[str, Any],
    tmp_path: Path,
    name: str,
    change: Any,
    code: str,
    said: str,
) -> None:
    runner.storage.put("videos/text.mp4", b"this is no video, and no image either")
    runner.storage.put("videos/empty.mp4", b"")
    put_pan_clip(runner.storage, "videos/one.mp4", tmp_path, frames=1)
    put_pan_clip(runner.storage, "videos/tiny.mp4", tmp_path, height=16, width=16)
    before = set(runner.keys())
    if isinstance(change, bytes):
        document: Any = change
    else:
        merged = {**request_document, **change}
        document = {field: value for field, value in merged.items() if value is not None}

    status = runner.run("t1", document)

    assert status.state == "failed"
    assert status.error is not None
    assert (status.error.code, said in status.error.message) == (code, True), status.error
    assert set(runner.keys()) - before == {"jobs/t1/request.json", "jobs/t1/status.json"}
    assert runner.counts["JobsFailed"] == 1


def test_a_corrupted_clip_fails_typed(
    runner: JobRunner, request_document: dict[str, Any], corrupted_clip: Path
) -> None:
    runner.storage.put("videos/bad.mp4", corrupted_clip.read_bytes())
    status = runner.run("t1", {**request_document, "structure_video": "videos/bad.mp4"})
    if status.state == "failed":
        assert status.error is not None
        assert status.error.code == "CorruptMediaError"
        assert not runner.keys("cache/")


def test_a_key_that_is_no_request_is_refused(runner: JobRunner) -> None:
    from structureflow.jobs.orchestrate import OrchestrateInput, orchestrate

    with pytest.raises(InvalidKeyError):
        orchestrate(OrchestrateInput(bucket="data", key="jobs/a/b/request.json"), runner.services)
