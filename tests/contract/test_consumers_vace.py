"""Guide and mask as consumers read them: each reader is written from a consumer's rules, not from our writer.

* VACE's command line, `VaceVideoProcessor` and `vace_encode_frames` / `vace_encode_masks` of its repository: frames are
  sampled by their timestamps, pictures are brought to whole patches of 16 px, the mask is cut at 0.5, packed 8 x 8 and
  sampled once per four frames.
* ComfyUI's `WanVaceToVideo`: sides in steps of 16, 4n + 1 frames, pictures from 0 to 1, the mask taken as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow import keys
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import texture

Real = NDArray[np.float64]

PATCH, STRIDE, GROUP = 16, 8, 4
#: `--size 480p`: pixels, and tokens of the transformer.
AREA, SEQUENCE = 480 * 832, 32_760


# --- the consumers' rules -----------------------------------------------------------------------------


@dataclass(frozen=True)
class VaceInput:
    """What VACE makes of two files: ``(T, H, W, 3)`` -1 to 1, ``(T, H, W)`` 0 or 1, ``(64, t, H / 8, W / 8)``."""

    frame_ids: list[int]
    size: tuple[int, int]
    inactive: Real
    reactive: Real
    mask: Real
    packed: Real


def decoded(path: Path) -> tuple[NDArray[np.uint8], list[tuple[float, float]]]:
    frames, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            assert None not in (frame.pts, stream.time_base, frame.duration)
            start = float((frame.pts or 0) * (stream.time_base or 0))
            times.append((start, start + float(frame.duration * (stream.time_base or 0))))
    return np.stack(frames), times


def nearest_exact(length: int, wanted: int) -> list[int]:
    """Where torch's ``interpolate(mode="nearest-exact")`` samples."""
    return [min(length - 1, int(np.floor((index + 0.5) * length / wanted))) for index in range(wanted)]


