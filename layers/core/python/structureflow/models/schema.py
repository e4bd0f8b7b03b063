"""The JSON Schema of a request, for editors and for `structureflow validate`; and what each field means, in a line."""

from __future__ import annotations

from typing import Any, Final

from structureflow.limits import MAX_MOTION_STRENGTH
from structureflow.models.defaults import LINEAGE_NAMES
from structureflow.models.guidance import TYPE_NAMES, StructureGuidance
from structureflow.models.job import JobRequest
from structureflow.models.shorthand import Shorthand

__all__ = ["MEANINGS", "request_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Of every field of a request and of its shorthand, in the order in which a reader wants to know them.
MEANINGS: Final = {
    "task_id": "Name of the job: letters, digits, '.', '_' and '-'.",
    "project_id": "A label of yours.",
    "structure_video": "The video whose motion is carried.",
    "structure_videos": "Several videos on the stitched timeline, in place of one.",
    "segment_overlap": "Frames that each segment shares with the one before, on the timeline of structure_videos.",
    "flow_cache": "An archive of flows, in place of an extraction.",
    "target": "The generator: sets size, length, rate and how masks are cut, and refuses what the model does not take.",
    "images": "N images make N-1 segments, each from one image to the next.",
    "frames": "Length of each segment.",
    "overlap": "Frames over which the start image is held.",
    "hold": "Frames over which the end image is held.",
    "fade": "Frames of a cross-fade before the end image.",
    "segments": "The segments one by one, in place of images: their lengths and the frames that are given.",
    "resolution": "[width, height] of the output, both even; default by the target or the structure video.",
    "fps": "Frames per second of the output; default by the target, else 16.",
    "motion_strength": '0 (still) to 10; or key frames of a segment, as in {"0": 0.5, "40": 1.2}.',
    "motion": "Which part of the motion is applied: all of it, the camera's, or the subject's.",
    "treatment": "How flows become one step per frame: by time (retime), or by frame number (adjust, clip).",
    "flow_span": "Segments play consecutive parts of the video (timeline), or each the whole (per_segment).",
    "anchors": "Carry forward and back (both), or only forward (start).",
    "tracking": "Paths looked at in the video's own frames (anchored), or of flows alone (composed).",
    "seams": "Where anchors differ: one of them per pixel (choose), or their mean (average).",
    "match_color": "Lead the colours of a gap's first frame over into those of its last.",
    "mask": "Of filled frames: black where content is really seen (visibility), white (keyframes), black (filled).",
    "holes": "What the guide shows under the white of a filled frame.",
    "mask_grid": "Masks are made of blocks of so many pixels.",
    "engine": "Which optical flow.",
    "quality": "Of the optical flow.",
    "outputs": "Further files per segment, beside guide and mask.",
    "prompt": "Goes into the folder of Time-to-Move (ttm).",
    "tracks": "Which points the output tracks follows.",
    "noise": "The latents that the output warped_noise is for.",
    "canny": "Thresholds of the output canny.",
    "overlays": "Pictures per frame, in the frame cache.",
    "timeline_id": "Which frame cache the frames go to; default by the video.",
}


def request_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a request and of a job file.

    What it allows may still be refused: rules that join several fields are the model's (`JobRequest`).
    """
    schema = JobRequest.model_json_schema()
    short = Shorthand.model_json_schema()["properties"]
    properties: dict[str, Any] = {"$schema": {"type": "string", "description": "This schema, for editors."}}
    own: dict[str, Any] = schema["properties"] | short
    for name, meaning in MEANINGS.items():
        properties[name] = {"description": meaning, **_without_titles(own[name])}
    properties["motion_strength"] |= {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": MAX_MOTION_STRENGTH},
            {
                "type": "object",
                "minProperties": 1,
                "patternProperties": {"^[0-9]+$": {"type": "number", "minimum": 0, "maximum": MAX_MOTION_STRENGTH}},
                "additionalProperties": False,
            },
        ]
    }
    properties["resolution"]["anyOf"].append({"type": "string", "pattern": "^\\s*[0-9]+\\s*[xX]\\s*[0-9]+\\s*$"})
    guidance = StructureGuidance.model_json_schema()
    for older, name in LINEAGE_NAMES.items():
        properties[older] = {**properties[name], "deprecated": True, "description": f"Older name of {name}."}
    # of another shape than what it stands for
    properties["structure_guidance"] = {
        "description": "Older form of structure_videos.",
        "deprecated": True,
        "type": "object",
        "additionalProperties": False,
        **{name: _without_titles(guidance[name]) for name in ("properties", "required")},
    }
    sources: dict[str, Any] = schema["$defs"]["StructureVideo"]["properties"]
    sources |= {older: {"type": "string", "deprecated": True} for older in TYPE_NAMES}
    return {
        "$schema": DIALECT,
        "title": "structureflow request",
        "description": schema["description"],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "anyOf": [{"required": ["images"]}, {"required": ["segments"]}],
        "$defs": {name: _without_titles(part) for name, part in schema["$defs"].items()},
    }


def _without_titles(part: Any) -> Any:
    """Drop the titles that Pydantic makes of names: they say nothing more."""
    if isinstance(part, dict):
        return {
            name: {field: _without_titles(item) for field, item in value.items()}
            if name == "properties"
            else _without_titles(value)
            for name, value in part.items()
            if name != "title"
        }
    if isinstance(part, list):
        return [_without_titles(item) for item in part]
    return part
