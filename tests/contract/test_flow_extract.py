"""Extraction on real and synthetic clips: flows, cuts, frames handed over, keys, bounded memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import CorruptMediaError, FlowError, VideoTooShortError
from structureflow.flow.archive import open_flow_file
from structureflow.flow.engines import DisEngine
from structureflow.flow.extract import (
    ExtractionPlan,
    ExtractionResult,
    extract_from_frames,
    extract_to_archive,
    plan_extraction,
    prepare_frame,
)
from structureflow.flow.fields import Direction
from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoInfo, VideoReader
from structureflow.testing.flows import panning_frames, texture, write_lossless


def _extract(video: Path, target: Path, *, quality: str = "fast", **options: Any) -> ExtractionResult:
    limits = options.pop("limits", DecodeLimits())
    with VideoReader(video, limits) as reader:
        plan = plan_extraction(reader.info, options.pop("name", "dis"), quality)
    return extract_to_archive(
        video, target, plan, source_video=video.name, source_identity="ab" * 32, limits=limits, workers=2, **options
    )


def _cuts(frames: list[NDArray[np.uint8]]) -> tuple[int, ...]:
    height, width = frames[0].shape[:2]
    plan = plan_extraction(VideoInfo(len(frames), 25.0, width, height, 1.0), "dis", "fast")
    return extract_from_frames(frames, plan, original_fps=25.0, workers=2).meta.scene_cuts


def test_a_known_pan_stands_in_the_archive(tmp_path: Path) -> None:
    frames = panning_frames(12, 240, 320, (6, -2))
    video = write_lossless(tmp_path / "v.mkv", frames, fps=12.0)
    result = _extract(video, tmp_path / "f.npz")
    meta = result.meta
    assert (meta.total_flows, meta.height, meta.width) == (11, 240, 320)
    assert (meta.original_height, meta.original_width, meta.original_fps) == (240, 320, 12.0)
    assert meta.scene_cuts == ()
    np.testing.assert_allclose(meta.timestamps_s, np.arange(12) / 12, atol=1e-3)
    assert (result.info.frames, result.info.fps) == (12, 12.0)
    archive = open_flow_file(tmp_path / "f.npz")
    assert archive.meta.engine == "dis"
    assert archive.meta.engine_params["opencv"] == cv2.__version__
    assert archive.meta.source_identity == "ab" * 32
    directions: tuple[tuple[Direction, int], ...] = (("forward", 1), ("backward", -1))
    for direction, sign in directions:
        flow = archive.read(direction, 0, 11)[:, 30:-30, 30:-30].astype(np.float32)
        np.testing.assert_allclose(np.median(flow, axis=(0, 1, 2)), sign * np.array([6, -2]), atol=0.2)


def test_frames_and_archive_give_the_same_flows(tmp_path: Path) -> None:
    frames = panning_frames(8, 96, 128, (2, 1))
    video = write_lossless(tmp_path / "v.mkv", frames)
    _extract(video, tmp_path / "f.npz")
    archive = open_flow_file(tmp_path / "f.npz")
    with VideoReader(video) as reader:
        plan = plan_extraction(reader.info, "dis", "fast")
        arrays = extract_from_frames((frame.image for frame in reader), plan, original_fps=25.0)
    assert arrays.read("forward", 2, 6).tobytes() == archive.read("forward", 2, 6).tobytes()
    assert arrays.read("backward", 2, 6).tobytes() == archive.read("backward", 2, 6).tobytes()
    assert (arrays.meta.engine, arrays.meta.height) == (archive.meta.engine, archive.meta.height)


def test_the_reference_clip_has_no_cuts_and_its_flow_explains_it(bigbuckbunny: Path, tmp_path: Path) -> None:
    kept: dict[int, NDArray[np.uint8]] = {}

    def keep(frame: DecodedFrame) -> None:
        if frame.index in (40, 41):
            kept[frame.index] = frame.image

    result = _extract(bigbuckbunny, tmp_path / "f.npz", quality="best", on_frame=keep)
    assert result.meta.total_flows == 131
    assert result.meta.scene_cuts == ()
    archive = open_flow_file(tmp_path / "f.npz")
    backward = archive.read("backward", 40, 41)[0].astype(np.float32)
    backward = cv2.resize(backward, (1280, 720)) * [1280 / archive.meta.width, 720 / archive.meta.height]
    grid = np.dstack(np.meshgrid(np.arange(1280), np.arange(720)))

    def error_of(flow: Any) -> float:
        position = (grid + flow).astype(np.float32)
        nothing: Any = None
        pulled = cv2.remap(kept[40], position, nothing, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return float(((np.asarray(pulled, np.float64) - kept[41]) ** 2).mean())

    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    gray = {index: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for index, image in kept.items()}
    at_full_size = error_of(dis.calc(gray[41], gray[40], None))
    assert error_of(backward) < at_full_size < error_of(np.zeros(2)) / 3


def test_real_scenes_put_together_are_told_apart(bigbuckbunny: Path, corrupted_clip: Path) -> None:
    def frames(clip: Path, count: int) -> list[NDArray[np.uint8]]:
        images = []
        with VideoReader(clip) as reader:
            for frame in reader:
                images.append(prepare_frame(frame.image, 180, 320, "rgb"))
                if len(images) == count:
                    break
        return images

    one, two = frames(bigbuckbunny, 6), frames(corrupted_clip, 6)
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in one]
    assert _cuts([*one, *two, *mirrored]) == (5, 11)


def test_hard_cuts_are_found_where_they_are() -> None:
    scenes = [panning_frames(5, 180, 320, (3, 0), seed=seed) for seed in (1, 2, 3)]
    assert _cuts([frame for scene in scenes for frame in scene]) == (4, 9)


@pytest.mark.parametrize("step", [(0, 0), (8, 0), (24, 6), (-32, 0)])
def test_a_pan_is_no_cut(step: tuple[int, int]) -> None:
    assert _cuts(panning_frames(5, 180, 320, step)) == ()


def test_light_and_noise_are_no_cuts() -> None:
    frames = panning_frames(6, 180, 320, (2, 1))
    frames[2] = np.clip(frames[2] * 1.6, 0, 255).astype(np.uint8)
    frames[4] = (frames[4] * 0.4).astype(np.uint8)
    assert _cuts(frames) == ()
    generator = np.random.default_rng(0)
    noisy = [np.clip(f + generator.normal(0, 12, f.shape), 0, 255).astype(np.uint8) for f in frames]
    assert _cuts(noisy) == ()
    one, two = texture(180, 320, seed=1).astype(np.float32), texture(180, 320, seed=2)
    dissolve = [((1 - k / 12) * one + k / 12 * two).astype(np.uint8) for k in range(13)]
    assert _cuts(dissolve) == ()
    assert _cuts([np.full((180, 320, 3), value, np.uint8) for value in (0, 4, 8)]) == ()


def test_every_frame_is_handed_over_once_in_order_in_one_thread(tmp_path: Path) -> None:
    frames = panning_frames(10, 64, 96, (1, 0))
    video = write_lossless(tmp_path / "v.mkv", frames)
    seen: list[tuple[int, int, int]] = []

    def slow(frame: DecodedFrame) -> None:
        time.sleep(0.002)
        assert frame.image.shape == (64, 96, 3)
        seen.append((frame.index, int(frame.image[5, 5, 0]), threading.get_ident()))

    before = set(threading.enumerate())
    result = _extract(video, tmp_path / "f.npz", on_frame=slow)
    assert set(threading.enumerate()) <= before, "none of its threads is left"
    assert [index for index, _, _ in seen] == list(range(10))
    assert len({thread for _, _, thread in seen}) == 1
    assert seen[0][2] != threading.get_ident()
    for (_, red, _), frame in zip(seen, frames, strict=True):
        assert abs(red - int(frame[5, 5, 0])) <= 3
    assert result.timings_s["on_frame"] > 0


@pytest.mark.parametrize("failing", [0, 3, 9])
def test_an_error_of_the_frame_cache_ends_the_extraction(tmp_path: Path, failing: int) -> None:
    video = write_lossless(tmp_path / "v.mkv", panning_frames(10, 64, 96, (1, 0)))
    seen: list[int] = []

    def fail(frame: DecodedFrame) -> None:
        seen.append(frame.index)
        if frame.index == failing:
            raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        _extract(video, tmp_path / "f.npz", on_frame=fail)
    assert seen == list(range(failing + 1))
    assert [path.name for path in tmp_path.iterdir()] == ["v.mkv"]


def test_a_damaged_clip_leaves_no_archive(corrupted_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptMediaError):
        _extract(corrupted_clip, tmp_path / "f.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_rotated_clip_is_extracted_upright(rotated_clip: Path, tmp_path: Path) -> None:
    meta = _extract(rotated_clip, tmp_path / "f.npz").meta
    assert (meta.original_height, meta.original_width, meta.total_flows) == (568, 320, 2)
    assert meta.height > meta.width


def test_one_frame_is_too_short(tmp_path: Path) -> None:
    video = write_lossless(tmp_path / "v.mkv", panning_frames(1, 64, 96, (0, 0)))
    with pytest.raises(VideoTooShortError):
        _extract(video, tmp_path / "f.npz")
    plan = ExtractionPlan("dis", DisEngine().params(), 64, 96)
    with pytest.raises(FlowError, match="at least two"):
        extract_from_frames(panning_frames(1, 64, 96, (0, 0)), plan, original_fps=8.0)
    with pytest.raises(FlowError, match="same size"):
        extract_from_frames([np.zeros((64, 96, 3), np.uint8), np.zeros((64, 98, 3), np.uint8)], plan, original_fps=8.0)


def test_an_engine_may_be_passed_in_and_get_colour(tmp_path: Path) -> None:
    class Recorder:
        name = "raft"
        colour = "rgb"

        def __init__(self) -> None:
            self.shapes: list[Any] = []

        def params(self) -> dict[str, Any]:
            return {"weights": "mine"}

        def run(self, frames: Any, finish: Any, *, workers: int) -> Any:  # noqa: ARG002
            previous = None
            for frame in frames:
                self.shapes.append(frame.shape)
                if previous is not None:
                    flow = np.full((*frame.shape[:2], 2), 1.5, np.float32)
                    yield finish(previous, frame, flow, -flow)
                previous = frame

    video = write_lossless(tmp_path / "v.mkv", panning_frames(4, 64, 96, (1, 0)))
    engine: Any = Recorder()
    meta = _extract(video, tmp_path / "f.npz", name="raft", engine=engine).meta
    assert engine.shapes == [(64, 96, 3)] * 4
    assert (meta.engine, meta.engine_params["weights"]) == ("raft", "mine")
    assert (open_flow_file(tmp_path / "f.npz").read("backward", 0, 3) == -1.5).all()


_PEAK_SCRIPT = """
import sys
from pathlib import Path
from structureflow.flow.extract import extract_to_archive, plan_extraction
from structureflow.jobs.timeline import FrameKeeper
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.storage.local import LocalStorage
video = Path(sys.argv[1])
store = LocalStorage(video.with_suffix(""))
with VideoReader(video) as reader:
    plan = plan_extraction(reader.info, "dis", "fast")
with FrameKeeper.open(store, "t", "s3:0:0") as keeper:
    extract_to_archive(video, video.with_suffix(".npz"), plan, source_video="", source_identity="",
                       limits=DecodeLimits(), workers=2, on_frame=keeper.add)
    assert keeper.commit() is None
kept = sum(1 for _ in store.list("cache/timelines/t/frames/"))
print(kept, Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    scene = panning_frames(20, 360, 640, (3, 1))

    def peak_kb(count: int) -> int:
        video = tmp_path / f"v{count}.avi"
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (640, 360))
        for index in range(count):
            writer.write(scene[index % 20])
        writer.release()
        done = subprocess.run(
            [sys.executable, "-c", _PEAK_SCRIPT, str(video)], check=True, capture_output=True, text=True
        )
        frames, peak = done.stdout.split()
        assert int(frames) == count
        return int(peak)

    # 350 more frames are 240 MB of pixels and 160 MB of flow; none of them may stay.
    short, long = peak_kb(50), peak_kb(400)
    assert 20_000 < short < 600_000
    assert long < short + 25_000
