"""The structure frames of one segment, fetched ahead in blocks: each once, as far as memory lets them stay."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Final

from structureflow.errors import StructureFramesError
from structureflow.guide.ports import Gray, StructureFrames

#: Frames that are fetched with one another. The first of them is waited for, so it is few.
BLOCK_FRAMES: Final = 12
#: Bytes of frames that are kept: 590 frames of 448x252.
HELD_BYTES: Final = 64 * 2**20


class FrameFeed:
    """Gives structure frames to several threads. Frames that cannot be had are given as None, and `problem` says why.

    Attributes:
        problem: why frames are missing; empty while none is.
        delivered: whether there were any.
    """

    def __init__(
        self,
        source: StructureFrames,
        indices: Sequence[int],
        shape: tuple[int, int],
        io: Executor,
        *,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        """Feed frames of `source`.

        Args:
            source: where they come from.
            indices: all that will be asked for, rising.
            shape: (height, width) of the grid.
            io: fetches blocks ahead, one after the other however many threads it has.
            held_bytes: blocks beyond are forgotten, those first that were used longest ago; two are always kept.
        """
        self.problem = ""
        self.delivered = False
        self._source = source
        self._shape = shape
        self._io = io
        self._blocks = [tuple(indices[at : at + BLOCK_FRAMES]) for at in range(0, len(indices), BLOCK_FRAMES)]
        self._block_of = {index: number for number, block in enumerate(self._blocks) for index in block}
        self._most = max(2, held_bytes // (BLOCK_FRAMES * shape[0] * shape[1]))
        self._held: dict[int, Future[dict[int, Gray]]] = {}
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def begin(self, index: int) -> None:
        """Have the block of frame `index` fetched in the background."""
        with self._lock:
            self._fetch(self._block_of[index])

    def __call__(self, index: int, *, descending: bool = False) -> Gray | None:
        """Return frame `index`, ``(h, w)`` uint8, not to be changed; None if it cannot be had.

        `descending` says that frames before will be asked for next, else frames behind.
        """
        number = self._block_of[index]
        with self._lock:
            block = self._fetch(number)
            ahead = number - 1 if descending else number + 1
            if 0 <= ahead < len(self._blocks):
                self._fetch(ahead)
        return block.result().get(index)

    def _fetch(self, number: int) -> Future[dict[int, Gray]]:
        block = self._held.pop(number, None)
        if block is None:
            while len(self._held) >= self._most:
                self._held.pop(next(iter(self._held)))
            block = self._io.submit(self._load, self._blocks[number])
        # the one used last stands last
        self._held[number] = block
        return block

    def _load(self, indices: Sequence[int]) -> dict[int, Gray]:
        with self._reading:
            if self.problem:
                return {}
            try:
                frames = self._source.gray(indices)
            except StructureFramesError as error:
                self.problem = error.message
                return {}
        for index, frame in zip(indices, frames, strict=True):
            if frame.shape != self._shape or frame.dtype != "uint8":
                raise StructureFramesError(
                    f"frame {index}: expected {self._shape} uint8, got {frame.shape} {frame.dtype}"
                )
        self.delivered = True
        return dict(zip(indices, frames, strict=True))
