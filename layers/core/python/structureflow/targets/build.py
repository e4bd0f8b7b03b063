"""From the names of a request's `outputs` to what makes them."""

from __future__ import annotations

from structureflow.flow.fields import FlowMeta
from structureflow.models.job import JobRequest
from structureflow.targets.control import ControlVideo
from structureflow.targets.output import Clip, SegmentOutput
from structureflow.targets.tracks import TrackFiles
from structureflow.targets.ttm import TimeToMove
from structureflow.targets.vace_flow import VaceFlow
from structureflow.targets.wan2gp import Wan2gpSettings
from structureflow.targets.warped_noise import WarpedNoise


def build_outputs(request: JobRequest, index: int, clip: Clip, meta: FlowMeta) -> list[SegmentOutput]:
    """Return what makes the outputs of segment `index` that a request and its target ask for, in order.

    Args:
        request: its `outputs` and their options.
        index: of the segment.
        clip: the segment.
        meta: of the flows that its motion is made of.

    Raises:
        ValueError: a point to track lies outside of the frame.
    """
    made: list[SegmentOutput] = []
    for name in request.outputs:
        match name:
            case "vace_flow":
                made.append(VaceFlow(clip, meta))
            case "canny" | "raw":
                made.append(ControlVideo(name, clip, request.canny))
            case "tracks":
                made.append(TrackFiles(clip, meta, request.tracks.places(clip.height, clip.width)))
            case "warped_noise":
                made.append(WarpedNoise(clip, meta, request.noise, index))
            case "ttm":
                made.append(TimeToMove(clip, request.prompt or ""))
            case "flow_vis" | "visibility":
                # made beside guide and mask, of the same pictures as the overlays
                continue
    if request.target == "vace":
        made.append(Wan2gpSettings(clip, request.prompt or ""))
    return made
