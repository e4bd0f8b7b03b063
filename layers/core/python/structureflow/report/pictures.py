"""The hand-over of a segment's thumbnails from the step that makes it to the one that writes the report."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from structureflow.errors import JobStateError
from structureflow.models.bounds import first_problem, validate_json

Jpeg = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=200_000)]
"""A JPEG in base64."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FramePictures(_Model):
    """Thumbnails of one frame of a segment; `mask` is the mean of its mask: 0 all kept, 255 all generated."""

    index: Annotated[int, Field(ge=0)]
    guide: Jpeg | None = None
    mask: Annotated[int, Field(ge=0, le=255)] | None = None
    structure: Jpeg | None = None
    flow: Jpeg | None = None


class SegmentPictures(_Model):
    """Thumbnails of a segment, ordered by frame number.

    `flow_max_share` is the motion that has the wheel's full colour, as a share of the picture's width per
    frame; one value for all segments of a job.
    """

    frames: Annotated[int, Field(ge=1)]
    width_px: Annotated[int, Field(ge=1)]
    height_px: Annotated[int, Field(ge=1)]
    flow_max_share: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    pictures: tuple[FramePictures, ...]

    def to_json(self) -> bytes:
        """Return the document as it is handed over."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def parse(cls, data: bytes) -> SegmentPictures:
        """Read what `to_json` wrote.

        Raises:
            JobStateError: the bytes are something else.
        """
        try:
            return validate_json(cls, data)
        except ValidationError as error:
            raise JobStateError(f"no thumbnails of a segment: {first_problem(error)}") from error
