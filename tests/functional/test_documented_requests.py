"""The requests of docs/structure-videos.md, run as they are written."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.models.results import Manifest
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "structure-videos.md"
HEIGHT, WIDTH = 96, 160


def examples() -> dict[str, dict[str, Any]]:
    found = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)]
    return {one.get("task_id") or one["orchestrator_task_id"]: one for one in found}


@pytest.fixture
def library(runner: JobRunner, tmp_path: Path) -> JobRunner:
    """The files that the page names."""
    for name, dx in (("walk", 2), ("run", -3)):
        put_pan_clip(runner.storage, f"videos/{name}.mp4", tmp_path, height=HEIGHT, width=WIDTH, dx=dx)
    runner.storage.put("images/c.png", png(texture(HEIGHT, WIDTH, seed=3)))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, flows=np.ones((8, 48, 80, 2), np.float32), original_resolution=(WIDTH, HEIGHT))
    runner.storage.put("archives/walk.npz", buffer.getvalue())
    return runner


def test_the_page_has_an_example_of_each() -> None:
    assert list(examples()) == ["walk-then-run", "edges", "given-flows"]


@pytest.mark.parametrize("task_id", examples())
def test_an_example_runs_as_it_is_written(library: JobRunner, task_id: str) -> None:
    status = library.run(task_id, examples()[task_id])
    assert status.state == "done", status.error
    manifest = Manifest.model_validate_json(library.storage.get(keys.job_manifest(task_id)).data)
    assert manifest.fallbacks == ()
    assert all(result.filled for result in manifest.segments)
    assert ("canny" in manifest.segments[0].outputs) == (task_id == "edges")
