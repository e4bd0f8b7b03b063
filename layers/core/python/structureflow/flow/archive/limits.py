"""Every bound that the reader of flow archives keeps, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from structureflow.limits import MAX_FLOWS

#: The first request asks for this much of the end: the seek table of some 5,000 flows in both directions.
TAIL_BYTES: Final = 192 * 1024
#: `FlowArchive.expect` asks for so many compressed bytes at once, and holds up to two such windows per direction.
WINDOW_BYTES: Final = 16 * 1024 * 1024

#: Longer vectors are cut to this length per component when they are written: no real motion.
MAX_VECTOR_PX: Final = 2048.0

#: A plain archive's compressed bytes are asked for in requests of this size.
CHUNK_BYTES: Final = 8 * 1024 * 1024
#: So many compressed bytes are given to the inflater at once, and so many plain bytes taken from it.
INPUT_BYTES: Final = 64 * 1024
PIECE_BYTES: Final = 1024 * 1024
#: A plain archive can be entered again after so many plain bytes, and at no more than so many places (47 kB each).
MARK_BYTES: Final = 8 * 1024 * 1024
MAX_MARKS: Final = 512

#: What an array header may be long, as numpy itself bounds it.
MAX_HEADER_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds of what an archive may declare; checked before memory is allocated.

    Attributes:
        max_flows: most flow fields.
        max_side_px: largest height or width of the stored grid.
        max_grid_px: most pixels of the stored grid; one field of the default takes 72 MiB as float32.
        max_read_bytes: most bytes that one `read` returns.
        max_tail_bytes: most bytes of the directory, and of any member but the flows.
        max_members: most ZIP members.
        max_stream_bytes: most bytes inflated from a plain archive's member, which has to be read from its start.
        max_spool_bytes: most bytes of the temporary file in which flows in Fortran order are put in order.
        max_text: most characters of a text such as the engine's name.
        max_params_text: most characters of the engine's parameters as JSON.
    """

    max_flows: int = MAX_FLOWS
    max_side_px: int = 4096
    max_grid_px: int = 4096 * 2304
    max_read_bytes: int = 2 * 1024**3
    max_tail_bytes: int = 4 * 1024**2
    max_members: int = 64
    max_stream_bytes: int = 16 * 1024**3
    max_spool_bytes: int = 2 * 1024**3
    max_text: int = 4096
    max_params_text: int = 65_536


def longest_deflate(plain_bytes: int) -> int:
    """Return how long deflated data may be for so many plain bytes: 5 bytes in 16 kB more, the flush, and slack."""
    return plain_bytes + plain_bytes // 1000 + 64
