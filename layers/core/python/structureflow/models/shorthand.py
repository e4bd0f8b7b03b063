"""The short way to ask: a list of images, and how long each is held."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from structureflow.limits import MAX_SEGMENT_FRAMES, MAX_SEGMENTS
from structureflow.models.checked import RequestModel
from structureflow.models.fields import at_most
from structureflow.models.problems import Problem
from structureflow.references import Reference

SHORTHAND_NAMES: Final = ("images", "frames", "overlap", "fade", "hold")


class Shorthand(RequestModel):
    """N images make N-1 segments of `frames` frames.

    Each holds the first image over `overlap` frames; at its end, `fade` frames cross-fade to the second, and `hold`
    frames hold that.
    """

    images: Annotated[tuple[Reference, ...], Field(min_length=2), at_most(MAX_SEGMENTS + 1)]
    frames: Annotated[int, Field(ge=2, le=MAX_SEGMENT_FRAMES)]
    overlap: Annotated[int, Field(ge=1)]
    fade: Annotated[int, Field(ge=0)] = 0
    hold: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """See `RequestModel.rules`."""
        parts = {name: good[name] for name in ("overlap", "fade", "hold") if name in good}
        if "frames" in good and sum(parts.values()) > good["frames"]:
            sum_said = " + ".join(f"{name} {length}" for name, length in parts.items() if length)
            yield Problem(("frames",), f"expected at least {sum_said}, {sum(parts.values())}, got {good['frames']}")

    def segments(self) -> list[dict[str, Any]]:
        """Return the segments as a request writes them."""
        segments = []
        held = self.frames - self.hold
        for start, end in itertools.pairwise(self.images):
            guides: list[dict[str, Any]] = [{"at": [0, self.overlap - 1], "image": start}]
            if self.fade:
                guides.append({"at": [held - self.fade, held - 1], "fade": [start, end]})
            if self.hold:
                guides.append({"at": [held, self.frames - 1], "image": end})
            segments.append({"frames": self.frames, "guides": guides})
        return segments
