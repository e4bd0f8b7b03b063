"""Put right the checksums of a mutated archive, so that mutations reach what lies behind them."""

from __future__ import annotations

import itertools
import struct
import zlib

_MOST_BYTES = 1 << 20


def seal(data: bytes) -> bytes:
    """Return the archive with the CRC-32 of each member, and of each block in a seek table, made right.

    Whatever cannot be followed (records that lie, offsets that lead out) stays as it is.
    """
    sealed = bytearray(data)
    members = dict(_members(sealed))
    for name in ("flows", "flows_backward"):
        _seal_blocks(sealed, members.get(f"{name}_offsets.npy"), members.get(f"{name}_crc32.npy"))
    for at in members.values():
        plain = _plain(sealed, at)
        if plain is not None:
            struct.pack_into("<I", sealed, at + 16, zlib.crc32(plain))
    return bytes(sealed)


def _members(data: bytearray) -> list[tuple[str, int]]:
    """Return the members' names and where their directory records lie."""
    end = data.rfind(b"PK\5\6")
    if end < 0 or end + 22 > len(data):
        return []
    position = struct.unpack_from("<I", data, end + 16)[0]
    found: list[tuple[str, int]] = []
    while data[position : position + 4] == b"PK\1\2" and position + 46 <= len(data) and len(found) < 100:
        name, extra, comment = struct.unpack_from("<3H", data, position + 28)
        found.append((data[position + 46 : position + 46 + name].decode("latin-1"), position))
        position += 46 + name + extra + comment
    return found


def _stored(data: bytearray, at: int) -> tuple[int, int] | None:
    """Return where the bytes of the member with its record at `at` lie, if they are there."""
    compressed = struct.unpack_from("<I", data, at + 20)[0]
    offset = struct.unpack_from("<I", data, at + 42)[0]
    if data[offset : offset + 4] != b"PK\3\4" or offset + 30 > len(data):
        return None
    name, extra = struct.unpack_from("<2H", data, offset + 26)
    start = offset + 30 + name + extra
    return (start, start + compressed) if start + compressed <= len(data) else None


def _plain(data: bytearray, at: int) -> bytes | None:
    extent = _stored(data, at)
    if extent is None:
        return None
    raw = bytes(data[extent[0] : extent[1]])
    if struct.unpack_from("<H", data, at + 10)[0] != 8:
        return raw
    try:
        return zlib.decompressobj(-15).decompress(raw, _MOST_BYTES)
    except zlib.error:
        return None


def _seal_blocks(data: bytearray, offsets_at: int | None, crcs_at: int | None) -> None:
    places = [None if at is None else _stored(data, at) for at in (offsets_at, crcs_at)]
    if places[0] is None or places[1] is None:
        return
    offsets = data[places[0][0] + 128 : places[0][1]]
    edges = [value for (value,) in struct.iter_unpack("<q", offsets[: len(offsets) // 8 * 8])]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        target = places[1][0] + 128 + 4 * number
        if 0 <= start <= stop <= len(data) and target + 4 <= places[1][1]:
            struct.pack_into("<I", data, target, zlib.crc32(data[start:stop]))
