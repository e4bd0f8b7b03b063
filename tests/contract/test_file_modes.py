"""What is written for a caller may be read by whom their umask lets: a temporary file is its owner's alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import structureflow as sf
from structureflow.testing.videos import pan_frames, write_clip
from structureflow_local import cli
from tests.contract.compat_calls import compat_calls, original_places
from tests.contract.public_calls import library_calls, make_places
from tests.contract.store_calls import cache_calls, store_calls
from tests.contract.test_bad_arguments import call

#: The group may read, others nothing: no system's default, so it is not met by chance.
UMASK = 0o027
CALLS = library_calls() | store_calls() | cache_calls() | {f"compat.{key}": one for key, one in compat_calls().items()}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask; files there take the folder's rights")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = os.umask(UMASK)
    with original_places():
        yield tmp_path
    os.umask(before)


def others(folder: Path) -> dict[str, str]:
    """Return what below a folder has other rights than the umask leaves."""
    found = {}
    for path in folder.rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~UMASK
        if stat.S_IMODE(path.stat().st_mode) != wanted:
            found[str(path.relative_to(folder))] = oct(stat.S_IMODE(path.stat().st_mode))
    return found


def test_every_public_function_writes_files_with_the_callers_rights(here: Path) -> None:
    make_places(here)
    assert others(here) == {}
    before = set(here.rglob("*"))
    wrote = set()
    for name, each in CALLS.items():
        if not each.works:
            continue
        function, arguments = each.make()
        call(function, arguments)
        assert others(here) == {}, name
        written = set(here.rglob("*")) - before
        if any(path.is_file() for path in written):
            wrote.add(name)
        for path in sorted(written, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert {"encode_h264", "export_flows", "extract_flows", "save_flows", "write_guide", "write_kitti"} <= wrote
    assert {"import_flows", "PointTracks.save", "compat._extract_and_upload_structure_flows"} <= wrote


def test_a_cache_of_flows_is_one_for_all(here: Path) -> None:
    write_clip(here / "clip.mp4", pan_frames(4, 96, 160, dx=2, dy=0))
    sf.extract_flows("clip.mp4", cache="flows")
    assert [path.suffix for path in (here / "flows").iterdir()] == [".npz"]
    assert others(here) == {}


def test_the_command_line_writes_files_with_the_callers_rights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_places(here)
    for arguments in (
        ["init", "clip.mp4", "a.png", "a.png", "--out", "job.jsonc"],
        ["run", "job.jsonc", "--out", "done"],
        ["inspect", "flows.npz", "--png", "flows_seen.png"],
        ["flows", "export", "flows.npz", "exported", "--format", "kitti"],
        ["flows", "import", "exported", "imported.npz"],
    ):
        before = set(here.rglob("*"))
        assert cli.main(arguments) == 0, capsys.readouterr()
        assert set(here.rglob("*")) > before
        assert others(here) == {}, arguments
    assert json.loads((here / "done" / "status.json").read_text())["state"] == "done"
