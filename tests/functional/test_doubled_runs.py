"""A run that is started twice, or broken off: each gets its results, and nothing half-made stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local.cli import main
from structureflow_local.one_at_a_time import alone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = list(pan_frames(20, 96, 160, dx=2, dy=0))
    write_clip(tmp_path / "clip.mp4", frames)
    for name, frame in (("a", frames[0]), ("b", frames[19])):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
    job = {"task_id": "walk", "structure_video": "clip.mp4", "images": ["a.png", "b.png"], "frames": 17, "overlap": 3}
    (tmp_path / "job.json").write_text(json.dumps(job))
    return tmp_path


def start(folder: Path, out: str, job: str = "job.json") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "structureflow_local.cli", "run", job, "--out", out]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.parametrize("outs", [("one", "two"), ("one", "one")])
def test_runs_of_one_job_at_once_each_have_their_results(folder: Path, outs: tuple[str, str]) -> None:
    processes = [start(folder, out) for out in outs]
    for process in processes:
        code, said = ended(process)
        assert code == 0, said
    for out in outs:
        status: dict[str, Any] = json.loads((folder / out / "status.json").read_text())
        assert status["state"] == "done"
        assert (folder / out / "segments" / "000" / "guide.mp4").stat().st_size > 0


def test_a_second_run_says_that_it_waits_and_then_goes_on(folder: Path) -> None:
    with alone(folder / ".structureflow", "walk", lambda: pytest.fail("nobody else runs it")):
        process = start(folder, "out")
        assert process.stdout is not None
        lines: list[str] = []
        while "who comes first" not in "".join(lines):
            line = process.stdout.readline()
            assert line, lines
            lines.append(line)
        time.sleep(0.3)
        assert process.poll() is None
        assert not (folder / ".structureflow" / "files").exists()
    assert ended(process)[0] == 0
    assert (folder / "out" / "manifest.json").is_file()


def test_another_job_waits_for_nobody(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    (folder / "other.json").write_text(json.dumps(job | {"task_id": "other"}))
    with alone(folder / ".structureflow", "walk", lambda: pytest.fail("nobody else runs it")):
        assert ended(start(folder, "out", "other.json"))[0] == 0


def test_who_is_killed_keeps_nobody_waiting(folder: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from structureflow_local.one_at_a_time import alone\n"
        "with alone(pathlib.Path('.structureflow'), 'walk', lambda: None):\n"
        "    print('has it', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "has it\n"
    holder.kill()
    holder.communicate()
    assert ended(start(folder, "out"))[0] == 0


def test_a_store_that_is_no_folder_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(folder / "job.json"), "--out", str(folder / "out"), "--store", str(folder / "a.png")]
    assert main(arguments) == 2
    assert f"OutputError: store: {folder / 'a.png' / 'locks'} cannot be written to" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to send")
def test_a_run_that_is_broken_off_leaves_no_folder(folder: Path) -> None:
    """While it waits, so that it is broken off before there is a result."""
    (folder / "mine").mkdir()
    for out in ("a/b/out", "mine"):
        with alone(folder / ".structureflow", "walk", lambda: pytest.fail("nobody else runs it")):
            process = start(folder, out)
            assert process.stdout is not None
            while "who comes first" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            code, said = ended(process)
        assert (code, said.strip()) == (130, "interrupted")
    assert not (folder / "a").exists()
    assert list((folder / "mine").iterdir()) == []
