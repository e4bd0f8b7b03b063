"""Encode a video in a thread of its own, beside whoever draws its frames."""

from __future__ import annotations

import functools
import queue
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from structureflow.errors import EncodeError
from structureflow.media.encode import GUIDE, EncodedInfo, EncoderSettings, H264Writer
from structureflow.media.planes import Planes, planes_shape

#: Frames that the drawing may be ahead of the encoder; more only cost memory.
_AHEAD: Final = 4


class BackgroundEncoder:
    """An `H264Writer` in a thread.

    Frames that may change are copied into a few buffers, which are used again; who writes faster than x264 encodes
    waits for one. Frames that are read-only wait by reference, any number of them.

    A context manager: an error on either side ends both. One of the encoder's is raised by the next `write` or by
    `finish`; left by an exception, or without `finish`, it stops the thread and no file stays.
    """

    def __init__(
        self, path: Path, *, height: int, width: int, fps: float, settings: EncoderSettings = GUIDE, threads: int = 0
    ) -> None:
        """Arguments as of `H264Writer`; nothing happens before the ``with`` block."""
        self._path = path
        self._shape = planes_shape(height, width)
        self._open = functools.partial(
            H264Writer, path, height=height, width=width, fps=fps, settings=settings, threads=threads
        )
        self._waiting: queue.SimpleQueue[Planes | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[Planes | None] = queue.SimpleQueue()
        self._buffers = 0
        self._given = 0
        self._abandoned = False
        self._info: EncodedInfo | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"encode-{path.stem}", daemon=True)
        self.busy_s = 0.0

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = self._info is None
        self._waiting.put(None)
        self._thread.join()

    def write(self, planes: Planes) -> None:
        """Append a frame; an array that is read-only must stay as it is, any other is copied.

        Raises:
            EncodeError: another shape or dtype, or the encoder failed.
        """
        if planes.shape != self._shape or planes.dtype != np.uint8:
            raise EncodeError(f"frame {self._given}: expected {self._shape} uint8, got {planes.shape} {planes.dtype}")
        self._check()
        if planes.flags.writeable:
            buffer = self._buffer()
            np.copyto(buffer, planes)
            planes = buffer
        self._waiting.put(planes)
        self._given += 1

    def finish(self) -> EncodedInfo:
        """Wait until every frame is encoded and the file closed.

        Raises:
            EncodeError: as `H264Writer.finish`, or the encoder failed.
        """
        self._waiting.put(None)
        self._thread.join()
        self._check()
        if self._info is None:
            raise EncodeError(f"{self._path.name}: the encoder ended without a file")
        return self._info

    def _buffer(self) -> Planes:
        if self._buffers < _AHEAD and self._free.empty():
            self._buffers += 1
            return np.empty(self._shape, np.uint8)
        buffer = self._free.get()
        if buffer is None:
            self._check()
            raise EncodeError(f"{self._path.name}: the encoder ended before frame {self._given}")
        return buffer

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._open() as writer:
                while (planes := self._waiting.get()) is not None and not self._abandoned:
                    begin = time.perf_counter()
                    writer.write(planes)
                    self.busy_s += time.perf_counter() - begin
                    if planes.flags.writeable:
                        self._free.put(planes)
                if not self._abandoned:
                    self._info = writer.finish()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever writes or finishes
            self._error = error
        finally:
            # whoever waits for a buffer looks at the error
            self._free.put(None)
