"""Outputs of a whole job, each read by the rules of its consumer (tests/readers), not by what wrote it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from structureflow import keys
from structureflow.testing.jobs import JobRunner
from structureflow.testing.videos import texture
from tests.functional.outputs import (
    FRAMES,
    GUIDED,
    HEIGHT,
    OUTPUTS,
    STEP_PX,
    VIDEO,
    WIDTH,
    Published,
    distance,
    job_runner,
    run,
    shown_at,
    structure_frames,
)
from tests.readers import go_with_the_flow, tracks, ttm, vace
from tests.readers.videos import is_same_video, read_video


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, JobRunner]:
    """One job with all outputs; a few points of one's own."""
    runner = job_runner(tmp_path_factory.mktemp("job"))
    published = run(
        runner,
        tmp_path_factory.mktemp("published"),
        outputs=OUTPUTS,
        prompt="  a lighthouse in a storm, 35 mm \n",
        tracks={"grid": [5, 3]},
        noise={"channels": 16, "seed": 7},
    )
    return published, runner


def test_the_manifest_lists_every_file_with_its_etag(made: tuple[Published, JobRunner]) -> None:
    published, runner = made
    names = set(published.outputs)
    assert names == {
        "guide",
        "mask",
        "vace_flow",
        "vace_flow_mask",
        "canny",
        "raw",
        *(f"tracks/{name}" for name in ("tracks.npy", "visibility.npy", "ati.pth", "ati.json", "wan_move.json")),
        "warped_noise/noises.npy",
        "warped_noise/input",
        "ttm/first_frame.png",
        "ttm/motion_signal",
        "ttm/mask",
        "ttm/prompt.txt",
    }
    listed = {output.key for output in published.outputs.values()} | {keys.segment_file("t1", 0, "result.json")}
    assert set(runner.keys("jobs/t1/segments/")) == listed
    for output in published.outputs.values():
        info = runner.storage.head(output.key)
        assert (info.size_bytes, info.etag) == (output.size_bytes, output.etag)


