"""H.264 files: the frames given, at the rate given, tagged, in order; masks exact to the last pixel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from structureflow.errors import EncodeError, JobStateError, OutputError
from structureflow.media.encode import MASK, EncodedInfo, EncoderSettings, encode_h264, frame_rate, read_back
from structureflow.media.planes import flat_planes, grey_to_planes, mask_to_planes, rgb_to_planes
from structureflow.testing.videos import Image, count_frames, decode_rgb, pan_frames, texture, write_clip


def psnr_db(a: Image, b: Image) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def soft(image: Image) -> Image:
    """Blur colours so that 4:2:0 loses next to nothing and what remains is the encoder's loss."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)


@pytest.mark.parametrize("as_planes", [True, False], ids=["planes", "rgb"])
@pytest.mark.parametrize("size", [(96, 128), (94, 130)], ids=["even", "height-not-a-multiple-of-4"])
def test_frames_come_back_in_order_and_in_their_colours(tmp_path: Path, as_planes: bool, size: tuple[int, int]) -> None:
    frames = [soft(frame) for frame in pan_frames(20, *size, dx=3, dy=-2, seed=4)]
    given = [rgb_to_planes(frame) for frame in frames] if as_planes else frames
    info = encode_h264(given, tmp_path / "x.mp4", height=size[0], width=size[1], fps=16)
    decoded = list(decode_rgb(tmp_path / "x.mp4"))
    assert len(decoded) == info.frames == 20
    for index, (frame, back) in enumerate(zip(frames, decoded, strict=True)):
        assert psnr_db(frame, back) > 36
        others = [psnr_db(frame, other) for at, other in enumerate(decoded) if at != index]
        assert psnr_db(frame, back) > max(others) + 6


def test_opencv_reads_the_same_pictures(tmp_path: Path) -> None:
    frames = [soft(frame) for frame in pan_frames(5, 96, 128, dx=3, dy=-2, seed=4)]
    encode_h264([rgb_to_planes(frame) for frame in frames], tmp_path / "x.mp4", height=96, width=128, fps=16)
    capture = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    for frame in frames:
        ok, bgr = capture.read()
        assert ok
        assert psnr_db(frame, np.asarray(bgr[..., ::-1], np.uint8)) > 36
    assert not capture.read()[0]


