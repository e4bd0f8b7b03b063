"""One flow field as it is stored: rounded to the grid of 1/16 px, deflated on its own, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from structureflow.errors import FlowCacheCorruptError, FlowCacheFormatError, FlowError
from structureflow.flow.archive.limits import MAX_VECTOR_PX
from structureflow.flow.fields import MAX_DISPLACEMENT_PX, QUANTIZATION_PX, Field32

# The package's stubs declare the class as an instance.
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)
_COMPRESSION_LEVEL: Final = 1
_SIGN_AND_NUMBER: Final = np.uint32(0x8FFFE000).view(np.int32)
_EXPONENT_SHIFT: Final = np.float32(2.0**112)
_HALF_MAX_DISPLACEMENT: Final = int(np.float16(MAX_DISPLACEMENT_PX).view(np.uint16))


def quantise(flow: NDArray[Any]) -> Field32:
    """Round vectors to multiples of 1/16 px, without negative zeros; float32 holds all of them exactly.

    Args:
        flow: ``(..., 2)`` floating, (dx, dy) in pixels; not changed.

    Returns:
        A new array of the same shape, float32, finite; components beyond `MAX_VECTOR_PX` are cut there.

    Raises:
        FlowError: a vector is not finite.
    """
    steps: Field32 = np.multiply(flow, np.float32(1 / QUANTIZATION_PX), dtype=np.float32)
    np.rint(steps, out=steps)
    limit = np.float32(MAX_VECTOR_PX / QUANTIZATION_PX)
    lowest, highest = float(steps.min(initial=0)), float(steps.max(initial=0))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise FlowError("flow: expected finite vectors")
    if lowest < -limit or highest > limit:
        np.clip(steps, -limit, limit, out=steps)
    steps *= np.float32(QUANTIZATION_PX)
    steps += np.float32(0)  # turns -0.0 into 0.0, which packs 9 % smaller
    return steps


@dataclass(frozen=True, slots=True)
class FlowBlock:
    """A flow field ready to be written: raw deflate `data` that ends in a full flush, and two checksums."""

    data: bytes
    block_crc32: int
    plain_crc32: int
    plain_bytes: int


def compress_flow(flow: Field32) -> FlowBlock:
    """Compress one quantised field ``(h, w, 2)`` float32; blocks may be made in any thread or process."""
    plain = memoryview(np.ascontiguousarray(flow, "<f4")).cast("B")
    compressor = isal_zlib.compressobj(_COMPRESSION_LEVEL, isal_zlib.DEFLATED, -15)
    data = compressor.compress(plain) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
    return FlowBlock(data, isal_zlib.crc32(data), isal_zlib.crc32(plain), len(plain))


def inflate(block: bytes | memoryview, size_bytes: int, key: str) -> bytes:
    """Inflate raw deflate data that must give exactly `size_bytes`; never makes more than that.

    Raises:
        FlowCacheCorruptError: it gives something else; the message names the archive by `key`.
    """
    inflater = isal_zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(block, size_bytes + 1)
    except _ISAL_ERROR as error:
        raise FlowCacheCorruptError(f"{key}: a block does not inflate: {error}", key=key) from error
    if len(plain) != size_bytes:
        raise FlowCacheCorruptError(f"{key}: a block does not inflate to {size_bytes} bytes", key=key)
    return plain


def unpack(vectors: NDArray[Any], out: Field32, key: str) -> None:
    """Write stored vectors of any float type into `out`, float32 of the same shape.

    Components beyond `MAX_DISPLACEMENT_PX` are cut there: they point out of any frame either way.

    Raises:
        FlowCacheFormatError: a vector is not finite.
    """
    if vectors.dtype == "<f2":
        # float16 without its sign bit sorts as an integer, infinity and NaN last
        longest = int((vectors.view(np.uint16) & 0x7FFF).max())
        finite, far = longest < 0x7C00, longest > _HALF_MAX_DISPLACEMENT
        widen(vectors, out)
        vectors = out
    else:
        with np.errstate(all="ignore"):
            vectors = vectors.astype(np.float64) if vectors.dtype.itemsize > 8 else vectors
            # min and max carry NaN through, and need no array of their own
            low, high = float(vectors.min()), float(vectors.max())
        finite = math.isfinite(low) and math.isfinite(high)
        far = max(-low, high) > MAX_DISPLACEMENT_PX
    if not finite:
        raise FlowCacheFormatError(f"{key}: a flow is not finite", key=key)
    if far:
        np.clip(vectors, -MAX_DISPLACEMENT_PX, MAX_DISPLACEMENT_PX, out=out, casting="same_kind")
    elif vectors is not out:
        np.copyto(out, vectors, casting="same_kind")


def widen(flow: NDArray[np.float16], out: Field32) -> Field32:
    """Convert finite float16 to float32 exactly, several times faster than numpy casts it.

    The bits of a float16 in the place of a float32's are the same number times 2^-112.

    Args:
        flow: any shape, float16, finite.
        out: the same shape, float32, contiguous; written to and returned.
    """
    bits = out.view(np.int32)
    np.copyto(bits, flow.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    # sign extension left copies of the sign in the three highest bits of the exponent
    np.bitwise_and(bits, _SIGN_AND_NUMBER, out=bits)
    return np.multiply(out, _EXPONENT_SHIFT, out=out)
