"""Guide images: every kind decoded, turned upright, flattened, cut without stretching, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from structureflow.errors import GuidanceError, MediaLimitError, NotAnImageError
from structureflow.guide.images import check_guide_image, cover_box, fit, load_guide_image
from structureflow.limits import MAX_IMAGE_PIXELS
from structureflow.media.still import open_image
from structureflow.testing.scenes import pan_scene

ORIENTATION = 0x0112


def decode_image(data: bytes, *, what: str, max_pixels: int = MAX_IMAGE_PIXELS) -> NDArray[np.uint8]:
    with open_image(data, what=what, max_pixels=max_pixels) as image:
        pixels = image.pixels()
        assert pixels.shape == (*image.size, 3)
        return pixels


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def corners(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """A picture whose corners are red, green, blue, white (top left, top right, bottom left, bottom right)."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 255, 0, 0
    picture[: height // 2, width // 2 :] = 0, 255, 0
    picture[height // 2 :, : width // 2] = 0, 0, 255
    picture[height // 2 :, width // 2 :] = 255, 255, 255
    return picture


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_come_back_bit_by_bit_in_rgb_order(kind: str) -> None:
    picture = pan_scene(0, frames=2).frames[0]
    data = encoded(Image.fromarray(picture), kind)
    np.testing.assert_array_equal(load_guide_image(data, height=96, width=128, what="a"), picture)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_files_come_back_close_in_rgb_order(kind: str, options: dict[str, Any]) -> None:
    picture = corners()
    decoded = decode_image(encoded(Image.fromarray(picture), kind, **options), what="a")
    for y, x in ((8, 8), (8, 50), (32, 8), (32, 50)):
        assert np.abs(decoded[y, x].astype(int) - picture[y, x]).max() < 12


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.swapaxes(a, 0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.swapaxes(a, 0, 1), 2)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_honoured(orientation: int, turned: Any) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(Image.fromarray(corners()), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, what="a"), turned(corners()))


def test_transparency_is_flattened_on_mid_grey() -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 2:4, 3] = 255
    rgba[:, 4:, 3] = 51
    decoded = decode_image(encoded(Image.fromarray(rgba), "PNG"), what="a")
    assert decoded[0, 0].tolist() == [128, 128, 128]
    assert decoded[0, 2].tolist() == [200, 0, 0]
    assert np.abs(decoded[0, 4].astype(int) - [142, 102, 102]).max() <= 1


def test_transparent_palette_and_grey_are_flattened_too() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode_image(encoded(palette, "GIF", transparency=1), what="a")[0, 0].tolist() == [128, 128, 128]
    assert decode_image(encoded(palette, "PNG"), what="a")[0, 0].tolist() == [10, 20, 30]
    grey = Image.fromarray(np.dstack([np.full((3, 3), 40, np.uint8), np.full((3, 3), 0, np.uint8)]), "LA")
    assert decode_image(encoded(grey, "PNG"), what="a")[0, 0].tolist() == [128, 128, 128]


def test_sixteen_bit_grey_is_scaled_not_saturated() -> None:
    values = np.array([[0, 256 * 10, 256 * 128, 65535]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG"), what="a")
    assert decoded[0, :, 0].tolist() == [0, 10, 128, 255]


def test_sixteen_bit_grey_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    values = np.array([[0, 65535]], np.uint16)
    decoded = decode_image(encoded(Image.fromarray(values), "PNG", exif=exif), what="a")
    assert decoded[:, 0, 1].tolist() == [0, 255]


def test_grey_one_bit_and_cmyk_become_rgb() -> None:
    assert decode_image(encoded(Image.new("L", (2, 2), 77), "PNG"), what="a")[0, 0].tolist() == [77, 77, 77]
    assert decode_image(encoded(Image.new("1", (2, 2), 1), "PNG"), what="a")[0, 0].tolist() == [255, 255, 255]
    cmyk = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), what="a")
    assert cmyk[8, 8, 0] > 240
    assert cmyk[8, 8, 1:].max() < 15


def test_the_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (5, 5), (255, 0, 0)), Image.new("RGB", (5, 5), (0, 0, 255))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decode_image(data, what="a")[2, 2].tolist() == [255, 0, 0]


