"""JPEGs and perceptual hashes of frames, in memory."""

from __future__ import annotations

import threading
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.arguments import array, whole
from structureflow.errors import MediaLimitError, NotAnImageError
from structureflow.frames.jpeg_header import MAX_SIDE_PX, jpeg_size

__all__ = [
    "MAX_SIDE_PX",
    "check_image",
    "decode_jpeg",
    "decode_jpeg_gray",
    "encode_jpeg",
    "hash_distance",
    "jpeg_size",
    "perceptual_hash",
    "thumbnail",
]


def check_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `image` if it is a frame: ``(H, W, 3) uint8 RGB``, sides of 1 to 8192 pixels.

    Raises:
        NotAnImageError: another shape or dtype.
    """
    shape: tuple[int, ...] = array(image, "image", "(H, W, 3) uint8 RGB").shape
    if len(shape) != 3 or shape[2] != 3 or image.dtype != np.uint8 or min(shape) < 1:
        raise NotAnImageError(f"image: expected (H, W, 3) uint8 RGB, got {shape} {image.dtype}")
    if max(shape[:2]) > MAX_SIDE_PX:
        raise NotAnImageError(f"image: expected sides of at most {MAX_SIDE_PX} px, got {shape[1]}x{shape[0]}")
    return image


class _Scratch(threading.local):
    """A buffer per thread: touching fresh memory costs a fifth of encoding a frame."""

    buffer: NDArray[np.uint8] | None = None


_SCRATCH = _Scratch()


def _scratch(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    buffer = _SCRATCH.buffer
    if buffer is None or buffer.shape != shape:
        buffer = np.empty(shape, np.uint8)
        _SCRATCH.buffer = buffer
    return buffer


def encode_jpeg(image: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Encode a frame as a baseline JPEG with 4:2:0 chroma; the same pixels give the same bytes.

    Args:
        image: ``(H, W, 3) uint8 RGB``; not changed.
        quality: 1 to 100, as libjpeg counts.

    Raises:
        NotAnImageError: another shape or dtype.
        InvalidArgumentError: `quality` is outside.
    """
    whole(1, 100)(quality, "quality")
    bgr = cv2.cvtColor(check_image(image), cv2.COLOR_RGB2BGR, dst=_scratch(image.shape))
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    encoded, buffer = cv2.imencode(".jpg", bgr, parameters)
    if not encoded:
        raise NotAnImageError(f"cannot encode {image.shape[1]}x{image.shape[0]} as JPEG")
    return buffer.tobytes()


def decode_jpeg(data: bytes | bytearray | memoryview) -> NDArray[np.uint8]:
    """Decode a JPEG.

    Returns:
        ``(H, W, 3) uint8 RGB``, a fresh array; orientation tags are ignored.

    Raises:
        NotAnImageError: the bytes are no whole JPEG.
        MediaLimitError: a side exceeds `MAX_SIDE_PX`; nothing is decoded then.
    """
    height, width = jpeg_size(data)
    if max(height, width) > MAX_SIDE_PX:
        raise MediaLimitError(f"expected sides of at most {MAX_SIDE_PX} px, got {width}x{height}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape != (height, width, 3):
        raise NotAnImageError(f"expected a JPEG of {width}x{height} px, got {len(data)} undecodable bytes")
    return cast("NDArray[np.uint8]", image)


#: By how much a JPEG can be decoded smaller at once, and OpenCV's name for it.
_REDUCED: Final = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    (1, cv2.IMREAD_GRAYSCALE),
)


def decode_jpeg_gray(data: bytes | bytearray | memoryview, height: int, width: int) -> NDArray[np.uint8]:
    """Decode a JPEG's luma at `height` x `width` pixels, from as few of its coefficients as that needs.

    Returns:
        ``(height, width)`` uint8, BT.601 luma, averaged where it shrinks; orientation tags are ignored.

    Raises:
        NotAnImageError: the bytes are no whole JPEG.
        MediaLimitError: a side exceeds `MAX_SIDE_PX`; nothing is decoded then.
        InvalidArgumentError: a side to decode to is below 1.
    """
    whole(1)(height, "height")
    whole(1)(width, "width")
    full_height, full_width = jpeg_size(data)
    if max(full_height, full_width) > MAX_SIDE_PX:
        raise MediaLimitError(f"expected sides of at most {MAX_SIDE_PX} px, got {full_width}x{full_height}")
    by, flag = next(
        (by, flag) for by, flag in _REDUCED if by == 1 or (full_height >= by * height and full_width >= by * width)
    )
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape != (-(-full_height // by), -(-full_width // by)):
        raise NotAnImageError(f"expected a JPEG of {full_width}x{full_height} px, got {len(data)} undecodable bytes")
    if image.shape != (height, width):
        shrinks = height <= image.shape[0] and width <= image.shape[1]
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return cast("NDArray[np.uint8]", image)


def perceptual_hash(image: NDArray[np.uint8]) -> str:
    """Hash what a frame looks like: similar frames differ in few of the 64 bits.

    It is the difference hash (N. Krawetz, "Kind of like that", 2013): grey, averaged down to 9x8 pixels, one
    bit per neighbouring pair of a row, set where the right pixel is brighter; first bit highest.

    Args:
        image: ``(H, W, 3) uint8 RGB``; not changed.

    Returns:
        16 lower-case hex digits.

    Raises:
        NotAnImageError: another shape or dtype.
    """
    grey = cv2.cvtColor(check_image(image), cv2.COLOR_RGB2GRAY)
    # Halving has a fast path; area averaging by an odd factor costs more than encoding the JPEG.
    while min(grey.shape) >= 64:
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def hash_distance(one: str, other: str) -> int:
    """Count the bits, 0 to 64, in which two perceptual hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def thumbnail(image: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    """Scale a frame down to `width_px`, keeping its proportions; smaller frames stay as they are.

    Args:
        image: ``(H, W, 3) uint8 RGB``; not changed, but may be what is returned.
        width_px: 1 or more.

    Returns:
        ``(h, w, 3) uint8 RGB`` with ``w = min(W, width_px)``.

    Raises:
        InvalidArgumentError: `width_px` is below 1.
    """
    whole(1)(width_px, "width_px")
    height, width = check_image(image).shape[:2]
    if width <= width_px:
        return image
    size = (width_px, max(1, round(height * width_px / width)))
    return cast("NDArray[np.uint8]", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
