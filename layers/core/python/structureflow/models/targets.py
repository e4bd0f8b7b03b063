"""The generators that guides are made for: what sizes, lengths and rates each takes, and how it reads a mask.

Sources; ``vace`` was read in its own files on 2026-11-25, the others are as their makers document them:

* ``vace``: VACE on Wan 2.1 and 2.2: `vace/models/wan/configs` (sizes), its video processor (16 px, 4 frames,
  16 fps) and `vace_encode_masks`; ComfyUI's `WanVaceToVideo` (steps of 16 px, 4n + 1 frames, mid-grey, white mask =
  generate).
* ``wan5b``: Wan 2.2 TI2V-5B, `wan/configs/wan_ti2v_5B.py`: VAE 4 x 16 x 16, patches of 2, 1280x704, 121 frames at
  24 fps.
* ``ltx``: LTX-2, its README: sides multiples of 32 (64 for two stages), 8n + 1 frames, 24, 25, 30 or 50 fps.
* ``cogvideox``: CogVideoX-5B, its model card: 720x480, 49 frames, 8 fps.
* ``hunyuan``: HunyuanVideo, README table of sizes, 4n + 1 frames up to 129, 24 fps.
* ``ttm``: Time-to-Move on Wan 2.2, its README and examples: multiples of 16, 81 frames, 16 fps; white = follow the
  motion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from structureflow.limits import MAX_OUTPUT_SIDE_PX, MAX_SEGMENT_FRAMES, MIN_OUTPUT_SIDE_PX
from structureflow.models.problems import Problem

TargetName = Literal["vace", "wan5b", "ltx", "cogvideox", "hunyuan", "ttm"]
Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one generator takes.

    Attributes:
        name: of the target.
        model: the generator, for people.
        side_multiple: sides are multiples of so many pixels; masks are aligned to them.
        sizes: the defaults, one for each shape of a picture.
        also: further sizes that the model was made for.
        frame_step: counts of frames are ``frame_step * n + 1``: the model keeps the first frame, then groups of so
            many, each as one.
        frames: how many it was made for.
        rates_fps: the rates it knows, the usual one first.
        fixed: whether it takes nothing but `sizes` and `frames`.
        white: what a white pixel of its mask asks for.
        grey: the level of pixels that nothing is known of.
    """

    name: TargetName
    model: str
    side_multiple: int
    sizes: tuple[Size, ...]
    frame_step: int
    frames: int
    rates_fps: tuple[float, ...]
    also: tuple[Size, ...] = ()
    fixed: bool = False
    white: Literal["generate", "follow"] = "generate"
    grey: int = 128

    def size_for(self, width: int, height: int) -> Size:
        """Return the default size whose shape is nearest to that of a video; it is covered, and what hangs over cut."""
        shape = math.log(width / height)
        return min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1]) - shape))

    def takes_size(self, size: Size) -> bool:
        """Tell whether pictures of a size are legal."""
        if self.fixed:
            return size in self.sizes
        return all(side % self.side_multiple == 0 and side >= self.side_multiple for side in size)

    def takes_frames(self, count: int) -> bool:
        """Tell whether a segment of so many frames is legal."""
        return count == self.frames if self.fixed else count > 1 and (count - 1) % self.frame_step == 0

    def nearest_sizes(self, size: Size) -> tuple[Size, ...]:
        """Return the legal sizes next to an illegal one: the nearest, and the one of the model's own nearest to it."""
        own = min((*self.sizes, *self.also), key=lambda other: math.dist(other, size))
        if self.fixed:
            return (own,)
        step = self.side_multiple
        least, most = max(step, MIN_OUTPUT_SIDE_PX), MAX_OUTPUT_SIDE_PX // step * step
        width, height = (min(max(round(side / step) * step, least), most) for side in size)
        return ((width, height),) if own == (width, height) else ((width, height), own)

    def nearest_frames(self, count: int) -> tuple[int, ...]:
        """Return the legal counts next to an illegal one, below and above."""
        if self.fixed:
            return (self.frames,)
        step = self.frame_step
        below = (count - 1) // step * step + 1
        return tuple(legal for legal in (below, below + step) if 1 < legal <= MAX_SEGMENT_FRAMES)

    def problems_with(self, size: Size | None, fps: float, frames: tuple[int, ...]) -> list[Problem]:
        """Return what of a request the target does not take, with the nearest that it takes.

        Args:
            size: of the output; None: the target chooses.
            fps: of the output.
            frames: of each segment.
        """
        problems = []
        if size is not None and not self.takes_size(size):
            sizes = _either(f"{width}x{height}" for width, height in self.nearest_sizes(size))
            said = f"expected {self._sizes_said} for {self.name}, got {size[0]}x{size[1]}; nearest: {sizes}"
            problems.append(Problem(("resolution",), said))
        if fps not in self.rates_fps:
            rates = _either(f"{rate:g}" for rate in self.rates_fps)
            problems.append(Problem(("fps",), f"expected {rates} for {self.name}, got {fps:g}"))
        for index, count in enumerate(frames):
            if not self.takes_frames(count):
                counts = _either(map(str, self.nearest_frames(count)))
                said = f"expected {self._frames_said} frames for {self.name}, got {count}; nearest: {counts}"
                problems.append(Problem(("segments", index, "frames"), said))
        return problems

    @property
    def _sizes_said(self) -> str:
        if self.fixed:
            return f"{_either(f'{width}x{height}' for width, height in self.sizes)} only"
        return f"sides that are multiples of {self.side_multiple}"

    @property
    def _frames_said(self) -> str:
        return str(self.frames) if self.fixed else f"{self.frame_step}n+1"


