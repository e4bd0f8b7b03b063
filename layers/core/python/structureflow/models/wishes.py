"""What a request asks for in vain: no error, but whoever asked should know."""

from __future__ import annotations

from collections.abc import Iterator

from structureflow.models.job import JobRequest
from structureflow.models.outputs import CannyOptions, NoiseOptions, TrackOptions
from structureflow.models.problems import Problem

__all__ = ["idle_wishes"]


def idle_wishes(request: JobRequest) -> Iterator[Problem]:
    """Iterate over what of a request changes nothing, each with its place in the canonical request."""
    yield from _of_outputs(request)
    yield from _of_motion(request)
    yield from _of_timeline(request)


def _of_outputs(request: JobRequest) -> Iterator[Problem]:
    """Options of outputs that are not asked for."""
    if request.prompt is not None and "ttm" not in request.outputs and request.target != "vace":
        said = "nothing is made of it: it goes into the folder of the output ttm, and into the settings of target vace"
        yield Problem(("prompt",), said)
    options = (
        ("tracks", "tracks", request.tracks != TrackOptions()),
        ("noise", "warped_noise", request.noise != NoiseOptions()),
        ("canny", "canny", request.canny != CannyOptions()),
    )
    for name, output, given in options:
        if given and output not in request.outputs:
            yield Problem((name,), f"nothing is made of it: {output} is not among the outputs")


def _of_motion(request: JobRequest) -> Iterator[Problem]:
    """Key frames of the strength that no segment reaches; what needs a second anchor where there is one."""
    last = max(segment.frames for segment in request.segments) - 1
    if isinstance(request.motion_strength, dict):
        for frame in request.motion_strength:
            if frame > last:
                said = f"no segment comes to that frame: the longest one ends with frame {last}"
                yield Problem(("motion_strength", str(frame)), said)
    if request.match_color and request.anchors == "start":
        said = "it changes nothing: colours are led over between two anchors, and anchors is start"
        yield Problem(("match_color",), said)
    if request.flow_cache is not None and request.tracking == "composed" and request.quality != "balanced":
        said = "it changes nothing: flows are taken from flow_cache, and nothing is matched where tracking is composed"
        yield Problem(("quality",), said)


def _of_timeline(request: JobRequest) -> Iterator[Problem]:
    """What lies behind the end of the timeline, and overlaps of segments where nothing is played by it."""
    if request.segment_overlap and not request.structure_videos:
        yield Problem(("segment_overlap",), "it changes nothing: it is of the timeline of structure_videos")
    end = request.segment_starts[-1]
    for index, video in enumerate(request.structure_videos):
        if video.end_frame is not None and video.end_frame > end:
            said = f"{video.end_frame} lies behind the end of the timeline, {end}, so it is not played to its end"
            yield Problem(("structure_videos", index, "end_frame"), said)
