"""From a video to its flow archive: one decode, pairs in parallel, memory independent of the length.

Three kinds of thread share the work. The caller's decodes, shrinks frames and writes finished blocks in order;
`workers` threads compute, quantise and compress pairs; one more hands full frames to `on_frame`, in order,
behind a short queue, so that a frame cache encodes and uploads while flow is computed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowError
from structureflow.flow.archive import (
    FORMAT_VERSION,
    FlowArchiveWriter,
    FlowBlock,
    compress_flow,
    quantise,
)
from structureflow.flow.colors import clip_normaliser, typical_length
from structureflow.flow.cuts import discontinuity, find_cuts
from structureflow.flow.engines import (
    DEFAULT_ENGINES,
    EngineRegistry,
    Flow,
    FlowEngine,
    build_engine,
    working_size,
)
from structureflow.flow.fields import FlowMeta
from structureflow.flow.sources import ArrayFlows
from structureflow.media.limits import DecodeLimits

if TYPE_CHECKING:
    from structureflow.media.decode import DecodedFrame, VideoInfo

_QUEUED_FRAMES: Final = 4
#: Of queued frames together; of the largest ones, of 8192x8192 pixels, one waits.
_QUEUED_BYTES: Final = 256 * 2**20
Item = TypeVar("Item")
Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """How flows shall be computed; with the video's identity it determines them.

    Attributes:
        engine: ``dis``, ``farneback`` or ``raft``.
        params: the engine's parameters, library versions included where the engine runs here.
        height, width: the working size in pixels, at which flows are stored.
    """

    engine: str
    params: Mapping[str, Any]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ExtractionResult:
    """What an extraction found and did.

    Attributes:
        meta: of the archive.
        info: the video as it was decoded: counted frames, `fps` as the container names it, or by the
            timestamps where it names none.
        timings_s: wall-clock seconds by part: `total`, `decode` and `prepare` (of the calling thread),
            `pack` and `cuts` (summed over worker threads), `on_frame` (of its own thread).
    """

    meta: FlowMeta
    info: VideoInfo
    timings_s: dict[str, float]


def plan_extraction(
    info: VideoInfo, engine: str, quality: str, *, engines: EngineRegistry = DEFAULT_ENGINES
) -> ExtractionPlan:
    """Decide parameters and working size for a video of that size.

    Raises:
        EngineUnavailableError: no such engine or quality.
    """
    return plan_for_size(info.height_px, info.width_px, engine, quality, engines=engines)


def plan_for_size(
    height: int, width: int, engine: str, quality: str, *, engines: EngineRegistry = DEFAULT_ENGINES
) -> ExtractionPlan:
    """Decide as `plan_extraction` for frames of `height` x `width` pixels."""
    preset = engines.preset(engine, quality)
    return ExtractionPlan(preset.name, dict(preset.params), *working_size(height, width, preset.area_px))


def extract_to_archive(
    video: Path,
    target: Path,
    plan: ExtractionPlan,
    *,
    source_video: str,
    source_identity: str,
    limits: DecodeLimits,
    workers: int,
    on_frame: Callable[[DecodedFrame], None] | None = None,
    engine: FlowEngine | None = None,
) -> ExtractionResult:
    """Decode `video` once, compute its flows in both directions, and write the archive `target`.

    Args:
        video: a local file.
        target: where the archive shall be; it appears there complete, or not at all.
        plan: from `plan_extraction`.
        source_video, source_identity: recorded in the archive.
        limits: bounds of what is decoded.
        workers: CPU threads for flow; on Lambda the vCPUs that its memory pays for.
        on_frame: called once per frame, in order, in one thread of its own, and may be slow; the frame is its
            to keep. What it raises ends the extraction.
        engine: runs the plan in place of the registered engine, as RAFT must, which this layer has not.

    Raises:
        NotAVideoError, VideoTooShortError, MediaLimitError, CorruptMediaError: as `VideoReader`.
        EngineUnavailableError: the plan's engine cannot run here.
        FlowError: the engine's flows are unusable.
    """
    # only where it is needed: flows of frames in memory need no decoder of videos
    from structureflow.media.decode import VideoReader

    started = time.perf_counter()
    chosen = engine or build_engine(plan.engine, plan.params)
    clock = Clock()
    measured = Measured()
    with VideoReader(video, limits, threads=max(1, workers)) as reader, Handover(on_frame, clock) as handover:
        promised = reader.info

        def seen() -> Iterator[DecodedFrame]:
            for frame in clock.over(reader, "decode"):
                handover.put(frame)
                yield frame

        with FlowArchiveWriter(target, height=plan.height, width=plan.width) as writer:
            for forward, backward in measure(seen(), plan, chosen, measured, clock, workers=workers):
                writer.feed_blocks(forward, backward)
            handover.finish()
            info = counted(promised, measured.times_s)
            meta = writer.finish(
                **described_by(measured, info, plan, chosen),
                source_video=source_video,
                source_identity=source_identity,
            )
    return ExtractionResult(meta, info, {"total": time.perf_counter() - started, **clock.seconds})


def extract_from_frames(
    frames: Iterable[NDArray[np.uint8]],
    plan: ExtractionPlan,
    *,
    original_fps: float,
    timestamps_s: NDArray[np.float64] | None = None,
    source_video: str = "",
    source_identity: str = "",
    workers: int = 1,
    engine: FlowEngine | None = None,
) -> ArrayFlows:
    """Compute the flows of exactly these frames, in memory: the fall-back where no archive can be read.

    Args:
        frames: at least two, each ``(H, W, 3) uint8 RGB``, of one size; read as they are needed.
        plan, workers, engine: as `extract_to_archive`.
        original_fps, source_video, source_identity: recorded in the metadata.
        timestamps_s: time of each frame; default by `original_fps`.

    Raises:
        FlowError: fewer than two frames, of different sizes, or unusable flows.
        EngineUnavailableError: the plan's engine cannot run here.
    """
    chosen = engine or build_engine(plan.engine, plan.params)
    size: tuple[int, int] | None = None

    def prepared() -> Iterator[NDArray[np.uint8]]:
        nonlocal size
        for image in frames:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise FlowError(f"frame: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
            if size not in (None, image.shape[:2]):
                raise FlowError(f"frames: expected the same size, got {size} and {image.shape[:2]}")
            size = (image.shape[0], image.shape[1])
            yield prepare_frame(image, plan.height, plan.width, chosen.colour)

    def pack(first: Frame, second: Frame, forward: Flow, backward: Flow) -> tuple[Flow, Flow, float]:
        return quantise(forward), quantise(backward), discontinuity(first, second, forward, backward)

    results = list(chosen.run(prepared(), pack, workers=workers))
    if not results or size is None:
        raise FlowError("frames: expected at least two, to have motion")
    fps = original_fps if original_fps > 0 else 16.0
    times = np.arange(len(results) + 1) / fps if timestamps_s is None else np.asarray(timestamps_s, np.float64)
    if times.shape != (len(results) + 1,):
        raise FlowError(f"timestamps_s: expected {len(results) + 1}, got {times.shape}")
    meta = FlowMeta(
        total_flows=len(results),
        height=plan.height,
        width=plan.width,
        original_height=size[0],
        original_width=size[1],
        original_fps=original_fps,
        has_backward=True,
        engine=chosen.name,
        engine_params=dict(plan.params) | chosen.params(),
        timestamps_s=times,
        scene_cuts=find_cuts([seam for _, _, seam in results]),
        source_video=source_video,
        source_identity=source_identity,
        format_version=FORMAT_VERSION,
    )
    forward, backward, _ = zip(*results, strict=True)
    return ArrayFlows(meta, np.stack(forward), np.stack(backward))


def prepare_frame(image: NDArray[np.uint8], height: int, width: int, colour: str) -> NDArray[np.uint8]:
    """Bring a frame to the working size, as an engine wants it.

    Args:
        image: ``(H, W, 3) uint8 RGB``; not changed.
        colour: ``gray`` or ``rgb``.

    Returns:
        ``(height, width) uint8`` gray (BT.601 luma) or ``(height, width, 3) uint8 RGB``.
    """
    frame = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if colour == "gray" else image
    if frame.shape[:2] != (height, width):
        # Averaging areas keeps detail finer than the grid from turning into false motion.
        shrinks = height <= frame.shape[0] and width <= frame.shape[1]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return cast("NDArray[np.uint8]", frame)


# --- machinery ---------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What is found out beside the flows, in the order of frames.

    Attributes:
        times_s: of each frame.
        seams: `discontinuity` of each pair.
        lengths: `typical_length` of each pair's forward flow.
    """

    times_s: array[float] = field(default_factory=lambda: array("d"))
    seams: array[float] = field(default_factory=lambda: array("d"))
    lengths: array[float] = field(default_factory=lambda: array("d"))


