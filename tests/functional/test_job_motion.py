"""Motion through a whole job: guides of every kind, cuts, strength, spans, overlays; asserted on decoded pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from structureflow import keys
from structureflow.frames.overlays import list_overlay_frames, load_overlays
from structureflow.guide.images import fit
from structureflow.jobs.documents import load_record
from structureflow.jobs.render_segment import RenderSegmentInput, render_segment
from structureflow.media.decode import VideoReader
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.storage.base import ByteRange, Storage, StoredObject, Suffix
from structureflow.testing.flows import put_noisy_flows
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.storage import WrapperStorage
from structureflow.testing.videos import decode_rgb, pan_frames, texture, write_clip

HEIGHT, WIDTH = 96, 160
VIDEO = "videos/pan.mp4"

Picture = NDArray[np.uint8]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def video_of(runner: JobRunner, folder: Path, name: str, task_id: str = "t1", index: int = 0) -> list[Picture]:
    path = folder / f"{task_id}-{index}-{name}.mp4"
    runner.storage.get_to_file(keys.segment_file(task_id, index, f"{name}.mp4"), path)
    return list(decode_rgb(path))


def record_of(runner: JobRunner, task_id: str = "t1") -> JobRecord:
    return load_record(runner.storage, task_id)


def result_of(runner: JobRunner, task_id: str = "t1", index: int = 0) -> SegmentResult:
    key = keys.segment_file(task_id, index, "result.json")
    return SegmentResult.model_validate_json(runner.storage.get(key).data)


def distance(one: Picture, other: NDArray[Any]) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# --- guides --------------------------------------------------------------------------------------------------


def guide_pictures() -> dict[str, tuple[bytes, Picture]]:
    """Files of every kind, and what each must look like in the guide."""
    up = texture(HEIGHT, WIDTH, seed=3)
    half = np.full((HEIGHT, WIDTH), 255, np.uint8)
    half[:, : WIDTH // 2] = 0
    flat = up.copy()
    flat[:, : WIDTH // 2] = 128
    ramp = np.repeat(np.linspace(0, 65535, WIDTH).astype(np.uint16)[None], HEIGHT, axis=0)
    grey = up[..., 1]
    palette = Image.fromarray(texture(HEIGHT, WIDTH, seed=5)).quantize(64)
    turned = Image.Exif()
    turned[0x0112] = 6
    side = Image.fromarray(np.ascontiguousarray(np.rot90(up)))
    wide = texture(HEIGHT, 2 * WIDTH, seed=4)
    return {
        "exif.jpg": (encoded(side, "JPEG", quality=97, exif=turned), up),
        "rgba.png": (encoded(Image.fromarray(np.dstack([up, half])), "PNG"), flat),
        "sixteen.png": (encoded(Image.fromarray(ramp), "PNG"), _grey((ramp >> 8).astype(np.uint8))),
        "grey.png": (encoded(Image.fromarray(grey), "PNG"), _grey(grey)),
        "palette.png": (encoded(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "wide.png": (png(wide), np.ascontiguousarray(wide[:, WIDTH // 2 : WIDTH // 2 + WIDTH])),
    }


def _grey(values: Picture) -> Picture:
    return np.repeat(values[..., None], 3, axis=2)


def test_image_files_of_every_kind_are_shown_upright_flat_and_unstretched(runner: JobRunner, tmp_path: Path) -> None:
    pictures = guide_pictures()
    guides = []
    for number, (name, (data, _)) in enumerate(pictures.items()):
        runner.storage.put(f"images/{name}", data)
        guides.append({"at": [2 * number, 2 * number + 1], "image": f"images/{name}"})
    frames = 2 * len(pictures)
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": [{"frames": frames, "guides": guides}]}
    assert runner.run("t1", document).state == "done"

    shown = video_of(runner, tmp_path, "guide")
    assert len(shown) == frames
    for number, (name, (_, expected)) in enumerate(pictures.items()):
        others = [distance(shown[2 * number], other) for which, (_, other) in pictures.items() if which != name]
        for index in (2 * number, 2 * number + 1):
            # chroma at half resolution and x264 cost some; a turned or stretched picture is as far as another one
            assert distance(shown[index], expected) < 7, name
            assert distance(shown[index], expected) < 0.4 * min(others), name


def test_a_guide_video_is_upright_begins_where_asked_and_moves_on_between(
    runner: JobRunner, tmp_path: Path, rotated_clip: Path
) -> None:
    """A phone's clip, 568x320 with a quarter turn: 320x568 upright, covered and cropped to the job's size."""
    runner.storage.put("videos/phone.mov", rotated_clip.read_bytes())
    with VideoReader(rotated_clip) as reader:
        real = [fit(frame.image, HEIGHT, WIDTH) for frame in reader]
    guides = [{"at": [0, 1], "video": "videos/phone.mov", "from": 1}, {"at": [6, 8], "video": "videos/phone.mov"}]
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "treatment": "clip",
        "segments": [{"frames": 9, "guides": guides}],
    }
    assert runner.run("t1", document).state == "done"

    shown = video_of(runner, tmp_path, "guide")
    for index, number in ((0, 1), (1, 2), (6, 0), (7, 1), (8, 2)):
        assert distance(shown[index], real[number]) < 4
        assert distance(shown[index], np.rot90(real[number], 2)) > 10
    # next to a guide a frame is that guide, one step of 2 px on to the right, or one before
    assert distance(shown[2][10:-10, 22:-26], shown[1][10:-10, 20:-28]) < 5
    assert distance(shown[5][10:-10, 20:-28], shown[6][10:-10, 22:-26]) < 5
    assert distance(shown[5][10:-10, 20:-28], shown[1][10:-10, 28:-20]) > 10


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_guide_video_begins_at_the_frame_asked_for(runner: JobRunner, tmp_path: Path, first: int) -> None:
    real = list(pan_frames(9, HEIGHT, WIDTH, dx=2, dy=0))
    guides = [{"at": [1, 2], "video": VIDEO, "from": first}]
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": [{"frames": 4, "guides": guides}]}
    assert runner.run("t1", document).state == "done"
    shown = video_of(runner, tmp_path, "guide")
    for index in (1, 2):
        assert np.argmin([distance(shown[index], frame) for frame in real]) == first + index - 1


def test_a_guide_video_that_ends_early_fails_by_its_name(runner: JobRunner, rotated_clip: Path) -> None:
    runner.storage.put("videos/phone.mov", rotated_clip.read_bytes())
    guides = [{"at": [0, 3], "video": "videos/phone.mov", "from": 1}]
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": [{"frames": 9, "guides": guides}]}
    status = runner.run("t1", document)
    assert status.state == "failed"
    assert status.error is not None
    assert "videos/phone.mov" in status.error.message
    assert "frames 1 to 4" in status.error.message


def test_held_and_faded_images(runner: JobRunner, tmp_path: Path) -> None:
    first, second = (texture(HEIGHT, WIDTH, seed=seed).astype(float) for seed in (1, 2))
    guides = [{"at": [0, 2], "image": "images/a.png"}, {"at": [5, 8], "fade": ["images/a.png", "images/b.png"]}]
    document = {"task_id": "t1", "structure_video": VIDEO, "segments": [{"frames": 9, "guides": guides}]}
    assert runner.run("t1", {**document, "seams": "average"}).state == "done"
    shown = video_of(runner, tmp_path, "guide")
    for index in range(3):
        assert distance(shown[index], first) < 7
    for place, index in enumerate(range(5, 9), start=1):
        assert distance(shown[index], first + (second - first) * place / 4) < 7


# --- cuts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchors", ["start", "both"])
def test_nothing_is_carried_across_a_cut_that_the_job_finds_itself(
    runner: JobRunner, tmp_path: Path, anchors: str
) -> None:
    """Two pans joined, with the first and the last frame as guides: before the cut the first, behind it the last."""
    scenes = [*pan_frames(9, HEIGHT, WIDTH, dx=3, dy=0, seed=1), *pan_frames(9, HEIGHT, WIDTH, dx=-2, dy=1, seed=2)]
    runner.storage.put("videos/cut.mp4", write_clip(tmp_path / "cut.mp4", scenes).read_bytes())
    for name, number in (("first", 0), ("last", 17)):
        runner.storage.put(f"images/{name}.png", png(np.ascontiguousarray(scenes[number])))
    guides = [{"at": 0, "image": "images/first.png"}, {"at": 17, "image": "images/last.png"}]
    document = {
        "task_id": "t1",
        "structure_video": "videos/cut.mp4",
        "treatment": "clip",
        "anchors": anchors,
        "mask": "filled",
        "segments": [{"frames": 18, "guides": guides}],
    }
    assert runner.run("t1", document).state == "done"

    assert record_of(runner).scene_cuts == (8,)
    filled = range(18) if anchors == "both" else (*range(9), 17)
    shown, masks = video_of(runner, tmp_path, "guide"), video_of(runner, tmp_path, "mask")
    for index in range(18):
        if index in filled:
            assert masks[index].max() == 0, index
            assert distance(shown[index][:, 30:-30], scenes[index][:, 30:-30]) < 7, index
        else:
            assert masks[index].min() == 255, index
            assert distance(shown[index], np.full_like(shown[index], 128)) < 2, index
    assert result_of(runner).left_unguided == (() if anchors == "both" else ((9, 16),))


# --- strength ------------------------------------------------------------------------------------------------


def test_strength_shows_in_the_control_video(runner: JobRunner, tmp_path: Path) -> None:
    """One normaliser for all: half the motion is half the colour, none is white, twice is the darker full colour."""
    saturation = {}
    for strength in (0.0, 0.25, 0.5, 1.0, 2.0):
        task_id = f"s{int(100 * strength)}"
        document = {
            "task_id": task_id,
            "structure_video": VIDEO,
            "treatment": "clip",
            "motion_strength": strength,
            "outputs": ["flow_vis", "visibility"],
            "segments": [{"frames": 8, "guides": [{"at": 0, "image": "images/a.png"}]}],
        }
        assert runner.run(task_id, document).state == "done"
        colours = video_of(runner, tmp_path, "flow_vis", task_id)
        seen = video_of(runner, tmp_path, "visibility", task_id)
        assert len(colours) == len(seen) == 8
        inner = colours[4][20:-20, 40:-20].reshape(-1, 3).astype(float)
        saturation[strength] = float((inner.max(axis=1) - inner.min(axis=1)).mean())
        brightness = inner.max(axis=1).mean()
        assert brightness == pytest.approx(191 if strength == 2.0 else 255, abs=6), strength
        assert colours[0].min() >= 250
        assert seen[0].min() >= 250
        # the pan goes right: what comes in on the left is seen in no anchor
        if strength == 1.0:
            assert seen[7][:, :4].max() < 60
            assert np.percentile(seen[7][:, 30:], 5) > 220
    assert saturation[0.0] < 4
    assert saturation[0.25] == pytest.approx(0.25 * saturation[1.0], rel=0.15)
    assert saturation[0.5] == pytest.approx(0.5 * saturation[1.0], rel=0.1)
    assert saturation[1.0] > 200


# --- spans ---------------------------------------------------------------------------------------------------


class CountedBytes(WrapperStorage):
    """Counts the bytes that are read of one object."""

    def __init__(self, inner: Storage, key: str) -> None:
        super().__init__(inner)
        self._key = key
        self.read = 0

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        stored = super().get(key, byte_range=byte_range, if_match=if_match)
        if key == self._key:
            self.read += len(stored.data)
        return stored


@pytest.mark.parametrize("treatment", ["adjust", "clip", "retime"])
def test_a_segment_of_a_timeline_reads_its_part_alone(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path, treatment: str
) -> None:
    put_pan_clip(runner.storage, VIDEO, tmp_path, frames=41)
    segments = 4
    document = {
        **request_document,
        "images": ["images/a.png", "images/b.png"] * 2 + ["images/a.png"],
        "frames": 15,
        "treatment": treatment,
        "flow_span": "timeline",
    }
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    key = keys.job_flows("t1")
    size_bytes = put_noisy_flows(runner.storage, key, tmp_path / "noisy.npz", count=40, height=HEIGHT, width=WIDTH)
    counted = CountedBytes(runner.storage, key)
    services = JobRunner(counted, tmp_path).services
    for index in range(segments):
        counted.read = 0
        render_segment(RenderSegmentInput(task_id="t1", index=index), services)
        # of one direction a quarter, a flow more on each side, and the tail with the seek table
        most = size_bytes / 2 * (1 / segments + 2 / 40) + 200 * 1024
        assert size_bytes / 2 / segments * 0.8 < counted.read < most, index
    work = keys.run_segment_file("t1", runner.status("t1").run_id, segments - 1, "result.json")
    assert SegmentResult.model_validate_json(runner.storage.get(work).data).flows_used == 10


# --- overlays ------------------------------------------------------------------------------------------------


def test_overlays_show_what_was_done_at_each_frame(runner: JobRunner, tmp_path: Path) -> None:
    document = {
        "task_id": "t1",
        "structure_video": VIDEO,
        "timeline_id": "mine",
        "treatment": "clip",
        "anchors": "start",
        "mask": "filled",
        "overlays": ["flow", "visibility", "guidance", "warp", "path"],
        "segments": [{"frames": 12, "guides": [{"at": 1, "image": "images/a.png"}]}],
    }
    assert runner.run("t1", document).state == "done"

    guide = video_of(runner, tmp_path, "guide")
    shown = {
        stage: {overlay.sequence: overlay.image for overlay in load_overlays(runner.storage, "mine", "t1", stage)}
        for stage in ("flow", "visibility", "guidance", "warp", "path")
    }
    result = result_of(runner)
    assert (result.filled, result.left_unguided) == (((2, 8),), ((0, 0), (9, 11)))
    assert {stage: sorted(pictures) for stage, pictures in shown.items()} == {
        "flow": list(range(12)),
        "visibility": list(range(12)),
        "guidance": list(range(12)),
        "warp": list(range(2, 9)),
        "path": list(range(2, 9)),
    }
    for index in range(12):
        given, filled = index == 1, 2 <= index <= 8
        frame = shown["guidance"][index]
        edge = frame[0, WIDTH // 2]
        strongest = 1 if given else 2 if filled else 0
        assert int(edge.argmax()) == strongest, "green given, blue filled, red left to the generator"
        assert distance(frame[8:-8, 8:-8], guide[index][8:-8, 8:-8]) < 7
        colour = shown["flow"][index][20:-20, 40:-20].reshape(-1, 3).mean(axis=0)
        if filled:
            assert colour[0] > colour[1] + 100
            assert distance(shown["warp"][index], guide[index]) < 7
            # arrows as long as the way, from the left: 2 px a frame
            arrow = (shown["path"][index].astype(int) - shown["warp"][index])[12, 132 - 2 * (index - 1) : 133]
            assert np.abs(arrow).max(axis=-1).min() > 20 or index < 4
            assert distance(shown["path"][index], shown["warp"][index]) < 12
        else:
            assert colour.min() == 255
        assert shown["visibility"][index].shape == (HEIGHT, WIDTH)
        assert shown["visibility"][index][:, WIDTH // 2].min() == (255 if given or filled else 0)


def test_a_second_run_leaves_no_overlays_of_the_first(runner: JobRunner) -> None:
    def document(frames: int, task_id: str = "t1") -> dict[str, Any]:
        return {
            "task_id": task_id,
            "structure_video": VIDEO,
            "timeline_id": "mine",
            "overlays": ["guidance"],
            "segments": [{"frames": frames, "guides": [{"at": 0, "image": "images/a.png"}]}],
        }

    runner.run("t1", document(12))
    runner.run("t1.b", document(9, "t1.b"))
    runner.run("t1", document(6))
    found = sorted((entry.job_id, entry.sequence) for entry in list_overlay_frames(runner.storage, "mine"))
    assert found == [*(("t1", index) for index in range(6)), *(("t1.b", index) for index in range(9))]


# --- time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["cache", "frames", "video"])
def test_a_video_of_variable_rate_keeps_its_speed_under_retime(runner: JobRunner, tmp_path: Path, source: str) -> None:
    """One pan, filmed at 24 frames per second for half a second and then at 6: 2 px per frame, then 8."""
    shifts = [*range(0, 25, 2), 32, 40, 48]
    times = [shift / 48 for shift in shifts]
    canvas = texture(HEIGHT, WIDTH + 48, seed=0)
    filmed = (np.ascontiguousarray(canvas[:, 48 - shift : 48 - shift + WIDTH]) for shift in shifts)
    write_clip(tmp_path / "slowing.mp4", filmed, timestamps_s=times)
    runner.storage.put("videos/slowing.mp4", (tmp_path / "slowing.mp4").read_bytes())
    document = {
        "task_id": "t1",
        "structure_video": "videos/slowing.mp4",
        "treatment": "retime",
        "segments": [{"frames": 13, "guides": [{"at": 0, "image": "images/a.png"}]}],
    }
    runner.put_request("t1", document)
    runner.orchestrate("t1")
    if source != "cache":
        runner.storage.delete([keys.job_flows("t1")])
    if source == "video":
        runner.storage.delete(runner.keys("cache/timelines/"))
    assert runner.segments("t1").state == "done"
    assert result_of(runner).flow_source == source

    guide = video_of(runner, tmp_path, "guide")
    for index, frame in enumerate(guide):
        shift = 4 * index
        # what stood at x is at x + shift; 48 px come in from the left
        differences = {
            moved: distance(frame[8:-8, 56:-8], guide[0][8:-8, 56 - moved : WIDTH - 8 - moved])
            for moved in range(max(shift - 3, 0), shift + 4)
        }
        assert min(differences, key=lambda moved: differences[moved]) == shift, index
