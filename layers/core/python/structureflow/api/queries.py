"""What a request may ask: query parameters, and who may ask at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from structureflow import keys
from structureflow.errors import ForeignOriginError, InvalidRequestError, shortened
from structureflow.frames.screens import THUMBNAIL_QUALITY
from structureflow.limits import (
    MAX_FIELD_NAME_CHARS,
    MAX_FLOWS,
    MAX_PAGE,
    MAX_PREVIEW_SHOWN,
    MAX_PROBLEMS,
    MAX_S3_PUT_BYTES,
    MAX_SEGMENTS,
    MAX_SEQUENCES,
)
from structureflow.models.job import OverlayStage
from structureflow.models.problems import problems_of_details
from structureflow.storage.base import MAX_PRESIGN_S

#: Signed by a Lambda role a URL ends with the role's session at the latest, whatever it says itself.
DEFAULT_EXPIRY_S: Final = 3600
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class _Parameters(BaseModel):
    """Query parameters: text, as it comes. The resolver validates them, and describes them in ``/openapi.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_names(query: BaseModel, given: Mapping[str, str] | None) -> None:
    """Refuse query parameters that a route does not have; the resolver passes them over.

    Args:
        query: what the resolver made of those that it has.
        given: all of them.

    Raises:
        InvalidRequestError: there are others; the first of them are named.
    """
    known = type(query).model_fields
    unknown = [name for name in given or () if name not in known]
    if unknown:
        problems = [f"{shortened(name, MAX_FIELD_NAME_CHARS)}: unknown" for name in unknown[:MAX_PROBLEMS]]
        raise InvalidRequestError(f"{'; '.join(problems)}; expected {', '.join(known) or 'none'}", problems=problems)