def measure(
    frames: Iterable[DecodedFrame],
    plan: ExtractionPlan,
    engine: FlowEngine,
    measured: Measured,
    clock: Clock,
    *,
    workers: int,
) -> Iterator[tuple[FlowBlock, FlowBlock]]:
    """Yield the blocks of each pair of neighbouring frames, forward and backward, and note the rest in `measured`."""

    def prepared() -> Iterator[NDArray[np.uint8]]:
        for frame in frames:
            measured.times_s.append(frame.timestamp_s)
            with clock.part("prepare"):
                small = prepare_frame(frame.image, plan.height, plan.width, engine.colour)
            yield small

    def pack(first: Frame, second: Frame, forward: Flow, backward: Flow) -> tuple[FlowBlock, FlowBlock, float, float]:
        with clock.part("pack"):
            blocks = compress_flow(quantise(forward)), compress_flow(quantise(backward))
        with clock.part("cuts"):
            return *blocks, discontinuity(first, second, forward, backward), typical_length(forward)

    for forward, backward, seam, length in engine.run(prepared(), pack, workers=workers):
        measured.seams.append(seam)
        measured.lengths.append(length)
        yield forward, backward


def described_by(measured: Measured, info: VideoInfo, plan: ExtractionPlan, engine: FlowEngine) -> dict[str, Any]:
    """Return what an archive says of the flows of a whole video, as arguments of `FlowArchiveWriter.finish`."""
    return {
        "original_height": info.height_px,
        "original_width": info.width_px,
        "original_fps": info.fps,
        "engine": engine.name,
        "engine_params": dict(plan.params) | engine.params(),
        "timestamps_s": np.array(measured.times_s, np.float64),
        "scene_cuts": find_cuts(measured.seams),
        "display_max_px": clip_normaliser(measured.lengths),
    }


