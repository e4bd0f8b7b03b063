"""Settings for Wan2GP: one task of its queue that takes the segment's guide and mask as they are.

Keys and letters are those of its ``docs/SETTINGS.md``: ``video_prompt_type`` holds ``V`` (a control video in VACE's own
format, without preprocessing) and ``A`` (a mask whose white is generated).
"""

from __future__ import annotations

import json
from typing import Final

from structureflow.models.outputs import OutputDescription
from structureflow.targets.output import Clip, Made, SegmentOutput

SETTINGS: Final = "wan2gp.json"
_MODEL: Final = "vace_14B"


class Wan2gpSettings(SegmentOutput):
    """Writes the settings of one segment."""

    def __init__(self, clip: Clip, prompt: str) -> None:
        """Write them for `clip`; `prompt` is what shall be generated."""
        self._clip = clip
        self._prompt = prompt

    def finish(self) -> list[Made]:
        """See `SegmentOutput.finish`."""
        clip = self._clip
        settings = {
            "model_type": _MODEL,
            "prompt": self._prompt.strip(),
            "resolution": f"{clip.width}x{clip.height}",
            "video_length": clip.frames,
            # the model's own rate, which is the guide's
            "force_fps": "",
            "image_prompt_type": "",
            "video_prompt_type": "VA",
            "video_guide": "guide.mp4",
            "video_mask": "mask.mp4",
            "keep_frames_video_guide": "",
            "mask_expand": 0,
        }
        path = clip.file(SETTINGS)
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        described = OutputDescription(
            kind="json", consumer="Wan2GP: submit_task, or Load Settings", meaning="settings of one task", axes="object"
        )
        return [Made(SETTINGS, path, described)]
