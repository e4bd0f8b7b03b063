"""Whether a file's own structure holds together to its end.

FFmpeg takes what it cannot read in Matroska, AVI, GIF and WebP for the end of the stream, or skips it, so that a
transfer that broke off between two frames would pass for a shorter video. (In MP4 it misses the samples itself.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675
#: What a segment and a cluster hold (RFC 9559, 5.1); a global element (RFC 8794, 11.3) may stand in both.
_GLOBAL: Final = frozenset({0xEC, 0xBF})
_IN_SEGMENT: Final = _GLOBAL | {
    _CLUSTER,
    0x114D9B74,
    0x1549A966,
    0x1654AE6B,
    0x1C53BB6B,
    0x1941A469,
    0x1043A770,
    0x1254C367,
}
_IN_CLUSTER: Final = _GLOBAL | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_RIFF_FORMS: Final = frozenset({b"AVI ", b"WEBP"})


def broken_structure(path: Path) -> str | None:
    """Return what is wrong with a file by the sizes that its structure names, or None.

    A size that was never filled in, as live recorders leave it, says nothing. Containers other than Matroska, RIFF
    and GIF are not looked into.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] in _RIFF_FORMS:
            declared = int.from_bytes(head[4:8], "little")
            whole = declared in (0, 0xFFFFFFFF) or declared + 8 <= size
            return None if whole else _missing(declared + 8 - size)
        if head[:6] in (b"GIF87a", b"GIF89a"):
            return _broken_gif(file, size)
        if head[:4] == _EBML:
            return _broken_matroska(file, size)
    return None


def _missing(count: int) -> str:
    return f"the file breaks off there; at least {count} bytes are missing"


def _broken_at(position: int) -> str:
    return f"the file's structure is broken at byte {position}"


def _broken_gif(file: BinaryIO, size: int) -> str | None:
    """Look for the trailer; some writers put zeros behind it."""
    file.seek(max(0, size - 64))
    return None if file.read().rstrip(b"\0").endswith(b"\x3b") else _missing(1)


# --- Matroska ----------------------------------------------------------------------------------------


class _BrokenError(Exception):
    """Ends the walk; its text is what is wrong."""


@dataclass(frozen=True, slots=True)
class _Element:
    """An EBML element: its number, where its content begins and ends; `end` is None where no size was filled in."""

    name: int
    body: int
    end: int | None


def _broken_matroska(file: BinaryIO, size: int) -> str | None:
    """Walk the segment and its clusters, which must be filled exactly by elements that belong there."""
    try:
        head = _element(file, 0, size, size)
        if head.end is not None and head.end < size:
            segment = _element(file, head.end, size, size)
            if segment.name == _SEGMENT:
                _walk_segment(file, segment, size)
    except _BrokenError as broken:
        return str(broken)
    return None


def _walk_segment(file: BinaryIO, segment: _Element, size: int) -> None:
    position, stop = segment.body, segment.end or size
    while position < stop:
        child = _element(file, position, stop, size)
        if child.name == _CLUSTER:
            position = _walk_cluster(file, child, stop, size)
        elif child.name in _IN_SEGMENT and child.end is not None:
            position = child.end
        else:
            raise _BrokenError(_broken_at(position))


def _walk_cluster(file: BinaryIO, cluster: _Element, segment_end: int, size: int) -> int:
    """Return where the cluster ends; one without a size ends where something begins that stands in segments only."""
    position, stop = cluster.body, cluster.end or segment_end
    while position < stop:
        child = _element(file, position, stop, size)
        if cluster.end is None and child.name in _IN_SEGMENT - _GLOBAL:
            return position
        if child.name not in _IN_CLUSTER or child.end is None:
            raise _BrokenError(_broken_at(position))
        position = child.end
    return position


def _element(file: BinaryIO, position: int, stop: int, size: int) -> _Element:
    file.seek(position)
    head = file.read(12)
    name, name_length = _number(head, keep_marker=True)
    length, length_length = _number(head[name_length:], keep_marker=False)
    if not name_length or not length_length:
        raise _BrokenError(_missing(1) if position + 12 > size else _broken_at(position))
    body = position + name_length + length_length
    if length == (1 << (7 * length_length)) - 1:
        return _Element(name, body, None)
    end = body + length
    if end > stop:
        raise _BrokenError(_missing(end - size) if stop == size else _broken_at(position))
    return _Element(name, body, end)


def _number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Read a variable-size integer (RFC 8794, 4): its value and its length, 0 where it is not whole."""
    if not data or not data[0]:
        return 0, 0
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return 0, 0
    value = int.from_bytes(data[:length], "big")
    return value if keep_marker else value & ((1 << (7 * length)) - 1), length
