"""JPEGs and perceptual hashes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from structureflow.errors import MediaLimitError, NotAnImageError
from structureflow.frames.jpeg import (
    decode_jpeg,
    encode_jpeg,
    hash_distance,
    jpeg_size,
    perceptual_hash,
    thumbnail,
)
from structureflow.testing.frames import psnr
from structureflow.testing.videos import texture


def test_round_trip_is_close_and_quality_matters() -> None:
    image = texture(90, 160)
    sizes = []
    for quality, least_db in ((30, 28.0), (85, 33.0), (98, 38.0)):
        data = encode_jpeg(image, quality)
        decoded = decode_jpeg(data)
        assert decoded.shape == image.shape
        assert decoded.dtype == np.uint8
        assert psnr(decoded, image) > least_db
        sizes.append(len(data))
    assert sizes == sorted(sizes)


def test_colour_order_is_rgb_in_and_out() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    data = encode_jpeg(image)
    red, green, blue = decode_jpeg(data)[8, 8].tolist()
    assert abs(red - 200) < 6
    assert max(green, blue) < 12
    by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert by_opencv is not None
    assert by_opencv[8, 8, 2] > 190


def test_same_pixels_same_bytes() -> None:
    image = texture(50, 70)
    assert encode_jpeg(image) == encode_jpeg(np.asfortranarray(image)) == encode_jpeg(image.copy())


def test_encoding_leaves_the_image_alone() -> None:
    image = texture(40, 40)
    before = image.copy()
    encode_jpeg(image)
    perceptual_hash(image)
    thumbnail(image, 10)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 8200, 3), np.uint8),
    ],
)
def test_what_is_no_frame(image: np.ndarray) -> None:
    for function in (encode_jpeg, perceptual_hash, lambda picture: thumbnail(picture, 2)):
        with pytest.raises(NotAnImageError):
            function(image)


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_quality_bounds(quality: int) -> None:
    with pytest.raises(ValueError, match="quality"):
        encode_jpeg(texture(8, 8), quality)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (49, 1), (37, 53), (720, 1280)])
def test_size_is_read_from_the_header(size: tuple[int, int]) -> None:
    data = encode_jpeg(np.full((*size, 3), 90, np.uint8))
    assert jpeg_size(data) == size
    assert decode_jpeg(data).shape[:2] == size


def test_size_behind_other_segments() -> None:
    data = encode_jpeg(texture(20, 30))
    comment = b"\xff\xfe\x00\x08hello!"
    filler = b"\xff\xff"
    assert jpeg_size(data[:2] + comment + filler[:1] + data[2:]) == (20, 30)


def test_bytes_that_are_no_jpeg() -> None:
    whole = encode_jpeg(texture(64, 64))
    png = cv2.imencode(".png", texture(8, 8))[1].tobytes()
    for data in (b"", b"\xff\xd8", b"abc", png, whole[: len(whole) // 2], whole[:-1], b"\xff\xd8\xff\xd9" * 4):
        with pytest.raises(NotAnImageError):
            decode_jpeg(data)


def test_giant_sizes_are_refused_before_decoding() -> None:
    data = bytearray(encode_jpeg(texture(16, 16)))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(MediaLimitError, match="60000x60000"):
        decode_jpeg(data)


def test_hash_of_a_ramp_is_known() -> None:
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    assert perceptual_hash(ramp) == "f" * 16
    assert perceptual_hash(ramp[:, ::-1]) == "0" * 16
    mixed = ramp.copy()
    mixed[:40] = ramp[:40, ::-1]
    assert perceptual_hash(mixed) == "0" * 8 + "f" * 8


def test_hash_tells_pictures_apart_and_forgives_compression() -> None:
    pictures = [texture(180, 320, seed=seed) for seed in range(6)]
    hashes = [perceptual_hash(picture) for picture in pictures]
    for picture, own in zip(pictures, hashes, strict=True):
        again = perceptual_hash(decode_jpeg(encode_jpeg(picture, 60)))
        assert hash_distance(own, again) <= 4
        assert hash_distance(own, perceptual_hash(thumbnail(picture, 160))) <= 8
    others = [hash_distance(a, b) for number, a in enumerate(hashes) for b in hashes[number + 1 :]]
    assert min(others) > 12


def test_thumbnail_keeps_proportions_and_never_enlarges() -> None:
    image = texture(720, 1280)
    small = thumbnail(image, 320)
    assert small.shape == (180, 320, 3)
    assert abs(float(small.mean()) - float(image.mean())) < 1.5
    assert thumbnail(image, 1280) is image
    assert thumbnail(image, 4000) is image
    assert thumbnail(np.zeros((2, 900, 3), np.uint8), 9).shape == (1, 9, 3)
    with pytest.raises(ValueError, match="width_px"):
        thumbnail(image, 0)
