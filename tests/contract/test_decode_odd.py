"""Files that real cameras, editors and recorders leave, as `../shared/media/odd/README.md` lists them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.testing.videos import Image
from tests.conftest import real_clip

LIMIT = 4.0  # mean error of 255: what chroma interpolation and deinterlacing may differ


def odd(name: str) -> Path:
    return real_clip(f"odd/{name}")


def decode(name: str) -> list[DecodedFrame]:
    with VideoReader(odd(name), DecodeLimits(min_frames=1)) as reader:
        frames = list(reader)
        assert all(frame.image.shape == (reader.info.height_px, reader.info.width_px, 3) for frame in frames)
    times = [frame.timestamp_s for frame in frames]
    assert times[0] == 0
    assert all(after > before for before, after in pairwise(times))
    return frames


def by_pyav(name: str, stream: int = 0) -> list[Image]:
    """Decode the plain way: nothing applied but FFmpeg's own conversion."""
    with av.open(str(odd(name))) as container:
        video: Any = container.streams[stream]
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video)]


def error(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.int16) - other).mean())


def assert_same(frames: list[DecodedFrame], truth: list[Image], limit: float = LIMIT) -> None:
    assert len(frames) == len(truth)
    assert max(error(frame.image, image) for frame, image in zip(frames, truth, strict=True)) < limit


@pytest.fixture(scope="module")
def base() -> list[Image]:
    return by_pyav("base.mp4")


def as_stored(image: Image) -> Image:
    return image


SAME_PICTURES = [
    "base.mp4",
    "interlaced_psf_h264.mp4",
    "audio_longer_0.3s.mkv",
    "audio_longer_0.3s.ts",
    "audio_longer_2s.webm",
    "video_starts_late.mkv",
    "av1.webm",
    "preview_stream_first.mp4",
    "cover_first.mkv",
    "live.webm",
    "wait...what.mp4",
]
TURNED: list[tuple[str, Callable[[Image], Image]]] = [
    *((name, as_stored) for name in SAME_PICTURES),
    ("matrix_mirror_h.mp4", np.fliplr),
    ("matrix_mirror_v.mp4", np.flipud),
    ("matrix_transpose.mp4", lambda image: np.swapaxes(image, 0, 1)),
]


@pytest.mark.parametrize(("name", "displayed"), TURNED, ids=[name for name, _ in TURNED])
def test_the_pictures_are_those_of_the_plain_file(
    base: list[Image], name: str, displayed: Callable[[Image], Image]
) -> None:
    assert_same(decode(name), [displayed(image) for image in base])


def test_pixels_become_square(base: list[Image]) -> None:
    frames = decode("sar_2_1.mp4")
    assert len(frames) == 24
    for frame, stored in zip(frames, by_pyav("sar_2_1.mp4"), strict=True):
        assert frame.image.shape == (240, 640, 3)
        halved = frame.image.reshape(240, 320, 2, 3).mean(2)
        assert error(halved.astype(np.uint8), stored) < LIMIT


def test_true_fields_become_moving_pictures() -> None:
    frames = [frame.image for frame in decode("interlaced_mpeg2.mpg")]
    assert len(frames) == 25
    assert min(error(one, two) for one, two in pairwise(frames)) > 0.5
    stored = by_pyav("interlaced_mpeg2.mpg")
    assert max(error(one, two) for one, two in zip(frames, stored, strict=True)) < 12  # its own pictures…
    assert np.mean([combing(image) for image in frames]) < 0.6 * np.mean([combing(image) for image in stored])


def combing(image: Image) -> float:
    """Return how much every second row departs from both of its neighbours to the same side."""
    rows = image.astype(np.int16).mean(-1)
    up, down = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
    return float(np.where(up * down > 0, np.minimum(np.abs(up), np.abs(down)), 0).mean())


def test_what_an_edit_list_hides_is_not_shown(base: list[Image]) -> None:
    frames = decode("trim_copy.mp4")
    assert len(frames) == 7
    assert_same(frames, by_pyav("trim_copy.mp4"))


def test_a_variable_rate_keeps_its_times() -> None:
    steps = np.diff([frame.timestamp_s for frame in decode("vfr.mp4")])
    assert steps[:6] == pytest.approx([1 / 24] * 6, abs=2e-3)
    assert steps[-3:] == pytest.approx([1 / 6] * 3, abs=2e-3)


def test_a_hole_is_mid_grey() -> None:
    frames = decode("alpha_guide.mov")
    with av.open(str(odd("alpha_guide.mov"))) as container:
        stored = [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]
    assert len(frames) == 6
    for frame, image in zip(frames, stored, strict=True):
        hole = image[..., 3] == 0
        assert 0 < hole.mean() < 1
        assert (frame.image[hole] == 128).all()
        assert np.abs(frame.image[~hole].astype(int) - image[~hole][:, :3]).max() <= 1


@pytest.mark.skipif("webp_anim" not in av.formats_available, reason="PyAV before 19 knows no animated WebP")
def test_an_animated_webp_is_a_video() -> None:
    frames = decode("anim.webp")
    assert len(frames) == 12
    assert frames[0].image.shape == (120, 160, 3)
    assert_same(frames, by_pyav("anim.webp"))
