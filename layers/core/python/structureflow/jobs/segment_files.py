"""Where the renderer's frames go: to the encoders beside it, to outputs, overlays and the report's pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from structureflow import keys
from structureflow.errors import GuidanceError
from structureflow.flow.colors import display_range, flow_to_rgb
from structureflow.flow.fields import Field32, FlowSource
from structureflow.guide.masks import GENERATE
from structureflow.guide.plan import Plan
from structureflow.guide.ports import Mask
from structureflow.guide.spans import unguided_ranges
from structureflow.guide.travel import Move
from structureflow.jobs.segment_overlays import PATH_STEP_PX, SegmentOverlays, guidance_picture, path_picture
from structureflow.jobs.segment_previews import driving_flows, show_structure, standing_frames, tapped
from structureflow.jobs.services import Services
from structureflow.media.background import BackgroundEncoder
from structureflow.media.encode import GUIDE, MASK
from structureflow.media.planes import Planes, frozen, grey_to_planes, mask_to_planes, planes_to_rgb, rgb_to_planes
from structureflow.models.results import Fallback, JobRecord, OutputObject
from structureflow.models.targets import TARGETS
from structureflow.report.previews import PreviewCollector, thumbnail_size
from structureflow.targets.build import build_outputs
from structureflow.targets.control import ControlVideo
from structureflow.targets.output import Clip, Made, SegmentOutput

Image = NDArray[np.uint8]

#: What the videos of every segment are for, and what their values say.
_MEANINGS: Final = {
    "guide": ("VACE src_video and other control inputs", "RGB; mid-grey (128) where nothing is known"),
    "mask": ("VACE src_mask", "white (255): generate, black (0): keep"),
    "flow_vis": ("people", "RGB, Middlebury colours of the motion into each frame, one normaliser for the clip"),
    "visibility": ("people", "255: seen in an anchor or guided, 0: made up, or left to the generator"),
}


class SegmentFiles:
    """A `MotionSink` that encodes one segment's frames, given as planes, and stores the files when the segment ends.

    Args:
        record: of the job.
        index: of the segment.
        flows: what the segment is rendered from; render from `self.flows`, which hands them through.
        plan: what its frames play.
        services: adapters and limits.
        folder: for temporary files; the caller removes it.
        advance: called with how many frames are written, after each.

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
        plan: Plan,
        services: Services,
        folder: Path,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        request = record.request
        self._advance = advance
        self.fallbacks: tuple[Fallback, ...] = ()
        self.timings_s: dict[str, float] = {}
        self._record = record
        self._index = index
        self._segment = request.segments[index]
        self._services = services
        max_px = display_range(flows.meta)
        # Cover-fitting keeps the aspect ratio: the larger of the two scales is the one that is applied.
        scale = max(record.resolution[0] / flows.meta.width, record.resolution[1] / flows.meta.height)
        self._output_max_px = max_px * scale
        self._files = ExitStack()
        self._encoders: dict[str, BackgroundEncoder] = {}
        width, height = record.resolution
        self._clip = Clip(self._segment.frames, height, width, request.fps, folder, services.workers)
        self._outputs: list[SegmentOutput] = build_outputs(request, index, self._clip, flows.meta)
        self._thumbnail = thumbnail_size(height, width)
        self._follows = request.target is not None and TARGETS[request.target].white == "follow"
        self._masks = {
            value: frozen(mask_to_planes(np.full((height, width), self._polarised(value), np.uint8)))
            for value in (0, 255)
        }
        self._scratch = np.empty_like(self._masks[0])
        self._overlays = SegmentOverlays(record, index, services)
        self._previews = PreviewCollector(self._segment.frames, unguided_ranges(self._segment), flow_max_px=max_px)
        self._arrows: tuple[int, Field32] | None = None
        self._unguided = {i for first, last in unguided_ranges(self._segment) for i in range(first, last + 1)}
        looked_at = [index for index in self._previews.wanted if index in self._unguided]
        self._standing = standing_frames(looked_at, plan)
        self.flows = tapped(flows, self._previews, driving_flows(looked_at, plan))

    def __enter__(self) -> Self:
        for name in ("guide", "mask", *self._drawn):
            encoder = BackgroundEncoder(
                self._clip.file(f"{name}.mp4"),
                height=self._clip.height,
                width=self._clip.width,
                fps=self._clip.fps,
                settings=MASK if name == "mask" else GUIDE,
                threads=1 if name == "mask" else self._services.workers,
            )
            self._encoders[name] = self._files.enter_context(encoder)
        for output in self._outputs:
            self._files.enter_context(output)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._overlays.close(cancel=kind is not None)
        self._files.__exit__(kind, error, trace)

    @property
    def controls(self) -> list[ControlVideo]:
        """Outputs that show the structure video's own frames; they are given them by `control_pass`."""
        return [output for output in self._outputs if isinstance(output, ControlVideo)]

    @property
    def wants_flow(self) -> bool:
        """Whether the request asks for pictures of the motion applied."""
        return "flow_vis" in self._drawn or "flow" in self._overlays.stages

    @property
    def wants_visibility(self) -> bool:
        """Whether the request asks for what is known of each frame."""
        asked = "visibility" in self._drawn or "visibility" in self._overlays.stages
        return asked or any(output.wants_visibility for output in self._outputs)

    @property
    def wants_path(self) -> bool:
        """Whether the request asks for pictures of where pixels come from."""
        return "path" in self._overlays.stages

    @property
    def wants_steps(self) -> bool:
        """Whether an output is made of the motion itself."""
        return any(output.wants_steps for output in self._outputs)

    @property
    def wants_ways(self) -> bool:
        """Whether an output is made of the ways back to the segment's first frame."""
        return any(output.wants_ways for output in self._outputs)

    @property
    def wants_whole(self) -> bool:
        """Whether an output is made of filled frames as they are before holes are painted over."""
        return any(output.wants_whole for output in self._outputs)

    @property
    def _drawn(self) -> tuple[str, ...]:
        return tuple(name for name in self._record.request.outputs if name in ("flow_vis", "visibility"))

    def flow(self, index: int, flow: NDArray[np.float32]) -> None:
        """Take the motion applied at frame `index`: ``(H, W, 2) float32`` output pixels."""
        painted = flow_to_rgb(flow, self._output_max_px)
        if "flow_vis" in self._encoders:
            self._encoders["flow_vis"].write(rgb_to_planes(painted, self._scratch))
        self._overlays.add("flow", index, painted)

    def visibility(self, index: int, visibility: Image) -> None:
        """Take what is known of frame `index`: ``(H, W) uint8``, 255 seen in an anchor."""
        if "visibility" in self._encoders:
            self._encoders["visibility"].write(grey_to_planes(visibility, self._scratch))
        for output in self._outputs:
            output.visibility(index, visibility)
        if "visibility" in self._overlays.stages:
            self._overlays.add("visibility", index, visibility.copy())

    def whole(self, index: int, picture: Planes) -> None:
        """Take a filled frame before holes are painted over; see `WholeSink.whole`."""
        for output in self._outputs:
            output.whole(index, picture)

    def path(self, index: int, displacement: Field32) -> None:
        """Take the way of filled frame `index` back to its anchor: ``(H, W, 2) float32`` output pixels."""
        self._arrows = index, displacement[PATH_STEP_PX // 2 :: PATH_STEP_PX, PATH_STEP_PX // 2 :: PATH_STEP_PX].copy()

    def move(self, index: int, move: Move | None) -> None:
        """Take the motion that leads to frame `index`; see `TravelSink.move`."""
        for output in self._outputs:
            output.move(index, move)

    def write(self, index: int, guide: Planes, mask: Mask) -> None:
        """Take frame `index`: `Planes`, and its mask, 0 (keep) or 255 (generate) for all of it or for each pixel."""
        self._services.deadline.check("rendering")
        self._encoders["guide"].write(guide)
        white = mask if isinstance(mask, int) else round(float(mask.mean()))
        self._encoders["mask"].write(self._masks[mask] if isinstance(mask, int) else self._mask_planes(index, mask))
        for output in self._outputs:
            output.write(index, guide, mask)
        if index in self._previews.wanted:
            self._previews.guide(index, planes_to_rgb(guide, *self._thumbnail), white)
        # what nothing reaches is the one grey picture, which never changes
        filled = index in self._unguided and guide.flags.writeable
        stages = self._overlays.stages
        if "guidance" in stages:
            picture = guidance_picture(planes_to_rgb(guide), generated=white == GENERATE, filled=filled)
            self._overlays.add("guidance", index, picture)
        if "warp" in stages and filled:
            self._overlays.add("warp", index, planes_to_rgb(guide))
        if "path" in stages and self._arrows is not None and self._arrows[0] == index:
            self._overlays.add("path", index, path_picture(planes_to_rgb(guide), self._arrows[1]))
        self._advance(index + 1)

    def _mask_planes(self, index: int, mask: Image) -> Planes:
        # 255 and 0 are the only values that stay below 2 when 1 is added to 8 bits
        if int((mask + np.uint8(1)).max()) > 1:
            raise GuidanceError(f"mask of frame {index}: expected 0 and 255 only, got other values")
        return mask_to_planes(np.asarray(self._polarised(mask), np.uint8), self._scratch)

    def _polarised(self, mask: Any) -> Any:
        """Return a mask as the target reads it: there are generators where white is what follows the guide."""
        return 255 - mask if self._follows else mask

    def finish(self) -> dict[str, OutputObject]:
        """Close the files and store them, with the report's pictures; wait for the overlays.

        Returns:
            What was stored, by name of the output: that of the file, without ``.mp4``.

        Raises:
            EncodeError: a video could not be encoded.
        """
        begin = time.perf_counter()
        for encoder in self._encoders.values():
            encoder.finish()
        made = [self._described(name, encoder.path) for name, encoder in self._encoders.items()]
        made += [file for output in self._outputs for file in output.finish()]
        outputs = {file.name.removesuffix(".mp4"): self._store(file) for file in made}
        self.fallbacks += show_structure(self._previews, self._standing, self._record, self._services)
        self._services.storage.put(
            self._key("preview.json"),
            self._previews.to_json(),
            content_type="application/json",
        )
        self._overlays.wait()
        self.timings_s = {"encode": self._encoders["guide"].busy_s, "store": time.perf_counter() - begin}
        return outputs

    def _described(self, name: str, path: Path) -> Made:
        consumer, meaning = _MEANINGS[name]
        if name == "mask" and self._follows:
            consumer = f"the mask of {self._record.request.target}"
            meaning = "white (255): follow the guide's motion, black (0): generate"
        return Made(path.name, path, self._clip.video(consumer, meaning))

    def _key(self, name: str) -> str:
        return keys.run_segment_file(self._record.task_id, self._record.run_id, self._index, name)

    def _store(self, file: Made) -> OutputObject:
        info = self._services.storage.put_file(self._key(file.name), file.path, content_type=file.content_type)
        return OutputObject(key=info.key, size_bytes=info.size_bytes, etag=info.etag, description=file.description)
