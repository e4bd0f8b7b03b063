"""The few records of the ZIP format that a flow archive is made of (APPNOTE.TXT 6.3.10, sections 4.3 and 4.5).

`zipfile` can neither place a deflate stream made elsewhere nor read a directory out of the last bytes of a
remote object; these functions do just that, without trusting a number they read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from structureflow.errors import FlowCacheFormatError, FlowCacheLimitError

STORED: Final = 0
DEFLATED: Final = 8
#: An end record lies within this many bytes of the end: its own 22, and the longest comment.
END_BYTES: Final = 22 + 65_535
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64_LOCATOR: Final = struct.Struct("<4sIQI")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_ZIP64_SIZES: Final = struct.Struct("<2H2Q")
_MAX32: Final = 0xFFFFFFFF
_MAX16: Final = 0xFFFF
#: Flag bits of a member: encrypted, patched, strongly encrypted, or with a masked header; and a name in UTF-8.
_UNREADABLE: Final = 0x2061
_UTF8: Final = 0x800
# 1 January 1980, the earliest date there is: the same flows make the same bytes on any day.
_DOS_DATE: Final = (1 << 5) | 1


@dataclass(frozen=True, slots=True)
class ZipMember:
    """One member: its name, method, CRC-32 of the plain bytes, sizes, and where its local header starts."""

    name: str
    method: int
    crc32: int
    compressed_bytes: int
    size_bytes: int
    header_offset: int


@dataclass(frozen=True, slots=True)
class DirectoryExtent:
    """Where the central directory lies in the object, and how many members it says it lists."""

    offset: int
    size_bytes: int
    members: int


def local_header(member: ZipMember, *, wide: bool) -> bytes:
    """Return a member's local header; `wide` ones hold 64-bit sizes, and so have the same length at any size."""
    name = member.name.encode("ascii")
    extra = _ZIP64_SIZES.pack(1, 16, member.size_bytes, member.compressed_bytes) if wide else b""
    sizes = (_MAX32, _MAX32) if wide else (member.compressed_bytes, member.size_bytes)
    return (
        _LOCAL.pack(
            b"PK\3\4", 45 if wide else 20, 0, member.method, 0, _DOS_DATE, member.crc32, *sizes, len(name), len(extra)
        )
        + name
        + extra
    )


def local_header_bytes(name: str, *, wide: bool) -> int:
    """Return the length of `local_header` for a member of that name."""
    return _LOCAL.size + len(name.encode()) + (_ZIP64_SIZES.size if wide else 0)


def directory(members: list[ZipMember], offset: int) -> bytes:
    """Return the central directory, which shall start at `offset`, and the end records behind it."""
    records = b"".join(_central_record(member) for member in members)
    end_offset = offset + len(records)
    end = b""
    if end_offset > _MAX32:
        end = _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, len(members), len(members), len(records), offset)
        end += _END64_LOCATOR.pack(b"PK\6\7", 0, end_offset, 1)
    end += _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(records), min(offset, _MAX32), 0)
    return records + end


def _central_record(member: ZipMember) -> bytes:
    name = member.name.encode("ascii")
    wide = [value for value in (member.size_bytes, member.compressed_bytes, member.header_offset) if value >= _MAX32]
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            45,
            45 if wide else 20,
            0,
            member.method,
            0,
            _DOS_DATE,
            member.crc32,
            min(member.compressed_bytes, _MAX32),
            min(member.size_bytes, _MAX32),
            len(name),
            len(extra),
            0,
            0,
            0,
            0o600 << 16,
            min(member.header_offset, _MAX32),
        )
        + name
        + extra
    )


def find_directory(tail: bytes, size_bytes: int) -> DirectoryExtent:
    """Find the central directory from the last bytes `tail` of an object of `size_bytes`.

    Raises:
        FlowCacheFormatError: there is no end record, or it points out of the object.
    """
    base = size_bytes - len(tail)
    position = tail.rfind(b"PK\5\6", max(0, len(tail) - END_BYTES))
    if position < 0 or position + _END.size > len(tail):
        raise FlowCacheFormatError(
            f"expected a flow archive (.npz), with a ZIP end record in its last {len(tail)} bytes, got none"
        )
    _, disk, first_disk, here, total, size, offset, comment = _END.unpack_from(tail, position)
    if position + _END.size + comment != len(tail):
        raise FlowCacheFormatError(f"expected {comment} bytes of comment behind the ZIP end record, got others")
    end = base + position
    locator = position - _END64_LOCATOR.size
    if (offset == _MAX32 or total == _MAX16) and locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, _, end64, _ = _END64_LOCATOR.unpack_from(tail, locator)
        if end64 != base + locator - _END64.size or end64 < base or tail[end64 - base : end64 - base + 4] != b"PK\6\6":
            raise FlowCacheFormatError("the ZIP64 end record is not where its locator says")
        disk = first_disk = 0
        _, _, _, _, _, _, here, total, size, offset = _END64.unpack_from(tail, end64 - base)
        end = end64
    if disk or first_disk or here != total or offset + size != end:
        raise FlowCacheFormatError(
            f"the central directory ({total} members, {size} bytes at {offset}) does not fit {size_bytes} bytes"
        )
    return DirectoryExtent(offset, size, total)


