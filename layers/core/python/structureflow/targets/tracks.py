"""The output `tracks`: points followed through a segment, for Wan-Move, ATI and ComfyUI's track nodes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from structureflow.flow.fields import FlowMeta
from structureflow.guide.ports import Mask
from structureflow.guide.travel import Move
from structureflow.media.planes import Planes
from structureflow.models.outputs import OutputDescription, Point
from structureflow.targets.output import Clip, Made, Placing, SegmentOutput, array_description
from structureflow.targets.points import PointTracker
from structureflow.targets.track_files import (
    ATI_SAMPLES,
    write_ati,
    write_json,
    write_wan_move,
    write_wan_move_json,
)

_PIXELS: Final = "x to the right and y down in output pixels, (0, 0) the middle of the first pixel"


class TrackFiles(SegmentOutput):
    """Follows points of the first frame; they stand still in guided frames."""

    wants_steps = True
    wants_ways = True

    def __init__(self, clip: Clip, meta: FlowMeta, points: tuple[Point, ...]) -> None:
        """Follow `points`, output pixels of the first frame, along flows that `meta` describes."""
        self._clip = clip
        self._placing = Placing.of(meta, clip.height, clip.width)
        self._begin = np.array(points, np.float64).reshape(-1, 2)
        self._tracker = PointTracker(self._placing.to_grid(self._begin), (meta.height, meta.width))
        self._places = np.empty((clip.frames, len(self._begin), 2), np.float32)
        self._visible = np.empty((clip.frames, len(self._begin)), np.bool_)

    def move(self, index: int, move: Move | None) -> None:  # noqa: ARG002 - moves come in order
        """See `SegmentOutput.move`."""
        if move is not None:
            self._tracker.move(move)

    def write(self, index: int, guide: Planes, mask: Mask) -> None:  # noqa: ARG002 - only that it is a frame
        """See `SegmentOutput.write`."""
        places = self._placing.to_output(self._tracker.places)
        self._places[index] = places
        self._visible[index] = self._tracker.visible & self._in_frame(places)

    def _in_frame(self, places: NDArray[np.float64]) -> NDArray[np.bool_]:
        most = np.array([self._clip.width, self._clip.height]) - 0.5
        inside: NDArray[np.bool_] = ((places >= -0.5) & (places <= most)).all(axis=1)
        return inside

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        names = ("tracks.npy", "visibility.npy", "ati.pth", "ati.json", "wan_move.json")
        paths = {name: self._clip.file(f"tracks/{name}") for name in names}
        write_wan_move(self._places, self._visible, paths["tracks.npy"], paths["visibility.npy"])
        write_ati(self._places, self._visible, paths["ati.pth"])
        write_json(self._places, self._visible, paths["ati.json"])
        write_wan_move_json(self._places, paths["wan_move.json"])
        descriptions = self._descriptions()
        return [Made(f"tracks/{name}", paths[name], descriptions[name]) for name in names]

    def _descriptions(self) -> dict[str, OutputDescription]:
        frames, points = self._visible.shape
        return {
            "tracks.npy": array_description(
                "array", "Wan-Move --track", _PIXELS, "one frames points xy", (1, frames, points, 2), "float32"
            ),
            "visibility.npy": array_description(
                "array", "Wan-Move --track_visibility", "true: seen", "one frames points", (1, frames, points), "bool"
            ),
            "ati.pth": array_description(
                "archive",
                "ATI, one file for each image",
                f"torch.load gives the bytes of an npz, its member `array`: {_PIXELS}, then 1 for seen, all times 8; "
                "samples at every 2/3 of a frame",
                "points samples one xyv",
                (points, ATI_SAMPLES, 1, 3),
                "float32",
            ),
            "ati.json": array_description(
                "json",
                "ComfyUI WanTrackToVideo, WanVideoATITracks",
                f"a list of points for each track, {_PIXELS}; it ends where the point is last seen; samples at every "
                "2/3 of a frame",
                "tracks samples xy",
                (points, ATI_SAMPLES, 2),
                "float64",
            ),
            "wan_move.json": array_description(
                "json",
                "ComfyUI WanMoveTracksFromCoords",
                f"a list of points for each track, {_PIXELS}; one for each frame, seen or not",
                "tracks frames xy",
                (points, frames, 2),
                "float64",
            ),
        }
