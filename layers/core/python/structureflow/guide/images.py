"""Guide images: decoded within limits, turned upright, flattened, and fitted to the resolution of the job."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from structureflow.errors import GuidanceError, MediaLimitError, NotAnImageError
from structureflow.guide.masks import MID_GREY

MAX_IMAGE_BYTES: Final = 128 * 2**20
MAX_IMAGE_PIXELS: Final = 50_000_000
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# what Pillow's decoders raise on damaged files; it has no root of its own
_DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


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

    The first frame of an animation is taken, the EXIF orientation honoured, 16-bit channels brought to 8, and
    transparency flattened on mid-grey (128), the colour that says "nothing known" everywhere in a guide.

    Args:
        data: a PNG, JPEG, WebP, BMP, GIF or TIFF file.
        height, width: the resolution of the job, in pixels.
        what: names the image in errors, as in ``segments.0.guides.1.image a.png``.
        max_bytes, max_pixels: refused above, before pixels are decoded.

    Returns:
        ``(height, width, 3)`` uint8 RGB, fresh memory, cut as `fit` does.

    Raises:
        NotAnImageError: the bytes are no such file, or damaged.
        MediaLimitError: larger than `max_bytes` or `max_pixels`.
    """
    return fit(decode_image(data, what=what, max_bytes=max_bytes, max_pixels=max_pixels), height, width)


def check_guide_image(
    data: bytes, *, what: str, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[int, int]:
    """Decode an image file only to see that it can be used; return its upright (height, width) in pixels.

    Raises:
        NotAnImageError, MediaLimitError: as `load_guide_image`.
    """
    image = decode_image(data, what=what, max_bytes=max_bytes, max_pixels=max_pixels)
    return image.shape[0], image.shape[1]


def decode_image(
    data: bytes, *, what: str, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image file at its own size, upright: ``(H, W, 3)`` uint8 RGB; see `load_guide_image`.

    Raises:
        NotAnImageError: the bytes are no image file of a known format, or damaged.
        MediaLimitError: larger than `max_bytes` or `max_pixels`.
    """
    if len(data) > max_bytes:
        raise MediaLimitError(f"{what}: expected an image file of at most {max_bytes} bytes, got {len(data)}")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise MediaLimitError(f"{what}: expected at most {max_pixels} pixels, got {image.width}x{image.height}")
            return np.array(_flatten(ImageOps.exif_transpose(_eight_bit(image))), np.uint8)
    except MediaLimitError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaLimitError(f"{what}: expected at most {max_pixels} pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise NotAnImageError(f"{what}: expected {', '.join(_FORMATS)}, got bytes {data[:12]!r}") from error
    except _DECODER_ERRORS as error:
        raise NotAnImageError(f"{what}: the image is damaged: {error}") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit grey to RGB saturates instead of scaling
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        values = np.asarray(image).clip(0, 65535).astype(np.uint16)
    else:
        return image
    converted = Image.fromarray((values >> 8).astype(np.uint8))
    converted.info.update(image.info)
    converted.getexif().load(image.getexif().tobytes())
    return converted


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layered = image.convert("RGBA")
    ground = Image.new("RGBA", layered.size, (MID_GREY, MID_GREY, MID_GREY, 255))
    return Image.alpha_composite(ground, layered).convert("RGB")


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
