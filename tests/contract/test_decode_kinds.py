"""Videos of every kind that cameras, editors and recorders make, each made here with known truth."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from structureflow.errors import (
    CorruptMediaError,
    MediaLimitError,
    NotAVideoError,
    UnsupportedCodecError,
    VideoTooShortError,
)
from structureflow.media.decode import DecodedFrame, DecodeLimits, VideoReader
from structureflow.testing import odd_videos
from structureflow.testing.odd_videos import UNTAGGED, write_video
from structureflow.testing.videos import Image, pan_frames, write_clip

COUNT, HEIGHT, WIDTH = 12, 96, 128
needs_animated_webp = pytest.mark.skipif(
    "webp_anim" not in av.formats_available, reason="PyAV before 19, which Python 3.11 has, knows no animated WebP"
)
LIMIT = 4.0


def pan(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH, **motion: int) -> list[Image]:
    """Return a camera pan in muted colours, which halved chroma planes carry nearly whole."""
    pictures = pan_frames(count, height, width, **{"dx": 3, "dy": 1, **motion})
    return [(image * 0.3 + image.mean(-1, keepdims=True) * 0.7).astype(np.uint8) for image in pictures]


def decode(path: Path, **limits: int) -> list[DecodedFrame]:
    with VideoReader(path, DecodeLimits(**{"min_frames": 1, **limits}), threads=1) as reader:
        frames = list(reader)
        assert {frame.image.shape for frame in frames} == {(reader.info.height_px, reader.info.width_px, 3)}
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[0].timestamp_s == 0
    assert all(after.timestamp_s > before.timestamp_s for before, after in pairwise(frames))
    return frames


def error(one: Image, other: Image) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.int16) - other).mean())


def assert_shows(path: Path, truth: list[Image], limit: float = LIMIT) -> list[DecodedFrame]:
    frames = decode(path)
    assert len(frames) == len(truth)
    assert max(error(frame.image, image) for frame, image in zip(frames, truth, strict=True)) < limit
    return frames


# --- codecs and containers ---------------------------------------------------------------------------

CODECS: list[Any] = [
    ("h264.mp4", "libx264", "yuv420p", {"crf": "8"}),
    ("h264.ts", "libx264", "yuv420p", {"crf": "8"}),
    ("h264.flv", "libx264", "yuv420p", {"crf": "8"}),
    ("h264_422_10.mkv", "libx264", "yuv422p10le", {"crf": "8"}),
    ("hevc.mov", "libx265", "yuv420p", {"crf": "8", "x265-params": "log-level=none"}),
    ("hevc_10.mp4", "libx265", "yuv420p10le", {"crf": "8", "x265-params": "log-level=none"}),
    ("av1.mp4", "libsvtav1", "yuv420p", {"crf": "10", "preset": "10"}),
    ("vp8.webm", "libvpx", "yuv420p", {"b": "4M"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"crf": "5", "cpu-used": "8"}),
    ("mpeg2.mpg", "mpeg2video", "yuv420p", {"q:v": "2", "b": "8M"}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {"b": "8M"}),
    ("mjpeg.avi", "mjpeg", "yuvj420p", {"q:v": "1", "b": "20M"}),
    ("prores.mov", "prores_ks", "yuv422p10le", {"profile": "3"}),
    ("ffv1.mkv", "ffv1", "yuv444p", {}),
    ("png.mov", "png", "rgb24", {}),
    ("raw.nut", "rawvideo", "yuv420p", {}),
    ("raw.y4m", "wrapped_avframe", "yuv420p", {}),
    ("anim.apng", "apng", "rgb24", {}),
    pytest.param("anim.webp", "libwebp_anim", "bgra", {"quality": "98"}, marks=needs_animated_webp),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options"), CODECS)
def test_codecs(tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    # BT.601 at this size, also where the container has no place for tags
    full = pix_fmt == "yuvj420p"
    path = write_video(
        tmp_path / name, pan(), codec=codec, pix_fmt=pix_fmt, options=options, full_range=full, matrix=5, tags=(5, 1, 1)
    )
    frames = assert_shows(path, pan())
    assert frames[-1].timestamp_s == pytest.approx((COUNT - 1) / 25, abs=2e-3)


def test_a_gif_is_a_video(tmp_path: Path) -> None:
    steps = [np.full((HEIGHT, WIDTH, 3), (0, 36 * (i % 8), 255), np.uint8) for i in range(6)]
    path = write_video(tmp_path / "a.gif", steps, codec="gif", pix_fmt="rgb8", source_format="rgb24")
    assert len(assert_shows(path, steps, 12)) == 6


def test_dv_is_deinterlaced_and_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.dv", pan(6, 576, 720), codec="dvvideo", pix_fmt="yuv420p", sar=Fraction(16, 15))
    frames = decode(path)
    assert len(frames) == 6
    assert frames[0].image.shape == (576, 768, 3)
    truth = [cv2.resize(image, (768, 576), interpolation=cv2.INTER_CUBIC) for image in pan(6, 576, 720)]
    assert max(error(frame.image, np.asarray(image, np.uint8)) for frame, image in zip(frames, truth, strict=True)) < 8


@pytest.mark.parametrize("sides", [(96, 128), (97, 131), (66, 98)])
def test_odd_sides(tmp_path: Path, sides: tuple[int, int]) -> None:
    truth = pan(4, *sides)
    assert_shows(write_video(tmp_path / "a.mkv", truth, codec="ffv1", pix_fmt="yuv420p"), truth)


# --- fields ------------------------------------------------------------------------------------------

FIELDS: list[tuple[str, str, str, dict[str, str]]] = [
    ("a.mpg", "mpeg2video", "yuv420p", {"q:v": "2", "b": "20M"}),
    ("a.mp4", "libx264", "yuv420p", {"crf": "6", "x264-params": "tff=1"}),
    ("a.ts", "libx264", "yuv422p", {"crf": "6", "x264-params": "tff=1"}),
    ("a.mov", "prores_ks", "yuv422p10le", {"profile": "3"}),
    ("a.mkv", "ffv1", "yuv420p", {}),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options"), FIELDS, ids=[f"{c[1]}-{c[0]}" for c in FIELDS])
def test_fields_become_pictures_of_one_time_that_move_as_the_camera_did(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    count, step = 8, 3
    moments = pan(2 * count, dx=step, dy=0)
    woven = odd_videos.woven_fields(moments)
    path = write_video(tmp_path / name, woven, codec=codec, pix_fmt=pix_fmt, options=options, field="tff")
    frames = [frame.image for frame in decode(path)]
    assert len(frames) == count
    truth = moments[::2]  # the time of the first field
    middle = slice(2, -2)
    for image, first, stored in zip(frames[middle], truth[middle], woven[middle], strict=True):
        assert error(image, first) < 0.75 * error(stored, first)
    for one, two in pairwise(frames):
        assert error(one, two) > 1
        shift, _ = cv2.phaseCorrelate(*(np.float64(image.mean(-1)) for image in (one, two)))
        assert shift[0] == pytest.approx(2 * step, abs=0.7)
        assert shift[1] == pytest.approx(0, abs=0.3)


def test_pictures_that_are_only_flagged_as_fields_stay(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(), options={"crf": "6", "x264-params": "tff=1"}, field="tff")
    assert_shows(path, pan())


def test_fields_may_begin_in_the_middle(tmp_path: Path) -> None:
    """A recording that goes from progressive to interlaced loses no frame and shows each one once."""
    one = write_video(tmp_path / "one.ts", pan(6), options={"crf": "6"})
    two = write_video(tmp_path / "two.ts", pan(6), options={"crf": "6", "x264-params": "tff=1"}, field="tff")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    assert_shows(both, [*pan(6), *pan(6)])


# --- what is displayed -------------------------------------------------------------------------------

MATRICES: list[tuple[tuple[int, int, int, int], Callable[[Image], Image]]] = [
    ((1, 0, 0, 1), lambda a: a),
    ((-1, 0, 0, 1), np.fliplr),
    ((1, 0, 0, -1), np.flipud),
    ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    ((0, -1, 1, 0), np.rot90),
    ((0, 1, 1, 0), lambda a: np.swapaxes(a, 0, 1)),
    ((0, -1, -1, 0), lambda a: np.rot90(np.swapaxes(a, 0, 1), 2)),
]


@pytest.mark.parametrize(("matrix", "shown"), MATRICES, ids=[str(matrix) for matrix, _ in MATRICES])
def test_the_display_matrix_turns_and_mirrors(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: Callable[[Image], Image]
) -> None:
    path = odd_videos.set_display_matrix(write_clip(tmp_path / "a.mp4", pan(4), crf=8), *matrix)
    assert_shows(path, [shown(image) for image in pan(4)])


def test_the_matrix_is_read_as_ffmpeg_reads_it(tmp_path: Path) -> None:
    """The truth above, checked against FFmpeg's own filters as its command line inserts them."""
    filters = {(0, 1, -1, 0): ("transpose", "clock"), (0, -1, 1, 0): ("transpose", "cclock")}
    for matrix, (name, value) in filters.items():
        path = odd_videos.set_display_matrix(write_clip(tmp_path / "a.mp4", pan(3), crf=8), *matrix)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            graph = av.filter.Graph()
            chain = [graph.add_buffer(template=stream), graph.add(name, value), graph.add("buffersink")]
            graph.link_nodes(*chain).configure()
            turned = []
            for frame in container.decode(stream):
                graph.vpush(frame)
                turned.append(graph.vpull().to_ndarray(format="rgb24"))
        assert_shows(path, turned)


