"""A message names a file once, as its caller does, and no temporary one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import structureflow as sf
from structureflow import compat
from structureflow_local import cli
from tests.contract.public_calls import make_places


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_places(tmp_path)


USES: dict[str, Callable[[str], object]] = {
    "open_flows": sf.open_flows,
    "import_flows": lambda name: sf.import_flows(name, "x.npz"),
    "export_flows": lambda name: sf.export_flows(sf.open_flows(name), "out", "flo"),
    "render_guide": lambda name: sf.render_guide(name, {0: "a.png"}, 5),
    "track_points": lambda name: sf.track_points(name, 5),
    "extract_flows": sf.extract_flows,
    "structure": lambda name: sf.render_guide("flows.npz", {0: "a.png"}, 5, structure=name),
    "keyframe": lambda name: sf.render_guide("flows.npz", {0: name}, 5),
    "VideoFrames": lambda name: sf.render_guide("flows.npz", {(0, 1): sf.VideoFrames(name)}, 5),
    "read_flo": sf.read_flo,
    "read_kitti": sf.read_kitti,
    "frames": lambda name: compat.load_structure_video_frames(name, 4, 16, (64, 64)),
}


@pytest.mark.parametrize("name", ["text.npz", "empty.npz", "cut.npz", "nowhere.npz"])
@pytest.mark.parametrize("use", USES)
def test_a_file_is_named_once(use: str, name: str) -> None:
    with pytest.raises(sf.StructureFlowError) as raised:
        USES[use](name)
    assert str(raised.value).count(name) == 1, raised.value


@pytest.mark.parametrize("command", [["inspect"], ["flows", "export"], ["flows", "import"]])
@pytest.mark.parametrize("name", ["text.npz", "empty.npz", "cut.npz"])
def test_the_command_line_names_a_file_once(capsys: pytest.CaptureFixture[str], command: list[str], name: str) -> None:
    more = {"export": ["out", "--format", "flo"], "import": ["x.npz"]}.get(command[-1], [])
    assert cli.main([*command, name, *more]) == 2
    assert capsys.readouterr().err.count(name) == 1


def test_what_was_downloaded_is_not_named_by_its_temporary_file() -> None:
    said: list[str] = []
    assert compat.download_and_load_cached_flows("text.npz", Path(), "t", said.append) is None
    assert said[-1].startswith(
        "[ERROR] cached flows of task t cannot be had from text.npz: structure_flows_cache.npz: expected a flow archive"
    )
