"""Flows of parts of several videos as those of one video, in which the parts lie end to end.

Between two parts lies a flow of zeros, listed as a scene cut. Parts of videos of another shape are cut to that of the
joined one, as pictures are (covered, centred), and brought to its grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.archive import FORMAT_VERSION, FlowArchiveWriter, FlowBlock, compress_flow, quantise
from structureflow.flow.archive.seekable import SeekableArchive
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.flow.sources import check_range

#: Name, in the parameters of a joined archive's engine, of the list of where its flows came from.
SOURCES: Final = "sources"
#: Bytes of fields that are read at a time.
_READ_BYTES: Final = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Size:
    """Of a video in pixels, and of the grid that its flows are on."""

    height: int
    width: int
    grid_height: int
    grid_width: int

    @classmethod
    def of(cls, meta: FlowMeta) -> Size:
        """Return the size of the video that `meta` describes."""
        return cls(meta.original_height, meta.original_width, meta.height, meta.width)

    def seen_in(self, other: Size) -> NDArray[np.float64]:
        """Return the 2x3 matrix from this grid's pixels to those of the grid of `other`, which covers this size."""
        across = min(1.0, self.width / self.height * other.height / other.width)
        down = min(1.0, self.height / self.width * other.width / other.height)
        matrix = np.zeros((2, 3))
        for axis, (own, theirs, share) in enumerate(
            ((self.grid_width, other.grid_width, across), (self.grid_height, other.grid_height, down))
        ):
            scale = theirs * share / own
            matrix[axis, axis] = scale
            matrix[axis, 2] = theirs * (1 - share) / 2 + scale / 2 - 0.5
        return matrix


def resized_gray(gray: NDArray[np.uint8], source: Size, target: Size) -> NDArray[np.uint8]:
    """Bring a picture on the grid of `source`, ``(h, w)`` uint8, to the grid of `target`."""
    return gray if source == target else cast("NDArray[np.uint8]", _resampled(gray, source, target))


def resized_flow(flow: Field32, source: Size, target: Size) -> Field32:
    """Bring a flow on the grid of `source`, ``(h, w, 2)`` float32, to the grid of `target`, its vectors too."""
    if source == target:
        return flow
    matrix = target.seen_in(source)
    vectors = np.array([1 / matrix[0, 0], 1 / matrix[1, 1]], np.float32)
    return cast("Field32", _resampled(flow, source, target)) * vectors


def _resampled(values: NDArray[Any], source: Size, target: Size) -> NDArray[Any]:
    sampled: NDArray[Any] = cv2.warpAffine(
        values,
        target.seen_in(source),
        (target.grid_width, target.grid_height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return sampled


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a video, 2 frames or more.

    Attributes:
        flows: of the whole video.
        start: its first frame.
        frames: how many.
        origin: where its flows came from, for people and for later steps: plain JSON.
    """

    flows: FlowSource
    start: int
    frames: int
    origin: dict[str, Any]


class JoinedFlows:
    """The flows of parts laid end to end, read where they lie; a `FlowSource`.

    Attributes:
        meta: of the joined video; its grid is that on which flows are given.
    """

    def __init__(self, meta: FlowMeta, parts: Sequence[Part]) -> None:
        """Join `parts`, as `meta` says."""
        self.meta = meta
        self._parts = parts

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`."""
        check_range(self.meta, direction, start, stop)
        size = Size.of(self.meta)
        flows = np.zeros((stop - start, size.grid_height, size.grid_width, 2), np.float32)
        base = 0
        for part in self._parts:
            first, last = max(start, base), min(stop, base + part.frames - 1)
            if first < last:
                offset = part.start - base
                found = part.flows.read(direction, first + offset, last + offset)
                of = Size.of(part.flows.meta)
                for number, flow in enumerate(found, first):
                    flows[number - start] = resized_flow(flow, of, size)
            base += part.frames
        return flows


def write_joined(
    parts: Sequence[Part], target: Path, size: Size, *, source_video: str, source_identity: str
) -> FlowMeta:
    """Write the flows of `parts`, one or more, into the archive `target`.

    Blocks of our own archives that are on the grid already are copied, each checked, not compressed again.

    Args:
        parts: in order; all of one engine.
        target: where the archive shall be; it appears there complete, or not at all.
        size: of the joined video.
        source_video, source_identity: recorded.

    Raises:
        FlowError: a part is not inside of its video.
        FlowCacheError: an archive is damaged.
    """
    metas = [part.flows.meta for part in parts]
    for part in parts:
        if not 0 <= part.start <= part.start + part.frames - 1 <= part.flows.meta.total_flows or part.frames < 2:
            raise FlowError(
                f"joined flows: expected a part of {part.flows.meta.total_flows + 1} frames, got {part.frames} from "
                f"{part.start} on"
            )
    backward = all(meta.has_backward for meta in metas)
    border = compress_flow(np.zeros((size.grid_height, size.grid_width, 2), np.float32))
    cuts: list[int] = []
    base = 0
    with FlowArchiveWriter(target, height=size.grid_height, width=size.grid_width, backward=backward) as writer:
        for number, part in enumerate(parts):
            if number:
                writer.feed_blocks(border, border if backward else None)
                cuts.append(base - 1)
            stop = part.start + part.frames - 1
            cuts += [cut - part.start + base for cut in part.flows.meta.scene_cuts if part.start <= cut < stop]
            forward = _blocks(part, "forward", size)
            if backward:
                for one, other in zip(forward, _blocks(part, "backward", size), strict=True):
                    writer.feed_blocks(one, other)
            else:
                for one in forward:
                    writer.feed_blocks(one)
            base += part.frames
        return writer.finish(
            original_height=size.height,
            original_width=size.width,
            original_fps=metas[0].original_fps,
            engine=metas[0].engine,
            engine_params={SOURCES: [part.origin for part in parts]},
            timestamps_s=_times(parts),
            scene_cuts=tuple(cuts),
            display_max_px=max(
                meta.display_max_px / float(np.diag(size.seen_in(Size.of(meta))).min()) for meta in metas
            ),
            source_video=source_video,
            source_identity=source_identity,
        )


def _blocks(part: Part, direction: Direction, size: Size) -> Iterator[FlowBlock]:
    flows, stop = part.flows, part.start + part.frames - 1
    of = Size.of(flows.meta)
    step = max(1, _READ_BYTES // (of.grid_height * of.grid_width * 8))
    copies = isinstance(flows, SeekableArchive) and of == size and flows.meta.format_version == FORMAT_VERSION
    for first in range(part.start, stop, step):
        last = min(first + step, stop)
        if copies and isinstance(flows, SeekableArchive):
            yield from flows.blocks(direction, first, last)
        else:
            for flow in flows.read(direction, first, last):
                yield compress_flow(quantise(resized_flow(flow, of, size)))


def _times(parts: Sequence[Part]) -> NDArray[np.float64]:
    """Return times for all frames, each part at its own pace, and a frame of its own rate between two of them."""
    times: list[NDArray[np.float64]] = []
    begin = 0.0
    for part in parts:
        own = part.flows.meta.timestamps_s[part.start : part.start + part.frames]
        times.append(own - own[0] + begin)
        begin = float(times[-1][-1]) + 1 / part.flows.meta.original_fps
    return np.concatenate(times)


def origins(meta: FlowMeta) -> list[dict[str, Any]]:
    """Return where the flows of a joined archive came from, as its `Part.origin` said; empty for any other one."""
    found = meta.engine_params.get(SOURCES, [])
    return [dict(one) for one in found] if isinstance(found, list) else []