def refusal(errors: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Return the error for what the resolver found wrong with a request."""
    problems = [
        f"{shortened('.'.join(_place(place)), MAX_FIELD_NAME_CHARS) or 'query'}: {sentence}"
        for place, sentence in problems_of_details(errors[:MAX_PROBLEMS])
    ]
    return InvalidRequestError("; ".join(problems), problems=problems)


def _place(loc: Sequence[Any]) -> list[str]:
    """Return the names of a field without where it was looked for (``query``, ``path``, and the model's own)."""
    return [str(part) for part in loc if part not in ("query", "path", "body")]


def flag(value: Any) -> Any:
    """Take the words ``true`` and ``false`` alone for a yes or no."""
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"expected true or false, got {value!r:.20}")


class Nothing(_Parameters):
    """No parameters."""


class OutputsQuery(_Parameters):
    """How long URLs are valid."""

    expires_s: int = Field(default=DEFAULT_EXPIRY_S, ge=1, le=MAX_PRESIGN_S)


def _id(value: str) -> str:
    # a typed error of keys is a ValueError, so the resolver answers it as any other parameter's
    return keys.check_id(value, "page")


class NamesQuery(_Parameters):
    """A page of things by name; `page` is the `next_page` of the page before."""

    page: Annotated[str, AfterValidator(_id)] | None = None


class JobsQuery(NamesQuery):
    """A page of jobs."""

    limit: int = Field(default=50, ge=1, le=200)


class TimelinesQuery(NamesQuery):
    """A page of timelines; of each its manifest is read."""

    limit: int = Field(default=25, ge=1, le=50)


class InputsQuery(NamesQuery):
    """A page of uploaded files: those of `limit` jobs, `most` of each."""

    limit: int = Field(default=20, ge=1, le=50)
    most: int = Field(default=50, ge=1, le=200)


class ArchivesQuery(_Parameters):
    """A page of archives."""

    page: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")] | None = None
    limit: int = Field(default=50, ge=1, le=200)


class KeyQuery(_Parameters):
    """Which archive of flows, by its key."""

    key: str = Field(max_length=1024)


class FlowQuery(KeyQuery):
    """Which flow, how large, and which length (in pixels of the stored grid) is fully saturated."""

    flow: int = Field(ge=0, lt=MAX_FLOWS)
    direction: Literal["forward", "backward"] = "forward"
    width_px: int = Field(default=480, ge=32, le=2048)
    max_px: float | None = Field(default=None, gt=0, le=4096, allow_inf_nan=False)


class UploadWish(_Parameters):
    """A file that is to be sent: its name, and its size in bytes."""

    name: str = Field(min_length=1, max_length=255)
    size_bytes: int = Field(ge=1, le=MAX_S3_PUT_BYTES)


class PreviewWish(_Parameters):
    """A gap that is to be shown: of a segment of a job's request; without `gap`, its first one."""

    request: dict[str, Any]
    segment: int = Field(default=0, ge=0, lt=MAX_SEGMENTS)
    gap: tuple[int, int] | None = None
    frames: int = Field(default=12, ge=1, le=MAX_PREVIEW_SHOWN)


class ForecastWish(_Parameters):
    """A job whose cost is asked for: its request."""

    request: dict[str, Any]


class SendQuery(_Parameters):
    """Whether a request of that name may be there already."""

    again: bool = False

    @field_validator("again", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        return flag(value)


class RebuildWish(_Parameters):
    """How a timeline's frames are to be encoded: JPEG quality, 1 to 100; None: as usual."""

    quality: int | None = Field(default=None, ge=1, le=100)


class SegmentsQuery(OutputsQuery):
    """A page of a job's segments; `page` is the index of its first."""

    page: int = Field(default=0, ge=0, le=MAX_PAGE)
    limit: int = Field(default=50, ge=1, le=100)


class FramesQuery(_Parameters):
    """Which frames; `sequences` as ``0-20,30``, both ends inclusive, `page` the `next_page` of the page before."""

    sequences: str | None = None
    page: str | None = None

    @property
    def numbers(self) -> list[int] | None:
        """The sequence numbers asked for, in their order; None means all."""
        return None if self.sequences is None else parse_sequences(self.sequences)


class PictureQuery(_Parameters):
    """How a stored frame is shown: as it is, or scaled down to `width_px` and encoded anew."""

    width_px: int | None = Field(default=None, ge=8, le=8192)
    quality: int = Field(default=THUMBNAIL_QUALITY, ge=1, le=100)


class ThumbnailsQuery(FramesQuery, PictureQuery):
    """Which frames, how many in a page, and how large; whether a damaged one is refused, or left out and listed."""

    limit: int = Field(default=200, ge=1, le=1000)
    damaged: Literal["refuse", "list"] = "refuse"


class FrameQuery(PictureQuery):
    """How one frame is shown; `etag`, of the timeline, makes the picture one that may be kept."""

    etag: str | None = Field(default=None, max_length=128)


class UrlsQuery(FramesQuery, OutputsQuery):
    """Which frames, and how long their URLs are valid."""

    limit: int = Field(default=1000, ge=1, le=2000)


class OverlaysQuery(OutputsQuery):
    """Whose overlays: of all jobs, of one, or of one stage of one; `sequences` as ``0-20,30``."""

    job_id: str | None = None
    stage: OverlayStage | None = None
    sequences: str | None = None
    page: int = Field(default=0, ge=0, le=MAX_PAGE)
    limit: int = Field(default=500, ge=1, le=2000)


class ClearQuery(_Parameters):
    """Whether the overlays go too."""

    overlays: bool = False

    @field_validator("overlays", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        return flag(value)


def check_origin(origin: str | None, host: str, allowed: Sequence[str] = ()) -> None:
    """Refuse a request that a page of another site makes in somebody's browser.

    Args:
        origin: the ``Origin`` header; programs send none.
        host: by which the API was called.
        allowed: further origins, as browsers send them.

    Raises:
        ForeignOriginError: the page is neither of this host nor of one of those.
    """
    known = {f"https://{host}", f"http://{host}", *(one.rstrip("/") for one in allowed)}
    if origin is not None and origin.lower() not in {one.lower() for one in known}:
        raise ForeignOriginError(
            f"expected no Origin, that of {host}, or one that the stack allows, got {origin!r:.80}"
        )


def parse_sequences(text: str) -> list[int]:
    """Turn ``0-20,30`` into sequence numbers; ranges are inclusive.

    Raises:
        InvalidRequestError: another form, a range that falls, or more than 100,000 numbers.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InvalidRequestError(f"sequences: expected numbers and ranges as in 0-20,30, got {part!r:.40}")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or len(numbers) + last - first >= MAX_SEQUENCES:
            raise InvalidRequestError(
                f"sequences: expected a rising range of at most {MAX_SEQUENCES}, got {part!r:.60}"
            )
        numbers.extend(range(first, last + 1))
    return numbers
