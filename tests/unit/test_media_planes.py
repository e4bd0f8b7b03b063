"""What the encoder takes, against the definition of BT.709, and back."""

from __future__ import annotations

import numpy as np
import pytest

from structureflow.media.planes import (
    chroma,
    flat_planes,
    frozen,
    grey_to_planes,
    luma,
    planes_shape,
    planes_to_rgb,
    rgb_to_planes,
)
from structureflow.testing.videos import Image, texture


def patches() -> Image:
    image = texture(32, 48, seed=3)
    image[:2, :2], image[2:4, :2], image[:2, 2:4] = (255, 255, 255), (0, 0, 0), (255, 0, 0)
    return image


def test_planes_are_bt709_limited_range_and_chroma_the_mean_of_its_four_pixels() -> None:
    """ITU-R BT.709-6 in floating point."""
    image = patches()
    planes = rgb_to_planes(image)
    red, green, blue = np.moveaxis(image / 255, -1, 0)
    bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    u, v = (blue - bright) / 1.8556, (red - bright) / 1.5748
    assert np.abs(luma(planes) - (16 + 219 * bright)).max() <= 1.1
    for number, colour in enumerate((u, v)):
        expected = 128 + 224 * colour.reshape(16, 2, 24, 2).mean((1, 3))
        assert np.abs(chroma(planes)[number] - expected).max() <= 1.1
    assert (planes[0, 0], planes[2, 0], planes[0, 2]) == (235, 16, 63)


@pytest.mark.parametrize("size", [(2, 2), (2, 6), (6, 2), (14, 22), (94, 130)])
def test_views_share_the_memory_and_cover_it(size: tuple[int, int]) -> None:
    planes = np.zeros(planes_shape(*size), np.uint8)
    luma(planes)[:] = 1
    for number, samples in enumerate(chroma(planes), start=2):
        samples[:] = number
        assert samples.shape == (size[0] // 2, size[1] // 2)
    assert luma(planes).shape == size
    pixels = size[0] * size[1]
    assert np.bincount(planes.reshape(-1), minlength=4).tolist() == [0, pixels, pixels // 4, pixels // 4]


def test_pictures_come_back() -> None:
    flat = np.kron(np.random.default_rng(1).integers(0, 256, (8, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    back = planes_to_rgb(rgb_to_planes(flat))
    inner = np.zeros(flat.shape[:2], bool).reshape(8, 4, 12, 4)
    # where neighbours have another colour, chroma is interpolated
    inner[:, 1:3, :, 1:3] = True
    assert np.abs(back.astype(int) - flat)[inner.reshape(flat.shape[:2])].mean() < 12
    even = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    assert np.abs(planes_to_rgb(rgb_to_planes(even)).astype(int) - even).max() <= 2


def test_smaller_is_what_shrinking_the_picture_gives() -> None:
    import cv2

    image = texture(90, 160, seed=4)
    for height, width in ((45, 80), (30, 53), (80, 142)):
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        small = planes_to_rgb(rgb_to_planes(image), height, width)
        assert small.shape == (height, width, 3)
        assert np.abs(small.astype(int) - expected).mean() < 4


def test_grey_is_what_a_grey_picture_gives() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    planes = grey_to_planes(ramp)
    assert (luma(planes).min(), luma(planes).max()) == (16, 235)
    assert (planes[16:] == 128).all()
    coloured = rgb_to_planes(np.repeat(ramp[..., None], 3, axis=2))
    assert np.abs(planes.astype(int) - coloured).max() <= 1


def test_results_may_be_written_into_memory_that_is_there() -> None:
    image = patches()
    for convert, given in ((rgb_to_planes, image), (grey_to_planes, np.ascontiguousarray(image[..., 0]))):
        out = np.zeros(planes_shape(32, 48), np.uint8)
        assert convert(given, out) is out
        np.testing.assert_array_equal(out, convert(given))


def test_flat_pictures_cannot_be_changed() -> None:
    black, white = flat_planes(4, 6, 0), flat_planes(4, 6, 255)
    assert ((luma(black) == 16).all(), (luma(white) == 235).all(), (white[4:] == 128).all()) == (True, True, True)
    for planes in (black, frozen(np.zeros(3))):
        with pytest.raises(ValueError, match="read-only"):
            planes[0] = 1
