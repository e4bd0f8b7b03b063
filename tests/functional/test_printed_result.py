"""What ``structureflow run`` prints of a finished job: every file fetched, whatever way its folder was given."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture
from structureflow_local.client import JobClient
from structureflow_local.output import Output
from structureflow_local.results import print_result


@pytest.mark.parametrize("given", ["out", "deep/out", "./out", "{}/out"], ids=["name", "path", "dot", "absolute"])
def test_all_files_are_listed_with_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    runner = JobRunner(MemoryStorage(), tmp_path)
    put_pan_clip(runner.storage, "videos/pan.mp4", tmp_path)
    runner.storage.put("images/a.png", png(texture(96, 160, seed=1)))
    guides = [{"at": [0, 1], "image": "images/a.png"}]
    document = {
        "task_id": "t1",
        "structure_video": "videos/pan.mp4",
        "outputs": ["ttm", "warped_noise", "tracks"],
        "segments": [{"frames": 5, "guides": guides}],
    }
    status = runner.run("t1", document)
    assert status.state == "done", status.error
    monkeypatch.chdir(tmp_path)
    out = Path(given.format(tmp_path))

    files = JobClient(runner.storage).fetch("t1", out)

    assert files == sorted(path for path in out.rglob("*") if path.is_file())
    printed = io.StringIO()
    print_result(Output(verbose=True, console=Console(file=printed, width=160)), status, out, files)
    lines = printed.getvalue().splitlines()
    assert lines[0] == "job t1 is done: 1 segment, 5 frames, 3 of them filled by motion"
    assert lines[1] == f"report: {(out / 'report.html').resolve()}"
    videos = ["guide.mp4", "mask.mp4", "ttm/motion_signal.mp4", "ttm/mask.mp4", "warped_noise/input.mp4"]
    for name in (f"segments/000/{video}" for video in videos):
        assert any(f" {name} " in line and "5 frames, 160x96, 16 fps" in line for line in lines), name
    assert any(" manifest.json " in line and "every output" in line for line in lines)
