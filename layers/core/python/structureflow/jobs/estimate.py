"""How long work will take, from its size and the measured speed of its parts."""

from __future__ import annotations

from typing import Final

from structureflow.limits import DECODE_MS_PER_MPX, JPEG_MS_PER_MPX, TIME_RESERVE
from structureflow.media.decode import VideoInfo

#: Milliseconds of one core for the flows of a pair, both directions, compressed, by engine and quality. Measured on
#: 2026-11-25 with 24 frames of 1280x720, one worker, in processor time of an x86-64 core.
FLOW_MS_PER_PAIR: Final = {
    ("dis", "fast"): 27.0,
    ("dis", "balanced"): 66.0,
    ("dis", "best"): 223.0,
    ("farneback", "fast"): 29.0,
    ("farneback", "balanced"): 71.0,
    ("farneback", "best"): 139.0,
}


def extraction_s(info: VideoInfo, engine: str, quality: str, *, workers: int) -> float:
    """Return about how many seconds the extraction of a video takes in a function, on the safe side.

    Decoding is one thread's; flows and JPEGs are shared by `workers`, on as many vCPUs in all.
    """
    return info.frames * frame_s(info, engine, quality, workers=workers)


def frame_s(info: VideoInfo, engine: str, quality: str, *, workers: int) -> float:
    """Return about how many seconds one frame takes."""
    megapixels = info.width_px * info.height_px / 1e6
    decode_ms = DECODE_MS_PER_MPX * megapixels
    shared_ms = decode_ms + JPEG_MS_PER_MPX * megapixels + FLOW_MS_PER_PAIR[engine, quality]
    return max(decode_ms, shared_ms / workers) * TIME_RESERVE / 1000
