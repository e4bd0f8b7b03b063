"""What a request means where it says nothing: by its style, and by the generator that it is made for.

A request that uses a field name of the original orchestrator is one of its kind: it gets the original's behaviour.
All others get what looks best. Every value stands in the request afterwards, so that a record shows what was meant.
"""

from __future__ import annotations

from typing import Any, Final

from structureflow.models.targets import TARGETS, Target

#: Field names of the original orchestrator's payloads, and the names of this system.
LINEAGE_NAMES: Final = {
    "orchestrator_task_id": "task_id",
    "structure_video_path": "structure_video",
    "structure_video_treatment": "treatment",
    "structure_video_motion_strength": "motion_strength",
    "parsed_resolution_wh": "resolution",
    "fps_helpers": "fps",
    "structure_flow_cache_url": "flow_cache",
    "structure_guidance": "structure_videos",
    "frame_overlap_expanded": "segment_overlap",
}
LINEAGE_DEFAULTS: Final[dict[str, Any]] = {
    "treatment": "adjust",
    "flow_span": "per_segment",
    "anchors": "start",
    "mask": "keyframes",
    "seams": "average",
}
#: What the guide shows where the mask is white, by `mask`: there is nothing to hide where motion is a hint only.
_HOLES: Final = {"visibility": "grey", "keyframes": "warp", "filled": "warp"}
_OVERLAP: Final = 20
_ENDING: Final = 10
_FRAMES: Final = 73


def is_lineage(request: dict[str, Any]) -> bool:
    """Tell whether a request uses a field name of the original orchestrator."""
    return any(name in request for name in LINEAGE_NAMES)


def target_of(request: dict[str, Any]) -> Target | None:
    """Return the target that a request names; None if it names none, or none that there is."""
    name = request.get("target")
    return TARGETS.get(name) if isinstance(name, str) else None  # type: ignore[call-overload]


def with_defaults(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the fields filled in whose default depends on others."""
    filled = dict(request)
    given = {LINEAGE_NAMES.get(name, name) for name in request}
    if is_lineage(request):
        filled |= {name: value for name, value in LINEAGE_DEFAULTS.items() if name not in given}
    target = target_of(request)
    if target is not None:
        filled.setdefault("mask_grid", target.side_multiple)
        if "fps" not in given:
            filled["fps"] = target.rates_fps[0]
    if filled.get("motion", "all") != "all":
        # with a part of the motion two anchors do not meet: both would show as ghosts
        filled.setdefault("anchors", "start")
    if not given & {"structure_video", "structure_videos"}:
        # without the video there are no frames to look at
        filled.setdefault("tracking", "composed")
    mask = filled.get("mask", "visibility")
    if isinstance(mask, str) and mask in _HOLES:
        # Time-to-Move begins everywhere from its motion signal, also where it need not follow it
        follows = target is not None and target.white == "follow"
        filled.setdefault("holes", "warp" if follows else _HOLES[mask])
    return filled


def shorthand_defaults(request: dict[str, Any], shorthand: dict[str, Any]) -> dict[str, Any]:
    """Return the lengths of a shorthand's segments, filled in.

    The original's end cross-fades; otherwise the end image is held. A target's segments have its length, and hold
    their images for whole groups of its frames.
    """
    target = None if is_lineage(request) else target_of(request)
    frames = _FRAMES if target is None else target.frames
    overlap, ending = _OVERLAP, _ENDING
    if target is not None:
        overlap = round((overlap - 1) / target.frame_step) * target.frame_step + 1
        ending = max(1, round(ending / target.frame_step)) * target.frame_step
    filled = {"frames": frames, "overlap": overlap, **shorthand}
    if "fade" not in filled and "hold" not in filled:
        filled["fade" if is_lineage(request) else "hold"] = ending
    return filled
