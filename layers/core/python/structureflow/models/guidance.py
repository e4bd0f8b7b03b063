"""Structure guidance as the original orchestrator's later requests write it, in the words of this system.

``structure_guidance`` names videos and what becomes of them on the way to a generator; `structure_type` beside the
path of one of ``structure_videos`` is its older form. What is a control picture there is an output here: `vace_flow`,
`canny`, `raw`. Depth is not made here, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from structureflow.limits import MAX_MOTION_STRENGTH, MAX_STRUCTURE_VIDEOS
from structureflow.models.checked import RequestModel
from structureflow.models.fields import at_most, list_of
from structureflow.models.outputs import MAX_CANNY_INTENSITY, ExtraOutput
from structureflow.models.problems import Problem, one_of, problems_in, shown

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
    step_window: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]], list_of("[begin, end]", 2)
    ] = (0.0, 1.0)
    frame_policy: Annotated[str, Field(max_length=64)] = "fit"
    zero_empty_frames: bool = True
    keep_on_gpu: bool = False

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        if good.get("target") == "vace" and good.get("preprocessing") == "depth":
            yield Problem(("preprocessing",), _NO_DEPTH)
        begin, end = good.get("step_window", (0, 1))
        if begin > end:
            yield Problem(("step_window",), f"expected [begin, end], got {shown([begin, end])}")


_NO_DEPTH: Final = "expected flow, canny or none, got 'depth', which is not made here"


def in_own_words(request: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a request without ``structure_guidance`` and `structure_type`: what they ask for, asked for here.

    Returns:
        The request, and what of them is not what it should be, asks for depth, or contradicts the rest.
    """
    if "structure_guidance" in request:
        return _from_guidance(request)
    videos = request.get("structure_videos")
    if not isinstance(videos, list | tuple):
        return request, []
    places = [(index, video) for index, video in enumerate(videos) if isinstance(video, dict)]
    kinds = [(index, name, video[name]) for index, video in places for name in TYPE_NAMES if name in video]
    if not kinds:
        return request, []
    problems = [
        Problem(("structure_videos", index, name), _NO_DEPTH if kind == "depth" else one_of(_OUTPUTS, kind))
        for index, name, kind in kinds
        if not isinstance(kind, str) or kind not in _OUTPUTS
    ]
    wanted = {str(kind): Problem(("structure_videos", index, name), "") for index, name, kind in kinds}
    if len(wanted) > 1 and not problems:
        said = f"expected one structure_type a job, got {' and '.join(sorted(wanted))}"
        problems.append(Problem([*wanted.values()][1].place, said))
    plain = [
        {name: value for name, value in video.items() if name not in TYPE_NAMES} if isinstance(video, dict) else video
        for video in videos
    ]
    request = request | {"structure_videos": plain}
    return (request, problems) if problems else (_asking_for(request, _OUTPUTS[kinds[0][2]]), [])


def _from_guidance(request: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    beside = ("structure_videos", "structure_video", "structure_video_path")
    problems = [
        Problem((name,), "expected none beside structure_guidance, got one") for name in beside if name in request
    ]
    rest = {name: value for name, value in request.items() if name not in (*beside, "structure_guidance")}
    given = request["structure_guidance"]
    try:
        guidance = StructureGuidance.model_validate(given)
    except ValidationError as error:
        problems += [problem.below("structure_guidance") for problem in problems_in(error)]
        # the videos are looked at all the same
        if isinstance(given, dict) and not any(problem.place[1:2] == ("videos",) for problem in problems):
            rest["structure_videos"] = given.get("videos")
        return rest, problems
    rest["structure_videos"] = list(guidance.videos)
    if guidance.target == "uni3c":
        return _asking_for(rest, "raw"), problems
    if "structure_video_motion_strength" not in rest:
        rest.setdefault("motion_strength", guidance.strength)
    asked = _asking_for(rest, _OUTPUTS[guidance.preprocessing])
    if guidance.preprocessing == "canny" and isinstance(rest.get("canny", {}), dict):
        asked["canny"] = {"intensity": guidance.canny_intensity} | rest.get("canny", {})
    return asked, problems


def _asking_for(request: dict[str, Any], output: ExtraOutput) -> dict[str, Any]:
    outputs = request.get("outputs", ())
    if not isinstance(outputs, list | tuple) or output in outputs:
        return request
    return request | {"outputs": [*outputs, output]}
