"""Previews of gaps for screens."""

from __future__ import annotations

import base64

from structureflow.api.media_replies import PreviewFrame, PreviewReply
from structureflow.api.queries import PreviewWish
from structureflow.jobs.services import Services
from structureflow.models.job import JobRequest


def preview(wish: PreviewWish, services: Services) -> PreviewReply:
    """Render a gap of a request small; errors as `structureflow.jobs.preview.preview_gap`."""
    # the function that answers all else has no pixels
    from structureflow.jobs.preview import preview_gap

    request = JobRequest.parse(wish.request)
    made = preview_gap(request, wish.segment, wish.gap, wish.frames, services)
    known = made.outcome.evidence
    return PreviewReply(
        segment=wish.segment,
        gap=made.gap,
        width_px=made.width,
        height_px=made.height,
        frames=tuple(
            PreviewFrame(
                frame=one.frame,
                jpeg_base64=base64.b64encode(one.guide).decode(),
                mask_jpeg_base64=base64.b64encode(one.mask).decode(),
                kept=round(known[one.frame].kept, 4) if one.frame in known else None,
            )
            for one in made.frames
        ),
        filled=made.outcome.filled,
        generated=made.outcome.left_unguided,
        tracking=made.outcome.tracking,
        flow_source=made.flow_source,
        notices=made.notices,
        took_s=made.took_s,
    )
