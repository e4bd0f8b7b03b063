"""The decoder against real and synthetic files: counts, sizes, colours, and every way a file can be bad."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.errors import (
    CorruptMediaError,
    InputNotFoundError,
    MediaLimitError,
    NotAVideoError,
    VideoTooShortError,
)
from structureflow.media.decode import DecodeLimits, VideoReader, read_video_range
from structureflow.testing.odd_videos import write_video
from structureflow.testing.videos import pan_frames, write_clip


def _solid(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Frames ``(H, W, 3) uint8 RGB`` whose colour tells their number."""
    return [np.full((height, width, 3), (250 - 20 * i, 10 + 20 * i, 40), np.uint8) for i in range(count)]


def _write(path: Path, frames: list[NDArray[np.uint8]], fps: float = 8.0, codec: str = "FFV1") -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_frames_come_in_order_as_rgb_with_their_times(tmp_path: Path) -> None:
    frames = _solid(6)
    with VideoReader(_write(tmp_path / "v.mkv", frames)) as reader:
        assert (reader.info.width_px, reader.info.height_px, reader.info.fps) == (64, 48, 8.0)
        decoded = list(reader)
    assert [frame.index for frame in decoded] == list(range(6))
    assert [frame.timestamp_s for frame in decoded] == pytest.approx([i / 8 for i in range(6)])
    for frame, source in zip(decoded, frames, strict=True):
        np.testing.assert_allclose(frame.image.astype(int), source, atol=2)


def test_each_image_is_owned_by_its_receiver(tmp_path: Path) -> None:
    with VideoReader(_write(tmp_path / "v.mkv", _solid(4))) as reader:
        images = [frame.image for frame in reader]
    assert all(image.flags.writeable and image.flags.c_contiguous for image in images)
    before = [image.copy() for image in images]
    images[1][:] = 7
    for index in (0, 2, 3):
        np.testing.assert_array_equal(images[index], before[index])


def test_the_reference_clip_decodes_in_full(bigbuckbunny: Path) -> None:
    with VideoReader(bigbuckbunny) as reader:
        assert reader.info.frames == 132
        assert reader.info.duration_s == pytest.approx(5.28)
        shapes, times = zip(*((frame.image.shape, frame.timestamp_s) for frame in reader), strict=True)
    assert len(times) == 132
    assert set(shapes) == {(720, 1280, 3)}
    np.testing.assert_allclose(times, np.arange(132) / 25, atol=1e-6)


def test_rotation_is_applied_before_sizes_are_told(rotated_clip: Path) -> None:
    with VideoReader(rotated_clip) as reader:
        assert (reader.info.width_px, reader.info.height_px) == (320, 568)
        assert [frame.image.shape for frame in reader] == [(568, 320, 3)] * 3


def test_a_damaged_clip_is_an_error_that_says_where(corrupted_clip: Path) -> None:
    with VideoReader(corrupted_clip) as reader:
        assert reader.info.frames == 50
        with pytest.raises(CorruptMediaError, match=r"damaged at frame \d+ \(after \d") as caught:
            list(reader)
    assert 1 < caught.value.detail["decoded"] < 45


def test_a_truncated_file_is_an_error(bigbuckbunny: Path, tmp_path: Path) -> None:
    data = bigbuckbunny.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises((CorruptMediaError, NotAVideoError)), VideoReader(cut) as reader:
        list(reader)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 4096, b"#EXTM3U\n#EXTINF:1,\nother.ts\n"])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(NotAVideoError):
        VideoReader(path)


def test_playlists_and_image_sequences_are_not_followed(tmp_path: Path) -> None:
    clip = _write(tmp_path / "inner.avi", _solid(3), codec="MJPG")
    playlist = tmp_path / "list.txt"
    playlist.write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    with pytest.raises(NotAVideoError):
        VideoReader(playlist)
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"f{index:02d}.png"), _solid(1)[0])
    with pytest.raises(InputNotFoundError):
        VideoReader(tmp_path / "f%02d.png")
    with pytest.raises(NotAVideoError):
        VideoReader(tmp_path / "f00.png")


