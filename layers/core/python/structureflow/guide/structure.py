"""The frames of a structure video small, as paths are looked at in them, for callers who have no frame cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import MediaError, StructureFramesError
from structureflow.extras import importing
from structureflow.flow.extract import prepare_frame
from structureflow.guide.ports import Gray
from structureflow.media.limits import DecodeLimits
from structureflow.processors import usable_cpus


def gray_frames(count: int, height: int, width: int, folder: Path | None = None) -> NDArray[np.uint8]:
    """Return ``(count, height, width)`` uint8 to write to, in a file without a name that goes when the array does.

    `folder` is where; default the system's folder for temporary files.
    """
    with TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, "w+", shape=(count, height, width))


class DecodedGrays:
    """A `StructureFrames` over a video file, or over frames in memory.

    Args:
        structure: a local video; or frames, ``(H, W, 3)`` uint8 RGB of any one size.
        height, width: the grid of the flows.
        first, last: frames that will be asked for, inclusive.
        limits: bounds of what is decoded.
    """

    def __init__(
        self,
        structure: str | os.PathLike[str] | Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        *,
        height: int,
        width: int,
        first: int,
        last: int,
        limits: DecodeLimits | None = None,
    ) -> None:
        self._structure = structure
        self._size = height, width
        self._first = first
        self._count = last + 1 - first
        self._limits = limits or DecodeLimits()
        self._grays: NDArray[np.uint8] | None = None

    def gray(self, indices: Sequence[int]) -> list[Gray]:
        """See `StructureFrames.gray`; for one thread at a time. A video is decoded once, by the first call."""
        if self._grays is None:
            self._grays = self._decoded()
        return [self._grays[index - self._first] for index in indices]

    def read(self) -> None:
        """Decode now.

        Raises:
            StructureFramesError: it cannot be used, or has fewer frames.
        """
        self.gray(())

    def _decoded(self) -> NDArray[np.uint8]:
        grays = gray_frames(self._count, *self._size)
        read = 0
        try:
            for image in self._images():
                grays[read] = prepare_frame(image, *self._size, "gray")
                read += 1
                if read == self._count:
                    return grays
        except MediaError as error:
            raise StructureFramesError(f"structure video: {error}") from error
        raise StructureFramesError(
            f"structure frames: expected {self._count} from {self._first} on, as there are flows, got {read}"
        )

    def _images(self) -> Iterable[NDArray[np.uint8]]:
        if not isinstance(self._structure, (str, os.PathLike)):
            yield from self._structure[self._first :]
            return
        # only where it is needed: frames in memory need no decoder of videos
        with importing("structure"):
            from structureflow.media.decode import VideoReader

        with VideoReader(Path(self._structure), self._limits, threads=usable_cpus()) as reader:
            reader.skip(self._first)
            for frame in reader:
                yield frame.image