def packed(mask: Real) -> Real:
    depth, height, width = mask.shape
    rows, columns = 2 * (height // (2 * STRIDE)), 2 * (width // (2 * STRIDE))
    blocks = mask.reshape(depth, rows, STRIDE, columns, STRIDE).transpose(2, 4, 0, 1, 3)
    blocks = blocks.reshape(STRIDE * STRIDE, depth, rows, columns)
    return blocks[:, nearest_exact(depth, (depth + 3) // GROUP)]


def read_as_vace(guide: Path, mask: Path) -> VaceInput:
    pictures, times = decoded(guide)
    masks, _ = decoded(mask)
    length = min(len(pictures), len(masks))
    spans = np.array(times[:length], np.float32)
    height, width = pictures.shape[1:3]
    area = min(SEQUENCE, AREA / PATCH**2, (height // PATCH) * (width // PATCH))
    groups = min((length - 1) // GROUP + 1, int(SEQUENCE / area))
    area = min(area, int(SEQUENCE / groups))
    high = round(float(np.sqrt(area * height / width)))
    wide = int(area / high)
    wanted = (groups - 1) * GROUP + 1
    moments = np.linspace(0.0, spans[-1].mean(), wanted)
    inside = (moments[:, None] >= spans[None, :, 0]) & (moments[:, None] <= spans[None, :, 1])
    ids = inside.argmax(axis=1).tolist()
    video = pictures[ids].astype(np.float64) / 127.5 - 1
    levels = np.clip((masks[ids][..., 0].astype(np.float64) / 127.5 - 1 + 1) / 2, 0, 1)
    cut = np.where(levels > 0.5, 1.0, 0.0)
    return VaceInput(
        ids, (wide * PATCH, high * PATCH), video * (1 - cut[..., None]), video * cut[..., None], cut, packed(cut)
    )


def read_as_comfyui(guide: Path, mask: Path, width: int, height: int, length: int) -> tuple[Real, Real, Real]:
    """Return inactive, reactive (0 to 1) and the packed mask, as the node hands them to the VAE and the model."""
    assert width % PATCH == 0
    assert height % PATCH == 0
    assert (length - 1) % GROUP == 0
    pictures = decoded(guide)[0][:length].astype(np.float64) / 255
    masks = decoded(mask)[0][:length, ..., 0].astype(np.float64) / 255
    assert pictures.shape[:3] == masks.shape == (length, height, width), "else the node stretches or pads them"
    centred = pictures - 0.5
    inactive = centred * (1 - masks[..., None]) + 0.5
    reactive = centred * masks[..., None] + 0.5
    blocks = masks.reshape(length, height // STRIDE, STRIDE, width // STRIDE, STRIDE).transpose(2, 4, 0, 1, 3)
    blocks = blocks.reshape(STRIDE * STRIDE, length, height // STRIDE, width // STRIDE)
    return inactive, reactive, blocks[:, nearest_exact(length, (length - 1) // GROUP + 1)]


# --- jobs ---------------------------------------------------------------------------------------------


@pytest.fixture
def runner(tmp_path: Path) -> JobRunner:
    """A store with a pan that leaves a strip on the left that the first image does not show."""
    storage = MemoryStorage()
    put_pan_clip(storage, "videos/pan.mp4", tmp_path, frames=24, height=144, width=240, dx=3)
    for name, seed in (("a", 1), ("b", 2)):
        storage.put(f"images/{name}.png", png(texture(144, 240, seed=seed)))
    return JobRunner(storage, tmp_path)


def made(runner: JobRunner, tmp_path: Path, **changes: Any) -> tuple[Path, Path, SegmentResult]:
    asked: dict[str, Any] = {"task_id": "t1", "structure_video": "videos/pan.mp4", "target": "vace", **changes}
    status = runner.run("t1", asked)
    assert status.state == "done", status.error
    paths = []
    for name in ("guide", "mask"):
        path = tmp_path / f"{name}.mp4"
        runner.storage.get_to_file(keys.segment_file("t1", 0, f"{name}.mp4"), path)
        paths.append(path)
    stored = runner.storage.get(keys.segment_file("t1", 0, "result.json")).data
    return paths[0], paths[1], SegmentResult.model_validate_json(stored)


def segment(frames: int, held: int = 1) -> list[dict[str, Any]]:
    return [{"frames": frames, "guides": [{"at": [0, held - 1], "image": "images/a.png"}]}]


LEGAL = [
    ((64, 48), 5),
    ((32, 32), 9),
    ((176, 144), 17),
    ((144, 240), 21),
    ((240, 144), 81),
    ((832, 480), 13),
]


@pytest.mark.parametrize(("size", "frames"), LEGAL, ids=str)
@pytest.mark.parametrize("mask", ["visibility", "keyframes", "filled"])
def test_vace_reads_every_frame_and_every_pixel_as_it_is(
    runner: JobRunner, tmp_path: Path, size: tuple[int, int], frames: int, mask: str
) -> None:
    guide, mask_file, result = made(
        runner, tmp_path, resolution=size, segments=segment(frames, held=min(5, frames - 4)), mask=mask
    )
    read = read_as_vace(guide, mask_file)

    assert read.frame_ids == list(range(frames)), "no frame is dropped or doubled"
    assert read.size == size, "nothing is scaled or cut"
    assert read.packed.shape == (64, (frames + 3) // 4, size[1] // 8, size[0] // 8)
    patches = read.mask.reshape(frames, size[1] // PATCH, PATCH, size[0] // PATCH, PATCH)
    assert (patches.min(axis=(2, 4)) == patches.max(axis=(2, 4))).all(), "one value in each patch of the transformer"
    held = min(5, frames - 4)
    assert (read.mask[:held] == 0).all(), "guided frames are kept"
    for first in range(1, frames, GROUP):
        group = read.mask[max(first, held) : first + GROUP]
        assert (group == group[:1]).all(), f"frames {first} to {first + 3} are one to the model"
    kept = float((read.mask == 0).mean())
    assert result.kept == pytest.approx(kept)
    if mask == "filled":
        assert kept == 1
        assert any("asks the generator for nothing" in notice for notice in result.notices)
    elif mask == "keyframes":
        assert kept == pytest.approx(held / frames)
        assert float(np.abs(read.reactive[held:]).std()) > 0.05, "motion is a hint in white frames"
    elif frames > 9:
        assert held / frames < kept < 1
        white = read.mask[held:] == 1
        assert float(np.abs(read.reactive[held:][white]).mean()) < 0.03, "what is not known is grey"
    assert (read.inactive[read.mask == 1] == 0).all()


@pytest.mark.parametrize(("size", "frames"), LEGAL[:4], ids=str)
def test_comfyui_reads_what_vace_reads(runner: JobRunner, tmp_path: Path, size: tuple[int, int], frames: int) -> None:
    """The node does not cut the mask: a grey fringe would reach the model."""
    guide, mask_file, _ = made(runner, tmp_path, resolution=size, segments=segment(frames))
    inactive, reactive, blocks = read_as_comfyui(guide, mask_file, *size, frames)
    assert set(np.unique(blocks)) <= {0.0, 1.0}
    masks = decoded(mask_file)[0]
    assert set(np.unique(masks)) <= {0, 255}, "no half-tones, in no channel"
    assert (masks.min(axis=-1) == masks.max(axis=-1)).all()
    assert (inactive[masks[..., 0] == 255] == 0.5).all()
    assert np.abs(reactive[masks[..., 0] == 0] - 0.5).max() == 0
    read = read_as_vace(guide, mask_file)
    np.testing.assert_array_equal(blocks, read.packed)


def test_without_a_size_the_targets_own_is_covered_and_cropped(runner: JobRunner, tmp_path: Path) -> None:
    guide, mask_file, result = made(runner, tmp_path, segments=segment(9))
    record = JobRecord.model_validate_json(runner.storage.get(keys.job_record("t1")).data)
    assert record.resolution == (result.width_px, result.height_px) == (832, 480)
    assert decoded(guide)[0].shape == decoded(mask_file)[0].shape == (9, 480, 832, 3)
    assert read_as_vace(guide, mask_file).size == (832, 480)


def test_wan2gp_gets_settings_that_name_the_files(runner: JobRunner, tmp_path: Path) -> None:
    """Its rules: sides in whole blocks (else it rounds down), 4n + 1 frames, flags it knows, paths beside it."""
    _, _, result = made(runner, tmp_path, segments=segment(17), prompt="a lighthouse ")
    stored = runner.storage.get(keys.segment_file("t1", 0, "wan2gp.json")).data
    settings = json.loads(stored)
    width, height = (int(side) for side in settings["resolution"].split("x"))
    assert (width, height) == (result.width_px, result.height_px)
    assert width % 16 == height % 16 == 0
    assert settings["video_length"] == 17
    assert (settings["video_length"] - 1) % 4 == 0
    assert settings["prompt"] == "a lighthouse"
    assert set(settings["video_prompt_type"]) == {"V", "A"}, "a control video as it is, and a mask"
    folder = keys.segment_file("t1", 0, "wan2gp.json").removesuffix("wan2gp.json")
    for name in ("video_guide", "video_mask"):
        assert runner.storage.exists(folder + settings[name])
    assert result.outputs["wan2gp.json"].description is not None


def test_time_to_move_follows_where_the_mask_is_white(runner: JobRunner, tmp_path: Path) -> None:
    """Its rule: above 0.5 in any channel is followed; sampled at frames 0, 1, 5, 9, ..."""
    size, frames = (176, 144), 17
    ours = made(runner, tmp_path, resolution=size, segments=segment(frames), holes="warp")[1]
    kept = decoded(ours)[0] == 0
    _, theirs, result = made(runner, tmp_path, resolution=size, segments=segment(frames), target="ttm")
    described = result.outputs["mask"].description
    assert described is not None
    assert described.meaning.startswith("white (255): follow")
    followed = (decoded(theirs)[0] / 255 > 0.5).any(axis=-1)
    np.testing.assert_array_equal(followed, kept.all(axis=-1))
    sampled = [0, *range(1, frames, 4)]
    assert followed[sampled].shape == (5, 144, 176)
    assert followed[0].all()
    assert 0 < followed[-1].mean() < 1
