"""Outputs of a whole job, each read by the rules of its consumer (tests/readers), not by what wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.models.results import Manifest
from structureflow.testing.jobs import JobRunner

VIDEO = "videos/pan.mp4"


def run(runner: JobRunner, **fields: Any) -> Manifest:
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "retime",
        "segments": [{"frames": 13, "guides": [{"at": [0, 2], "image": "images/a.png"}]}],
        **fields,
    }
    status = runner.run("t1", document)
    assert status.state == "done", status.error
    return Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)


def test_smoke(runner: JobRunner, tmp_path: Path) -> None:
    manifest = run(runner, outputs=["vace_flow", "canny", "raw", "tracks", "warped_noise", "ttm"])
    for name, output in manifest.segments[0].outputs.items():
        print(name, output.key, output.size_bytes, output.description)