# --- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8_000, 12_000, 30_000])
def test_a_bomb_is_refused_before_its_pixels_are_decoded(side: int) -> None:
    data = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(MediaLimitError, match=r"guide x\.png.*pixels"):
        load_guide_image(bytes(data), height=64, width=64, what="guide x.png")


def test_pixel_and_byte_limits_are_exact() -> None:
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    assert check_guide_image(data, what="a", max_pixels=100, max_bytes=len(data)) == (10, 10)
    with pytest.raises(MediaLimitError, match="at most 99 pixels, got 10x10"):
        check_guide_image(data, what="a", max_pixels=99)
    with pytest.raises(MediaLimitError, match="bytes"):
        check_guide_image(data, what="a", max_bytes=len(data) - 1)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x00\x00\x00\x18ftypmp42" + bytes(100), b"<svg/>", b"%PDF-1.4"])
def test_other_files_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(NotAnImageError, match="segments 0 guide 1"):
        decode_image(data, what="segments 0 guide 1")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_truncated_files_are_refused(kind: str) -> None:
    data = encoded(Image.fromarray(pan_scene(0, frames=2).frames[0]), kind)
    for share in (0.02, 0.3, 0.7):
        with pytest.raises(NotAnImageError, match="guide"):
            decode_image(data[: int(len(data) * share)], what="guide")


# Pillow only warns of damaged metadata; nothing here depends on them
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_files_give_an_image_or_our_error(kind: str) -> None:
    data = encoded(Image.fromarray(pan_scene(0, frames=2).frames[0]), kind)
    random = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 400), 4):
            damaged[place] = random.integers(0, 256)
        try:
            image = decode_image(bytes(damaged), what="guide", max_pixels=100_000)
        except (NotAnImageError, MediaLimitError):
            continue
        assert image.dtype == np.uint8
        assert image.ndim == 3


# --- fit ---------------------------------------------------------------------------------------------


def test_the_same_size_passes_untouched() -> None:
    picture = corners(32, 48)
    assert fit(picture, 32, 48) is picture


@pytest.mark.parametrize(("size", "target"), [((100, 100), (50, 80)), ((60, 200), (64, 64)), ((90, 40), (120, 200))])
def test_fit_never_stretches(size: tuple[int, int], target: tuple[int, int]) -> None:
    """A circle stays a circle of the scale that covering needs, in the middle."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    radius = min(size) * 0.2
    inside = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2 <= radius**2
    fitted = fit(np.repeat(inside[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255), *target)
    assert fitted.shape == (*target, 3)
    scale = max(target[0] / height, target[1] / width)
    ys, xs = np.nonzero(fitted[..., 0] > 127)
    assert ys.max() - ys.min() + 1 == pytest.approx(2 * radius * scale, abs=3)
    assert xs.max() - xs.min() + 1 == pytest.approx(2 * radius * scale, abs=3)
    assert ys.mean() == pytest.approx((target[0] - 1) / 2, abs=0.6)
    assert xs.mean() == pytest.approx((target[1] - 1) / 2, abs=0.6)


def test_what_hangs_over_is_cut_on_both_sides() -> None:
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, :20] = 255, 0, 0
    picture[:, 20:40] = 0, 255, 0
    picture[:, 40:] = 0, 0, 255
    fitted = fit(picture, 20, 20)
    assert (fitted == [0, 255, 0]).all()


def test_cover_box_is_centred_and_inside() -> None:
    assert cover_box(720, 1280, 480, 480) == (0, 280, 720, 720)
    assert cover_box(1280, 720, 480, 480) == (280, 0, 720, 720)
    assert cover_box(1, 10_000, 64, 64) == (0, 4999, 1, 1)


def test_fit_refuses_other_arrays() -> None:
    with pytest.raises(GuidanceError, match="float32"):
        fit(np.zeros((4, 4, 3), np.float32), 2, 2)
    with pytest.raises(GuidanceError, match="shape"):
        fit(np.zeros((4, 4), np.uint8), 2, 2)
    with pytest.raises(GuidanceError, match="sizes"):
        fit(np.zeros((4, 4, 3), np.uint8), 0, 2)
