"""Compressed bytes asked for ahead, in pieces large enough that the number of requests does not matter."""

from __future__ import annotations

import bisect
import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.archive.source import ByteSource

_HELD: Final = 2


class Windows:
    """The compressed bytes of one direction's expected flows, asked for in windows that lie end to end."""

    def __init__(self, offsets: NDArray[np.int64], start: int, stop: int, window_bytes: int) -> None:
        """Cover flows `start` (inclusive) to `stop` (exclusive); flow i is the bytes `offsets` [i] to [i + 1]."""
        self._offsets = offsets
        self._edges = [start]
        while self._edges[-1] < stop:
            within = int(np.searchsorted(offsets, offsets[self._edges[-1]] + window_bytes, side="right")) - 1
            self._edges.append(min(max(within, self._edges[-1] + 1), stop))
        self._held: dict[int, memoryview] = {}
        self._lock = threading.Lock()

    def bytes_of(self, start: int, stop: int, source: ByteSource) -> bytes | memoryview | None:
        """Return the bytes of flows `start` (inclusive) to `stop` (exclusive); None if windows are no help there."""
        if not self._edges[0] <= start < stop <= self._edges[-1]:
            return None
        first, last = bisect.bisect_right(self._edges, start) - 1, bisect.bisect_left(self._edges, stop) - 1
        if last - first > 1:
            return None
        with self._lock:
            parts = [self._part(number, start, stop, source) for number in range(first, last + 1)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, number: int, start: int, stop: int, source: ByteSource) -> memoryview:
        edges, offsets = self._edges, self._offsets
        base = int(offsets[edges[number]])
        # Taken out and put in again: the first of the dictionary is the one used longest ago.
        window = self._held.pop(number, None)
        if window is None:
            window = source.read(base, int(offsets[edges[number + 1]]))
            while len(self._held) >= _HELD:
                del self._held[next(iter(self._held))]
        self._held[number] = window
        return window[
            int(offsets[max(start, edges[number])]) - base : int(offsets[min(stop, edges[number + 1])]) - base
        ]
