"""The flows that a segment's plan plays, in both directions, and the frames that its paths are looked at in."""

from __future__ import annotations

from concurrent.futures import Executor

from structureflow.flow.fields import Direction, Field32, FlowSource
from structureflow.guide.path import CHUNK_BYTES, FlowChunks, LegReader
from structureflow.guide.plan import Plan
from structureflow.guide.strength import ONCE, Strength
from structureflow.models.job import MotionPart


class PlannedFlows:
    """The flows of one segment's plan in both directions, each read from the source at most a chunk at a time.

    Attributes:
        strength: how many times as long every leg is to be.
    """

    def __init__(
        self,
        source: FlowSource,
        plan: Plan,
        io: Executor,
        *,
        strength: Strength | None = None,
        part: MotionPart = "all",
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Read from `source` what `plan` plays, every leg as long as `strength` says; `io` reads ahead.

        `part` is which part of the motion whoever joins the legs is to take of them, by `camera.PartLegs`.
        """
        self.strength = strength or ONCE
        # what does not move has no parts
        self.part: MotionPart = "all" if self.strength.constant == 0 else part
        self._chunk_bytes = chunk_bytes
        self.shape = (source.meta.height, source.meta.width)
        self._plan = plan
        self._source = source
        self._io = io
        self._chunks: dict[Direction, FlowChunks] = {}

    def legs(
        self, direction: Direction, legs: tuple[int, int], *, descending: bool = False, as_stored: bool = False
    ) -> LegReader:
        """Return a reader of legs ``legs[0]`` (inclusive) to ``legs[1]`` (exclusive); its first chunk is on its way.

        `as_stored` leaves the legs as long as they are.
        """
        inverts = direction == "backward" and not self._source.meta.has_backward
        stored: Direction = "forward" if inverts else direction
        if stored not in self._chunks:
            self._chunks[stored] = FlowChunks(self._source, stored, self._io, chunk_bytes=self._chunk_bytes)
        reader = LegReader(
            self._chunks[stored],
            self._plan,
            legs,
            strength=ONCE if as_stored else self.strength,
            inverts=inverts,
            descending=descending,
        )
        reader.begin()
        return reader


class Mirrored:
    """Legs numbered against time: leg m is leg ``top - 1 - m`` of `reader`."""

    def __init__(self, reader: LegReader, top: int) -> None:
        self._reader = reader
        self._top = top

    def __call__(self, number: int) -> Field32:
        return self._reader(self._top - 1 - number)
