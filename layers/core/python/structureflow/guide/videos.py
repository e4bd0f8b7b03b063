"""A guide and its mask, as arrays or as video files, for callers who have flows and pictures but no job."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from structureflow import arguments
from structureflow.arguments import array, check_fields, checked
from structureflow.errors import GuidanceError
from structureflow.extras import importing
from structureflow.files import new_files
from structureflow.flow.fields import FlowSource
from structureflow.guide.pictures import PLANES, RGB
from structureflow.guide.ports import Mask, Picture
from structureflow.guide.scene import SCENE, At, Frame, GuideOptions, KeyFrame, PathLike, Scene, Structure
from structureflow.guide.settings import RenderOutcome, RenderSettings
from structureflow.media.planes import frozen, mask_to_planes

_DEFAULTS: Final = GuideOptions()
_NAMES: Final = ("guide.mp4", "mask.mp4")


@dataclass(frozen=True, eq=False)
class RenderedGuide:
    """A guide in memory.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8 RGB; mid-grey (128) where nothing is known.
        masks: ``(T, H, W)`` uint8, of 0 (keep) and 255 (generate) only.
        outcome: what became of the frames.
    """

    frames: Frame
    masks: Frame
    outcome: RenderOutcome

    def __post_init__(self) -> None:
        """Refuse what is no guide.

        Raises:
            InvalidArgumentError, GuidanceError: other arrays than these, or of different sizes.
        """
        check_fields(self, frames=array, masks=array)
        frames, masks = self.frames, self.masks
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise GuidanceError(f"frames: expected (T, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        if masks.shape != frames.shape[:3] or masks.dtype != np.uint8:
            raise GuidanceError(f"masks: expected {frames.shape[:3]} uint8, got {masks.shape} {masks.dtype}")

    @checked(folder=arguments.path, fps=arguments.number(above=0))
    def save(self, folder: PathLike, *, fps: float = 16.0) -> tuple[Path, Path]:
        """Write ``guide.mp4`` and ``mask.mp4`` (H.264) into a folder, and return their paths.

        Raises:
            EncodeError: a side is odd.
            OutputError: the folder cannot be written to; older files stay.
        """
        with importing("RenderedGuide.save"):
            from structureflow.media.encode import MASK, encode_h264

        height, width = self.masks.shape[1:]
        masks = (mask_to_planes(mask) for mask in self.masks)
        with new_files(folder, _NAMES, "folder") as (guide, mask):
            encode_h264(self.frames, guide, height=height, width=width, fps=fps)
            encode_h264(masks, mask, height=height, width=width, fps=fps, settings=MASK)
        return Path(folder) / _NAMES[0], Path(folder) / _NAMES[1]


@checked(**SCENE)
def render_guide(
    flows: FlowSource | PathLike | None,
    keyframes: Mapping[At, KeyFrame],
    frames: int,
    *,
    structure: Structure | None = None,
    size: tuple[int, int] | None = None,
    options: GuideOptions = _DEFAULTS,
    workers: int | None = None,
) -> RenderedGuide:
    """Make a guide and its mask in memory: your pictures at their places, carried by the motion between them.

    Args:
        flows: the structure video's: what `extract_flows` or `open_flows` gives, or an archive's file; None: no motion.
        keyframes: what is given: a frame's number, or an inclusive range in which the picture is held, to a picture. An
            array of n frames begins at its number, or fills a range of n; `VideoFrames` fill a range. Pictures are cut
            to `size`, not stretched.
        frames: how many the guide has.
        structure: the structure video itself, a file or its frames: paths are then looked at in them, and do not drift.
            Without it they are made of flows alone.
        size: (width, height) in pixels; default the structure video's.
        options: how it is made.
        workers: threads; None takes all that this process may use. The result does not depend on it.

    Raises:
        GuidanceError: key frames overlap, lie outside, or are no pictures; or an option is out of its range.
        NotAnImageError, InputNotFoundError: a picture's file cannot be read.
        FlowError, FlowCacheError: the flows cannot be used.
        StructureFramesError: the structure video cannot be used, or is not the one of the flows.
        InvalidArgumentError: an argument is of another type.

    >>> guide = render_guide("flows.npz", {0: "a.png", 16: "b.png"}, 17, structure="clip.mp4")
    >>> guide.frames.shape, guide.masks.shape
    ((17, 96, 160, 3), (17, 96, 160))
    >>> guide.outcome.filled, guide.outcome.tracking
    (((1, 15),), 'anchored')
    """
    scene = Scene.of(flows, keyframes, frames, structure, size, options, workers, RGB)
    sink = _Arrays(frames, scene.settings.height, scene.settings.width)
    return RenderedGuide(sink.guide, sink.masks, scene.render(sink))


@checked(**SCENE, folder=arguments.path, fps=arguments.number(above=0))
def write_guide(
    flows: FlowSource | PathLike | None,
    keyframes: Mapping[At, KeyFrame],
    frames: int,
    folder: PathLike,
    *,
    fps: float = 16.0,
    structure: Structure | None = None,
    size: tuple[int, int] | None = None,
    options: GuideOptions = _DEFAULTS,
    workers: int | None = None,
) -> RenderOutcome:
    """Write ``guide.mp4`` and ``mask.mp4`` into a folder, encoded as they are made: what a job makes of one segment.

    Memory does not grow with the number of frames. Older files of these names are replaced when both are whole.

    Args:
        folder: is made if need be.
        fps: of the videos, frames per second.
        flows, keyframes, frames, structure, options, workers: as `render_guide`.
        size: (width, height), both even; default the structure video's, made even.

    Returns:
        What became of the frames.

    Raises:
        EncodeError: a side is odd, or a rate that no video has.
        OutputError: the folder cannot be written to.
        Otherwise as `render_guide`.

    >>> outcome = write_guide("flows.npz", {0: "a.png", (12, 16): "b.png"}, 17, "guide", fps=16)
    >>> outcome.filled
    ((1, 11),)
    """
    scene = Scene.of(flows, keyframes, frames, structure, size, options, workers, PLANES)
    with new_files(folder, _NAMES, "folder") as (guide, mask), _Videos(guide, mask, scene.settings, fps) as sink:
        outcome = scene.render(sink)
        sink.finish()
    return outcome


class _Arrays:
    """A sink that keeps everything."""

    def __init__(self, frames: int, height: int, width: int) -> None:
        self.guide = np.empty((frames, height, width, 3), np.uint8)
        self.masks = np.empty((frames, height, width), np.uint8)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:
        self.guide[index] = guide
        self.masks[index] = mask


class _Videos:
    """A sink that encodes; a context manager."""

    def __init__(self, guide: Path, mask: Path, settings: RenderSettings, fps: float) -> None:
        # only where it is needed: guides in memory need no encoder
        with importing("write_guide"):
            from structureflow.media.background import BackgroundEncoder
            from structureflow.media.encode import GUIDE, MASK

        self._files = ExitStack()

        def encoder(path: Path, **options: Any) -> BackgroundEncoder:
            return BackgroundEncoder(path, height=settings.height, width=settings.width, fps=fps, **options)

        self._guide = encoder(guide, settings=GUIDE, threads=settings.workers)
        self._mask = encoder(mask, settings=MASK, threads=1)
        self._plain = {
            value: frozen(mask_to_planes(np.full((settings.height, settings.width), value, np.uint8)))
            for value in (0, 255)
        }

    def __enter__(self) -> _Videos:
        for encoder in (self._guide, self._mask):
            self._files.enter_context(encoder)
        return self

    def __exit__(self, *details: Any) -> None:
        self._files.__exit__(*details)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:  # noqa: ARG002 - in order
        self._guide.write(guide)
        self._mask.write(self._plain[mask] if isinstance(mask, int) else mask_to_planes(mask))

    def finish(self) -> None:
        self._guide.finish()
        self._mask.finish()