class Clock:
    """Sums seconds by part, over any number of threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def over(self, items: Iterable[Item], name: str) -> Iterator[Item]:
        """Yield `items`, counting the time that they take to come."""
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


class Handover:
    """Calls a function once per frame, in order, in a thread of its own, behind a short queue."""

    def __init__(self, callback: Callable[[DecodedFrame], None] | None, clock: Clock) -> None:
        self._callback = callback
        self._clock = clock
        self._stopped = False
        self._pending: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="on-frame")

    def __enter__(self) -> Handover:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)

    def put(self, frame: DecodedFrame) -> None:
        """Queue a frame; waits while the queue is full, raises what the function raised."""
        if self._callback is None:
            return
        most = max(1, min(_QUEUED_FRAMES, _QUEUED_BYTES // frame.image.nbytes))
        while len(self._pending) >= most or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._call, self._callback, frame))

    def finish(self) -> None:
        """Wait until all frames are handed over; raises what the function raised."""
        while self._pending:
            self._pending.popleft().result()

    def _call(self, callback: Callable[[DecodedFrame], None], frame: DecodedFrame) -> None:
        if not self._stopped:
            self._stopped = True  # and stays so if the function raises: no frame is left out
            with self._clock.part("on_frame"):
                callback(frame)
            self._stopped = False


def counted(promised: VideoInfo, times: array[float]) -> VideoInfo:
    """Return the video as it was decoded."""
    span = times[-1] - times[0]
    fps = promised.fps or ((len(times) - 1) / span if span > 0 else 0.0)
    duration_s = len(times) / fps if fps else 0.0
    return replace(promised, frames=len(times), fps=fps, duration_s=duration_s)
