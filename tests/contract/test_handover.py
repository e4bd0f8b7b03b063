"""The hand-over container: lossless, checked, free for repeats, and importable where OpenCV is absent."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from structureflow.errors import HandoverError
from structureflow.media.handover import (
    HandoverInfo,
    HandoverReader,
    HandoverWriter,
    Planes,
    rgb_to_planes,
)
from structureflow.testing.videos import Image, decode_rgb, pan_frames, texture

HEADER_BYTES = 36
FRAME_HEADER_BYTES = 16


def store(path: Path, frames: list[Image], masks: list[int] | None = None, workers: int = 2) -> HandoverInfo:
    height, width = frames[0].shape[:2]
    with HandoverWriter(path, height=height, width=width, frames=len(frames), fps=16, workers=workers) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, masks[index] if masks else 0)
        return writer.finish()


def load(path: Path) -> tuple[list[Planes], list[int]]:
    with HandoverReader(path) as reader:
        frames = list(reader)
    return [frame.planes for frame in frames], [frame.mask for frame in frames]


def segment(height: int = 48, width: int = 64) -> tuple[list[Image], list[int]]:
    """A held image, a pan, grey frames left to the generator, a cut to noise, and back."""
    pan = list(pan_frames(6, height, width, dx=3, dy=-2, seed=1))
    noise = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    grey = np.full((height, width, 3), 128, np.uint8)
    frames = [pan[0]] * 4 + pan[1:] + [grey] * 5 + [noise, pan[0]]
    masks = [255 if frame is grey else 0 for frame in frames]
    return frames, masks


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_read_is_what_the_encoder_takes_bit_for_bit(tmp_path: Path, workers: int) -> None:
    frames, masks = segment()
    info = store(tmp_path / "x", frames, masks, workers)
    planes, read_masks = load(tmp_path / "x")
    assert len(planes) == len(frames)
    for frame, read in zip(frames, planes, strict=True):
        np.testing.assert_array_equal(read, rgb_to_planes(frame))
    assert read_masks == masks
    assert info == HandoverInfo(frames=len(frames), repeats=7, size_bytes=(tmp_path / "x").stat().st_size)


def test_the_header_says_sizes_count_and_rate(tmp_path: Path) -> None:
    store(tmp_path / "x", segment(32, 48)[0])
    with HandoverReader(tmp_path / "x") as reader:
        assert (reader.height, reader.width, reader.frames, reader.fps) == (32, 48, 16, 16.0)


def test_masks_are_read_without_the_pictures(tmp_path: Path) -> None:
    frames, masks = segment()
    store(tmp_path / "x", frames, masks)
    with HandoverReader(tmp_path / "x") as reader:
        assert reader.masks() == masks
        assert [frame.mask for frame in reader] == masks
        assert reader.masks() == masks


def test_a_repeated_frame_costs_its_header_only(tmp_path: Path) -> None:
    image = texture(48, 64)
    one = store(tmp_path / "one", [image]).size_bytes
    many = store(tmp_path / "many", [image.copy() for _ in range(20)]).size_bytes
    assert many == one + 19 * FRAME_HEADER_BYTES


def test_the_callers_buffer_may_be_reused(tmp_path: Path) -> None:
    frames = list(pan_frames(8, 48, 64, dx=3, dy=1))
    buffer = np.empty_like(frames[0])
    with HandoverWriter(tmp_path / "x", height=48, width=64, frames=8, fps=16, workers=2) as writer:
        for frame in frames:
            np.copyto(buffer, frame)
            writer.write(buffer, 0)
        buffer[:] = 0
        writer.finish()
    for frame, read in zip(frames, load(tmp_path / "x")[0], strict=True):
        np.testing.assert_array_equal(read, rgb_to_planes(frame))


@given(st.data())
def test_any_sequence_of_pictures_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    height, width = data.draw(st.sampled_from([(2, 2), (2, 6), (6, 2), (4, 10), (10, 4), (14, 22)]))
    kinds = data.draw(st.lists(st.sampled_from(["same", "noise", "flat", "nudge"]), min_size=1, max_size=6))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    frames = [random.integers(0, 256, (height, width, 3), np.uint8)]
    for kind in kinds:
        before = frames[-1]
        frames.append(
            {
                "same": before,
                "noise": random.integers(0, 256, before.shape, np.uint8),
                "flat": np.full_like(before, random.integers(256)),
                "nudge": before + random.integers(0, 2, before.shape, np.uint8),
            }[kind]
        )
    path = tmp_path_factory.mktemp("any") / "x"
    store(path, frames)
    for frame, read in zip(frames, load(path)[0], strict=True):
        np.testing.assert_array_equal(read, rgb_to_planes(frame))


def test_planes_are_bt709_limited_range() -> None:
    """Against the definition in floating point: ITU-R BT.709-6, limited range, mean of four for chroma."""
    image = texture(32, 48, seed=3)
    image[:2, :2], image[2:4, :2], image[:2, 2:4] = (255, 255, 255), (0, 0, 0), (255, 0, 0)
    planes = rgb_to_planes(image).astype(np.float64)
    red, green, blue = np.moveaxis(image / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    u = (blue - luma) / 1.8556
    v = (red - luma) / 1.5748
    expected = [
        16 + 219 * luma,
        *(128 + 224 * chroma.reshape(16, 2, 24, 2).mean((1, 3)) for chroma in (u, v)),
    ]
    got = [planes[:32], planes[32:].reshape(-1)[:384].reshape(16, 24), planes[32:].reshape(-1)[384:].reshape(16, 24)]
    for ours, exact in zip(got, expected, strict=True):
        assert np.abs(ours - exact).max() <= 1.1
    assert (planes[0, 0], planes[2, 0], planes[0, 2]) == (235, 16, 63)


def test_real_frames_are_lossless_and_under_half_of_their_raw_size(tmp_path: Path, bigbuckbunny: Path) -> None:
    decoder = decode_rgb(bigbuckbunny)
    frames = [next(decoder) for _ in range(8)]
    info = store(tmp_path / "x", frames)
    for frame, read in zip(frames, load(tmp_path / "x")[0], strict=True):
        np.testing.assert_array_equal(read, rgb_to_planes(frame))
    assert info.size_bytes < 0.45 * 8 * 1280 * 720 * 1.5


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    frames, masks = segment(8, 8)
    store(tmp_path / "x", frames, masks)
    whole = (tmp_path / "x").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(HandoverError):
            load(tmp_path / "cut")
        with pytest.raises(HandoverError), HandoverReader(tmp_path / "cut") as reader:
            reader.masks()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    frames, masks = segment(8, 8)
    store(tmp_path / "x", frames, masks)
    whole = bytearray((tmp_path / "x").read_bytes())
    reference = load(tmp_path / "x")[0]
    harmless = 0
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1 << position % 8
        (tmp_path / "bad").write_bytes(bad)
        try:
            planes, read_masks = load(tmp_path / "bad")
        except HandoverError:
            continue
        # Some bits of a deflate stream (padding) have no meaning: then the pictures must be the same.
        harmless += 1
        assert read_masks == masks
        assert all(np.array_equal(a, b) for a, b in zip(planes, reference, strict=True))
    assert harmless < len(whole) / 50


def test_bytes_after_the_last_frame_are_refused(tmp_path: Path) -> None:
    store(tmp_path / "x", [texture(8, 8)])
    with (tmp_path / "x").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(HandoverError, match="expected a file of"):
        load(tmp_path / "x")


def forge(height: int, width: int, frames: int, *, version: int = 1, body: bytes = b"") -> bytes:
    head = struct.pack("<8sHHIIId", b"SFHANDOV", version, 0, height, width, frames, 16.0)
    return head + struct.pack("<I", isal_zlib.crc32(head)) + body


def forge_frame(kind: int, data: bytes, index: int = 0) -> bytes:
    head = struct.pack("<BBHII", kind, 0, 0, len(data), 0)
    return head + struct.pack("<I", isal_zlib.crc32(index.to_bytes(4, "little"), isal_zlib.crc32(head))) + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends in header"),
        (b"RIFF" + bytes(60), "starts with"),
        (forge(16, 16, 1, version=9), "expected version 1, got 9"),
        (forge(2**31, 16, 1), "height"),
        (forge(16, 15, 1), "width"),
        (forge(16, 16, 2**31), "frames"),
        (forge(16, 16, 1, body=forge_frame(0, b"")), "refers to a frame before"),
        (forge(16, 16, 1, body=forge_frame(2, isal_zlib.compress(bytes(384), 1, -15))), "refers to a frame before"),
        (forge(16, 16, 1, body=forge_frame(7, b"")), "unknown kind 7"),
        (forge(16, 16, 1, body=forge_frame(1, b"\xff" * 20)), "corrupt"),
        (forge(16, 16, 1, body=forge_frame(1, isal_zlib.compress(bytes(50_000_000), 1, -15))), "more than 384"),
        (forge(16, 16, 1, body=forge_frame(1, isal_zlib.compress(bytes(300_000), 3, -15))), "expected 384 samples"),
        (forge(16, 16, 1, body=forge_frame(1, isal_zlib.compress(bytes(383), 1, -15))), "expected 384 samples"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_forged_files_are_refused_by_a_typed_error(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(HandoverError, match=message):
        load(tmp_path / "x")


def test_a_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    bomb = isal_zlib.compress(bytes(64_000_000), 1, -15)
    (tmp_path / "x").write_bytes(forge(512, 512, 1, body=forge_frame(1, bomb)))
    tracemalloc.start()
    try:
        with pytest.raises(HandoverError, match="expected 393216 samples"):
            load(tmp_path / "x")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(HandoverError, match="no such hand-over file"):
        HandoverReader(tmp_path / "none")


@pytest.mark.parametrize(
    ("shape", "dtype", "mask"),
    [((16, 18, 3), np.uint8, 0), ((16, 16), np.uint8, 0), ((16, 16, 3), np.float32, 0), ((16, 16, 3), np.uint8, 1)],
)
def test_the_writer_refuses_other_frames_and_leaves_no_file(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, mask: int
) -> None:
    def write_two() -> None:
        with HandoverWriter(tmp_path / "x", height=16, width=16, frames=2, fps=16) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8), 0)
            writer.write(np.zeros(shape, dtype), mask)

    with pytest.raises(HandoverError, match="frame 1: expected"):
        write_two()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given_frames", [1, 3])
def test_the_writer_refuses_another_number_of_frames(tmp_path: Path, given_frames: int) -> None:
    def write_all() -> None:
        with HandoverWriter(tmp_path / "x", height=16, width=16, frames=2, fps=16) as writer:
            for _ in range(given_frames):
                writer.write(texture(16, 16), 0)
            writer.finish()

    with pytest.raises(HandoverError, match="expected 2 frames, got"):
        write_all()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 15, "width": 16, "frames": 1, "fps": 16},
        {"height": 16, "width": 0, "frames": 1, "fps": 16},
        {"height": 16, "width": 16, "frames": 0, "fps": 16},
        {"height": 16, "width": 16, "frames": 1, "fps": float("nan")},
    ],
)
def test_the_writer_refuses_impossible_sizes(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(HandoverError, match="expected"):
        HandoverWriter(tmp_path / "x", **sizes)
    assert list(tmp_path.iterdir()) == []


def test_reading_and_encoding_work_where_opencv_and_pillow_are_absent(tmp_path: Path) -> None:
    frames, masks = segment()
    store(tmp_path / "x", frames, masks)
    code = (
        "import sys; sys.modules['cv2'] = sys.modules['PIL'] = None\n"
        "from pathlib import Path\n"
        "from structureflow.media.handover import HandoverReader\n"
        "from structureflow.media.encode import encode_h264\n"
        "reader = HandoverReader(Path(sys.argv[1]) / 'x')\n"
        "info = encode_h264((frame.planes for frame in reader), Path(sys.argv[1]) / 'x.mp4',\n"
        "    height=reader.height, width=reader.width, fps=reader.fps)\n"
        "print(info.frames)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, str(len(frames))), run.stderr
