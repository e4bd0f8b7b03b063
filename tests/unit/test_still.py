"""Image files: colours by their profile, numbers by their range, memory by one budget."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from structureflow.errors import GuidanceError, MediaLimitError, NotAnImageError
from structureflow.media.memory import MemoryBudget
from structureflow.media.still import PIXELS_IN_FLIGHT, open_image
from structureflow.testing.profiles import DISPLAY_P3_TO_XYZ, grey_profile, rgb_profile, to_srgb

GAMMA = 2.2
P3 = rgb_profile(DISPLAY_P3_TO_XYZ, GAMMA)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    with open_image(data, what="guide") as image:
        return image.pixels()


def swatches() -> NDArray[np.uint8]:
    """Return a grid of colours inside sRGB's gamut and outside, ``(6, 36, 3) uint8``."""
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(6, 36, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_follow_the_embedded_profile(kind: str) -> None:
    raw = swatches()
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = pixels(encoded(Image.fromarray(raw), kind, icc_profile=P3, **options)).astype(float)
    expected = to_srgb(raw, DISPLAY_P3_TO_XYZ, GAMMA)
    assert np.abs(decoded - expected).max() < 3
    assert np.abs(decoded - raw).max() > 20


def test_a_profile_counts_below_transparency_too() -> None:
    raw = swatches()
    alpha = np.full((*raw.shape[:2], 1), 255, np.uint8)
    alpha[:, 18:] = 0
    decoded = pixels(encoded(Image.fromarray(np.concatenate([raw, alpha], -1)), icc_profile=P3)).astype(float)
    assert np.abs(decoded - to_srgb(raw, DISPLAY_P3_TO_XYZ, GAMMA))[:, :18].max() < 3
    assert (decoded[:, 18:] == 128).all()


def test_a_palette_is_brought_to_srgb() -> None:
    raw = np.repeat(swatches()[:1, 5:6], 4, axis=1)
    palette = Image.fromarray(raw).convert("P", palette=Image.Palette.ADAPTIVE)
    decoded = pixels(encoded(palette, icc_profile=P3)).astype(float)
    assert np.abs(decoded - to_srgb(raw, DISPLAY_P3_TO_XYZ, GAMMA)).max() < 4


def test_grey_follows_its_profile() -> None:
    ramp = np.arange(0, 256, 5, dtype=np.uint8)[None]
    decoded = pixels(encoded(Image.fromarray(ramp), icc_profile=grey_profile(1.8)))
    light = (ramp / 255) ** 1.8
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(decoded[..., 0] - expected).max() < 3
    assert (decoded[..., 0] == decoded[..., 2]).all()


@pytest.mark.parametrize("profile", [b"no profile at all", P3[:200], grey_profile(1.8)], ids=["junk", "cut", "grey"])
def test_a_profile_that_cannot_be_meant_is_left_out(profile: bytes) -> None:
    raw = swatches()
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(raw), icc_profile=profile)), raw)


def test_float_grey_is_scaled() -> None:
    values = np.linspace(0, 1, 50, dtype=np.float32).reshape(5, 10)
    decoded = pixels(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(decoded[..., 1] - values * 255).max() <= 0.5


@pytest.mark.parametrize("worst", [255.0, -0.5, np.nan, np.inf])
def test_float_grey_of_another_range_is_refused(worst: float) -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[1, 1] = worst
    with pytest.raises(NotAnImageError, match="guide: expected float pixels from 0 to 1"):
        pixels(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(("most", "shown"), [(255, 255), (65535, 255)])
def test_wide_integers_are_scaled_by_their_range(most: int, shown: int) -> None:
    values = np.array([[0, most // 2, most]], np.int32)
    decoded = pixels(encoded(Image.fromarray(values), "TIFF"))
    assert decoded[0, :, 0].tolist() == [0, 127, shown]


def test_wider_integers_are_refused() -> None:
    with pytest.raises(NotAnImageError, match="expected integer pixels from 0 to 65535, got 0 to 70000"):
        pixels(encoded(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_photos_of_phones_are_read(kind: str) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32], picture[32:] = (200, 30, 90), (40, 170, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = pixels(phone_photo(kind, picture, exif=exif.tobytes()))
    assert decoded.shape == (96, 64, 3)  # turned clockwise: what was below is left
    assert np.abs(decoded[48, 48].astype(int) - [200, 30, 90]).max() < 8
    assert np.abs(decoded[48, 16].astype(int) - [40, 170, 60]).max() < 8
    in_p3 = pixels(phone_photo(kind, picture, icc_profile=P3))
    assert np.abs(in_p3[8, 8] - to_srgb(picture[8, 8], DISPLAY_P3_TO_XYZ, GAMMA)).max() < 8


def phone_photo(kind: str, picture: NDArray[np.uint8], **options: Any) -> bytes:
    pillow_heif.register_heif_opener()
    return encoded(Image.fromarray(picture), kind, quality=95, **options)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_damaged_photos_give_an_image_or_our_error(kind: str) -> None:
    data = phone_photo(kind, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    random = np.random.default_rng(5)
    for share in (0.05, 0.5, 0.9):
        with pytest.raises(NotAnImageError):
            pixels(data[: int(len(data) * share)])
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 500), 4):
            damaged[place] = random.integers(0, 256)
        try:
            image = pixels(bytes(damaged))
        except (NotAnImageError, MediaLimitError):
            continue
        assert image.ndim == 3


def test_large_images_are_whole_although_they_are_converted_in_strips() -> None:
    raw = np.random.default_rng(0).integers(0, 255, (900, 2500, 4), np.uint8)
    raw[..., 3] = 255
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(raw))), raw[..., :3])


# --- memory ------------------------------------------------------------------------------------------


def test_a_decoded_image_counts_until_it_is_done_with() -> None:
    data = encoded(Image.new("RGB", (100, 50)))
    with open_image(data, what="guide"):
        assert PIXELS_IN_FLIGHT.held_bytes >= 100 * 50 * 10
    assert PIXELS_IN_FLIGHT.held_bytes == 0
    with pytest.raises(GuidanceError), open_image(data, what="guide"):
        raise GuidanceError("what goes wrong with an image is not an image that is damaged")
    assert PIXELS_IN_FLIGHT.held_bytes == 0
    with pytest.raises(NotAnImageError), open_image(data[:60], what="guide"):
        pass
    assert PIXELS_IN_FLIGHT.held_bytes == 0


def test_a_budget_is_never_overdrawn() -> None:
    budget = MemoryBudget(100)
    most = 0
    lock = threading.Lock()

    def take(size: int) -> None:
        nonlocal most
        for _ in range(50):
            with budget.hold(size), lock:
                most = max(most, budget.held_bytes)

    threads = [threading.Thread(target=take, args=(size,)) for size in (30, 60, 70, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert 60 <= most <= 100
    assert budget.held_bytes == 0


def test_whoever_asked_first_goes_first() -> None:
    budget = MemoryBudget(100)
    order: list[int] = []
    threads = []

    def take(size: int) -> None:
        with budget.hold(size):
            order.append(size)

    with budget.hold(50):
        for size in (90, 10):  # the small one would fit, but would keep the large one waiting for ever
            threads.append(threading.Thread(target=take, args=(size,)))
            threads[-1].start()
            while len(budget.waiting) < len(threads):
                threading.Event().wait(0.001)
        assert order == []
    for thread in threads:
        thread.join(30)
    assert order == [90, 10]
