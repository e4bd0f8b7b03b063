"""Where the renderer's frames go: straight to the encoders beside it, to overlays, to pictures for the report."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import FrameCacheError, GuidanceError, StorageError, TimelineNotFoundError
from structureflow.flow.colors import display_range, flow_to_rgb
from structureflow.flow.fields import Direction, Field32, FlowMeta, FlowSource
from structureflow.frames.cache import FrameCache
from structureflow.frames.overlays import Overlay, save_overlays
from structureflow.guide.masks import GENERATE
from structureflow.guide.ports import Mask
from structureflow.guide.spans import unguided_ranges
from structureflow.jobs.services import Services
from structureflow.media.background import BackgroundEncoder
from structureflow.media.encode import GUIDE, MASK
from structureflow.media.planes import Planes, frozen, grey_to_planes, mask_to_planes, planes_to_rgb, rgb_to_planes
from structureflow.models.job import ExtraOutput, OverlayStage, Segment, Treatment
from structureflow.models.results import Fallback, JobRecord, OutputObject
from structureflow.models.targets import TARGETS
from structureflow.report.previews import PreviewCollector, thumbnail_size

Image = NDArray[np.uint8]

_OVERLAYS_AT_ONCE = 16
#: Pixels between the arrows of `path_picture`.
PATH_STEP_PX = 24
_MP4 = "video/mp4"


def played_flows(segment: Segment, start: int, stop: int, treatment: Treatment) -> dict[int, int]:
    """Return for each unguided frame the flow that mostly leads to it: frame number to flow number.

    Args:
        start, stop: the segment's window of flows, start inclusive, stop exclusive.
    """
    frames = [index for first, last in unguided_ranges(segment) for index in range(first, last + 1)]
    count = stop - start
    if treatment == "clip":
        return {frame: start + step for step, frame in enumerate(frames) if step < count}
    spread = max(1, len(frames) - 1)
    return {frame: start + round(step * (count - 1) / spread) for step, frame in enumerate(frames) if count}


class TappedFlows:
    """Hands flows through to the renderer and shows those that the report wants, so that nothing is read twice."""

    def __init__(self, flows: FlowSource, previews: PreviewCollector, frames_of_flow: dict[int, list[int]]) -> None:
        self._flows = flows
        self._previews = previews
        self._wanted = frames_of_flow

    @property
    def meta(self) -> FlowMeta:
        """As of the flows behind."""
        return self._flows.meta

    def read(self, direction: Direction, start: int, stop: int) -> Field32:
        """Read flows `start` (inclusive) to `stop` (exclusive); see `FlowSource.read`."""
        chunk = self._flows.read(direction, start, stop)
        # What the next frame was pulled from is, reversed, where the pixels went.
        sign = -1 if direction == "backward" else 1
        for flow in range(start, stop):
            for frame in self._wanted.pop(flow, ()):
                self._previews.flow(frame, np.float32(sign) * chunk[flow - start])
        return chunk


class SegmentFiles:
    """A `MotionSink` that encodes one segment's frames, given as planes, and stores the videos when the segment ends.

    Args:
        record: of the job.
        index: of the segment.
        flows: what the segment is rendered from; render from `self.flows`, which hands them through.
        window: the segment's flows, start inclusive, stop exclusive.
        services: adapters and limits.
        folder: for temporary files; the caller removes it.

    Attributes:
        flows: the flows to render from.
        fallbacks: what could not be shown.
        timings_s: seconds that the guide's encoder worked (`encode`), and that closing and storing took (`store`).
    """

    def __init__(
        self,
        record: JobRecord,
        index: int,
        flows: FlowSource,
        window: tuple[int, int],
        services: Services,
        folder: Path,
    ) -> None:
        request = record.request
        self.fallbacks: tuple[Fallback, ...] = ()
        self.timings_s: dict[str, float] = {}
        self._record = record
        self._index = index
        self._segment = request.segments[index]
        self._services = services
        self._folder = folder
        max_px = display_range(flows.meta)
        # Cover-fitting keeps the aspect ratio: the larger of the two scales is the one that is applied.
        scale = max(record.resolution[0] / flows.meta.width, record.resolution[1] / flows.meta.height)
        self._output_max_px = max_px * scale
        self._files = ExitStack()
        self._encoders: dict[str, BackgroundEncoder] = {}
        width, height = record.resolution
        self._thumbnail = thumbnail_size(height, width)
        self._follows = request.target is not None and TARGETS[request.target].white == "follow"
        self._masks = {
            value: frozen(mask_to_planes(np.full((height, width), self._polarised(value), np.uint8)))
            for value in (0, 255)
        }
        self._scratch = np.empty_like(self._masks[0])
        self._overlays = ThreadPoolExecutor(services.workers, thread_name_prefix="overlays")
        self._pending: list[Future[int]] = []
        self._previews = PreviewCollector(self._segment.frames, unguided_ranges(self._segment), flow_max_px=max_px)
        self._arrows: tuple[int, Field32] | None = None
        self._unguided = {i for first, last in unguided_ranges(self._segment) for i in range(first, last + 1)}
        played = played_flows(self._segment, *window, request.treatment)
        self._shown = {frame: played[frame] for frame in self._previews.wanted if frame in played}
        frames_of_flow: dict[int, list[int]] = {}
        for frame, flow in self._shown.items():
            frames_of_flow.setdefault(flow, []).append(frame)
        self.flows = TappedFlows(flows, self._previews, frames_of_flow)

    def __enter__(self) -> Self:
        outputs: tuple[ExtraOutput, ...] = self._record.request.outputs
        width, height = self._record.resolution
        for name in ("guide", "mask", *outputs):
            encoder = BackgroundEncoder(
                self._folder / f"{name}.mp4",
                height=height,
                width=width,
                fps=self._record.request.fps,
                settings=MASK if name == "mask" else GUIDE,
                threads=1 if name == "mask" else self._services.workers,
            )
            self._encoders[name] = self._files.enter_context(encoder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._overlays.shutdown(wait=True, cancel_futures=kind is not None)
        self._files.__exit__(kind, error, trace)

    @property
    def wants_flow(self) -> bool:
        """Whether the request asks for pictures of the motion applied."""
        return "flow_vis" in self._encoders or "flow" in self._stages

    @property
    def wants_visibility(self) -> bool:
        """Whether the request asks for what is known of each frame."""
        return "visibility" in self._encoders or "visibility" in self._stages

    @property
    def wants_path(self) -> bool:
        """Whether the request asks for pictures of where pixels come from."""
        return "path" in self._stages

    @property
    def _stages(self) -> tuple[OverlayStage, ...]:
        return self._record.request.overlays

    def flow(self, index: int, flow: NDArray[np.float32]) -> None:
        """Take the motion applied at frame `index`: ``(H, W, 2) float32`` output pixels."""
        painted = flow_to_rgb(flow, self._output_max_px)
        if "flow_vis" in self._encoders:
            self._encoders["flow_vis"].write(rgb_to_planes(painted, self._scratch))
        self._overlay("flow", index, painted)

    def visibility(self, index: int, visibility: Image) -> None:
        """Take what is known of frame `index`: ``(H, W) uint8``, 255 seen in an anchor."""
        if "visibility" in self._encoders:
            self._encoders["visibility"].write(grey_to_planes(visibility, self._scratch))
        self._overlay("visibility", index, visibility.copy())

    def path(self, index: int, displacement: Field32) -> None:
        """Take the way of filled frame `index` back to its anchor: ``(H, W, 2) float32`` output pixels."""
        self._arrows = index, displacement[PATH_STEP_PX // 2 :: PATH_STEP_PX, PATH_STEP_PX // 2 :: PATH_STEP_PX].copy()

    def write(self, index: int, guide: Planes, mask: Mask) -> None:
        """Take frame `index`: `Planes`, and its mask, 0 (keep) or 255 (generate) for all of it or for each pixel."""
        self._encoders["guide"].write(guide)
        white = mask if isinstance(mask, int) else round(float(mask.mean()))
        self._encoders["mask"].write(self._masks[mask] if isinstance(mask, int) else self._mask_planes(index, mask))
        if index in self._previews.wanted:
            self._previews.guide(index, planes_to_rgb(guide, *self._thumbnail), white)
        # what nothing reaches is the one grey picture, which never changes
        filled = index in self._unguided and guide.flags.writeable
        generated = white == GENERATE
        if "guidance" in self._stages:
            self._overlay("guidance", index, guidance_picture(planes_to_rgb(guide), generated=generated, filled=filled))
        if "warp" in self._stages and filled:
            self._overlay("warp", index, planes_to_rgb(guide))
        if "path" in self._stages and self._arrows is not None and self._arrows[0] == index:
            self._overlay("path", index, path_picture(planes_to_rgb(guide), self._arrows[1]))

    def _mask_planes(self, index: int, mask: Image) -> Planes:
        # 255 and 0 are the only values that stay below 2 when 1 is added to 8 bits
        if int((mask + np.uint8(1)).max()) > 1:
            raise GuidanceError(f"mask of frame {index}: expected 0 and 255 only, got other values")
        return mask_to_planes(np.asarray(self._polarised(mask), np.uint8), self._scratch)

    def _polarised(self, mask: Any) -> Any:
        """Return a mask as the target reads it: there are generators where white is what follows the guide."""
        return 255 - mask if self._follows else mask

    def finish(self) -> dict[str, OutputObject]:
        """Close the videos and store them, with the report's pictures; wait for the overlays.

        Returns:
            What was stored, by name of the output.

        Raises:
            EncodeError: a video could not be encoded.
        """
        begin = time.perf_counter()
        for encoder in self._encoders.values():
            encoder.finish()
        outputs = {name: self._store(encoder.path) for name, encoder in self._encoders.items()}
        self._show_structure()
        self._services.storage.put(
            self._key("preview.json"),
            self._previews.to_json(),
            content_type="application/json",
        )
        for pending in self._pending:
            pending.result()
        self._pending.clear()
        self.timings_s = {"encode": self._encoders["guide"].busy_s, "store": time.perf_counter() - begin}
        return outputs

    def _key(self, name: str) -> str:
        return keys.run_segment_file(self._record.task_id, self._record.run_id, self._index, name)

    def _store(self, path: Path) -> OutputObject:
        info = self._services.storage.put_file(self._key(path.name), path, content_type=_MP4)
        return OutputObject(key=info.key, size_bytes=info.size_bytes, etag=info.etag)

    def _overlay(self, stage: OverlayStage, index: int, image: Image) -> None:
        """Store a picture in the background; `image` must not change any more."""
        if stage not in self._stages:
            return
        while len(self._pending) >= _OVERLAYS_AT_ONCE:
            self._pending.pop(0).result()
        overlay = Overlay(index, f"segment{self._index:03d}", image)
        self._pending.append(
            self._overlays.submit(
                save_overlays,
                self._services.storage,
                self._record.timeline_id,
                self._record.task_id,
                stage,
                [overlay],
            )
        )

    def _show_structure(self) -> None:
        """Give the report the frames that drive the shown ones, where the frame cache has them."""
        # A flow leads to the frame after it.
        driving = {frame: flow + 1 for frame, flow in self._shown.items()}
        try:
            found = self._load_structure(sorted({*driving.values()}))
        except TimelineNotFoundError:
            return
        except (FrameCacheError, StorageError) as error:
            # The segment is rendered; it must not fail for pictures of a page.
            self.fallbacks += (Fallback(stage="report", wanted="frames", used="none", reason=str(error)),)
            return
        for frame, sequence in driving.items():
            self._previews.structure(frame, found[sequence])

    def _load_structure(self, sequences: list[int]) -> dict[int, Image]:
        cache, timeline_id = FrameCache(self._services.storage), self._record.timeline_id
        if not sequences:
            return {}
        manifest = cache.manifest(timeline_id)
        if manifest.source_identity != self._record.source.identity:
            raise FrameCacheError(f"timeline {timeline_id}: its frames are of another video")
        loaded = cache.iter_cached_frames(timeline_id, sequences, manifest=manifest)
        return {frame.sequence: frame.image for frame in loaded}


def guidance_picture(picture: Image, *, generated: bool, filled: bool) -> Image:
    """Frame a picture in the colour of its state: green given, blue filled by motion, red generated.

    Args:
        picture: ``(H, W, 3) uint8 RGB``; changed, and returned.
        generated: whether the generator makes it, whole.
        filled: whether motion filled it.
    """
    colour = (208, 56, 56) if generated else (64, 112, 224) if filled else (48, 168, 88)
    height, width = picture.shape[:2]
    thickness = max(2, min(height, width) // 40)
    cv2.rectangle(picture, (0, 0), (width - 1, height - 1), colour, 2 * thickness)
    return picture


def path_picture(picture: Image, ways: Field32) -> Image:
    """Draw into a picture where its pixels come from: an arrow from the place in the anchor to the place here.

    Args:
        picture: ``(H, W, 3) uint8 RGB``; changed, and returned.
        ways: ``(h, w, 2)`` float32, the way back to the anchor of every `PATH_STEP_PX`-th pixel, the first one half
            a step from the corner.
    """
    half = PATH_STEP_PX // 2
    limit = np.float32(2 * max(picture.shape))
    for (row, column), (dx, dy) in zip(
        np.ndindex(*ways.shape[:2]), ways.reshape(-1, 2).clip(-limit, limit), strict=True
    ):
        here = half + column * PATH_STEP_PX, half + row * PATH_STEP_PX
        there = round(here[0] + float(dx)), round(here[1] + float(dy))
        cv2.arrowedLine(picture, there, here, (255, 220, 64), 1, cv2.LINE_AA, tipLength=0.2)
    return picture