def test_descriptions_are_of_what_is_in_the_files(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    for name, output in published.outputs.items():
        said = output.description
        assert said is not None, name
        assert said.consumer
        assert said.meaning
        path = published.folder / output.key.removeprefix("jobs/t1/segments/000/")
        if said.kind == "video":
            assert read_video(path)[0].shape == said.shape
            assert said.dtype == "uint8"
        elif said.kind == "array":
            array = np.load(path, allow_pickle=False)
            assert (array.shape, array.dtype.name) == (said.shape, said.dtype)
        elif said.kind == "archive":
            array = tracks.ati_array(path)
            assert (array.shape, array.dtype.name) == (said.shape, said.dtype)
        elif said.kind == "json":
            parsed = tracks.parse_tracks(path)
            assert len(parsed) == said.shape[0]
            assert all(len(track) <= said.shape[1] for track in parsed)
        elif said.kind == "image":
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert picture is not None
            assert picture.shape == said.shape
        assert len(said.axes.split()) == len(said.shape), name


def test_vace_takes_the_flow_pictures_with_an_all_white_mask(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    pictures, generate = vace.read_control(published.folder / "vace_flow.mp4", published.folder / "vace_flow_mask.mp4")
    assert pictures.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert generate.all()
    mask, _ = read_video(published.folder / "vace_flow_mask.mp4")
    assert mask.min() == 255
    truth = vace.flow_pictures(np.broadcast_to([STEP_PX, 0.0], (1, HEIGHT, WIDTH, 2)))[1]
    for index in range(GUIDED):
        assert pictures[index].min() >= 254, "guided frames stand still"
    for index in range(GUIDED, FRAMES):
        # one vector that is a little longer pales all others: the middle of the hue is what counts
        inner = pictures[index][24:-24, 40:-40]
        assert distance(inner, truth[24:-24, 40:-40]) < 40
        assert inner[..., 0].mean() > 240
        assert inner[..., 0].mean() - inner[..., 1].mean() > 120


def test_the_first_flow_picture_is_the_second_one(tmp_path: Path) -> None:
    runner = job_runner(tmp_path)
    segments = [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}]
    published = run(runner, tmp_path / "out", outputs=["vace_flow"], treatment="clip", segments=segments)
    pictures, _ = vace.read_control(published.folder / "vace_flow.mp4", published.folder / "vace_flow_mask.mp4")
    assert len(pictures) == 9
    assert distance(pictures[0], pictures[1]) < 1.5
    assert pictures[0].mean(axis=(0, 1))[1] < 160, "not white"


def test_raw_shows_the_frames_that_drive_the_motion(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    shown, _ = read_video(published.folder / "raw.mp4")
    real = structure_frames()
    assert shown.shape == (FRAMES, HEIGHT, WIDTH, 3)
    for index in range(GUIDED):
        assert shown[index].max() <= 1, "no guidance where frames are given"
    for index in range(GUIDED, FRAMES):
        errors = [distance(shown[index], frame) for frame in real]
        assert int(np.argmin(errors)) == shown_at(index)
        assert min(errors) < 8


def test_canny_is_white_edges_of_the_same_frames_on_black(made: tuple[Published, JobRunner]) -> None:
    published, runner = made
    shown, _ = read_video(published.folder / "canny.mp4")
    runner.storage.get_to_file(VIDEO, published.folder / "clip.mp4")
    clip, _ = read_video(published.folder / "clip.mp4")
    for index in range(GUIDED):
        assert shown[index].max() <= 1
    known = [cv2.Canny(frame, 100, 200) > 0 for frame in clip]
    for index in range(GUIDED, FRAMES):
        edges = shown[index].min(axis=-1) > 127
        # the cached frames are JPEG, which loses the faintest of the clip's edges, and makes few
        assert 0.4 < edges.sum() / known[shown_at(index)].sum() < 1.1
        shares = [(edges & real).sum() / edges.sum() for real in known]
        assert int(np.argmax(shares)) == shown_at(index)
        assert max(shares) > 1.5 * sorted(shares)[-2]
        sharp = (shown[index] < 48) | (shown[index] > 208)
        assert sharp.mean() > 0.98


def test_tracks_follow_the_motion_and_all_readers_see_the_same(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    folder = published.folder / "tracks"
    places, seen = tracks.read_wan_move(folder / "tracks.npy", folder / "visibility.npy")
    assert places.shape == (FRAMES, 15, 2)
    columns, rows = np.meshgrid((np.arange(5) + 0.5) * WIDTH / 5 - 0.5, (np.arange(3) + 0.5) * HEIGHT / 3 - 0.5)
    np.testing.assert_allclose(places[0], np.stack([columns, rows], axis=-1).reshape(-1, 2), atol=1e-3)
    for index in range(FRAMES):
        moved = places[0] + [STEP_PX * max(0, index - GUIDED + 1), 0]
        inside = moved[:, 0] < WIDTH - 8
        assert np.abs(places[index] - moved)[inside].max() < 1, index
        assert seen[index][inside].all()

    ati = tracks.read_ati(folder / "ati.pth", WIDTH, HEIGHT)
    comfy = tracks.read_comfy(folder / "ati.json", WIDTH, HEIGHT)
    assert ati.shape == comfy.shape == (81, 15, 4)
    steps = tracks.read_comfy_wan_move(folder / "wan_move.json")
    np.testing.assert_allclose(steps, places, atol=1e-3)
    for index in range(FRAMES):
        there = (places[index] - np.array([WIDTH, HEIGHT]) / 2) / HEIGHT * 2
        # ATI takes the sample before; half a sample is a third of a frame
        assert np.abs(ati[index, :, 1:3] - there).max() < 2 / HEIGHT * (STEP_PX / 3 + 0.2)
    assert (ati[: FRAMES - 1, seen.all(axis=0), 3] == 1).all()
    assert (ati[FRAMES + 1 :, :, 3] == -1).all(), "hidden behind the segment's end"
    visible = ati[..., 3] == 1
    np.testing.assert_allclose(comfy[visible], ati[visible], atol=1e-3)
    assert (comfy[FRAMES + 1 :, :, 3] == -1).all()


def test_points_and_boxes_of_ones_own(tmp_path: Path) -> None:
    """A portrait crop of the clip, the smallest count of frames: places are those of the output."""
    runner = job_runner(tmp_path)
    published = run(
        runner,
        tmp_path / "out",
        outputs=["tracks"],
        resolution=[64, 128],
        tracks={"points": [[0, 0], [63.5, 127.5], [31.25, 60]]},
        treatment="clip",
        segments=[{"frames": 2, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    folder = published.folder / "tracks"
    places, _ = tracks.read_wan_move(folder / "tracks.npy", folder / "visibility.npy")
    np.testing.assert_allclose(places[0], np.array([[0, 0], [63.5, 127.5], [31.25, 60]]), atol=1e-4)
    # the frame is covered: 128/96 as large, so 2 px are 2.67
    np.testing.assert_allclose(places[1, 2] - places[0, 2], np.array([2 * 128 / 96, 0]), atol=0.4)


def test_warped_noise_is_still_where_the_guide_is_and_goes_with_it(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    noise, video = go_with_the_flow.read_sample(published.folder / "warped_noise")
    assert noise.shape == (FRAMES, 16, 12, 20)
    guide, _ = read_video(published.folder / "guide.mp4")
    np.testing.assert_array_equal(video, guide)
    for index in range(1, GUIDED):
        np.testing.assert_array_equal(noise[index], noise[0])
    for frame in noise:
        assert abs(frame.mean()) < 0.01
        assert abs(frame.std() - 1) < 0.01
    # five steps of 1.6 px are a latent sample of 8 px
    begin, later = noise[GUIDED - 1], noise[GUIDED + 4]
    along = np.corrcoef(begin[:, 1:-1, 1:-2].ravel(), later[:, 1:-1, 2:-1].ravel())[0, 1]
    against = np.corrcoef(begin[:, 1:-1, 2:-1].ravel(), later[:, 1:-1, 1:-2].ravel())[0, 1]
    assert along > 0.8
    assert abs(against) < 0.1


def test_noise_of_cogvideox_has_its_shape(tmp_path: Path) -> None:
    runner = job_runner(tmp_path)
    published = run(
        runner,
        tmp_path / "out",
        outputs=["warped_noise"],
        noise={"latent_size": [90, 60]},
        segments=[{"frames": 49, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    noise, _ = go_with_the_flow.read_sample(published.folder / "warped_noise")
    assert go_with_the_flow.cogvideox_latents(noise).dtype == np.float32
    lengths = [abs(np.corrcoef(frame[:, :, 1:].ravel(), frame[:, :, :-1].ravel())[0, 1]) for frame in noise]
    assert max(lengths) < 0.02


def test_time_to_move_takes_the_folder(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    sample = ttm.read_folder(published.folder / "ttm", FRAMES)
    guide, _ = read_video(published.folder / "guide.mp4")
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    assert distance(sample.image, texture(HEIGHT, WIDTH, seed=1)) < 7
    assert distance(sample.signal[0], guide[0]) < 2
    assert sample.prompt == "a lighthouse in a storm, 35 mm"
    assert np.isin(sample.mask, (0, 255)).all(), "hard, to the byte"
    assert sample.followed.shape == (4, HEIGHT // 8, WIDTH // 8)
    assert sample.followed[0].all(), "the first frame is followed whole"
    # the pan goes right: what comes in on the left is seen in no anchor, all else is
    assert sample.mask[-1][:, : int(STEP_PX * 10) - 4].max() <= 2
    assert sample.mask[-1][8:-8, 40:].min() >= 253
    inner = np.s_[8:-8, 40:-8]
    assert distance(sample.signal[-1][inner], guide[-1][inner]) < 3


def test_asking_for_time_to_move_changes_nothing_of_the_guide(
    made: tuple[Published, JobRunner], tmp_path: Path
) -> None:
    """Holes of the guide stay grey, and are filled in the motion signal alone."""
    published, _ = made
    without = run(job_runner(tmp_path), tmp_path / "published", outputs=[])
    for name in ("guide.mp4", "mask.mp4"):
        assert is_same_video((published.folder / name).read_bytes(), (without.folder / name).read_bytes()), name
    guide, _ = read_video(published.folder / "guide.mp4")
    mask, _ = read_video(published.folder / "mask.mp4")
    sample = ttm.read_folder(published.folder / "ttm", FRAMES)
    hidden = cv2.erode(mask[-1][..., 0], np.ones((9, 9), np.uint8)) > 250
    assert hidden.mean() > 0.05, "there are holes"
    assert np.abs(guide[-1][hidden].astype(int) - 128).mean() < 3, "grey in the guide"
    assert np.abs(sample.signal[-1][hidden].astype(int) - 128).mean() > 15, "a picture in the signal"


def test_time_to_move_refuses_more_frames_than_there_are(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    with pytest.raises(ValueError, match="13 frames, fewer than 14"):
        ttm.read_folder(published.folder / "ttm", FRAMES + 1)