def _either(choices: Iterable[str]) -> str:
    return " or ".join(choices)


_WAN_480P: Final = ((832, 480), (480, 832), (624, 624))
_WAN_720P: Final = ((1280, 720), (720, 1280), (960, 960))

TARGETS: Final[dict[TargetName, Target]] = {
    target.name: target
    for target in (
        Target("vace", "VACE (Wan 2.1 and 2.2)", 16, _WAN_480P, 4, 81, (16.0,), also=_WAN_720P),
        Target("wan5b", "Wan 2.2 5B", 32, ((1280, 704), (704, 1280), (960, 960)), 4, 121, (24.0,)),
        Target(
            "ltx",
            "LTX-2",
            32,
            ((768, 512), (512, 768), (640, 640)),
            8,
            121,
            (24.0, 25.0, 30.0, 50.0),
            also=((1280, 704), (704, 1280), (1536, 1024), (1024, 1536)),
        ),
        Target("cogvideox", "CogVideoX 5B", 16, ((720, 480),), 4, 49, (8.0,), fixed=True),
        Target(
            "hunyuan",
            "HunyuanVideo",
            16,
            ((960, 544), (544, 960), (832, 624), (624, 832), (720, 720)),
            4,
            129,
            (24.0,),
            also=((1280, 720), (720, 1280), (1104, 832), (832, 1104), (960, 960)),
        ),
        Target(
            "ttm",
            "Time-to-Move (Wan 2.2)",
            16,
            _WAN_480P,
            4,
            81,
            (16.0,),
            also=(*_WAN_720P, (720, 480)),
            white="follow",
        ),
    )
}


def output_size(name: TargetName | None, width: int, height: int) -> Size:
    """Return the size of a job's videos where the request names none.

    Args:
        name: of the target; None: the video's own size, made even.
        width, height: of the structure video, as it is displayed.
    """
    if name is None:
        return width // 2 * 2, height // 2 * 2
    return TARGETS[name].size_for(width, height)


def advice_without_target(size: Size, fps: float, frames: tuple[int, ...]) -> str:
    """Say of a job that names no target which generators take it as it is, or what most of them want.

    Args:
        size: of the output.
        fps: of the output.
        frames: of each segment.
    """
    fitting = [target.name for target in TARGETS.values() if not target.problems_with(size, fps, frames)]
    said = "no target was named, so nothing was checked against a model"
    if fitting:
        return f"{said}; sizes, counts and rate fit {_either(fitting)}"
    problems = TARGETS["vace"].problems_with(size, fps, frames)
    more = f" (and {len(problems) - 2} more)" if len(problems) > 2 else ""
    return f"{said}, and none takes it as it is. {'; '.join(map(str, problems[:2]))}{more}"


def advice_on(target: Target, size: Size, frames: int, guided: tuple[tuple[int, int], ...]) -> list[str]:
    """Say what of a segment is legal for its target, but not what the model was made for.

    Args:
        target: of the job.
        size: of the output.
        frames: of the segment.
        guided: its guided ranges (first, last), both inclusive.
    """
    advice = []
    if size not in (*target.sizes, *target.also):
        own = _either(f"{width}x{height}" for width, height in target.sizes)
        advice.append(f"{target.model} was made for {own}, not for {size[0]}x{size[1]}")
    if frames > target.frames:
        advice.append(f"{target.model} was made for {target.frames} frames, not for {frames}")
    step = target.frame_step
    split = [edge for first, last in guided for edge in (first, last + 1) if 0 < edge < frames and (edge - 1) % step]
    if split:
        advice.append(
            f"{target.model} takes frames 1 to {step}, {step + 1} to {2 * step}, … as one each; guided and other "
            f"frames share such a group at frame {', '.join(map(str, split[:4]))}{', …' if len(split) > 4 else ''}"
        )
    return advice
