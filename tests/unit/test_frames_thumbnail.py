"""Thumbnails by Pillow show what OpenCV's area mean shows, and refuse what is no JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from structureflow.errors import MediaLimitError, NotAnImageError
from structureflow.frames.jpeg import decode_jpeg, encode_jpeg, thumbnail
from structureflow.frames.thumbnail import thumbnail_jpeg
from structureflow.testing.videos import texture


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (333, 517), (64, 48)])
@pytest.mark.parametrize("width_px", [1, 32, 320, 500])
def test_a_thumbnail_is_the_area_mean_of_its_frame(size: tuple[int, int], width_px: int) -> None:
    image = np.asarray(cv2.GaussianBlur(texture(*size, seed=3), (0, 0), 2), np.uint8)
    data = encode_jpeg(image, 95)
    scaled, width, height = thumbnail_jpeg(data, width_px, 95)
    # Through a JPEG too, which averages the colours of neighbours.
    expected = decode_jpeg(encode_jpeg(thumbnail(decode_jpeg(data), width_px), 95))
    shown = decode_jpeg(scaled)
    assert (height, width) == shown.shape[:2] == expected.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < 5 < image.std() / 2
    assert np.abs(shown.mean((0, 1)) - expected.mean((0, 1))).max() < 6


def test_grey_jpegs_become_colour() -> None:
    grey = cv2.imencode(".jpg", np.tile(np.arange(200, dtype=np.uint8), (100, 1)))[1].tobytes()
    scaled, width, height = thumbnail_jpeg(grey, 50, 90)
    image = decode_jpeg(scaled)
    assert image.shape == (25, 50, 3) == (height, width, 3)
    assert np.abs(image[12, :, 0].astype(int) - np.arange(1, 200, 4)).max() < 4


def test_quality_and_width_have_bounds() -> None:
    data = encode_jpeg(texture(48, 64, seed=1))
    for width_px, quality in ((0, 75), (32, 0), (32, 101)):
        with pytest.raises(ValueError, match=r"(width_px|quality): expected a whole number from 1"):
            thumbnail_jpeg(data, width_px, quality)
    assert len(thumbnail_jpeg(data, 32, 30)[0]) < len(thumbnail_jpeg(data, 32, 95)[0])


def test_what_is_no_jpeg_is_refused() -> None:
    data = encode_jpeg(texture(48, 64, seed=1))
    for bad in (b"", b"GIF89a", data[:-2], data[:40]):
        with pytest.raises(NotAnImageError):
            thumbnail_jpeg(bad, 32, 75)
    # A whole header and an end, but nothing between them that could be decoded.
    start = data.index(b"\xff\xda")
    with pytest.raises(NotAnImageError, match="64x48"):
        thumbnail_jpeg(data[:start] + b"\xff\xd9", 32, 75)


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    data = bytearray(encode_jpeg(texture(48, 64, seed=1)))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(MediaLimitError, match="60000x60000"):
        thumbnail_jpeg(bytes(data), 32, 75)
