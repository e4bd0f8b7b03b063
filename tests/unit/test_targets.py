"""Outputs fed by hand: cuts, ends of the motion, stray vectors, frames of which nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from structureflow.flow.fields import FlowMeta
from structureflow.guide.travel import Move
from structureflow.media.planes import flat_planes, rgb_to_planes
from structureflow.models.outputs import NoiseOptions, TrackOptions
from structureflow.targets.output import Clip, Placing, SegmentOutput
from structureflow.targets.tracks import TrackFiles
from structureflow.targets.ttm import TimeToMove
from structureflow.targets.vace_flow import VaceFlow, paint, without_strays
from structureflow.targets.warped_noise import WarpedNoise
from structureflow.testing.videos import texture
from tests.readers import vace
from tests.readers.videos import read_video

HEIGHT, WIDTH = 64, 96
META = FlowMeta(10, HEIGHT, WIDTH, HEIGHT, WIDTH, 25.0, True, "exact")


def clip(folder: Path, frames: int) -> Clip:
    return Clip(frames, HEIGHT, WIDTH, 16, folder)


def pan(dx: float, dy: float = 0.0, *, total: float = 0.0) -> Move:
    step = np.broadcast_to(np.array([dx, dy], np.float32), (HEIGHT, WIDTH, 2))
    way = np.broadcast_to(np.array([-total, 0], np.float32), (HEIGHT, WIDTH, 2))
    return Move(step, step, way, np.full((HEIGHT // 2, WIDTH // 2), 255, np.uint8))


CUT = Move(None, None, cut=True)
END = Move(None, None)
GREY = flat_planes(HEIGHT, WIDTH, 128)


def feed(output: SegmentOutput, moves: list[Move | None]) -> None:
    for index, move in enumerate(moves):
        output.move(index, move)
        output.write(index, GREY, 0)


# --- VACE ----------------------------------------------------------------------------------------------------


def test_flow_pictures_of_cuts_and_ends_are_grey_and_of_held_frames_white(tmp_path: Path) -> None:
    with VaceFlow(clip(tmp_path, 6), META) as output:
        feed(output, [None, pan(3), CUT, pan(0, 2), END, None])
        output.finish()
    pictures, generate = vace.read_control(tmp_path / "vace_flow.mp4", tmp_path / "vace_flow_mask.mp4")
    assert len(pictures) == 6
    assert generate.all()
    means = pictures[:, 8:-8, 8:-8].reshape(6, -1, 3).mean(axis=1)
    np.testing.assert_allclose(means[0], means[1], atol=2)
    for index in (2, 4):
        np.testing.assert_allclose(means[index], 128, atol=2)
    np.testing.assert_allclose(means[5], 255, atol=1)


@pytest.mark.parametrize("seed", range(3))
def test_paint_is_raft_s_own(seed: int) -> None:
    random = np.random.default_rng(seed)
    smooth = random.normal(0, 5, (4, 5, 2))
    flow = np.repeat(np.repeat(smooth, 10, axis=0), 10, axis=1)
    truth = vace.flow_pictures(flow[None])[1]
    found = paint(flow.astype(np.float32))
    # RAFT rounds down
    assert np.abs(found.astype(int) - truth).max() <= 1


def test_one_stray_vector_does_not_pale_the_others() -> None:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = 2
    flow[10:12, 10:12] = (-90, 60)
    flow[20:40, 20:50] = (0, 3)
    painted = paint(without_strays(flow.copy()))
    assert painted[50, 50].min() < 100, "two thirds of the longest: a strong colour"
    assert paint(flow)[50, 50].min() > 230
    # a flow without strays stays as it is, and so does one of which next to nothing moves
    even = np.full((HEIGHT, WIDTH, 2), 1.5, np.float32)
    np.testing.assert_array_equal(without_strays(even.copy()), even)
    few = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    few[0, 0, 0] = 0.4
    np.testing.assert_array_equal(without_strays(few.copy()), few)


# --- tracks and noise --------------------------------------------------------------------------------------------


def test_tracks_stand_still_in_held_frames_and_end_at_a_cut(tmp_path: Path) -> None:
    output = TrackFiles(clip(tmp_path, 6), META, ((20.0, 30.0), (90.0, 10.0)))
    with output:
        feed(output, [None, None, pan(4, total=4), pan(4, total=8), CUT, Move(pan(4).step, None)])
        output.finish()
    places = np.load(tmp_path / "tracks" / "tracks.npy")[0]
    seen = np.load(tmp_path / "tracks" / "visibility.npy")[0]
    np.testing.assert_allclose(places[:, 0, 0], [20, 20, 24, 28, 28, 28], atol=1e-3)
    assert seen[:, 0].tolist() == [True, True, True, True, False, False]
    assert seen[:, 1].tolist() == [True, True, True, False, False, False], "98 px is outside of 96"


def test_noise_begins_anew_behind_a_cut_and_stays_past_the_end(tmp_path: Path) -> None:
    with WarpedNoise(clip(tmp_path, 5), META, NoiseOptions(channels=48), 0) as output:
        feed(output, [None, pan(8), CUT, END, None])
        output.finish()
    noise = np.load(tmp_path / "warped_noise" / "noises.npy")
    assert noise.shape == (5, 8, 12, 48)
    np.testing.assert_allclose(noise[1][:, 1:], noise[0][:, :-1], atol=0.05)
    assert abs(np.corrcoef(noise[1].ravel(), noise[2].ravel())[0, 1]) < 0.06
    np.testing.assert_array_equal(noise[3], noise[2])
    np.testing.assert_array_equal(noise[4], noise[2])


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (NoiseOptions(), (8, 12, 16)),
        (NoiseOptions(channels=1, latent_size=(2, 2)), (2, 2, 1)),
        (NoiseOptions(channels=128, latent_size=(3, 2)), (2, 3, 128)),
        (NoiseOptions(channels=4, latent_size=(25, 17)), (17, 25, 4)),
    ],
)
def test_noise_has_any_size_and_count_of_channels(
    tmp_path: Path, options: NoiseOptions, shape: tuple[int, int, int]
) -> None:
    with WarpedNoise(clip(tmp_path, 3), META, options, 2) as output:
        feed(output, [None, pan(5, 3), pan(5, 3)])
        output.finish()
    noise = np.load(tmp_path / "warped_noise" / "noises.npy")
    assert noise.shape == (3, *shape)
    assert noise.dtype == np.float32
    for frame in noise:
        assert abs(frame.mean()) < 1e-3
        assert abs(frame.std() - 1) < 1e-3


def test_segments_have_noise_of_their_own(tmp_path: Path) -> None:
    frames = []
    for index in (0, 1):
        with WarpedNoise(clip(tmp_path / str(index), 1), META, NoiseOptions(), index) as output:
            feed(output, [None])
            output.finish()
        frames.append(np.load(tmp_path / str(index) / "warped_noise" / "noises.npy"))
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 0.1


# --- Time-to-Move ------------------------------------------------------------------------------------------------


def test_what_is_not_known_has_the_nearest_pixels_and_a_black_mask(tmp_path: Path) -> None:
    picture = texture(HEIGHT, WIDTH, seed=1)
    picture[:, : WIDTH // 2] = (200, 60, 40)
    planes = rgb_to_planes(picture)
    known = np.full((HEIGHT, WIDTH), 255, np.uint8)
    torn: NDArray[np.uint8] = known.copy()
    torn[16:48, 8:40] = 0
    torn[4, 70] = 0  # a speck
    nothing = np.zeros_like(known)
    with TimeToMove(clip(tmp_path, 3), "a walk") as output:
        for index, visibility in enumerate((known, torn, nothing)):
            output.visibility(index, visibility)
            output.write(index, GREY if index == 2 else planes, 0)
        output.finish()
    signal, _ = read_video(tmp_path / "ttm" / "motion_signal.mp4")
    mask, _ = read_video(tmp_path / "ttm" / "mask.mp4")
    follow = mask.min(axis=-1) > 127
    assert follow[0].all()
    assert not follow[1][18:46, 10:38].any()
    assert follow[1][:12].all(), "the speck is closed"
    assert not follow[2].any()
    assert np.abs(signal[1][20:44, 12:36].astype(int) - (200, 60, 40)).mean() < 12
    # where nothing is known the last picture goes on
    assert np.abs(signal[2].astype(int) - signal[1]).mean() < 3
    with Image.open(tmp_path / "ttm" / "first_frame.png") as first:
        assert np.abs(np.asarray(first).astype(int)[:, :40] - (200, 60, 40)).max() < 6
    assert (tmp_path / "ttm" / "prompt.txt").read_text() == "a walk\n"


def test_the_motion_signal_shows_what_the_guide_paints_over(tmp_path: Path) -> None:
    """The guide's mask is grown and aligned, so it hides more than what no anchor shows."""
    whole = np.full((HEIGHT, WIDTH, 3), (200, 60, 40), np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[16:48, 32:64] = 255
    painted = whole.copy()
    painted[mask > 0] = 128
    known = np.full((HEIGHT, WIDTH), 255, np.uint8)
    with TimeToMove(clip(tmp_path, 3), "") as output:
        for index, value in enumerate((0, mask, 0)):
            output.visibility(index, known)
            if index == 1:
                output.whole(index, rgb_to_planes(whole))
            output.write(index, rgb_to_planes(painted), value)  # type: ignore[arg-type]
        output.finish()
    signal, _ = read_video(tmp_path / "ttm" / "motion_signal.mp4")
    follow = read_video(tmp_path / "ttm" / "mask.mp4")[0].min(axis=-1) > 127
    assert follow.all()
    off = [np.abs(frame[20:44, 36:60].astype(int) - (200, 60, 40)).mean() for frame in signal]
    assert off[1] < 12
    assert min(off[0], off[2]) > 40, "a guided frame is shown as it is, and none is taken for the one before"


# --- places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (720, 1280), (100, 640), (32, 32)])
def test_places_of_grid_and_output_are_each_others(size: tuple[int, int]) -> None:
    meta = FlowMeta(10, 144, 256, 1080, 1920, 25.0, True, "exact")
    placing = Placing.of(meta, *size)
    points = np.array(TrackOptions(grid=(5, 4)).places(*size))
    np.testing.assert_allclose(placing.to_output(placing.to_grid(points)), points, atol=1e-9)
    # the middle of the output is the middle of the video, whatever is cropped
    middle = placing.to_grid(np.array([[size[1] / 2 - 0.5, size[0] / 2 - 0.5]]))
    np.testing.assert_allclose(middle, [[127.5, 71.5]], atol=0.15)
    np.testing.assert_allclose(placing.scale[0], placing.scale[1], rtol=0.02)


def test_points_are_the_middles_of_cells() -> None:
    assert TrackOptions(grid=(2, 1)).places(10, 20) == ((4.5, 4.5), (14.5, 4.5))
    assert TrackOptions(grid=(1, 1), box=(10, 0, 20, 10)).places(10, 20) == ((14.5, 4.5),)
    assert len(TrackOptions().places(480, 832)) == 16 * 9
