"""What several fields of a job request together are refused for; each rule is asked of the fields that are good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from structureflow.limits import MAX_JOB_FRAMES, MAX_SEGMENT_FRAMES
from structureflow.models.checked import is_said
from structureflow.models.fields import whole_number
from structureflow.models.problems import Problem
from structureflow.models.sources import conflicts, segment_starts
from structureflow.models.targets import TARGETS

if TYPE_CHECKING:
    from structureflow.models.job import JobRequest

_Fields = Mapping[str, Any]


def job_rules(model: type[JobRequest], good: _Fields, said: _Fields) -> Iterator[Problem]:
    """Iterate over what is wrong with a request beside its single fields; arguments as of `RequestModel.rules`."""

    def given(name: str) -> bool:
        return is_said(said, model, name)

    several = bool(good.get("structure_videos", True))
    yield from _one_motion(given("structure_video"), given("flow_cache"), several, good)
    if several:
        for name in ("structure_video", "flow_cache", "timeline_id"):
            if given(name):
                yield Problem((name,), "expected none beside structure_videos, got one")
    yield from _length(good)
    yield from _timeline(good)
    yield from _outputs(good)
    yield from _target(good, said)


def _one_motion(video: bool, archive: bool, several: bool, good: _Fields) -> Iterator[Problem]:
    """Check that there is one source of motion, and that nothing else is asked of it."""
    if archive and good.get("engine", "auto") != "auto":
        said = f"expected auto, for the flows of flow_cache are taken as they are, got {good['engine']}"
        yield Problem(("engine",), said)
    if video or several:
        return
    if not archive:
        said = "expected the video whose motion is carried, or structure_videos, or flow_cache, got none"
        yield Problem(("structure_video",), said)
        return
    for index, name in enumerate(good.get("outputs", ())):
        if name in ("canny", "raw"):
            yield Problem(("outputs", index), f"expected a structure video, which {name} shows, got none")
    if good.get("tracking") == "anchored":
        said = "expected composed, for anchored looks at frames of the structure video, and there is none; got anchored"
        yield Problem(("tracking",), said)


def _length(good: _Fields) -> Iterator[Problem]:
    frames = sum(segment.frames for segment in good.get("segments", ()) if segment is not None)
    if frames > MAX_JOB_FRAMES:
        yield Problem(("segments",), f"expected at most {MAX_JOB_FRAMES} frames in all, got {frames}")


def _timeline(good: _Fields) -> Iterator[Problem]:
    """Check where the segments lie on the stitched timeline, and the sources on it."""
    videos = good.get("structure_videos", ())
    yield from (problem.below("structure_videos") for problem in conflicts(videos))
    segments = good.get("segments")
    if segments is None or None in segments or "segment_overlap" not in good:
        return
    try:
        *_, end = segment_starts([segment.frames for segment in segments], good["segment_overlap"])
    except ValueError as error:
        yield Problem(("segment_overlap",), str(error))
        return
    for index, video in enumerate(videos):
        if video is not None and video.start_frame >= end:
            said = f"expected less than {end}, the end of the timeline, got {video.start_frame}"
            yield Problem(("structure_videos", index, "start_frame"), said)


def _outputs(good: _Fields) -> Iterator[Problem]:
    outputs = good.get("outputs", ())
    if "ttm" in outputs:
        for number, segment in enumerate(good.get("segments", ())):
            if segment is not None and (not segment.guides or segment.guides[0].first):
                place = ("segments", number, "guides")
                yield Problem(place, "expected a guide at frame 0, with which the output ttm begins, got none")
    if "tracks" in outputs and good.get("tracks") is not None and good.get("resolution") is not None:
        width, height = good["resolution"]
        yield from good["tracks"].outside(height, width)


def _target(good: _Fields, said: _Fields) -> Iterator[Problem]:
    """Check what the generator takes."""
    name = good.get("target")
    if name is None:
        return
    target = TARGETS[name]
    # what is bad itself counts as fitting
    fps = good.get("fps", target.rates_fps[0])
    lengths = [
        _length_said(said, index) or target.frames if one is None else one.frames
        for index, one in enumerate(good.get("segments", ()))
    ]
    yield from target.problems_with(good.get("resolution"), fps, tuple(lengths))


def _length_said(said: _Fields, index: int) -> int | None:
    """Return the length of a segment of which something else is bad; None where it is bad, too."""
    segment = said["segments"][index]
    frames = whole_number(segment.get("frames")) if isinstance(segment, dict) else None
    return frames if frames is not None and 2 <= frames <= MAX_SEGMENT_FRAMES else None
