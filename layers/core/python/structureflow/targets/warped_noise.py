"""The output `warped_noise`: the folder that Go-with-the-Flow's ``cut_and_drag_inference.py`` takes."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import numpy as np

from structureflow.errors import GuidanceError
from structureflow.flow.fields import FlowMeta, sample
from structureflow.guide.ports import Mask
from structureflow.guide.travel import Move
from structureflow.media.planes import Planes
from structureflow.models.outputs import NoiseOptions
from structureflow.targets.noise import FINENESS, NoiseWarper
from structureflow.targets.output import Clip, Made, Placing, SegmentOutput, array_description

_CONSUMER: Final = "Go-with-the-Flow (CogVideoX), the folder as its sample"


class WarpedNoise(SegmentOutput):
    """Warps noise along the motion, and writes each frame of it as it is made."""

    wants_steps = True
    wants_ways = True

    def __init__(self, clip: Clip, meta: FlowMeta, options: NoiseOptions, index: int) -> None:
        """Make noise for segment `index`, along flows that `meta` describes."""
        self._clip = clip
        height, width = options.latent_shape(clip.height, clip.width)
        self._shape = clip.frames, height, width, options.channels
        self._warper = NoiseWarper(height, width, options.channels, np.random.default_rng((options.seed, index)))
        placing = Placing.of(meta, clip.height, clip.width)
        across, down = clip.width / (width * FINENESS), clip.height / (height * FINENESS)
        columns = (np.arange(width * FINENESS) + 0.5) * across - 0.5
        rows = (np.arange(height * FINENESS) + 0.5) * down - 0.5
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        self._places = placing.to_grid(pixels).reshape(*self._warper.shape, 2).astype(np.float32)
        self._scale = np.array([placing.scale[0] / across, placing.scale[1] / down], np.float32)
        self._path = clip.file("warped_noise/noises.npy")
        self._file = self._path.open("wb")
        self._written = 0
        header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def move(self, index: int, move: Move | None) -> None:  # noqa: ARG002 - moves come in order
        """See `SegmentOutput.move`."""
        if move is None:
            return
        if move.cut:
            self._warper.renew()
        elif move.step is not None:
            step = move.step if move.steady is None else move.steady
            self._warper.move(sample(step, self._places) * self._scale)

    def write(self, index: int, guide: Planes, mask: Mask) -> None:  # noqa: ARG002 - only that it is a frame
        """See `SegmentOutput.write`."""
        self._file.write(self._warper.latents().astype("<f4").tobytes())
        self._written += 1

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        if self._written != self._clip.frames:
            raise GuidanceError(f"warped_noise: expected {self._clip.frames} frames, got {self._written}")
        self._file.close()
        noise = "unit normal in every frame, each frame the one before warped along the motion; still: the same noise"
        picture = "the segment's guide, whose first frame is the image to begin with"
        return [
            Made(
                "warped_noise/noises.npy",
                self._path,
                array_description("array", _CONSUMER, noise, "frames height width channels", self._shape, "float32"),
            ),
            Made("warped_noise/input.mp4", self._clip.folder / "guide.mp4", self._clip.video(_CONSUMER, picture)),
        ]
