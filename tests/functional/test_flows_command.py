"""`structureflow flows`: out to other programs' files and in again, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import structureflow as sf
from structureflow.testing.videos import pan_frames
from structureflow_local.cli import main


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sf.save_flows(sf.extract_flows_of_frames(list(pan_frames(4, 64, 96, dx=2, dy=1)), fps=20), "flows.npz")
    return tmp_path / "flows.npz"


@pytest.mark.parametrize("form", ["flo", "kitti", "npz"])
def test_out_and_in_again(archive: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = "plain.npz" if form == "npz" else "folder"
    assert main(["flows", "export", "flows.npz", target, "--format", form]) == 0
    assert capsys.readouterr().out == f"{target}: {'1 file' if form == 'npz' else '7 files'}\n"
    assert main(["flows", "import", target, "again.npz"]) == 0
    said = capsys.readouterr().out
    assert said == "again.npz: 3 flows of 96x64 in both directions, of a video of 96x64 at 20 fps\n"
    np.testing.assert_array_equal(
        sf.open_flows("again.npz").read("backward", 0, 3), sf.open_flows(archive).read("backward", 0, 3)
    )


def test_what_a_source_does_not_say_is_given(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sf.write_flo("a_7.flo", np.ones((64, 96, 2), np.float32))
    (archive.parent / "others").mkdir()
    Path("a_7.flo").rename("others/a_7.flo")
    assert main(["flows", "import", "others", "in.npz", "--fps", "30", "--size", "1280", "720", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "archive": "in.npz",
        "total_flows": 1,
        "grid": [96, 64],
        "original_fps": 30.0,
        "original_resolution": [1280, 720],
        "has_backward": False,
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "nowhere.npz", "x"], "expected a file"),
        (["export", "notes.txt", "x"], "FlowCache"),
        (["export", "flows.npz", "full"], "expected an empty folder"),
        (["import", "nowhere", "x.npz"], "expected a file"),
        (["import", "full", "x.npz"], "expected files of one kind"),
    ],
)
def test_bad_input_is_exit_code_2(
    archive: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (archive.parent / "full").mkdir()
    (archive.parent / "full" / "mine.txt").touch()
    (archive.parent / "notes.txt").write_text("no archive")
    assert main(["flows", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (archive.parent / "x").exists()
    assert not list(archive.parent.glob("*x.npz*"))