def parse_directory(records: bytes, extent: DirectoryExtent, *, max_members: int) -> dict[str, ZipMember]:
    """Parse the central directory's bytes.

    Raises:
        FlowCacheLimitError: it lists more than `max_members`.
        FlowCacheFormatError: a record is damaged, names a method other than stored and deflate, is
            encrypted, doubles a name, or places a member over another or behind the directory.
    """
    if extent.members > max_members:
        raise FlowCacheLimitError(f"expected at most {max_members} members, got {extent.members}")
    members: dict[str, ZipMember] = {}
    position = 0
    for _ in range(extent.members):
        if len(records) - position < _CENTRAL.size or records[position : position + 4] != b"PK\1\2":
            raise FlowCacheFormatError(f"expected a directory record at byte {position}, got none")
        fields = _CENTRAL.unpack_from(records, position)
        flags, method, crc32, compressed, size, name_bytes, extra_bytes, comment_bytes = (
            fields[3],
            fields[4],
            *fields[7:13],
        )
        offset = fields[16]
        start = position + _CENTRAL.size
        try:
            # zipfile takes a name without the flag for UTF-8 as code page 437; ASCII is the same in both
            name = records[start : start + name_bytes].decode("utf-8" if flags & _UTF8 else "ascii")
        except UnicodeDecodeError as error:
            raise FlowCacheFormatError("a member's name is neither ASCII nor UTF-8") from error
        extra = records[start + name_bytes : start + name_bytes + extra_bytes]
        compressed, size, offset = _wide(extra, compressed, size, offset)
        if flags & _UNREADABLE or method not in (STORED, DEFLATED):
            raise FlowCacheFormatError(
                f"{name:.80}: expected a plain stored or deflated member, got method {method}, flags {flags:#x}"
            )
        if "\0" in name:
            raise FlowCacheFormatError("a member's name holds a zero byte")
        if method == STORED and compressed != size:
            raise FlowCacheFormatError(f"{name:.80}: stored as {compressed} bytes, but says {size}")
        if name in members or offset + compressed + _LOCAL.size > extent.offset:
            raise FlowCacheFormatError(f"{name:.80}: doubled, or {compressed} bytes at {offset} run into the directory")
        members[name] = ZipMember(name, method, crc32, compressed, size, offset)
        position = start + name_bytes + extra_bytes + comment_bytes
    if position != len(records):
        raise FlowCacheFormatError(f"expected a directory of {len(records)} bytes, got {position}")
    _check_apart(members.values())
    return members


def _check_apart(members: Iterable[ZipMember]) -> None:
    """Refuse members that share bytes, out of which bombs are built."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise FlowCacheFormatError(f"{member.name:.80}: begins inside of another member")
        end = member.header_offset + local_header_bytes(member.name, wide=False) + member.compressed_bytes


def _wide(extra: bytes, compressed: int, size: int, offset: int) -> tuple[int, int, int]:
    """Take 64-bit values out of a record's extra field, where the 32-bit ones are saturated."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if position + length > len(extra):
            raise FlowCacheFormatError(f"an extra field of {length} bytes, {len(extra) - position} are there")
        if kind == 1:
            values = [value for (value,) in struct.iter_unpack("<Q", extra[position : position + length // 8 * 8])]
            try:
                if size == _MAX32:
                    size = values.pop(0)
                if compressed == _MAX32:
                    compressed = values.pop(0)
                if offset == _MAX32:
                    offset = values.pop(0)
            except IndexError as error:
                raise FlowCacheFormatError("a ZIP64 extra field lacks the size it stands for") from error
        position += length
    return compressed, size, offset


def data_offset(header: bytes, member: ZipMember) -> int:
    """Return where a member's data starts, from the bytes of its local header up to the end of its name.

    Raises:
        FlowCacheFormatError: there is no local header, or it is of another member than the directory says.
    """
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise FlowCacheFormatError(f"{member.name:.80}: expected a local header at byte {member.header_offset}")
    fields = _LOCAL.unpack_from(header)
    name = member.name.encode()
    if fields[3] != member.method or fields[9] != len(name) or header[_LOCAL.size :] != name:
        raise FlowCacheFormatError(f"{member.name:.80}: its local header is of another member")
    return member.header_offset + _LOCAL.size + int(fields[9]) + int(fields[10])
