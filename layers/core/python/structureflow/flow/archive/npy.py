"""The ``.npy`` header: written for small arrays, and parsed without evaluating it."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowCacheFormatError, FlowCacheLimitError
from structureflow.flow.archive.limits import MAX_HEADER_BYTES

#: Magic string and version 1.0 of the format (numpy.lib.format).
MAGIC: Final = b"\x93NUMPY\x01\x00"
#: One of the header's three entries, which stand in any order; of numbers or text, never of objects.
_ENTRY = re.compile(
    r" *(?:'descr': *'(?P<descr>[<>|=][fiuU]\d{1,7})'"
    r"|'fortran_order': *(?P<fortran>True|False)"
    r"|'shape': *\((?P<shape>(?:\d+, *)*(?:\d+,?)?)\)) *(?:,|(?= *\}))"
)
_ENTRIES: Final = 3


@dataclass(slots=True)
class NpyHeader:
    """A parsed ``.npy`` header: what follows it, and after how many bytes."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    data_start: int

    @property
    def size_bytes(self) -> int:
        """How many bytes the array takes behind its header."""
        return math.prod(self.shape) * self.dtype.itemsize


def npy_bytes(value: NDArray[Any]) -> bytes:
    """Return an array of no or one dimension as the bytes of a ``.npy`` file."""
    shape = f"({value.shape[0]},)" if value.ndim == 1 else "()"
    text = f"{{'descr': '{value.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(len(text) + 11) // 64) * 64
    return MAGIC + struct.pack("<H", length - 10) + text.ljust(length - 11).encode() + b"\n" + value.tobytes()


def broken(key: str, why: str) -> FlowCacheFormatError:
    """Return the error of an archive that can't be read."""
    return FlowCacheFormatError(f"{key}: no readable flow archive: {why}", key=key)


def header_bytes(data: bytes, key: str) -> int:
    """Return the length of a ``.npy`` header from its first 12 bytes (or fewer, where the array is shorter).

    Raises:
        FlowCacheFormatError: it is no header of version 1 to 3.
        FlowCacheLimitError: it is longer than any that numpy reads.
    """
    if len(data) < 12 or data[:6] != MAGIC[:6] or data[6] not in (1, 2, 3):
        raise broken(key, "a member is no array of .npy version 1 to 3")
    form, start = ("<H", 10) if data[6] == 1 else ("<I", 12)
    stop = start + struct.unpack_from(form, data, 8)[0]
    if stop > MAX_HEADER_BYTES:
        raise FlowCacheLimitError(f"{key}: an array header of {stop} bytes, at most {MAX_HEADER_BYTES}", key=key)
    return int(stop)


def parse_npy_header(data: bytes, key: str) -> NpyHeader:
    """Parse a ``.npy`` header without evaluating it: plain dtypes only, never pickled objects.

    Args:
        data: the array's first bytes, its whole header among them.
        key: names the archive in errors.

    Raises:
        FlowCacheFormatError: it is no header, or of objects, or not understood.
        FlowCacheLimitError: its shape is absurd.
    """
    stop = header_bytes(data, key)
    text = data[10 if data[6] == 1 else 12 : stop].decode("latin-1").removesuffix("\n").strip(" ")
    entries: dict[str, str] = {}
    position = 1
    for _ in range(_ENTRIES):
        match = _ENTRY.match(text, position)
        if match is None:
            break
        entries |= {name: value for name, value in match.groupdict().items() if value is not None}
        position = match.end()
    if len(data) < stop or not text.startswith("{") or text[position:].strip(" ") != "}" or len(entries) != _ENTRIES:
        raise broken(key, f"an array header is not understood: {text!r:.120}")
    shape = tuple(int(side[:20]) for side in re.findall(r"\d+", entries["shape"]))
    if len(shape) > 8 or any(side > 2**48 for side in shape):
        raise FlowCacheLimitError(f"{key}: an array header declares the shape {shape!r:.200}", key=key)
    try:
        dtype = np.dtype(entries["descr"])
    except TypeError as cause:
        raise broken(key, f"unknown dtype {entries['descr']}") from cause
    if not dtype.itemsize:
        raise broken(key, f"expected numbers or text, got dtype {entries['descr']}")
    return NpyHeader(dtype, entries["fortran"] == "True", shape, stop)
