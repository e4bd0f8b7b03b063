"""Write a flow archive as a stream: quantise, compress and place one pair's flows after another.

The layout is described in `structureflow.flow.archive.layout`.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.archive.assembly import HEAD_BYTES, BlockTable, archive_parts, described, field_bytes
from structureflow.flow.archive.blocks import FlowBlock, compress_flow, quantise
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.fields import FlowMeta

#: Nothing is written that `open_flow_archive` refuses by default.
_LIMITS: Final = FlowLimits()


class FlowArchiveWriter:
    """Write a flow archive as the flows come, in memory that does not depend on how many there are.

    Forward blocks go straight to their place in a temporary file beside `path`, backward blocks to a second one
    that `finish` appends. The archive appears at `path` only when `finish` succeeds; as a context manager,
    leaving without `finish` removes every trace.

    Args:
        path: where the archive shall be; an older file there is replaced.
        height, width: the stored grid in pixels.
        backward: whether backward flows are given too.
    """

    def __init__(self, path: Path, *, height: int, width: int, backward: bool = True) -> None:
        if not (min(height, width) >= 1 and max(height, width) <= _LIMITS.max_side_px):
            raise FlowError(
                f"flow grid: expected sides of 1 to {_LIMITS.max_side_px} pixels, got {height} high, {width} wide"
            )
        if height * width > _LIMITS.max_grid_px:
            raise FlowError(f"flow grid: expected at most {_LIMITS.max_grid_px} pixels, got {width}x{height}")
        self._path = Path(path)
        self._shape = (height, width, 2)
        # not by `tempfile`: what it makes can be read by its owner alone, and this file is the caller's in the end
        self._temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        self._file = self._temporary.open("x+b")
        self._spool: IO[bytes] | None = None
        if backward:
            self._spool = tempfile.TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - closed by abort and finish
        self._file.seek(HEAD_BYTES)
        self._forward = BlockTable()
        self._backward = BlockTable() if self._spool else None
        self._open = True

    def __enter__(self) -> FlowArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def feed(self, forward: NDArray[Any], backward: NDArray[Any] | None = None) -> None:
        """Quantise, compress and append one pair's flows, each ``(h, w, 2)`` floating, pixels of the grid.

        Raises:
            FlowError: another shape than the archive's, not finite, or backward missing or unexpected.
        """
        for flow in (forward,) if backward is None else (forward, backward):
            if flow.shape != self._shape:
                raise FlowError(f"flow: expected {self._shape}, got {flow.shape}")
        self.feed_blocks(
            compress_flow(quantise(forward)), None if backward is None else compress_flow(quantise(backward))
        )

    def feed_blocks(self, forward: FlowBlock, backward: FlowBlock | None = None) -> None:
        """Append one pair's flows, already compressed by `compress_flow`.

        Raises:
            FlowError: a block's size is not the grid's, or backward is missing or unexpected.
        """
        if not self._open:
            raise FlowError("the archive is already finished or aborted")
        if (backward is None) != (self._backward is None):
            raise FlowError("backward flow: expected for every pair or for none, as the writer was made")
        if len(self._forward.lengths) >= _LIMITS.max_flows:
            raise FlowError(f"flow archive: expected at most {_LIMITS.max_flows} flows")
        expected = field_bytes(*self._shape[:2])
        for block in (forward,) if backward is None else (forward, backward):
            if block.plain_bytes != expected:
                raise FlowError(f"flow block: expected {expected} bytes, got {block.plain_bytes}")
        self._file.write(forward.data)
        self._forward.add(forward)
        if self._spool is not None and self._backward is not None and backward is not None:
            self._spool.write(backward.data)
            self._backward.add(backward)

    def finish(
        self,
        *,
        original_height: int,
        original_width: int,
        original_fps: float,
        engine: str,
        engine_params: Mapping[str, Any],
        timestamps_s: NDArray[np.float64],
        scene_cuts: tuple[int, ...] = (),
        display_max_px: float = 0.0,
        source_video: str = "",
        source_identity: str = "",
    ) -> FlowMeta:
        """Write metadata and seek table, close the archive and put it at its path.

        Args: as `FlowMeta`.

        Raises:
            FlowError: no flow was fed, or timestamps or cuts don't fit the number of flows.
        """
        if not self._open:
            raise FlowError("the archive is already finished or aborted")
        meta = described(
            len(self._forward.lengths),
            *self._shape[:2],
            has_backward=self._backward is not None,
            original_height=original_height,
            original_width=original_width,
            original_fps=original_fps,
            engine=engine,
            engine_params=engine_params,
            timestamps_s=timestamps_s,
            scene_cuts=scene_cuts,
            display_max_px=display_max_px,
            source_video=source_video,
            source_identity=source_identity,
        )
        self._write_rest(meta)
        self._file.close()
        self._temporary.replace(self._path)
        self._close()
        return meta

    def abort(self) -> None:
        """Drop everything written so far; no error after `finish` or a second time."""
        if self._open:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._open = False

    def _write_rest(self, meta: FlowMeta) -> None:
        parts = archive_parts(meta, self._forward, self._backward)
        self._file.write(parts.between)
        if self._spool is not None:
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, self._file, 1024 * 1024)
        self._file.write(parts.tail)
        self._file.seek(0)
        self._file.write(parts.head)
