"""Mutations without a guide, for what is read by native code, whose branches nobody instruments."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence

_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(seeds: Sequence[bytes], number: int, seed: int) -> bytes:
    """Return input `number` of the sequence that `seed` stands for: one of `seeds`, changed in up to eight places."""
    generator = random.Random(f"{seed}/{number}")  # noqa: S311 - to be the same again
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 8)):
        if not data:
            break
        at = generator.randrange(len(data))
        match generator.randrange(6):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                data[at] = generator.choice(_BYTES)
            case 2:
                del data[at : at + generator.randrange(1, 64)]
            case 3:
                data[at:at] = data[generator.randrange(len(data)) :][: generator.randrange(1, 64)]
            case 4:
                # a length, a size or a count, in the byte order of most containers
                word = struct.pack(">I", generator.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data))))
                data[at : at + 4] = word
            case _:
                # most headers lie at the front
                data[generator.randrange(min(len(data), 256))] = generator.randrange(256)
    if generator.random() < 0.05:
        del data[generator.randrange(len(data) + 1) :]
    return seal_png(bytes(data)) if generator.random() < 0.5 else bytes(data)


def seal_png(data: bytes) -> bytes:
    """Put right the checksum of every chunk of a PNG; other bytes are returned as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    sealed = bytearray(data)
    at = 8
    while at + 12 <= len(sealed):
        length = struct.unpack_from(">I", sealed, at)[0]
        end = at + 8 + length
        if end + 4 > len(sealed):
            break
        struct.pack_into(">I", sealed, end, zlib.crc32(sealed[at + 4 : end]))
        at = end + 4
    return bytes(sealed)
