"""What a JPEG says of itself, without decoding it."""

from __future__ import annotations

import struct
from typing import Final

from structureflow.errors import NotAnImageError

#: Longest side of an image that is decoded.
MAX_SIDE_PX: Final = 8192
#: Markers that carry the size: SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1).
_SIZE_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Markers without a length: TEM and RST0 to RST7.
_BARE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD8)})


def jpeg_size(data: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Return (height, width) in pixels from a JPEG's header, and check that its end is there.

    Raises:
        NotAnImageError: the bytes are no whole JPEG.
    """
    view = memoryview(data)
    if view.nbytes < 4 or bytes(view[:2]) != b"\xff\xd8":
        raise NotAnImageError(f"expected a JPEG, got {bytes(view[:8])!r}")
    if bytes(view[-2:]) != b"\xff\xd9":
        raise NotAnImageError(f"expected a whole JPEG, got {view.nbytes} bytes without an end")
    position = 2
    while position + 9 <= view.nbytes and view[position] == 0xFF:
        marker = view[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker in _SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", view, position + 5)
            if height and width:
                return height, width
            break
        else:
            position += 2 + int(struct.unpack_from(">H", view, position + 2)[0])
    raise NotAnImageError(f"expected a JPEG with a size, got {view.nbytes} bytes without one")