def test_a_url_is_no_file() -> None:
    with pytest.raises(InputNotFoundError, match="expected a file"):
        VideoReader(Path("http://127.0.0.1:9/video.mp4"))


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (DecodeLimits(max_frames=5), "at most 5 frames"),
        (DecodeLimits(max_side_px=63), "sides of"),
        (DecodeLimits(min_side_px=49), "sides of"),
        (DecodeLimits(max_duration_s=0.5), "at most 0.5 s"),
    ],
)
def test_limits_hold_before_a_frame_is_decoded(tmp_path: Path, limits: DecodeLimits, word: str) -> None:
    with pytest.raises(MediaLimitError, match=word):
        VideoReader(_write(tmp_path / "v.mkv", _solid(6)), limits)


def test_limits_hold_where_the_container_tells_nothing(tmp_path: Path) -> None:
    # A raw stream has no container that could promise a count, and no clock.
    stream = _write(tmp_path / "v.m1v", _solid(9), fps=25, codec="PIM1")
    with VideoReader(stream, DecodeLimits(max_frames=9)) as reader:
        assert reader.info.frames == 9  # counted, not promised
        times = [frame.timestamp_s for frame in reader]
    assert len(times) == 9
    assert times == pytest.approx([i / 25 for i in range(9)])
    with pytest.raises(MediaLimitError, match="at most 4 frames"):
        VideoReader(stream, DecodeLimits(max_frames=4))
    with pytest.raises(MediaLimitError, match="got a frame at"):
        VideoReader(stream, DecodeLimits(max_duration_s=times[4]))


def test_one_frame_has_no_motion(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.mkv", _solid(1))
    with VideoReader(path) as reader, pytest.raises(VideoTooShortError):
        list(reader)
    assert len(read_video_range(path, 0, 1)) == 1


def test_a_range_is_the_slice(tmp_path: Path) -> None:
    frames = _solid(8)
    path = _write(tmp_path / "v.mkv", frames)
    images = read_video_range(path, 3, 4)
    assert len(images) == 4
    for image, source in zip(images, frames[3:7], strict=True):
        np.testing.assert_allclose(image.astype(int), source, atol=2)
    with pytest.raises(VideoTooShortError, match="frames 5 to 8, got 8"):
        read_video_range(path, 5, 4)
    with pytest.raises(VideoTooShortError, match="got 8"):
        read_video_range(path, 20, 1)
    with pytest.raises(ValueError, match="first >= 0"):
        read_video_range(path, -1, 1)


def test_a_variable_rate_is_not_taken_for_damage(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    ticks = [0, 1, 2, 14, 15, 40, 41, 42, 80]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for tick, image in zip(ticks, _solid(9), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert reader.info.frames > 2 * len(ticks)
        times = [frame.timestamp_s for frame in reader]
    assert times == pytest.approx([tick / 25 for tick in ticks], abs=2e-3)


def test_a_truncated_stream_without_a_count_is_an_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(40)]
    path = _write(tmp_path / "v.mkv", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as reader:
        assert reader.info.frames == 40
        with pytest.raises(CorruptMediaError, match="breaks off there"):
            list(reader)


def test_decoders_do_not_talk_to_the_console(tmp_path: Path) -> None:
    """What is wrong is said once, by the error: FFmpeg's and OpenCV's own lines stay off the standard streams."""
    whole = write_clip(tmp_path / "whole.mp4", pan_frames(20, 64, 96, dx=2, dy=0)).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 200] = bytes(range(200))
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    (tmp_path / "text.mp4").write_bytes(b"no video")
    script = (
        "import sys; from pathlib import Path\n"
        "from structureflow.errors import MediaError\n"
        "from structureflow.media.decode import VideoReader\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        with VideoReader(Path(name)) as reader: print(sum(1 for _ in reader))\n"
        "    except MediaError as error: print(error.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "text.mp4", tmp_path / "damaged.mp4"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("NotAVideoError\n")
    assert done.stderr == ""


def test_a_decoder_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """Found by mutation: PyAV raises a plain ValueError when a decoder is flushed that it could not open."""
    path = write_video(tmp_path / "v.avi", pan_frames(3, 48, 64, dx=1, dy=0), codec="mpeg4")
    data = bytearray(path.read_bytes())
    # bits per pixel and compression of the BITMAPINFOHEADER: raw pixels of no bits
    header = data.index(b"strf") + 8
    data[header + 14 : header + 20] = bytes(6)
    path.write_bytes(data)
    with pytest.raises(CorruptMediaError, match="damaged at frame 0"):
        VideoReader(path)
