"""Whether a file ends where its own structure says that it ends.

FFmpeg takes the end of the file for the end of the stream in Matroska, AVI, GIF and WebP, so that a transfer that
broke off between two frames would pass for a shorter video. (In MP4 and QuickTime it misses the samples itself.)
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675
#: Masters that a live muxer may leave open; their children are walked.
_OPEN: Final = frozenset({_SEGMENT, _CLUSTER})
_RIFF_FORMS: Final = frozenset({b"AVI ", b"WEBP"})


def missing_bytes(path: Path) -> int:
    """Return how many bytes a file lacks, by the sizes that its structure names.

    A size that was never filled in, as live recorders leave it, says nothing, and neither do other containers.

    Returns:
        0 where nothing is missing; at least that many otherwise.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] in _RIFF_FORMS:
            return _missing_in_riff(head, size)
        if head[:6] in (b"GIF87a", b"GIF89a"):
            return _missing_in_gif(file, size)
        if head[:4] == _EBML:
            file.seek(0)
            return _missing_in_matroska(file, size)
    return 0


def _missing_in_riff(head: bytes, size: int) -> int:
    declared = int.from_bytes(head[4:8], "little")
    if declared in (0, 0xFFFFFFFF):
        return 0
    return max(0, declared + 8 - size)


def _missing_in_gif(file: BinaryIO, size: int) -> int:
    """Look for the trailer; some writers put zeros behind it."""
    file.seek(max(0, size - 64))
    return 0 if file.read().rstrip(b"\0").endswith(b"\x3b") else 1


def _missing_in_matroska(file: BinaryIO, size: int) -> int:
    """Walk the elements; only those of unknown size are entered, so that a complete file costs two steps."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(12)
        name, name_length = _number(head, keep_marker=True)
        length, length_length = _number(head[name_length:], keep_marker=False)
        if not name_length or not length_length:
            # an element's own head is cut, or what follows is no Matroska at all
            return 1 if len(head) < 12 else 0
        body = position + name_length + length_length
        if length == (1 << (7 * length_length)) - 1:
            if name not in _OPEN:
                return 0
            position = body
        else:
            position = body + length
    return position - size


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read a variable-size integer (RFC 8794, 4): its value and its length, 0 where it is not whole."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return value if keep_marker else value & ((1 << (7 * length)) - 1), length
