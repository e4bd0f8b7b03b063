"""The encoder beside the drawing: every frame as it was, bounded, and an error on either side ends both."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow.errors import EncodeError
from structureflow.media.background import BackgroundEncoder
from structureflow.media.encode import H264Writer, encode_h264
from structureflow.media.planes import flat_planes, frozen, rgb_to_planes
from structureflow.testing.videos import pan_frames

SIZE: dict[str, Any] = {"height": 96, "width": 128, "fps": 16.0}


def encoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("encode-")]


@pytest.mark.parametrize("constant", [False, True])
def test_the_file_is_the_one_that_encoding_in_line_gives(tmp_path: Path, constant: bool) -> None:
    frames = [rgb_to_planes(frame) for frame in pan_frames(40, 96, 128, dx=3, dy=1)]
    encode_h264(frames, tmp_path / "line.mp4", **SIZE, threads=1)
    buffer = np.empty_like(frames[0])
    with BackgroundEncoder(tmp_path / "beside.mp4", **SIZE, threads=1) as encoder:
        for frame in frames:
            if constant:
                encoder.write(frozen(frame))
            else:
                # as a renderer does that draws all frames into the same memory
                np.copyto(buffer, frame)
                encoder.write(buffer)
                buffer[:] = 0
        info = encoder.finish()
    assert info.frames == 40
    assert (tmp_path / "beside.mp4").read_bytes() == (tmp_path / "line.mp4").read_bytes()
    assert encoder.busy_s > 0
    assert encoding_threads() == []


def slow_writer(monkeypatch: pytest.MonkeyPatch, gate: threading.Semaphore, failing: int | None = None) -> None:
    """Let the encoder take a frame only when the gate opens; fail at frame `failing`."""
    write = H264Writer.write
    count = 0

    def slow(self: H264Writer, frame: np.ndarray) -> None:
        nonlocal count
        gate.acquire()
        if count == failing:
            raise EncodeError("x264 refuses")
        count += 1
        write(self, frame)

    monkeypatch.setattr(H264Writer, "write", slow)


def test_who_draws_too_fast_waits_and_held_frames_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Semaphore(0)
    slow_writer(monkeypatch, gate)
    frames = [rgb_to_planes(frame) for frame in pan_frames(30, 96, 128, dx=1, dy=0)]
    held = frozen(frames[0].copy())
    written = []

    def draw(encoder: BackgroundEncoder) -> None:
        for _ in range(200):
            encoder.write(held)
        for index, frame in enumerate(frames):
            encoder.write(frame)
            written.append(index)

    with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
        drawing = threading.Thread(target=draw, args=(encoder,))
        drawing.start()
        drawing.join(0.5)
        assert drawing.is_alive()
        assert len(written) == 4
        gate.release(1000)
        drawing.join()
        assert encoder.finish().frames == 230


def test_an_error_of_the_encoder_ends_the_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Semaphore(1000)
    slow_writer(monkeypatch, gate, failing=5)
    planes = rgb_to_planes(next(pan_frames(1, 96, 128, dx=0, dy=0)))

    def draw() -> None:
        with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
            for _ in range(100_000):
                encoder.write(planes)

    with pytest.raises(EncodeError, match="x264 refuses"):
        draw()
    assert list(tmp_path.iterdir()) == []
    assert encoding_threads() == []


def test_an_error_of_the_encoder_is_told_at_the_end_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Semaphore(0)
    slow_writer(monkeypatch, gate, failing=0)
    planes = frozen(rgb_to_planes(next(pan_frames(1, 96, 128, dx=0, dy=0))))
    with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
        encoder.write(planes)
        gate.release()
        with pytest.raises(EncodeError, match="x264 refuses"):
            encoder.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", [0, 3, 100])
def test_an_error_of_the_drawing_ends_the_encoder(tmp_path: Path, frames: int) -> None:
    planes = frozen(rgb_to_planes(next(pan_frames(1, 96, 128, dx=0, dy=0))))

    def draw() -> None:
        with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
            for _ in range(frames):
                encoder.write(planes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw()
    assert list(tmp_path.iterdir()) == []
    assert encoding_threads() == []


def test_who_forgets_to_finish_gets_no_file(tmp_path: Path) -> None:
    with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
        encoder.write(rgb_to_planes(next(pan_frames(1, 96, 128, dx=0, dy=0))))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_encoded_is_refused(tmp_path: Path) -> None:
    with BackgroundEncoder(tmp_path / "x.mp4", **SIZE) as encoder:
        for wrong in (np.zeros((96, 128), np.uint8), np.zeros((144, 128), np.float32)):
            with pytest.raises(EncodeError, match=r"frame 0: expected \(144, 128\) uint8"):
                encoder.write(wrong)  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match="at least one frame"):
            encoder.finish()
    with BackgroundEncoder(tmp_path / "none" / "x.mp4", **SIZE) as encoder:
        encoder.write(flat_planes(96, 128, 0))
        with pytest.raises(EncodeError, match="cannot be encoded"):
            encoder.finish()
