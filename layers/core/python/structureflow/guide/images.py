"""Guide images: decoded within limits and fitted to the resolution of the job."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import GuidanceError
from structureflow.limits import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from structureflow.media.still import open_image


def load_guide_image(
    data: bytes,
    *,
    height: int,
    width: int,
    what: str,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> NDArray[np.uint8]:
    """Decode an image file and fit it to the resolution of the job.

    The first frame of an animation is taken, the EXIF orientation honoured, colours brought to sRGB by the embedded
    profile, channels of more than 8 bits to 8, and transparency flattened on mid-grey (128), the colour that says
    "nothing known" everywhere in a guide.

    Args:
        data: a PNG, JPEG, WebP, AVIF, HEIC, BMP, GIF or TIFF file.
        height, width: the resolution of the job, in pixels.
        what: names the image in errors, as in ``segments.0.guides.1.image a.png``.
        max_bytes, max_pixels: refused above, before pixels are decoded.

    Returns:
        ``(height, width, 3)`` uint8 RGB, fresh memory, cut as `fit` does.

    Raises:
        NotAnImageError: the bytes are no such file, or damaged.
        MediaLimitError: larger than `max_bytes` or `max_pixels`.
    """
    with open_image(data, what=what, max_bytes=max_bytes, max_pixels=max_pixels) as image:
        return fit(image.pixels(), height, width)


def check_guide_image(
    data: bytes, *, what: str, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[int, int]:
    """Decode an image file only to see that it can be used; return its upright (height, width) in pixels.

    Raises:
        NotAnImageError, MediaLimitError: as `load_guide_image`.
    """
    with open_image(data, what=what, max_bytes=max_bytes, max_pixels=max_pixels) as image:
        return image.size


def cover_box(source_height: int, source_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the centred part of a source that has the shape of the target, as large as possible.

    Returns:
        (top, left, box_height, box_width) in whole source pixels.

    Raises:
        GuidanceError: a side is not positive.
    """
    if min(source_height, source_width, height, width) < 1:
        raise GuidanceError(
            f"fit: expected positive sizes, got source {source_width}x{source_height}, target {width}x{height}"
        )
    box_width = max(1, min(source_width, round(source_height * width / height)))
    box_height = max(1, min(source_height, round(source_width * height / width)))
    return (source_height - box_height) // 2, (source_width - box_width) // 2, box_height, box_width


def fit(image: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    """Cover the target with the image and cut what hangs over, centred; never stretched.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        height, width: of the target, in pixels.

    Returns:
        ``(height, width, 3)`` uint8 RGB, contiguous; `image` itself if it has that size already.

    Raises:
        GuidanceError: another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise GuidanceError(f"fit: expected (H, W, 3) uint8, got shape {image.shape} {image.dtype}")
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    top, left, box_height, box_width = cover_box(image.shape[0], image.shape[1], height, width)
    box = image[top : top + box_height, left : left + box_width]
    shrinks = box_height * box_width > height * width
    fitted = cv2.resize(box, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.ascontiguousarray(fitted, dtype=np.uint8)
