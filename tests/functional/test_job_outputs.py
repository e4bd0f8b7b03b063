"""Outputs of a whole job, each read by the rules of its consumer (tests/readers), not by what wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow import keys
from structureflow.limits import MIN_OUTPUT_SIDE_PX
from structureflow.models.results import Manifest, OutputObject
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import pan_frames, texture
from tests.readers import go_with_the_flow, tracks, ttm, vace
from tests.readers.videos import read_video

HEIGHT, WIDTH = 96, 160
VIDEO = "videos/pan.mp4"
FRAMES, GUIDED = 13, 3
#: Nine frames of 2 px, in ten steps.
STEP_PX = 1.6
OUTPUTS = ["vace_flow", "canny", "raw", "tracks", "warped_noise", "ttm"]


@dataclass(frozen=True)
class Published:
    """A segment's folder as a user fetches it, and what the manifest says of it."""

    folder: Path
    outputs: dict[str, OutputObject]


def job_runner(folder: Path) -> JobRunner:
    storage = MemoryStorage()
    put_pan_clip(storage, VIDEO, folder, height=HEIGHT, width=WIDTH)
    for name, seed in (("a", 1), ("b", 2)):
        storage.put(f"images/{name}.png", png(texture(HEIGHT, WIDTH, seed=seed)))
    return JobRunner(storage, folder)


def run(runner: JobRunner, folder: Path, **fields: Any) -> Published:
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "retime",
        "segments": [{"frames": FRAMES, "guides": [{"at": [0, GUIDED - 1], "image": "images/a.png"}]}],
        **fields,
    }
    status = runner.run("t1", document)
    assert status.state == "done", status.error
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    outputs = manifest.segments[0].outputs
    for output in outputs.values():
        path = folder / output.key.removeprefix("jobs/t1/segments/000/")
        path.parent.mkdir(parents=True, exist_ok=True)
        runner.storage.get_to_file(output.key, path)
    return Published(folder, outputs)


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


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def structure_frames() -> list[NDArray[np.uint8]]:
    return list(pan_frames(9, HEIGHT, WIDTH, dx=2, dy=0))


def shown_at(index: int) -> int:
    """The frame of the structure video that stands at a frame of the segment: 0.8 of them a step."""
    return int(np.floor(0.8 * (index - GUIDED + 1) + 0.5))


# --- the manifest --------------------------------------------------------------------------------------------


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


# --- VACE ----------------------------------------------------------------------------------------------------


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


# --- the structure video as control ----------------------------------------------------------------------------


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


# --- tracks ----------------------------------------------------------------------------------------------------


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
    np.testing.assert_allclose(places[0], [[0, 0], [63.5, 127.5], [31.25, 60]], atol=1e-4)
    # the frame is covered: 128/96 as large, so 2 px are 2.67
    np.testing.assert_allclose(places[1, 2] - places[0, 2], [2 * 128 / 96, 0], atol=0.4)


# --- noise -----------------------------------------------------------------------------------------------------


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


# --- Time-to-Move ------------------------------------------------------------------------------------------------


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


def test_time_to_move_refuses_more_frames_than_there_are(made: tuple[Published, JobRunner]) -> None:
    published, _ = made
    with pytest.raises(ValueError, match="13 frames, fewer than 14"):
        ttm.read_folder(published.folder / "ttm", FRAMES + 1)


# --- borderline ----------------------------------------------------------------------------------------------------