@pytest.mark.parametrize(
    ("sar", "size"),
    [(Fraction(2), (96, 256)), (Fraction(4, 3), (96, 171)), (Fraction(1, 2), (192, 128)), (Fraction(8, 9), (108, 128))],
)
def test_pixels_become_square(tmp_path: Path, sar: Fraction, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mp4", pan(3), sar=sar, options={"crf": "8"})
    truth = [np.asarray(cv2.resize(i, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8) for i in pan(3)]
    assert_shows(path, truth)


def test_square_pixels_before_a_quarter_turn(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(3), sar=Fraction(2), options={"crf": "8"})
    odd_videos.set_display_matrix(path, 0, 1, -1, 0)
    assert decode(path)[0].image.shape == (256, 96, 3)


def test_a_stream_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "s.ts", pan(4), options={"crf": "8"})
    large = write_video(tmp_path / "l.ts", pan(4, 2 * HEIGHT, 2 * WIDTH), options={"crf": "8"})
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = decode(both)
    assert len(frames) == 8
    halved = [image.reshape(HEIGHT, 2, WIDTH, 2, 3).mean((1, 3)).astype(np.uint8) for image in pan(4, 192, 256)]
    assert max(error(f.image, i) for f, i in zip(frames[4:], halved, strict=True)) < LIMIT


# --- which stream, which time ------------------------------------------------------------------------


def cover(height: int, width: int) -> list[Image]:
    return [np.full((height, width, 3), (250, 10, 10), np.uint8)]


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("attached.mp4", [("mjpeg", cover(300, 300), Disposition.attached_pic), ("libx264", pan(), 0)]),
        ("large_cover.mkv", [("mjpeg", cover(300, 300), Disposition.default), ("libx264", pan(), Disposition.default)]),
        ("preview.mp4", [("libx264", pan(COUNT, 48, 64), 0), ("libx264", pan(), Disposition.default)]),
        ("sizes.mkv", [("libx264", pan(COUNT, 48, 64), Disposition.default), ("libx264", pan(), Disposition.default)]),
        ("default.mkv", [("libx264", pan(COUNT, 192, 256), 0), ("libx264", pan(), Disposition.default)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_stream_is_the_one_that_a_player_shows(tmp_path: Path, name: str, streams: Any) -> None:
    assert_shows(odd_videos.beside(tmp_path / name, streams), pan(), 8)


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    odd_videos.beside(path, [("mjpeg", cover(96, 96), Disposition.attached_pic)])
    with pytest.raises(NotAVideoError, match="1 cover picture"):
        VideoReader(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.ts", "a.mp4", "a.mov"])
def test_sound_may_outlast_the_picture(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    options = {"crf": "8", **({"cpu-used": "8"} if codec != "libx264" else {})}
    path = write_video(tmp_path / name, pan(), codec=codec, options=options, sound_s=4)
    assert_shows(path, pan())
    with VideoReader(path, DecodeLimits(max_duration_s=1)) as reader:
        assert reader.info.frames == COUNT


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_the_picture_may_start_late(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, pan(), options={"crf": "8"}, sound_s=3, starts_at_s=2)
    frames = assert_shows(path, pan())
    assert frames[-1].timestamp_s == pytest.approx((COUNT - 1) / 25, abs=2e-3)


def test_what_an_edit_list_hides_is_neither_shown_nor_promised(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", pan(), crf=8)
    trimmed = odd_videos.copy_from(whole, tmp_path / "trim.mp4", 5)
    assert_shows(trimmed, pan()[5:])
    with VideoReader(trimmed) as reader:
        assert reader.info.frames == COUNT - 5


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_a_recording_without_a_duration_is_counted(tmp_path: Path, name: str) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, pan(), codec=codec, options={"b": "4M"}, container={"live": "1"})
    with VideoReader(path) as reader:
        assert reader.info.frames == COUNT
    assert_shows(path, pan())
    with pytest.raises(MediaLimitError, match="at most 5 frames"):
        VideoReader(path, DecodeLimits(max_frames=5))


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 0.5, 0.54, 2.0, 2.04]
    frames = decode(write_clip(tmp_path / "a.mp4", pan(7), timestamps_s=times))
    assert [frame.timestamp_s for frame in frames] == pytest.approx(times, abs=1e-3)


def test_recordings_put_together_run_on(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.ts", pan(10), options={"crf": "8"})
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() * 2)
    steps = np.diff([frame.timestamp_s for frame in decode(both)])
    assert len(steps) == 19
    assert steps == pytest.approx([0.04] * 19, abs=2e-3)


# --- colours -----------------------------------------------------------------------------------------


def bars(height: int, width: int) -> list[Image]:
    colours = [(235, 30, 40), (30, 200, 60), (40, 60, 230), (220, 210, 40), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    picture = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(colours):
        picture[:, index * width // len(colours) : (index + 1) * width // len(colours)] = colour
    return [picture, picture]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5])
def test_tags_are_followed(tmp_path: Path, matrix: int, full_range: bool) -> None:
    truth = bars(HEIGHT, 140)
    path = write_video(
        tmp_path / "a.mp4",
        truth,
        pix_fmt="yuv444p",
        options={"crf": "1"},
        matrix=matrix,
        tags=(matrix, 1, 1),
        full_range=full_range,
    )
    assert_shows(path, truth, 1.5)


@pytest.mark.parametrize(("size", "matrix"), [((720, 1280), 1), ((600, 800), 1), ((480, 640), 5)])
def test_untagged_hd_is_bt709_and_untagged_sd_bt601(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    truth = bars(*size)
    path = write_video(tmp_path / "a.mkv", truth, codec="ffv1", pix_fmt="yuv444p", matrix=matrix, tags=UNTAGGED)
    assert_shows(path, truth, 1.5)


def test_a_turned_hd_picture_is_bt709_too(tmp_path: Path) -> None:
    truth = bars(1280, 720)
    path = write_video(tmp_path / "a.mkv", truth, codec="ffv1", pix_fmt="yuv444p", matrix=1, tags=UNTAGGED)
    assert_shows(path, truth, 1.5)


def scene_light() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Linear BT.709 light by SDR white: greys from black to four times white, and some colours."""
    greys = np.repeat(np.array([0, 0.01, 0.05, 0.18, 0.5, 0.7, 1.0, 2.0, 4.0])[:, None], 3, 1)
    return np.concatenate([greys, [[0.5, 0.1, 0.1], [0.1, 0.4, 0.1], [0.05, 0.1, 0.5], [0.6, 0.5, 0.2]]])


TO_BT2020 = np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]])


def hdr_clip(path: Path, transfer: int) -> Path:
    """Write swatches of `scene_light`, 32 pixels each, as HDR with its white at 203 cd/m2."""
    nits = 203 * scene_light() @ TO_BT2020.T
    if transfer == 16:
        signal = odd_videos.pq_signal(nits)
    else:
        luminance = np.maximum(nits @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[:, None] / 1000
        signal = odd_videos.hlg_signal(nits / 1000 * luminance ** (-0.2 / 1.2))
    row = np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)
    picture = np.repeat(np.repeat(row[None], 64, 0), 32, 1)
    options = {"crf": "2", "x265-params": "log-level=none"}
    return write_video(
        path,
        [picture] * 2,
        codec="libx265",
        pix_fmt="yuv444p10le",
        source_format="rgb48le",
        matrix=9,
        tags=(9, transfer, 9),
        options=options,
    )


@pytest.mark.parametrize("transfer", [16, 18], ids=["pq", "hlg"])
def test_hdr_is_brought_to_what_a_standard_display_shows(tmp_path: Path, transfer: int) -> None:
    path = hdr_clip(tmp_path / "a.mkv", transfer)
    shown = decode(path)[1].image[32, 16::32].astype(float)
    truth = 255 * np.clip(scene_light(), 0, 1) ** (1 / 2.4)
    below_knee = scene_light().max(-1) <= 0.69
    assert np.abs(shown - truth)[below_knee].max() < 6
    greys = shown[:9].mean(-1)
    assert (np.diff(greys) > 2).all()  # highlights keep their order
    assert greys[6] > 225  # and white is near white
    with av.open(str(path)) as container:
        plain = next(container.decode(video=0)).to_ndarray(format="rgb24")[32, 16::32].astype(float)
    assert np.abs(shown - truth).mean() < 0.3 * np.abs(plain - truth).mean()


def test_wide_primaries_are_brought_to_bt709(tmp_path: Path) -> None:
    light = scene_light()[scene_light().max(-1) <= 1]
    row = np.rint(255 * (light @ TO_BT2020.T) ** (1 / 2.4)).astype(np.uint8)
    picture = np.repeat(np.repeat(row[None], 64, 0), 32, 1)
    path = write_video(tmp_path / "a.mkv", [picture] * 2, codec="ffv1", pix_fmt="yuv444p", matrix=9, tags=(9, 14, 9))
    shown = decode(path)[0].image[32, 16::32].astype(float)
    assert np.abs(shown - 255 * light ** (1 / 2.4)).max() < 6


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mov", "qtrle", "argb", {}),
        ("b.mov", "prores_ks", "yuva444p10le", {"profile": "4"}),
        ("c.mov", "png", "rgba", {}),
        ("d.webm", "libvpx-vp9", "yuva420p", {"crf": "5", "cpu-used": "8"}),
        pytest.param("f.webp", "libwebp_anim", "bgra", {"lossless": "1"}, marks=needs_animated_webp),
        ("g.apng", "apng", "rgba", {}),
        ("h.mkv", "ffv1", "yuva420p", {}),
    ],
)
def test_holes_are_mid_grey(tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    layered = list(odd_videos.with_hole(pan(4)))
    path = write_video(tmp_path / name, layered, codec=codec, pix_fmt=pix_fmt, source_format="rgba", options=options)
    for frame, image in zip(decode(path), layered, strict=True):
        hole = cv2.erode((image[..., 3] == 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        solid = cv2.erode((image[..., 3] == 255).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert np.abs(frame.image[hole].astype(int) - 128).max() <= 3
        assert np.abs(frame.image[solid].astype(int) - image[solid][:, :3]).mean() < LIMIT


# --- damage and limits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "notices"),
    [
        ("a.mp4", "libx264", "lost frames"),
        ("a.ts", "libx264", "lost frames"),
        ("a.webm", "libsvtav1", "lost frames"),
        ("a.apng", "apng", "every bit"),
        ("a.mov", "png", "every bit"),
        ("a.mpg", "mpeg2video", "broken pictures"),
        ("a.flv", "flv", "broken pictures"),
        ("a.avi", "mjpeg", "broken pictures"),
    ],
)
def test_damage_is_an_error_that_says_where(tmp_path: Path, name: str, codec: str, notices: str) -> None:
    """Wherever it hits: an error, or what the container and the codec have no means to notice."""
    options = {
        "libx264": {"crf": "8", "g": "6"},
        "libsvtav1": {"crf": "15", "preset": "10"},
    }
    pix_fmt = {"mjpeg": "yuvj420p", "apng": "rgb24", "png": "rgb24"}.get(codec, "yuv420p")
    path = write_video(tmp_path / name, pan(24), codec=codec, pix_fmt=pix_fmt, options=options.get(codec))
    whole, clean = decode(path), path.read_bytes()
    messages = []
    shares = np.linspace(0.1, 0.95, 18)
    for share in shares:
        path.write_bytes(clean)
        odd_videos.damage(path, share, 300)
        try:
            frames = decode(path)
        except (CorruptMediaError, NotAVideoError) as found:
            messages.append(found.message)
            continue
        if notices != "broken pictures":
            assert len(frames) == 24
        if notices == "every bit":
            for frame, before in zip(frames, whole, strict=True):
                np.testing.assert_array_equal(frame.image, before.image)
    assert len(messages) >= 0.5 * len(shares)
    assert sum("damaged at frame " in message for message in messages) >= 0.5 * len(shares)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.gif", "a.apng", "a.webp", "live.mkv"])
def test_a_file_that_breaks_off_is_an_error(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = {
        ".mp4": ("libx264", "yuv420p"),
        ".mkv": ("libx264", "yuv420p"),
        ".webm": ("libvpx", "yuv420p"),
        ".avi": ("mpeg4", "yuv420p"),
        ".gif": ("gif", "rgb8"),
        ".apng": ("apng", "rgb24"),
        ".webp": ("libwebp_anim", "bgra"),
    }[Path(name).suffix]
    container = {"live": "1"} if name.startswith("live") else {"movflags": "faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, pan(24), codec=codec, pix_fmt=pix_fmt, container=container)
    data = path.read_bytes()
    for share in (0.5, 0.8, 0.97):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises((CorruptMediaError, NotAVideoError)), VideoReader(path) as reader:
            list(reader)


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", pan(3))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    with pytest.raises(UnsupportedCodecError, match="no decoder for its video codec, 'zzzz'"):
        VideoReader(path)
    path.write_bytes(data.replace(b"avc1", b"avs3"))
    with pytest.raises(UnsupportedCodecError, match="no decoder for its video codec, avs3"):
        VideoReader(path)


def test_a_promise_beyond_the_limits_is_checked_not_believed(tmp_path: Path) -> None:
    """A header that counts wrongly, as AVI's and MP4's of broken recorders do, costs no good file."""
    path = write_video(tmp_path / "a.avi", pan(), codec="mpeg4")
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(name) + offset
        data[at : at + 4] = (1_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(decode(path)) == COUNT
    with pytest.raises(MediaLimitError, match="at most 5 frames"):
        VideoReader(path, DecodeLimits(max_frames=5))


@pytest.mark.parametrize(("height", "width"), [(64, 8208), (8208, 64)])
def test_sides_are_bounded_before_a_picture_is_decoded(tmp_path: Path, height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    path = write_video(tmp_path / "a.mkv", [image, image], codec="ffv1")
    with pytest.raises(MediaLimitError, match="sides of 32 to 8192 pixels"):
        VideoReader(path)


def test_a_displayed_side_is_bounded_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(2), sar=Fraction(80))
    with pytest.raises(MediaLimitError, match="got 10240x96 displayed"):
        VideoReader(path)


def test_a_stream_that_grows_beyond_the_limits_is_refused(tmp_path: Path) -> None:
    small = write_video(tmp_path / "s.ts", pan(4))
    large = write_video(tmp_path / "l.ts", pan(4, 256, 320))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with (
        pytest.raises(CorruptMediaError, match=r"damaged at frame \d"),
        VideoReader(both, DecodeLimits(max_side_px=128)) as reader,
    ):
        list(reader)


# --- memory that was not written ---------------------------------------------------------------------

PRINT_DIGESTS = """
import hashlib, sys
from pathlib import Path
from structureflow.media.decode import DecodeLimits, VideoReader
for name in sys.argv[1:]:
    with VideoReader(Path(name), DecodeLimits(min_frames=1), threads=1) as reader:
        digest = hashlib.sha256()
        for frame in reader:
            digest.update(frame.image.tobytes())
        print(Path(name).name, digest.hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc can be told to poison what it hands out")
def test_no_picture_shows_memory_that_was_not_written(tmp_path: Path) -> None:
    """The pictures of a file are the same whatever fresh memory holds, and whatever was decoded before it."""
    fields = {"crf": "8", "x264-params": "tff=1"}
    files = [
        write_video(tmp_path / "plain.mp4", pan()),
        write_video(tmp_path / "odd.mkv", pan(4, 97, 131), codec="ffv1"),
        write_video(tmp_path / "fields.mp4", pan(), options=fields, field="tff"),
        write_video(tmp_path / "fields422.mp4", pan(), pix_fmt="yuv422p", options=fields, field="tff"),
        write_video(tmp_path / "fields.mpg", pan(), codec="mpeg2video", field="tff"),
        write_video(tmp_path / "fields.dv", pan(3, 576, 720), codec="dvvideo"),
        write_video(tmp_path / "fields.mov", pan(), codec="prores_ks", pix_fmt="yuv422p10le", field="tff"),
        write_video(tmp_path / "wide.mp4", pan(), sar=Fraction(4, 3)),
        odd_videos.set_display_matrix(write_clip(tmp_path / "turned.mp4", pan()), 0, 1, -1, 0),
        hdr_clip(tmp_path / "hdr.mkv", 18),
        write_video(
            tmp_path / "hole.mov", odd_videos.with_hole(pan()), codec="qtrle", pix_fmt="argb", source_format="rgba"
        ),
        write_video(tmp_path / "a.apng", pan(), codec="apng", pix_fmt="rgb24"),
    ]
    digests = []
    for poison, order in (("85", files), ("170", files[::-1])):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS, *map(str, order)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_PERTURB_": poison},
        )
        digests.append(dict(line.split() for line in done.stdout.splitlines()))
    assert len(digests[0]) == len(files)
    assert digests[0] == digests[1]


def test_a_still_picture_is_too_short(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", pan(1))
    with pytest.raises(VideoTooShortError), VideoReader(path) as reader:
        list(reader)
