"""Videos of every kind that cameras, editors and recorders make, each made here with known truth."""

from __future__ import annotations

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
    MediaLimitError,
    NotAVideoError,
)
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.testing import odd_videos
from structureflow.testing.odd_videos import write_video
from structureflow.testing.videos import Image, write_clip
from tests.contract.decoding import COUNT, HEIGHT, LIMIT, WIDTH, assert_shows, decode, error, needs_animated_webp, pan

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
        shift, _ = cv2.phaseCorrelate(one.mean(-1, dtype=np.float64), two.mean(-1, dtype=np.float64))
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
                turned.append(np.asarray(graph.vpull().to_ndarray(format="rgb24"), np.uint8))
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