def test_primary_colours_survive_a_tagged_decoder(tmp_path: Path) -> None:
    """A wrong matrix or range shows as tens of levels on saturated colours."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 90)]
    frames = [np.full((32, 48, 3), colour, np.uint8) for colour in colours]
    for given in (frames, [rgb_to_planes(frame) for frame in frames]):
        encode_h264(given, tmp_path / "x.mp4", height=32, width=48, fps=16, settings=EncoderSettings(1, "veryfast"))
        for colour, back in zip(colours, decode_rgb(tmp_path / "x.mp4"), strict=True):
            assert np.abs(back.astype(int) - colour).max() <= 4


@pytest.mark.parametrize("fps", [16, 25, 7.5, 24000 / 1001, 29.97])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_rate_is_constant_and_exact(tmp_path: Path, fps: float, count: int) -> None:
    rate = frame_rate(fps)
    info = encode_h264(pan_frames(count, 64, 64, dx=1, dy=0), tmp_path / "x.mp4", height=64, width=64, fps=fps)
    assert info.frames == count_frames(tmp_path / "x.mp4") == count
    assert info.fps == pytest.approx(float(rate), abs=1e-9)
    assert info.duration_s == pytest.approx(count / rate, abs=1e-3)
    assert info.size_bytes == (tmp_path / "x.mp4").stat().st_size
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.video[0].average_rate == rate
        times = [Fraction(frame.pts or 0) * frame.time_base for frame in container.decode(video=0)]
    assert times == [index / rate for index in range(count)]


def test_ntsc_rates_are_kept_as_fractions() -> None:
    assert frame_rate(24000 / 1001) == Fraction(24000, 1001)
    assert frame_rate(29.97) == Fraction(2997, 100)
    assert frame_rate(16) == 16


def test_the_file_is_h264_yuv420p_bt709_with_its_index_in_front(tmp_path: Path) -> None:
    encode_h264(pan_frames(3, 64, 64, dx=1, dy=0), tmp_path / "x.mp4", height=64, width=64, fps=16)
    with av.open(str(tmp_path / "x.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


GAP = [0] * 20 + [255] * 43 + [0] * 10


@pytest.mark.parametrize(
    "masks",
    [GAP, [0, 255] * 8, [0] * 30, [255] * 30, [255], [0], list(np.random.default_rng(5).integers(0, 2, 40) * 255)],
    ids=["gap", "alternating", "black", "white", "one-white", "one-black", "random"],
)
@pytest.mark.parametrize("size", [(240, 416), (34, 46)])
def test_every_pixel_of_a_decoded_mask_is_exactly_0_or_255(
    tmp_path: Path, masks: list[int], size: tuple[int, int]
) -> None:
    height, width = size
    planes = {value: flat_planes(height, width, value) for value in (0, 255)}
    given = (planes[value] for value in masks)
    info = encode_h264(given, tmp_path / "m.mp4", height=height, width=width, fps=16, settings=MASK)
    decoded = list(decode_rgb(tmp_path / "m.mp4"))
    assert info.frames == len(decoded) == len(masks)
    for value, frame in zip(masks, decoded, strict=True):
        assert frame.shape == (height, width, 3)
        assert frame.min() == frame.max() == value
    capture = cv2.VideoCapture(str(tmp_path / "m.mp4"))
    for value in masks:
        bgr = capture.read()[1]
        assert bgr.min() == bgr.max() == value


def test_masks_of_single_pixels_stay_on_their_side_of_the_middle(tmp_path: Path) -> None:
    """Blocks of eight pixels, the generators' grain: binarised at the middle, what is decoded is what was given."""
    random = np.random.default_rng(3)
    masks = [np.kron(random.integers(0, 2, (12, 20)), np.ones((8, 8))).astype(np.uint8) * 255 for _ in range(6)]
    given = (grey_to_planes(mask) for mask in masks)
    encode_h264(given, tmp_path / "m.mp4", height=96, width=160, fps=16, settings=MASK)
    for mask, frame in zip(masks, decode_rgb(tmp_path / "m.mp4"), strict=True):
        np.testing.assert_array_equal(frame[..., 0] > 127, mask > 127)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="at least one frame"):
        encode_h264([], tmp_path / "x.mp4", height=16, width=16, fps=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [np.zeros((16, 18, 3), np.uint8), np.zeros((24, 18), np.uint8), np.zeros((16, 16, 3), np.float32)],
    ids=["rgb-size", "planes-size", "dtype"],
)
def test_a_frame_of_another_shape_is_refused_and_no_file_stays(tmp_path: Path, bad: Image) -> None:
    with pytest.raises(EncodeError, match="frame 1: expected"):
        encode_h264([texture(16, 16), bad], tmp_path / "x.mp4", height=16, width=16, fps=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"height": 15, "width": 16, "fps": 16},
        {"height": 16, "width": 17, "fps": 16},
        {"height": 16, "width": 16, "fps": 2000},
        {"height": 16, "width": 16, "fps": 1e-9},
        {"height": 16, "width": 16, "fps": 16, "settings": EncoderSettings(17, "no-such-preset")},
    ],
)
def test_impossible_options_are_typed_errors(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        encode_h264([texture(16, 16)], tmp_path / "x.mp4", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_frames_passes_unchanged(tmp_path: Path) -> None:
    def broken() -> Iterator[Image]:
        yield texture(16, 16)
        raise JobStateError("frame 1 is corrupt")

    with pytest.raises(JobStateError, match="frame 1 is corrupt"):
        encode_h264(broken(), tmp_path / "x.mp4", height=16, width=16, fps=16)
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_file_is_deleted(tmp_path: Path) -> None:
    """Far enough in that the encoder has written frames."""

    def broken() -> Iterator[Image]:
        yield from pan_frames(150, 64, 64, dx=1, dy=0)
        (half,) = tmp_path.rglob("x.mp4")
        assert half.stat().st_size
        raise JobStateError("frame 150 is corrupt")

    with pytest.raises(JobStateError, match="frame 150 is corrupt"):
        encode_h264(broken(), tmp_path / "x.mp4", height=64, width=64, fps=16)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_number_of_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = EncodedInfo(frames=4, size_bytes=1, fps=16, duration_s=0.25)
    monkeypatch.setattr("structureflow.media.encode.read_back", lambda _: info)
    with pytest.raises(EncodeError, match="expected 5 frames, the file has 4"):
        encode_h264(pan_frames(5, 64, 64, dx=1, dy=0), tmp_path / "x.mp4", height=64, width=64, fps=16)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("no folder")
    with pytest.raises(OutputError, match=r"expected a folder to write to, got the file .*none"):
        encode_h264([texture(16, 16)], tmp_path / "none" / "x.mp4", height=16, width=16, fps=16)


def test_reading_back_what_is_no_video_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"not a video" * 50)
    with pytest.raises(EncodeError, match="cannot be read back"):
        read_back(tmp_path / "x.mp4")


def test_read_back_counts_what_decoding_counts(bigbuckbunny: Path) -> None:
    assert read_back(bigbuckbunny).frames == count_frames(bigbuckbunny) == 132


# --- the clip factory that other tests build on ---------------------------------------------------------


def test_a_panned_clip_moves_as_it_says(tmp_path: Path) -> None:
    frames = list(pan_frames(6, 64, 96, dx=4, dy=-2, seed=9))
    for before, after in itertools.pairwise(frames):
        np.testing.assert_array_equal(after[:-2, 4:], before[2:, :-4])
    decoded = list(decode_rgb(write_clip(tmp_path / "x.mp4", (soft(frame) for frame in frames), fps=25)))
    assert len(decoded) == 6
    assert all(psnr_db(soft(a), b) > 36 for a, b in zip(frames, decoded, strict=True))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_clip_is_turned_by_readers_that_obey_the_metadata(tmp_path: Path, degrees: int) -> None:
    image = soft(texture(64, 96, seed=2))
    write_clip(tmp_path / "x.mp4", [image, image], rotation_deg=degrees)
    turned = np.rot90(image, -degrees // 90)
    ok, bgr = cv2.VideoCapture(str(tmp_path / "x.mp4")).read()
    assert ok
    assert psnr_db(np.ascontiguousarray(turned), np.asarray(bgr[..., ::-1], np.uint8)) > 36


def test_a_clip_of_variable_rate_has_the_timestamps_given(tmp_path: Path) -> None:
    times = [0, 0.04, 0.2, 0.21, 1.0]
    write_clip(tmp_path / "x.mp4", pan_frames(5, 64, 64, dx=1, dy=0), timestamps_s=times)
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times, abs=1e-6)


def test_any_mask_comes_back_to_the_byte(tmp_path: Path) -> None:
    """Not only blocks: edges of single pixels, and noise, as RGB and as grey."""
    random = np.random.default_rng(5)
    noise = random.random((8, 96, 160))
    masks = np.asarray(np.where(noise < 0.5, 0, 255), np.uint8)
    masks[4:, 20:70, 30:120] = 255
    path = tmp_path / "mask.mp4"
    encode_h264([mask_to_planes(mask) for mask in masks], path, height=96, width=160, fps=16, settings=MASK)
    with av.open(str(path)) as container:
        for mask, frame in zip(masks, container.decode(video=0), strict=True):
            np.testing.assert_array_equal(frame.to_ndarray(format="gray"), mask)
            np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), np.repeat(mask[..., None], 3, axis=-1))
