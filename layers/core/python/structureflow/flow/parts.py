"""The flows of a video, extracted in parts, and joined to the very bytes that one extraction writes.

A part gives the flows of its own frames, the one into the next part's first frame included: so the pair across every
border is done once. Its blocks lie one after another, forward ones first; `joined` says what stands around them, and
nothing is inflated again.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from structureflow.errors import FlowError
from structureflow.flow.archive.assembly import ArchiveParts, BlockTable, archive_parts, described, field_bytes
from structureflow.flow.engines import FlowEngine, build_engine
from structureflow.flow.extract import (
    Clock,
    ExtractionPlan,
    Handover,
    Measured,
    counted,
    described_by,
    measure,
)
from structureflow.flow.fields import FlowMeta
from structureflow.models.results import Model

if TYPE_CHECKING:
    from structureflow.media.decode import DecodedFrame, VideoInfo
    from structureflow.media.parts import PartReader

_COPY_BYTES: Final = 1024 * 1024


class Blocks(Model):
    """One direction's blocks of a part; see `structureflow.flow.archive.assembly.BlockTable`."""

    lengths: tuple[int, ...]
    crc32: tuple[int, ...]
    plain_crc32: int

    @classmethod
    def of(cls, table: BlockTable) -> Blocks:
        """Return what a table says."""
        return cls(lengths=tuple(table.lengths), crc32=tuple(table.block_crcs), plain_crc32=table.plain_crc32)

    def table(self) -> BlockTable:
        """Return the table again."""
        return BlockTable(array("q", self.lengths), array("L", self.crc32), self.plain_crc32)

    @property
    def size_bytes(self) -> int:
        """Of all blocks together."""
        return sum(self.lengths)


class PartFlows(Model):
    """What is known of a part's flows beside their blocks.

    Attributes:
        first: number of its first frame.
        forward, backward: the blocks, in a file in this order.
        times_s: of its own frames.
        seams, typical_px: of each flow, see `structureflow.flow.extract.Measured`.
        size_bytes, crc32, md5: of the file.
    """

    first: int
    forward: Blocks
    backward: Blocks
    times_s: tuple[float, ...]
    seams: tuple[float, ...]
    typical_px: tuple[float, ...]
    size_bytes: int
    crc32: int
    md5: str

    @property
    def flows(self) -> int:
        """How many pairs of frames."""
        return len(self.forward.lengths)


def extract_part(
    reader: PartReader,
    target: Path,
    plan: ExtractionPlan,
    *,
    workers: int,
    on_frame: Callable[[DecodedFrame], None] | None = None,
    engine: FlowEngine | None = None,
) -> tuple[PartFlows, dict[str, float]]:
    """Compute the flows of a part and write their blocks into the file `target`.

    Args:
        reader: of the part.
        target: the file; on an error it is not there, or not whole.
        plan: for the whole video.
        workers: CPU threads for flow.
        on_frame: called once per frame of the part's own, as by `extract_to_archive`.
        engine: runs the plan in place of the registered engine.

    Returns:
        What is known of the flows, and seconds by part of the work, as `ExtractionResult.timings_s`.

    Raises:
        VideoPartsError, CorruptMediaError: as `PartReader`.
        EngineUnavailableError, FlowError: as `extract_to_archive`.
    """
    started = time.perf_counter()
    chosen = engine or build_engine(plan.engine, plan.params)
    clock = Clock()
    measured = Measured()
    part = reader.part
    forward, backward = BlockTable(), BlockTable()
    with (
        Handover(on_frame, clock) as handover,
        target.open("w+b") as file,
        tempfile.TemporaryFile(dir=target.parent) as spool,
    ):

        def seen() -> Iterator[DecodedFrame]:
            for frame in clock.over(reader, "decode"):
                if frame.index < part.first + part.frames:
                    handover.put(frame)
                yield frame

        for one, other in measure(seen(), plan, chosen, measured, clock, workers=workers):
            file.write(one.data)
            forward.add(one)
            spool.write(other.data)
            backward.add(other)
        handover.finish()
        spool.seek(0)
        shutil.copyfileobj(spool, file, _COPY_BYTES)
        size_bytes, crc32, md5 = _digests(file)
    found = PartFlows(
        first=part.first,
        forward=Blocks.of(forward),
        backward=Blocks.of(backward),
        times_s=tuple(measured.times_s[: part.frames]),
        seams=tuple(measured.seams),
        typical_px=tuple(measured.lengths),
        size_bytes=size_bytes,
        crc32=crc32,
        md5=md5,
    )
    return found, {"total": time.perf_counter() - started, **clock.seconds}


def _digests(file: IO[bytes]) -> tuple[int, int, str]:
    file.seek(0)
    size_bytes, crc32, md5 = 0, 0, hashlib.md5(usedforsecurity=False)
    while data := file.read(_COPY_BYTES):
        size_bytes += len(data)
        crc32 = zlib.crc32(data, crc32)
        md5.update(data)
    return size_bytes, crc32, md5.hexdigest()


@dataclass(frozen=True, slots=True)
class JoinedParts:
    """The flows of a whole video.

    Attributes:
        meta: of the archive.
        info: the video as it was decoded, as in `ExtractionResult`.
        around: what stands around the blocks.
    """

    meta: FlowMeta
    info: VideoInfo
    around: ArchiveParts


def joined(
    parts: Sequence[PartFlows],
    info: VideoInfo,
    plan: ExtractionPlan,
    *,
    source_video: str,
    source_identity: str,
    engine: FlowEngine | None = None,
) -> JoinedParts:
    """Return the archive of a video, but for the blocks themselves.

    Args:
        parts: all of them, in order.
        info: the video, as its stream promises it.
        plan: by which the parts were extracted.
        source_video, source_identity: recorded.
        engine: as in `extract_part`.

    Raises:
        FlowError: the parts are not those of one video.
    """
    chosen = engine or build_engine(plan.engine, plan.params)
    measured = Measured()
    forward, backward = BlockTable(), BlockTable()
    plain = field_bytes(plan.height, plan.width)
    for part in parts:
        if part.first != len(measured.times_s):
            raise FlowError(f"parts: expected one from frame {len(measured.times_s)} on, got one from {part.first} on")
        forward.extend(part.forward.table(), plain)
        backward.extend(part.backward.table(), plain)
        measured.times_s.extend(part.times_s)
        measured.seams.extend(part.seams)
        measured.lengths.extend(part.typical_px)
    actual = counted(info, measured.times_s)
    meta = described(
        len(forward.lengths),
        plan.height,
        plan.width,
        has_backward=True,
        **described_by(measured, actual, plan, chosen),
        source_video=source_video,
        source_identity=source_identity,
    )
    return JoinedParts(meta, actual, archive_parts(meta, forward, backward))
