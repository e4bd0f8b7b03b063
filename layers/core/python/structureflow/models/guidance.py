"""Structure guidance as the original orchestrator's later requests write it, in the words of this system.

``structure_guidance`` names videos and what becomes of them on the way to a generator; `structure_type` beside the
path of one of ``structure_videos`` is its older form. What is a control picture there is an output here: `vace_flow`,
`canny`, `raw`. Depth is not made here, and is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from structureflow.limits import MAX_MOTION_STRENGTH, MAX_STRUCTURE_VIDEOS
from structureflow.models.fields import RequestModel, at_most
from structureflow.models.outputs import MAX_CANNY_INTENSITY, ExtraOutput
from structureflow.models.problems import problems_of

#: Which output a kind of preprocessing is, by both of its names.
_OUTPUTS: Final[dict[str, ExtraOutput]] = {
    "flow": "vace_flow",
    "canny": "canny",
    "none": "raw",
    "raw": "raw",
    "uni3c": "raw",
}
#: Of a video of ``structure_videos``: what is made of it, in older requests.
TYPE_NAMES: Final = ("structure_type", "type")


class StructureGuidance(RequestModel):
    """``structure_guidance`` of a request.

    Attributes:
        videos: as `structure_videos`.
        target: the part of the generator that takes the control video; Uni3C takes plain videos.
        preprocessing: what the control video shows.
        strength: of the motion; for `uni3c` a weight, which is the generator's own business.
        canny_intensity: how bright edges are.
        depth_contrast, step_window, frame_policy, zero_empty_frames, keep_on_gpu: settings of the generator, checked
            and passed over: nothing that is made here depends on them.
    """

    videos: Annotated[tuple[dict[str, Any], ...], Field(min_length=1), at_most(MAX_STRUCTURE_VIDEOS)]
    target: Literal["vace", "uni3c"] = "vace"
    preprocessing: Literal["flow", "canny", "depth", "none"] = "flow"
    strength: Annotated[float, Field(ge=0, le=MAX_MOTION_STRENGTH, allow_inf_nan=False)] = 1.0
    canny_intensity: Annotated[float, Field(ge=0, le=MAX_CANNY_INTENSITY, allow_inf_nan=False)] = 1.0
    depth_contrast: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    step_window: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 1.0)
    frame_policy: Annotated[str, Field(max_length=64)] = "fit"
    zero_empty_frames: bool = True
    keep_on_gpu: bool = False

    @model_validator(mode="after")
    def _check(self) -> StructureGuidance:
        if self.target == "vace":
            _check_kind("preprocessing", self.preprocessing)
        if self.step_window[0] > self.step_window[1]:
            raise ValueError(f"step_window: expected [begin, end], got {list(self.step_window)}")
        return self


def in_own_words(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without ``structure_guidance`` and `structure_type`: what they ask for, asked for here.

    Raises:
        ValueError: they are not what they should be, ask for depth, or contradict the rest.
    """
    if "structure_guidance" in request:
        return _from_guidance(request)
    videos = request.get("structure_videos")
    if not isinstance(videos, list | tuple):
        return request
    kinds = {_kind_of(video) for video in videos if isinstance(video, dict)} - {None}
    if not kinds:
        return request
    if len(kinds) > 1:
        raise ValueError(
            f"structure_videos: expected one structure_type a job, got {' and '.join(sorted(map(str, kinds)))}"
        )
    (kind,) = kinds
    _check_kind("structure_videos: structure_type", kind)
    plain = [
        {name: value for name, value in video.items() if name not in TYPE_NAMES} if isinstance(video, dict) else video
        for video in videos
    ]
    return _asking_for(request | {"structure_videos": plain}, _OUTPUTS[str(kind)])


def _from_guidance(request: dict[str, Any]) -> dict[str, Any]:
    for name in ("structure_videos", "structure_video", "structure_video_path"):
        if name in request:
            raise ValueError(f"{name}: expected none beside structure_guidance")
    try:
        guidance = StructureGuidance.model_validate(request["structure_guidance"])
    except ValidationError as error:
        raise ValueError("; ".join(f"structure_guidance.{problem}" for problem in problems_of(error))) from None
    rest = {name: value for name, value in request.items() if name != "structure_guidance"}
    rest["structure_videos"] = list(guidance.videos)
    if guidance.target == "uni3c":
        return _asking_for(rest, "raw")
    if "structure_video_motion_strength" not in rest:
        rest.setdefault("motion_strength", guidance.strength)
    asked = _asking_for(rest, _OUTPUTS[guidance.preprocessing])
    if guidance.preprocessing == "canny" and isinstance(rest.get("canny", {}), dict):
        asked["canny"] = {"intensity": guidance.canny_intensity} | rest.get("canny", {})
    return asked


def _asking_for(request: dict[str, Any], output: ExtraOutput) -> dict[str, Any]:
    outputs = request.get("outputs", ())
    if not isinstance(outputs, list | tuple) or output in outputs:
        return request
    return request | {"outputs": [*outputs, output]}


def _kind_of(video: dict[str, Any]) -> Any:
    kinds = [video[name] for name in TYPE_NAMES if name in video]
    return str(kinds[0])[:60] if kinds else None


def _check_kind(what: str, kind: Any) -> None:
    if kind == "depth":
        raise ValueError(f"{what}: depth is not made here; expected flow, canny or none")
    if kind not in _OUTPUTS:
        raise ValueError(f"{what}: expected flow, canny, none, raw or uni3c, got {kind!r:.60}")
