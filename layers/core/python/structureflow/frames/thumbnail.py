"""Thumbnails of stored frames for screens, by Pillow alone: whoever serves screens needs neither numpy nor OpenCV."""

from __future__ import annotations

import io

from structureflow.arguments import whole
from structureflow.errors import MediaLimitError, NotAnImageError
from structureflow.frames.jpeg_header import MAX_SIDE_PX, jpeg_size


def thumbnail_jpeg(data: bytes, width_px: int, quality: int) -> tuple[bytes, int, int]:
    """Scale a JPEG down to `width_px`, keeping its proportions, and encode it anew; smaller ones keep their size.

    The decoder already halves what is far too large (libjpeg's DCT scaling); the rest is a smooth mean.

    Args:
        data: a whole JPEG.
        width_px: 1 or more.
        quality: 1 to 100, as libjpeg counts.

    Returns:
        The JPEG (4:2:0 chroma), its width and its height in pixels.

    Raises:
        NotAnImageError: the bytes are no whole JPEG.
        MediaLimitError: a side exceeds `MAX_SIDE_PX`; nothing is decoded then.
        InvalidArgumentError: `width_px` or `quality` is outside.
    """
    from PIL import Image

    whole(1)(width_px, "width_px")
    whole(1, 100)(quality, "quality")
    height, width = jpeg_size(data)
    if max(height, width) > MAX_SIDE_PX:
        raise MediaLimitError(f"expected sides of at most {MAX_SIDE_PX} px, got {width}x{height}")
    size = (width, height) if width <= width_px else (width_px, max(1, round(height * width_px / width)))
    scaled = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.draft("RGB", size)
            picture = image.convert("RGB").resize(size, Image.Resampling.HAMMING)
    except (OSError, SyntaxError) as error:
        raise NotAnImageError(f"expected a JPEG of {width}x{height} px, got {len(data)} undecodable bytes") from error
    picture.save(scaled, "JPEG", quality=quality, subsampling="4:2:0")
    return scaled.getvalue(), *size
