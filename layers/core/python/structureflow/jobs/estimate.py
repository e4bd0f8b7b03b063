"""How long work will take, from its size and the measured speed of its parts."""

from __future__ import annotations

from typing import Final

from structureflow.limits import DECODE_MS_PER_MPX, JPEG_MS_PER_MPX, TIME_RESERVE
from structureflow.media.decode import VideoInfo
from structureflow.models.job import JobRequest, Segment
from structureflow.models.outputs import ExtraOutput

__all__ = ["segment_mb"]

#: Milliseconds of one core for the flows of a pair, both directions, compressed, by engine and quality. Measured on
#: 2026-11-26 with 24 frames of 1280x720, one worker, in processor time of an x86-64 core, which took 6.3, 10.0, 27 and
#: 18, 41, 85: the numbers are those of a core that is slower by 1.65, as others were found to be.
FLOW_MS_PER_PAIR: Final = {
    ("dis", "fast"): 10.5,
    ("dis", "balanced"): 16.5,
    ("dis", "best"): 45.0,
    ("farneback", "fast"): 29.0,
    ("farneback", "balanced"): 71.0,
    ("farneback", "best"): 139.0,
}
#: Milliseconds of one core for a frame of a segment, per million pixels of the output: to encode guide and mask, to
#: carry one anchor, and for each further output. Measured on 2026-11-26 with 17 and 33 frames of 1280x720 in processor
#: time of an x86-64 core, from which the next table comes too.
ENCODE_MS_PER_MPX: Final = 15.0
CARRY_MS_PER_MPX: Final = 35.0
EXTRA_MS_PER_MPX: Final[dict[ExtraOutput, float]] = {
    "flow_vis": 190.0,
    "visibility": 10.0,
    "vace_flow": 80.0,
    "canny": 45.0,
    "raw": 25.0,
    "tracks": 20.0,
    "warped_noise": 300.0,
    "ttm": 70.0,
}
#: Milliseconds of one core for anchoring one frame in one anchor; its grid does not grow with the output.
ANCHOR_MS: Final = {"fast": 16.0, "balanced": 42.0, "best": 150.0}
#: Milliseconds of one core for following one point to one frame, where many are lost. Measured on 2026-11-26 with 240
#: points of drawn scenes.
TRACK_MS_PER_POINT: Final = 0.25
#: Megabytes of a process with its libraries and working grids; per million pixels of a video to extract, with two
#: threads that decode; and per million pixels of a segment's output: for one anchor or two, for each further output
#: (its encoder holds frames to look ahead), and for overlays that wait to be stored. Measured on 2026-11-26 as the peak
#: of processes with outputs of 1280x720, 1920x1080 and 4096x2304, and a video of 8192x4608.
EXTRACTION_BASE_MB: Final = 250.0
EXTRACTION_MB_PER_MPX: Final = 40.0
SEGMENT_BASE_MB: Final = 450.0
#: For each further output, whatever its size: an encoder's threads and tables.
EXTRA_BASE_MB: Final = 12.0
#: For ways back to the segment's first frame, on a grid that does not grow with the output.
OWN_WAYS_MB: Final = 60.0
SEGMENT_MB_PER_MPX: Final = {"start": 70.0, "both": 125.0}
EXTRA_MB_PER_MPX: Final[dict[ExtraOutput, float]] = {
    "flow_vis": 180.0,
    "visibility": 120.0,
    "vace_flow": 125.0,
    "canny": 50.0,
    "raw": 45.0,
    "tracks": 115.0,
    "warped_noise": 235.0,
    "ttm": 125.0,
}
OVERLAYS_MB_PER_MPX: Final = 225.0


def extraction_s(info: VideoInfo, engine: str, quality: str, *, processors: float) -> float:
    """Return about how many seconds the extraction of a video takes in a function, on the safe side.

    Decoding is one thread's; flows and JPEGs are shared by so many `processors`, 1.7 of a function of 3,008 MB.
    """
    return info.frames * frame_s(info, engine, quality, processors=processors)


def frame_s(info: VideoInfo, engine: str, quality: str, *, processors: float) -> float:
    """Return about how many seconds one frame takes."""
    megapixels = info.width_px * info.height_px / 1e6
    decode_ms = DECODE_MS_PER_MPX * megapixels
    shared_ms = decode_ms + JPEG_MS_PER_MPX * megapixels + FLOW_MS_PER_PAIR[engine, quality]
    return max(decode_ms / min(1.0, processors), shared_ms / processors) * TIME_RESERVE / 1000


def segment_s(request: JobRequest, segment: Segment, width: int, height: int, *, processors: float) -> float:
    """Return about how many seconds a segment takes in a function, on the safe side; its flows are there already.

    Args:
        request: of the job.
        segment: one of its segments.
        width, height: of the output, in pixels.
        processors: that its threads have in all.
    """
    megapixels = width * height / 1e6
    anchors = 2 if request.anchors == "both" else 1
    matching_ms = ANCHOR_MS[request.quality] if request.tracking == "anchored" else 0.0
    every_ms = (ENCODE_MS_PER_MPX + sum(EXTRA_MS_PER_MPX[name] for name in request.outputs)) * megapixels
    unguided_ms = anchors * (CARRY_MS_PER_MPX * megapixels + matching_ms)
    if {"tracks", "warped_noise"} & set(request.outputs):
        # a way of their own, back to the segment's first frame
        unguided_ms += matching_ms
    if "tracks" in request.outputs:
        unguided_ms += TRACK_MS_PER_POINT * request.tracks.count
    total_ms = segment.frames * every_ms + segment.unguided * unguided_ms
    return total_ms / processors * TIME_RESERVE / 1000


def extraction_mb(info: VideoInfo) -> float:
    """Return about how many megabytes a process takes that extracts a video or caches its frames, on the safe side."""
    return EXTRACTION_BASE_MB + EXTRACTION_MB_PER_MPX * info.width_px * info.height_px / 1e6


def segment_mb(request: JobRequest, width: int, height: int) -> float:
    """Return about how many megabytes a process takes that renders a segment, on the safe side.

    Args:
        request: of the job.
        width, height: of the output, in pixels.
    """
    per_mpx = SEGMENT_MB_PER_MPX[request.anchors] + sum(EXTRA_MB_PER_MPX[name] for name in request.outputs)
    if {"tracks", "warped_noise"} <= set(request.outputs):
        # the way back to the segment's first frame is held once
        per_mpx -= EXTRA_MB_PER_MPX["tracks"]
    if request.overlays:
        per_mpx += OVERLAYS_MB_PER_MPX
    ways_mb = OWN_WAYS_MB if {"tracks", "warped_noise"} & set(request.outputs) else 0.0
    return SEGMENT_BASE_MB + EXTRA_BASE_MB * len(request.outputs) + ways_mb + per_mpx * width * height / 1e6
