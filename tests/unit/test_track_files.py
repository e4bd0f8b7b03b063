"""Tracks in their consumers' forms, at every count of frames that a segment may have; read by tests/readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.targets.track_files import write_ati, write_json, write_wan_move, write_wan_move_json
from tests.readers import tracks as readers

WIDTH, HEIGHT = 832, 480


def made_up(frames: int, points: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points on straight ways, one of them hidden for a while, one that leaves for good."""
    time = np.arange(frames, dtype=np.float32)[:, None]
    begin = np.random.default_rng(points).uniform((0, 0), (WIDTH, HEIGHT), (points, 2)).astype(np.float32)
    pace = np.linspace(-3, 3, points, dtype=np.float32)
    places = begin[None] + np.stack([time * pace, time * pace[::-1]], axis=-1)
    visible = np.ones((frames, points), np.bool_)
    visible[frames // 3 : frames // 2, 0] = False
    visible[frames - frames // 4 :, -1] = False
    return places.astype(np.float32), visible


@pytest.mark.parametrize("points", [1, 2, 1024])
@pytest.mark.parametrize("frames", [2, 5, 49, 80, 81, 82, 121, 200])
def test_every_reader_takes_every_count(tmp_path: Path, frames: int, points: int) -> None:
    places, visible = made_up(frames, points)
    names = ("tracks.npy", "visibility.npy", "ati.pth", "ati.json", "wan_move.json")
    paths = {name: tmp_path / name for name in names}
    write_wan_move(places, visible, paths["tracks.npy"], paths["visibility.npy"])
    write_ati(places, visible, paths["ati.pth"])
    write_json(places, visible, paths["ati.json"])
    write_wan_move_json(places, paths["wan_move.json"])

    read, seen = readers.read_wan_move(paths["tracks.npy"], paths["visibility.npy"])
    np.testing.assert_array_equal(read, places)
    np.testing.assert_array_equal(seen, visible)
    np.testing.assert_allclose(readers.read_comfy_wan_move(paths["wan_move.json"]), places, atol=1e-3)

    ati, comfy = readers.read_ati(paths["ati.pth"], WIDTH, HEIGHT), readers.read_comfy(paths["ati.json"], WIDTH, HEIGHT)
    assert ati.shape == comfy.shape == (81, points, 4)
    shared = min(frames, 81)
    exact = range(0, shared, 2)
    # frame 2k is sample 3k; frames between lie half a sample beside the one that ATI takes
    there = (places[exact] - np.array([WIDTH, HEIGHT]) / 2) / HEIGHT * 2
    np.testing.assert_allclose(ati[exact, :, 1:3], there, atol=1e-4)
    assert ((ati[exact, :, 3] == 1) == visible[exact]).mean() > 0.98
    assert (ati[shared + 1 :, :, 3] == -1).all()
    # what the JSON cannot say is a gap within: all else is the same
    both = ati[..., 3] == 1
    np.testing.assert_allclose(comfy[both], ati[both], atol=1e-4)
    last = np.array([int(np.flatnonzero(one)[-1]) if one.any() else 0 for one in (ati[..., 3] == 1).T])
    for number, end in enumerate(last[:50]):
        assert (comfy[end + 2 :, number, 3] == -1).all()


def test_a_point_that_is_never_seen_is_still_a_track(tmp_path: Path) -> None:
    places = np.full((81, 2, 2), 7, np.float32)
    visible = np.zeros((81, 2), np.bool_)
    visible[:, 1] = True
    write_json(places, visible, tmp_path / "a.json")
    write_ati(places, visible, tmp_path / "a.pth")
    comfy = readers.read_comfy(tmp_path / "a.json", WIDTH, HEIGHT)
    assert (comfy[1:, 0, 3] == -1).all()
    assert (comfy[:, 1, 3] == 1).all()
    assert (readers.read_ati(tmp_path / "a.pth", WIDTH, HEIGHT)[:, 0, 3] == -1).all()


def test_the_same_tracks_make_the_same_bytes(tmp_path: Path) -> None:
    places, visible = made_up(20, 5)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_ati(places, visible, tmp_path / name / "ati.pth")
    assert (tmp_path / "one" / "ati.pth").read_bytes() == (tmp_path / "two" / "ati.pth").read_bytes()


def test_torch_itself_reads_the_archive(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here: make test-raft has it")
    places, visible = made_up(81, 3)
    write_ati(places, visible, tmp_path / "ati.pth")
    loaded = torch.load(tmp_path / "ati.pth", weights_only=True)
    assert loaded == readers.torch_load(tmp_path / "ati.pth")
