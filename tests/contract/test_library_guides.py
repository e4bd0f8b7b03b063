"""Guides and flows made by the library alone: the same as a job's, and errors that say what was expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import structureflow as sf
from structureflow import keys
from structureflow.errors import (
    EngineUnavailableError,
    FlowError,
    GuidanceError,
    InputNotFoundError,
    InvalidArgumentError,
    NotAnImageError,
    NotAVideoError,
    StructureFramesError,
)
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner
from tests.contract.library_media import make_media
from tests.readers.videos import is_same_video


@pytest.fixture
def media(tmp_path: Path) -> Path:
    make_media(tmp_path)
    return tmp_path


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    picture = np.random.default_rng(seed).integers(0, 255, (96, 160, 3), np.uint8)
    return np.stack([np.roll(picture, 2 * index, axis=1) for index in range(count)])


# --- guides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracking", ["composed", "anchored"])
def test_the_files_are_those_of_a_job(media: Path, tmp_path: Path, tracking: str) -> None:
    storage = MemoryStorage()
    for name in ("clip.mp4", "a.png", "b.png"):
        storage.put(name, (media / name).read_bytes())
    segment = {"frames": 17, "guides": [{"at": [0, 2], "image": "a.png"}, {"at": 16, "image": "b.png"}]}
    request = {"task_id": "same", "structure_video": "clip.mp4", "segments": [segment], "tracking": tracking}
    runner = JobRunner(storage, tmp_path)
    assert runner.run("same", request).state == "done"
    outcome = sf.write_guide(
        media / "flows.npz",
        {(0, 2): media / "a.png", 16: media / "b.png"},
        17,
        tmp_path / "ours",
        structure=media / "clip.mp4" if tracking == "anchored" else None,
        workers=2,
    )
    assert (outcome.filled, outcome.tracking) == (((3, 15),), tracking)
    for name in ("guide.mp4", "mask.mp4"):
        job = storage.get(keys.segment_file("same", 0, name)).data
        ours = (tmp_path / "ours" / name).read_bytes()
        if tracking == "composed":
            assert is_same_video(ours, job), name
        else:
            # a job looks at the frames of its cache, which are JPEGs
            assert abs(len(ours) / len(job) - 1) < 0.05, name


def test_arrays_and_files_show_the_same(media: Path, tmp_path: Path) -> None:
    given: dict[int | tuple[int, int], object] = {0: media / "a.png", 10: media / "b.png"}
    guide = sf.render_guide(media / "flows.npz", given, 11, structure=media / "clip.mp4")  # type: ignore[arg-type]
    saved = guide.save(tmp_path / "saved")
    sf.write_guide(media / "flows.npz", given, 11, tmp_path / "written", structure=media / "clip.mp4")  # type: ignore[arg-type]
    for path in (saved[0], tmp_path / "written" / "guide.mp4"):
        with sf.VideoReader(path) as video:
            shown = np.stack([frame.image for frame in video]).astype(int)
        assert shown.shape == guide.frames.shape
        assert np.abs(shown - guide.frames).mean() < 6  # half of the colour is in neither
    for path in (saved[1], tmp_path / "written" / "mask.mp4"):
        with sf.VideoReader(path) as video:
            masks = np.stack([frame.image[..., 0] for frame in video])
        assert (masks == guide.masks).mean() > 0.99
    assert set(np.unique(guide.masks)) <= {0, 255}


def test_key_frames_are_files_arrays_and_runs_of_frames(media: Path) -> None:
    run = pictures(3)
    guide = sf.render_guide(
        media / "flows.npz", {0: run, (8, 9): pictures(1, 1)[0], 11: media / "b.png"}, 12, size=(160, 96)
    )
    np.testing.assert_array_equal(guide.frames[:3], run)
    np.testing.assert_array_equal(guide.frames[8], pictures(1, 1)[0])
    np.testing.assert_array_equal(guide.frames[9], pictures(1, 1)[0])
    np.testing.assert_array_equal(guide.frames[11], np.asarray(Image.open(media / "b.png")))
    assert guide.outcome.unguided == ((3, 7), (10, 10))
    assert guide.outcome.tracking == "composed"
    assert run.flags.writeable


def test_frames_of_a_video_are_key_frames(media: Path) -> None:
    with sf.VideoReader(media / "clip.mp4") as video:
        frames = np.stack([frame.image for frame in video])
    given = sf.VideoFrames(media / "clip.mp4", first=8)
    guide = sf.render_guide(media / "flows.npz", {(0, 3): given, 8: frames[0]}, 9)
    np.testing.assert_array_equal(guide.frames[:4], frames[8:12])
    np.testing.assert_array_equal(
        guide.frames, sf.render_guide(media / "flows.npz", {0: frames[8:12], 8: frames[0]}, 9).frames
    )
    with pytest.raises(GuidanceError, match="expected 5 frames from frame 0"):
        sf.render_guide(media / "flows.npz", {(0, 4): given}, 9)
    with pytest.raises(GuidanceError, match="expected frames of a video"):
        sf.render_guide(media / "flows.npz", {0: sf.VideoFrames(media / "clip.mp4", 0)}, 9)
    with pytest.raises(InvalidArgumentError, match="first"):
        sf.VideoFrames(media / "clip.mp4", -1)
    with pytest.raises(InputNotFoundError):
        sf.render_guide(media / "flows.npz", {(0, 2): sf.VideoFrames(media / "nowhere.mp4")}, 9)


def test_frames_in_memory_do_for_files(media: Path) -> None:
    with sf.VideoReader(media / "clip.mp4") as video:
        frames = np.stack([frame.image for frame in video])
    flows = sf.extract_flows_of_frames(frames, fps=25)
    filed = sf.open_flows(media / "flows.npz")
    np.testing.assert_array_equal(flows.forward, filed.read("forward", 0, 11))
    assert flows.backward is not None
    np.testing.assert_array_equal(flows.backward, filed.read("backward", 0, 11))
    one = sf.render_guide(flows, {0: frames[0]}, 8, structure=frames)
    other = sf.render_guide(media / "flows.npz", {0: frames[0]}, 8, structure=media / "clip.mp4")
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.masks, other.masks)


def test_without_motion_all_but_key_frames_is_left_to_the_generator() -> None:
    guide = sf.render_guide(None, {1: pictures(1)[0]}, 3)
    assert guide.masks.mean((1, 2)).tolist() == [255, 0, 255]
    assert (guide.frames[0] == 128).all()


@pytest.mark.parametrize(
    ("keyframes", "said"),
    [
        ({5: "a"}, "first <= last < 5, got 5 to 5"),
        ({(3, 1): "a"}, "got 3 to 1"),
        ({0: "a", (0, 2): "a"}, "no other one covers"),
        ({(0, 3): pictures(3)}, "expected 4 frames, got 3"),
        ({0: pictures(1)[0, ..., 0]}, "expected .H, W, 3. uint8"),
        ({0: pictures(1)[0].astype(np.float32)}, "expected .H, W, 3. uint8"),
    ],
)
def test_key_frames_that_do_not_fit_are_refused(media: Path, keyframes: dict[object, object], said: str) -> None:
    given = {at: media / "a.png" if isinstance(picture, str) else picture for at, picture in keyframes.items()}
    with pytest.raises((GuidanceError, InvalidArgumentError), match=said):
        sf.render_guide(media / "flows.npz", given, 5)  # type: ignore[arg-type]


def test_files_that_cannot_be_read_are_named(media: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"nowhere\.png"):
        sf.render_guide(media / "flows.npz", {0: media / "nowhere.png"}, 5)
    with pytest.raises(NotAnImageError, match=r"clip\.mp4"):
        sf.render_guide(media / "flows.npz", {0: media / "clip.mp4"}, 5)
    with pytest.raises(GuidanceError, match="size: expected"):
        sf.render_guide(None, {0: media / "a.png"}, 5)


def test_structure_frames_must_be_those_of_the_flows(media: Path) -> None:
    """A job goes on without frames that it cannot have; who names a video himself is told."""
    for structure, said in ((pictures(4), "as there are flows, got 4"), (media / "a.png", r"a\.png"), ([], "got 0")):
        with pytest.raises(StructureFramesError, match=said):
            sf.write_guide(media / "flows.npz", {0: media / "a.png"}, 12, media / "guide", structure=structure)
        assert not (media / "guide").exists()


def test_a_guide_that_fails_leaves_the_older_one(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "guide"
    sf.write_guide(media / "flows.npz", {0: media / "a.png"}, 5, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"guide.mp4", "mask.mp4"}
    with pytest.raises(InputNotFoundError):
        sf.write_guide(media / "flows.npz", {0: media / "a.png", 4: media / "nowhere.png"}, 5, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# --- tracks ------------------------------------------------------------------------------------------


def test_tracks_are_those_of_a_job(media: Path, tmp_path: Path) -> None:
    storage = MemoryStorage()
    for name in ("clip.mp4", "a.png"):
        storage.put(name, (media / name).read_bytes())
    segment = {"frames": 12, "guides": [{"at": 0, "image": "a.png"}]}
    request = {
        "task_id": "tracks",
        "structure_video": "clip.mp4",
        "segments": [segment],
        "tracking": "composed",
        "outputs": ["tracks"],
        "tracks": {"grid": [4, 3]},
    }
    assert JobRunner(storage, tmp_path).run("tracks", request).state == "done"
    tracks = sf.track_points(media / "flows.npz", 12, grid=(4, 3))
    for path in tracks.save(tmp_path / "saved"):
        assert path.read_bytes() == storage.get(f"jobs/tracks/segments/000/tracks/{path.name}").data, path.name
    assert tracks.places.shape == (12, 12, 2)


@pytest.mark.parametrize("points", [[], [(1, 2, 3)], [(160, 5)], [(-1, 5)], [(float("nan"), 5)], [(0, 0)] * 1025])
def test_points_outside_are_refused(media: Path, points: list[tuple[float, ...]]) -> None:
    with pytest.raises(GuidanceError, match="points: expected"):
        sf.track_points(media / "flows.npz", 12, points=points)  # type: ignore[arg-type]


# --- flows -------------------------------------------------------------------------------------------


def test_a_video_is_extracted_once_for_one_folder(media: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        flows = sf.extract_flows(
            media / "clip.mp4", cache=tmp_path / "c", on_frame=lambda frame: seen.append(frame.index)
        )
    assert seen == list(range(12))
    (stored,) = (tmp_path / "c").iterdir()
    assert flows.meta.total_flows == 11
    # other settings, and other bytes under the same name, are another archive
    sf.extract_flows(media / "clip.mp4", cache=tmp_path / "c", quality="fast")
    (media / "clip.mp4").write_bytes((media / "clip.mp4").read_bytes() + bytes(16))
    sf.extract_flows(media / "clip.mp4", cache=tmp_path / "c")
    assert len(list((tmp_path / "c").iterdir())) == 3
    stored.write_bytes(b"damaged")
    (media / "clip.mp4").write_bytes((media / "clip.mp4").read_bytes()[:-16])
    assert sf.extract_flows(media / "clip.mp4", cache=tmp_path / "c").meta.total_flows == 11
    assert stored.stat().st_size > 1000


def test_an_archive_in_memory_is_the_one_in_a_file(media: Path) -> None:
    memory = sf.extract_flows(media / "clip.mp4")
    filed = sf.open_flows(media / "flows.npz")
    np.testing.assert_array_equal(memory.read("backward", 3, 7), filed.read("backward", 3, 7))
    assert memory.meta.source_identity == filed.meta.source_identity
    assert len(memory.meta.source_identity) == 64


def test_a_video_that_cannot_be_used_leaves_nothing_behind(media: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAVideoError):
        sf.extract_flows(media / "flows.npz", tmp_path / "x.npz")
    with pytest.raises(InputNotFoundError):
        sf.extract_flows(media / "nowhere.mp4", tmp_path / "x.npz")
    with pytest.raises(EngineUnavailableError, match="expected one of"):
        sf.extract_flows(media / "clip.mp4", tmp_path / "x.npz", engine="none")  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailableError, match="expected raft_weights"):
        sf.extract_flows(media / "clip.mp4", tmp_path / "x.npz", engine="raft")
    with pytest.raises(ValueError, match="archive or cache"):
        sf.extract_flows(media / "clip.mp4", tmp_path / "x.npz", cache=tmp_path)
    assert not list(tmp_path.glob("*x.npz*"))


def test_frames_without_motion_between_them_are_refused() -> None:
    for frames in ([], [pictures(1)[0]]):
        with pytest.raises(FlowError):
            sf.extract_flows_of_frames(frames)
    with pytest.raises(FlowError, match="same size"):
        sf.extract_flows_of_frames([pictures(1)[0], pictures(1)[0, :64]])
