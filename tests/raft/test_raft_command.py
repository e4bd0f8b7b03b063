"""`structureflow run --engine raft`, on a machine with PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from structureflow.models.results import Manifest
from structureflow.testing.jobs import png
from structureflow.testing.raft import RandomWeights
from structureflow.testing.videos import count_frames, pan_frames, write_clip

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft")

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("has_weights", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("where", [[], ["--cloud"]], ids=["here", "cloud"])
def test_another_engine_for_a_job_file(
    tmp_path: Path, small: RandomWeights, has_weights: bool, where: list[str]
) -> None:
    write_clip(tmp_path / "clip.mp4", pan_frames(4, 96, 160, dx=3, dy=1))
    (tmp_path / "anchor.png").write_bytes(png(np.ascontiguousarray(next(pan_frames(1, 96, 160, dx=3, dy=1)))))
    job = {
        "task_id": "job",
        "structure_video": "clip.mp4",
        "engine": "dis",
        "quality": "fast",
        "segments": [{"frames": 6, "guides": [{"at": [0, 1], "image": "anchor.png"}]}],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    weights = small.path.parent if has_weights else tmp_path
    arguments = ["run", "job.json", "--engine", "raft", "--out", "out", "--no-store", "--raft-weights", str(weights)]
    done = subprocess.run(
        [sys.executable, "-m", "structureflow_local.cli", *arguments, *where],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest.engine_requested == "raft"
    assert count_frames(tmp_path / "out" / "segments" / "000" / "guide.mp4") == 6
    if has_weights:
        assert (manifest.engine, manifest.fallbacks) == ("raft", ())
        assert "3 flows by raft" in done.stdout
        return
    assert manifest.engine == "dis"
    (step,) = manifest.fallbacks
    assert (step.wanted, step.used) == ("raft", "dis")
    if where:
        assert "exit code 1: SettingsError: RAFT_WEIGHTS_URI" in step.reason
        assert "RAFT cannot run: no raft_large.pth" in done.stdout
    else:
        assert "no raft_large.pth or raft_small.pth in" in step.reason
    assert "wanted raft, used dis" in done.stdout
