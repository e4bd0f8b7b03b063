"""Both ways to extract, write and read flows: the original design done literally, and ours; and clips to do it on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.flow.archive import (
    FileReader,
    FlowArchiveWriter,
    compress_flow,
    open_flow_archive,
    open_flow_file,
    quantise,
)
from structureflow.flow.extract import (
    ExtractionPlan,
    extract_to_archive,
    plan_extraction,
)
from structureflow.media.decode import DecodeLimits, VideoReader
from structureflow.storage.base import ByteRange, StoredObject, Suffix

FRAMES = 100
SEGMENT = slice(20, 63)
WORKERS = 2
JPEG_QUALITY = 85


# --- the original design -----------------------------------------------------------------------------


def original_extract(video: Path) -> list[NDArray[np.float32]]:
    """Compute forward flow at native size, all in memory, on OpenCV's own threads."""
    cv2.setNumThreads(WORKERS)
    frames = decode(video, 10**9)
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return [dis.calc(first, second, None) for first, second in itertools.pairwise(grays)]


def original_write(path: Path, flows: list[NDArray[np.float32]]) -> None:
    """Write the archive as the original did."""
    np.savez_compressed(
        path,
        flows=np.stack(flows),
        source_video="video.mp4",
        total_flows=len(flows),
        original_fps=25.0,
        original_resolution=(flows[0].shape[1], flows[0].shape[0]),
    )


def original_read(path: Path, download: Path) -> list[NDArray[np.float32]]:
    """Download the whole archive and take a segment's flows out of it."""
    download.write_bytes(path.read_bytes())
    with np.load(download) as archive:
        flows = list(archive["flows"])
    return flows[SEGMENT]


# --- ours --------------------------------------------------------------------------------------------


def our_plan(video: Path, quality: str = "balanced") -> ExtractionPlan:
    """Return the plan for a video at the default engine."""
    with VideoReader(video) as reader:
        return plan_extraction(reader.info, "dis", quality)


def our_extract(video: Path, target: Path, *, workers: int = WORKERS, on_frame: Any = None) -> None:
    """Extract, quantise, compress and write both directions."""
    extract_to_archive(
        video,
        target,
        our_plan(video),
        source_video="video.mp4",
        source_identity="",
        limits=DecodeLimits(),
        workers=workers,
        on_frame=on_frame,
    )


def our_write(path: Path, forward: NDArray[np.float32], backward: NDArray[np.float32]) -> None:
    """Quantise, compress and write flows that are there, on as many threads as extraction has."""

    def pack(flow: NDArray[np.float32]) -> Any:
        return compress_flow(quantise(flow))

    _, height, width, _ = forward.shape
    with (
        FlowArchiveWriter(path, height=height, width=width) as writer,
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        for one, two in zip(pool.map(pack, forward), pool.map(pack, backward), strict=True):
            writer.feed_blocks(one, two)
        writer.finish(
            original_height=720,
            original_width=1280,
            original_fps=25.0,
            engine="dis",
            engine_params={},
            timestamps_s=np.arange(len(forward) + 1) / 25,
        )


class _Counter(FileReader):
    """Counts the bytes that leave the store."""

    def __init__(self) -> None:
        self.sent = 0

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        stored = super().get(key, byte_range=byte_range, if_match=if_match)
        self.sent += len(stored.data)
        return stored


def our_read(path: Path) -> int:
    """Read a segment's flows of one direction; returns the bytes that were fetched."""
    counter = _Counter()
    archive = open_flow_archive(counter, str(path), workers=WORKERS)
    stop = min(SEGMENT.stop, archive.meta.total_flows)
    archive.read("backward", SEGMENT.start, stop)
    return counter.sent


# --- clips and errors --------------------------------------------------------------------------------


def decode(video: Path, count: int) -> list[NDArray[np.uint8]]:
    """Return the first `count` frames of a video."""
    images = []
    with VideoReader(video) as reader:
        for frame in reader:
            images.append(frame.image)
            if len(images) == count:
                break
    return images


def write_clip(path: Path, frames: list[NDArray[np.uint8]], count: int) -> Path:
    """Encode `count` frames as H.264, running to and fro through `frames` if they are fewer."""
    import av

    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "16", "preset": "veryfast"}
        for image in _to_and_fro(frames, count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _to_and_fro(frames: list[NDArray[np.uint8]], count: int) -> Iterator[NDArray[np.uint8]]:
    period = 2 * (len(frames) - 1)
    for number in range(count):
        position = number % period
        yield frames[min(position, period - position)]


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode a frame as the frame cache does."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].data)


def read_whole(path: Path, direction: Any) -> NDArray[np.float32]:
    """Read one direction of an archive."""
    archive = open_flow_file(path)
    # The quantised flows stand in for the engine's: rounding and packing cost the same.
    return archive.read(direction, 0, archive.meta.total_flows).astype(np.float32)


def squared_error(first: NDArray[np.uint8], second: NDArray[np.uint8], backward: NDArray[np.float32]) -> float:
    """Return the mean squared error of the first frame, pulled by `backward`, against the second."""
    height, width = first.shape[:2]
    scale = np.array([width / backward.shape[1], height / backward.shape[0]], np.float32)
    flow = cv2.resize(backward, (width, height), interpolation=cv2.INTER_LINEAR) * scale
    grid = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    nothing: Any = None
    pulled = cv2.remap(first, grid + flow, nothing, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(((pulled.astype(np.float32) - second) ** 2).mean())


def psnr(squared_error: float) -> float:
    """Return the PSNR of a mean squared error, in dB."""
    return float(10 * np.log10(255**2 / squared_error))
