"""Points followed through a structure video, for callers who have flows but no job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow import arguments
from structureflow.arguments import array, check_fields, checked, optional
from structureflow.errors import GuidanceError
from structureflow.files import new_files
from structureflow.flow.fields import FlowMeta, FlowSource
from structureflow.guide.masks import grey_frame
from structureflow.guide.pictures import RGB
from structureflow.guide.ports import Mask, Picture
from structureflow.guide.scene import SCENE, GuideOptions, Scene, Structure
from structureflow.guide.travel import Move
from structureflow.models.outputs import MAX_TRACK_POINTS, TrackOptions
from structureflow.targets.output import Placing
from structureflow.targets.points import PointTracker
from structureflow.targets.track_files import write_ati, write_json, write_wan_move, write_wan_move_json

PathLike = str | os.PathLike[str]
_DEFAULTS: Final = GuideOptions()


@dataclass(frozen=True, eq=False)
class PointTracks:
    """Where points of the first frame are in all frames.

    Attributes:
        places: ``(T, N, 2)`` float32, x to the right and y down in output pixels, (0, 0) the middle of the first one.
        visible: ``(T, N)`` bool, whether they are seen.
    """

    places: NDArray[np.float32]
    visible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse what are no tracks.

        Raises:
            InvalidArgumentError, GuidanceError: other arrays than these.
        """
        check_fields(self, places=array, visible=array)
        places, visible = self.places, self.visible
        if places.ndim != 3 or places.shape[2] != 2 or places.dtype != np.float32:
            raise GuidanceError(f"places: expected (T, N, 2) float32, got {places.shape} {places.dtype}")
        if visible.shape != places.shape[:2] or visible.dtype != np.bool_:
            raise GuidanceError(f"visible: expected {places.shape[:2]} bool, got {visible.shape} {visible.dtype}")

    @checked(folder=arguments.path)
    def save(self, folder: PathLike) -> list[Path]:
        """Write the files that generators read (docs/generators.md) into a folder, and return their paths.

        ``tracks.npy`` and ``visibility.npy`` (Wan-Move), ``ati.pth`` (ATI), ``ati.json`` (ComfyUI's WanTrackToVideo and
        WanVideoATITracks) and ``wan_move.json`` (its WanMoveTracksFromCoords).

        Raises:
            OutputError: the folder cannot be written to; older files stay.
        """
        names = ("tracks.npy", "visibility.npy", "ati.pth", "ati.json", "wan_move.json")
        with new_files(folder, names, "folder") as paths:
            write_wan_move(self.places, self.visible, paths[0], paths[1])
            write_ati(self.places, self.visible, paths[2])
            write_json(self.places, self.visible, paths[3])
            write_wan_move_json(self.places, paths[4])
        return [Path(folder) / name for name in names]


@checked(
    **{name: check for name, check in SCENE.items() if name != "keyframes"},
    points=optional(arguments.iterable("(x, y) of each point")),
    grid=arguments.size,
)
def track_points(
    flows: FlowSource | PathLike,
    frames: int,
    *,
    points: Sequence[tuple[float, float]] | NDArray[Any] | None = None,
    grid: tuple[int, int] = (16, 9),
    structure: Structure | None = None,
    size: tuple[int, int] | None = None,
    options: GuideOptions = _DEFAULTS,
    workers: int | None = None,
) -> PointTracks:
    """Follow points of the first frame through the motion of a structure video, as a job's output ``tracks`` does.

    Args:
        flows: as of `render_guide`.
        frames: how many; the motion of all flows is spread over the steps between them, as `options` say.
        points: (x, y) in output pixels of the first frame; None: a grid.
        grid: columns and rows of points, spread evenly, where `points` are not given.
        structure, size, options, workers: as of `render_guide`; what `options` say of masks and anchors plays no part.

    Raises:
        GuidanceError: fewer than two frames, or too many points.
        FlowError, FlowCacheError: the flows cannot be used.
        StructureFramesError: the structure video cannot be used, or is not the one of the flows.
        InvalidArgumentError: an argument is of another type.

    >>> tracks = track_points("flows.npz", 12, points=[(40, 48), (80, 48)], structure="clip.mp4")
    >>> tracks.places.shape, tracks.visible.shape
    ((12, 2, 2), (12, 2))
    >>> [round(float(x)) for x in tracks.places[-1, :, 0] - tracks.places[0, :, 0]]  # 2 pixels a frame
    [22, 22]
    """
    if frames < 2:
        raise GuidanceError(f"frames: expected 2 or more, got {frames}")
    # the first frame stands, the others follow; guides play no part in the motion
    start = grey_frame(2, 2)
    scene = Scene.of(flows, {0: start}, frames, structure, size, options, workers, RGB)
    height, width = scene.settings.height, scene.settings.width
    begin = _begin(TrackOptions(grid=grid).places(height, width) if points is None else points)
    if begin.ndim != 2 or begin.shape[1:] != (2,) or not 1 <= len(begin) <= MAX_TRACK_POINTS:
        raise GuidanceError(f"points: expected 1 to {MAX_TRACK_POINTS} of (x, y), got shape {begin.shape}")
    if not ((begin >= -0.5) & (begin <= np.array([width, height]) - 0.5)).all():
        raise GuidanceError(f"points: expected (x, y) inside of {width}x{height} pixels")
    if scene.flows is None:
        raise GuidanceError("flows: expected some, to follow points along")
    follower = _Follower(begin, scene.flows.meta, frames, height, width)
    scene.render(follower)
    return PointTracks(follower.positions, follower.visible)


def _begin(points: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise GuidanceError(f"points: expected (x, y) of each: {error}") from error


class _Follower:
    """A `TravelSink` that keeps where the points are."""

    wants_steps = True
    wants_ways = True

    def __init__(self, begin: NDArray[np.float64], meta: FlowMeta, frames: int, height: int, width: int) -> None:
        self._placing = Placing.of(meta, height, width)
        self._tracker = PointTracker(self._placing.to_grid(begin), (meta.height, meta.width))
        self._most = np.array([width, height]) - 0.5
        self.positions = np.empty((frames, len(begin), 2), np.float32)
        self.visible = np.empty((frames, len(begin)), np.bool_)

    def move(self, index: int, move: Move | None) -> None:  # noqa: ARG002 - moves come in order
        if move is not None:
            self._tracker.move(move)

    def write(self, index: int, guide: Picture, mask: Mask) -> None:  # noqa: ARG002 - only that it is a frame
        places = self._placing.to_output(self._tracker.places)
        self.positions[index] = places
        self.visible[index] = self._tracker.visible & ((places >= -0.5) & (places <= self._most)).all(axis=1)
