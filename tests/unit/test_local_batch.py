"""When the local cloud has the Batch part, and that it fits the template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local import batch
from structureflow_local.batch import JOB_DEFINITION, TASK, batch_part, together, wants_batch
from structureflow_local.client import PreparedJob
from structureflow_local.gpu import TASK_DEFINITION, gpu_part
from structureflow_local.local_cloud import TEMPLATE


def job(path: Path) -> PreparedJob:
    key = "jobs/t1/inputs/clip.mp4"
    document = {"task_id": "t1", "structure_video": key, "segments": [{"frames": 17}]}
    return PreparedJob("t1", json.dumps(document).encode(), {key: path})


def test_a_short_video_needs_none(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pan_frames(5, 96, 160, dx=2, dy=0))
    assert not wants_batch(job(clip))


def test_what_no_function_can_do_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", pan_frames(5, 96, 160, dx=2, dy=0))
    monkeypatch.setattr(batch, "NEW_ACCOUNT_MEMORY_MB", 100)
    assert wants_batch(job(clip)), "for want of memory"
    monkeypatch.undo()
    monkeypatch.setattr(batch, "_FUNCTION_BYTES", clip.stat().st_size - 1)
    assert wants_batch(job(clip)), "for want of room"


@pytest.mark.parametrize("request_bytes", [b"", b"[]", b"{", b"{}"])
def test_what_is_no_request_wants_none(request_bytes: bytes) -> None:
    assert not wants_batch(PreparedJob("t1", request_bytes, {}))


def test_a_file_that_is_no_video_is_for_the_orchestrator_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    assert not wants_batch(job(path))
    assert not wants_batch(PreparedJob("t1", job(path).request, {}))


def test_both_parts_fit_the_template_together(tmp_path: Path) -> None:
    from structureflow_local.cloud.template import load_template

    parts = together(gpu_part(tmp_path), batch_part())
    assert set(parts["task_commands"]) == {TASK_DEFINITION, JOB_DEFINITION}
    template = load_template(TEMPLATE, parts["parameters"])
    assert set(template.task_definitions) == {TASK_DEFINITION}
    assert set(template.job_definitions) == {JOB_DEFINITION}
    assert parts["task_commands"][JOB_DEFINITION][-1] == str(TASK)
    assert TASK.is_file()
    assert together({}, {}) == {}
