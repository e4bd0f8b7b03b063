"""Results appear whole or not at all, and so do the folders that were made for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from structureflow.errors import OutputError
from structureflow.files import made_folder, new_file, new_files


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.bin"
    with new_file(target, "target") as part:
        part.write_bytes(b"new")
        assert not target.exists()
        assert part.name == "x.bin", "encoders go by the name"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == {"a", "a/b", "a/b/x.bin"}


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"old")

    def fail(target: Path) -> None:
        with new_file(target, "target") as part:
            part.write_bytes(b"new")
            raise KeyError(target)

    for target in ("x.bin", "a/b/x.bin"):
        with pytest.raises(KeyError):
            fail(tmp_path / target)
    assert names(tmp_path) == {"x.bin"}
    assert (tmp_path / "x.bin").read_bytes() == b"old"


def test_several_files_are_moved_together(tmp_path: Path) -> None:
    with new_files(tmp_path, ("one", "two"), "folder") as (one, two):
        one.write_bytes(b"1")
        two.write_bytes(b"2")
        assert not {"one", "two"} & names(tmp_path)
    assert names(tmp_path) == {"one", "two"}


def test_a_folder_that_somebody_else_filled_meanwhile_stays(tmp_path: Path) -> None:
    def fail() -> None:
        with made_folder(tmp_path / "a" / "b", "folder"):
            (tmp_path / "a" / "notes.txt").write_text("of somebody else")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == {"a", "a/notes.txt"}


def test_a_target_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    """A folder that came meanwhile; on Windows also a file that somebody has open."""

    def write() -> None:
        with new_file(tmp_path / "x.bin", "target") as part:
            part.write_bytes(b"new")
            (tmp_path / "x.bin").mkdir()

    with pytest.raises(OutputError, match=r"target: .*x\.bin cannot be replaced"):
        write()
    assert names(tmp_path) == {"x.bin"}


@pytest.mark.parametrize("name", ["", "folder", "folder/..", "file/x", "file/x/y"])
def test_no_file_can_be_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="target: "), new_file(tmp_path / name, "target"):
        pytest.fail("entered")
    assert names(tmp_path) == {"folder", "file"}


def test_a_full_disk_is_told_with_the_place(tmp_path: Path) -> None:
    """As a limit of file sizes stands for one: the system then refuses in the middle of a write."""
    pytest.importorskip("resource")
    script = """
import resource, sys
import structureflow as sf
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
import numpy as np
try:
    sf.write_flo(sys.argv[1], np.zeros((48, 64, 2), np.float32))
except sf.StructureFlowError as error:
    print(error.code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "made" / "x.flo")], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"OutputError path: {tmp_path / 'made'} cannot be written to"), done.stderr
    assert names(tmp_path) == set()
