"""How long work will take, from its size and the measured speed of its parts; the figures stand in `limits`."""

from __future__ import annotations

from structureflow.limits import DECODE_MS_PER_MPX, FLOW_MS_PER_PAIR, JPEG_MS_PER_MPX, TIME_RESERVE
from structureflow.media.decode import VideoInfo


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
