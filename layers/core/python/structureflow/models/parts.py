"""The parts of a request that are as they should be, also of one that is not as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from structureflow.models.guidance import TYPE_NAMES
from structureflow.models.job import Guide
from structureflow.models.problems import Place
from structureflow.models.sources import StructureVideo

__all__ = ["Guide", "StructureVideo", "good_guides", "good_sources"]

_NAMES_OF_SOURCES: Final = (("structure_videos",), ("structure_guidance", "videos"))


def good_guides(document: Mapping[str, Any]) -> Iterator[tuple[Place, Guide]]:
    """Iterate over the guides of a request's document that are as they should be, each with its place."""
    segments = document.get("segments")
    for number, segment in enumerate(segments if isinstance(segments, list) else ()):
        guides = segment.get("guides") if isinstance(segment, dict) else None
        for index, guide in enumerate(guides if isinstance(guides, list) else ()):
            try:
                yield ("segments", number, "guides", index), Guide.model_validate(guide)
            except ValidationError:
                continue


def good_sources(document: Mapping[str, Any]) -> Iterator[tuple[Place, StructureVideo]]:
    """Iterate over the structure videos on the timeline that are as they should be, each with its place."""
    for names in _NAMES_OF_SOURCES:
        videos: Any = document
        for name in names:
            videos = videos.get(name) if isinstance(videos, dict) else None
        for index, video in enumerate(videos if isinstance(videos, list) else ()):
            if isinstance(video, dict):
                plain = {name: value for name, value in video.items() if name not in TYPE_NAMES}
                try:
                    yield (*names, index), StructureVideo.model_validate(plain)
                except ValidationError:
                    continue
