"""The ``.npy`` header: written for small arrays, and parsed without evaluating it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowCacheFormatError, FlowCacheLimitError

#: Magic string and version 1.0 of the format (numpy.lib.format).
MAGIC: Final = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[a-zA-Z]\d{1,7})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \}\s*"
)


@dataclass(slots=True)
class NpyHeader:
    """A parsed ``.npy`` header: what follows it, and after how many bytes."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    data_start: int


def npy_bytes(value: NDArray[Any]) -> bytes:
    """Return an array of no or one dimension as the bytes of a ``.npy`` file."""
    shape = f"({value.shape[0]},)" if value.ndim == 1 else "()"
    text = f"{{'descr': '{value.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(len(text) + 11) // 64) * 64
    return MAGIC + struct.pack("<H", length - 10) + text.ljust(length - 11).encode() + b"\n" + value.tobytes()


def broken(key: str, why: str) -> FlowCacheFormatError:
    """Return the error of an archive that can't be read."""
    return FlowCacheFormatError(f"{key}: no readable flow archive: {why}", key=key)


def parse_npy_header(data: bytes, key: str) -> NpyHeader:
    """Parse a ``.npy`` header without evaluating it: plain dtypes only, never pickled objects.

    Args:
        data: the array's first bytes, its whole header among them.
        key: names the archive in errors.

    Raises:
        FlowCacheFormatError: it is no header, or of objects, or not understood.
        FlowCacheLimitError: its shape is absurd.
    """
    if len(data) < 10 or data[:6] != MAGIC[:6] or data[6] != 1:
        raise broken(key, "a member is no array of .npy version 1")
    stop = 10 + struct.unpack_from("<H", data, 8)[0]
    match = _HEADER.fullmatch(data[10:stop].decode("latin-1"))
    if len(data) < stop or not match:
        raise broken(key, f"an array header is not understood: {data[10:stop]!r:.120}")
    shape = tuple(int(side) for side in re.findall(r"\d+", match[3]))
    if len(shape) > 8 or any(side > 2**48 for side in shape):
        raise FlowCacheLimitError(f"{key}: an array header declares the shape {shape!r:.200}")
    try:
        dtype = np.dtype(match[1])
    except TypeError as cause:
        raise broken(key, f"unknown dtype {match[1]}") from cause
    if dtype.kind not in "fiuU" or not dtype.itemsize:
        raise broken(key, f"expected numbers or text, got dtype {match[1]}")
    return NpyHeader(dtype, match[2] == "True", shape, stop)