def test_all_outputs_of_the_smallest_job(tmp_path: Path) -> None:
    """The smallest legal sides, the fewest frames, under `adjust`, where no frame of the video stands at a frame."""
    runner = job_runner(tmp_path)
    side = MIN_OUTPUT_SIDE_PX
    published = run(
        runner,
        tmp_path / "out",
        outputs=OUTPUTS,
        resolution=[side, side],
        treatment="adjust",
        tracks={"grid": [1, 1]},
        segments=[{"frames": 2, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    folder = published.folder
    pictures, generate = vace.read_control(folder / "vace_flow.mp4", folder / "vace_flow_mask.mp4")
    assert pictures.shape == (2, side, side, 3)
    assert generate.all()
    places, _ = tracks.read_wan_move(folder / "tracks" / "tracks.npy", folder / "tracks" / "visibility.npy")
    assert places.shape == (2, 1, 2)
    assert tracks.read_ati(folder / "tracks" / "ati.pth", side, side).shape == (81, 1, 4)
    assert tracks.read_comfy(folder / "tracks" / "ati.json", side, side).shape == (81, 1, 4)
    noise, _ = go_with_the_flow.read_sample(folder / "warped_noise")
    assert noise.shape == (2, 16, -(-side // 8), -(-side // 8))
    assert ttm.read_folder(folder / "ttm", 2).image.shape == (side, side, 3)
    for name in ("raw", "canny"):
        shown, _ = read_video(folder / f"{name}.mp4")
        assert shown[0].max() <= 1
        assert shown[1].max() > 100


def test_outputs_past_the_end_of_the_motion_say_so(tmp_path: Path) -> None:
    """Under `clip` eight flows last for eight frames; ten more follow, of which nothing is known."""
    runner = job_runner(tmp_path)
    published = run(
        runner,
        tmp_path / "out",
        outputs=OUTPUTS,
        treatment="clip",
        tracks={"points": [[40, 48]]},
        segments=[{"frames": 19, "guides": [{"at": 0, "image": "images/a.png"}]}],
    )
    folder = published.folder
    pictures, _ = vace.read_control(folder / "vace_flow.mp4", folder / "vace_flow_mask.mp4")
    raw, _ = read_video(folder / "raw.mp4")
    places, seen = tracks.read_wan_move(folder / "tracks" / "tracks.npy", folder / "tracks" / "visibility.npy")
    noise, _ = go_with_the_flow.read_sample(folder / "warped_noise")
    sample = ttm.read_folder(folder / "ttm", 19)
    np.testing.assert_allclose(places[8, 0], [56, 48], atol=0.6)
    assert seen[:, 0].tolist() == [True] * 9 + [False] * 10
    for index in range(9, 19):
        np.testing.assert_allclose(pictures[index], 128, atol=3)
        assert raw[index].max() <= 3
        np.testing.assert_array_equal(noise[index], noise[8])
        np.testing.assert_array_equal(places[index], places[8])
        assert sample.mask[index].max() <= 2
        assert distance(sample.signal[index], sample.signal[8]) < 4


def test_outputs_from_the_video_where_no_frames_are_cached(tmp_path: Path) -> None:
    """Frames and flows are gone: the segment reads the video, once for each, and says so."""
    runner = job_runner(tmp_path)
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "retime",
        "outputs": ["raw", "tracks"],
        "segments": [{"frames": FRAMES, "guides": [{"at": [0, GUIDED - 1], "image": "images/a.png"}]}],
    }
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    runner.storage.delete(runner.keys("cache/timelines/"))
    assert runner.segments("t1").state == "done"
    key = keys.segment_file("t1", 0, "raw.mp4")
    runner.storage.get_to_file(key, tmp_path / "raw.mp4")
    shown, _ = read_video(tmp_path / "raw.mp4")
    for index in range(GUIDED, FRAMES):
        errors = [distance(shown[index], frame) for frame in structure_frames()]
        assert int(np.argmin(errors)) == shown_at(index)
    manifest = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t1")).data)
    (fallback,) = manifest.segments[0].fallbacks
    assert (fallback.stage, fallback.used) == ("tracking", "video")
    assert manifest.segments[0].tracking == "anchored"


# --- camera and subject --------------------------------------------------------------------------------------------


def test_a_pan_is_the_cameras_and_nothing_is_the_subjects(tmp_path: Path) -> None:
    shown = {}
    for part in ("camera", "subject"):
        (tmp_path / part).mkdir()
        published = run(job_runner(tmp_path / part), tmp_path / part / "out", motion=part)
        shown[part] = read_video(published.folder / "guide.mp4")[0]
    last = STEP_PX * (FRAMES - GUIDED)
    shift = round(last)
    moved = shown["camera"][-1][8:-8, 40 + shift : -8]
    still = shown["subject"][-1][8:-8, 40:-8]
    assert distance(moved, shown["camera"][0][8:-8, 40 : -8 - shift]) < 6
    assert distance(still, shown["subject"][0][8:-8, 40:-8]) < 3


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outputs": ["depth"]}, "outputs.0"),
        ({"outputs": ["ttm"], "segments": [{"frames": 9, "guides": [{"at": 1, "image": "images/a.png"}]}]}, "frame 0"),
        ({"outputs": ["tracks"], "tracks": {"points": [[160, 3]]}}, "frame of 160x96"),
        ({"outputs": ["tracks"], "tracks": {"points": [[3, -1]]}, "resolution": [64, 64]}, "frame of 64x64"),
        ({"outputs": ["tracks"], "tracks": {"box": [0, 0, 161, 50]}}, "161"),
        ({"tracks": {"box": [9, 0, 9, 50]}}, "box"),
        ({"tracks": {"grid": [64, 64]}}, "1024"),
        ({"tracks": {"grid": [4, 4], "points": [[1, 1]]}}, "either points or a grid"),
        ({"tracks": {"points": []}}, "tracks.points"),
        ({"noise": {"channels": 0}}, "noise.channels"),
        ({"noise": {"latent_size": [1, 60]}}, "latent_size"),
        ({"canny": {"low": 201}}, "low <= high"),
        ({"motion": "object"}, "motion"),
        ({"prompt": "a" * 9000}, "prompt"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(runner: JobRunner, fields: dict[str, Any], said: str) -> None:
    segments = [{"frames": 9, "guides": [{"at": 0, "image": "images/a.png"}]}]
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": segments, **fields}
    status = runner.run("t1", document)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.code == "InvalidRequestError"
    assert said in status.error.message
    assert not runner.keys("jobs/t1/segments/")
