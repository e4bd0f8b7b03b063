"""What is here, for a page that offers it: the version, bounds, targets, and the words that a request may use."""

from __future__ import annotations

from typing import get_args

from structureflow import __version__
from structureflow.api.replies import About, Limits, PriceInfo, TargetInfo
from structureflow.jobs.services import Services
from structureflow.limits import MAX_GUIDES, MAX_IMAGE_BYTES, MAX_SEGMENT_FRAMES, MAX_SEGMENTS
from structureflow.models.cost import PRICES
from structureflow.models.job import MaskMode, OverlayStage, Treatment
from structureflow.models.outputs import ExtraOutput
from structureflow.models.targets import TARGETS


def about(services: Services) -> About:
    """Return what is here; nothing is asked of the store."""
    return About(
        version=__version__,
        store=services.storage.uri,
        prices=PriceInfo(region=PRICES.region, as_of=PRICES.as_of),
        limits=Limits(
            max_segments=MAX_SEGMENTS,
            max_segment_frames=MAX_SEGMENT_FRAMES,
            max_guides=MAX_GUIDES,
            max_video_bytes=services.max_input_bytes,
            max_video_frames=services.max_video_frames,
            max_image_bytes=MAX_IMAGE_BYTES,
        ),
        targets=tuple(
            TargetInfo(
                name=target.name,
                model=target.model,
                side_multiple=target.side_multiple,
                sizes=target.sizes,
                also=target.also,
                frame_step=target.frame_step,
                frames=target.frames,
                rates_fps=target.rates_fps,
                fixed=target.fixed,
                white=target.white,
            )
            for target in TARGETS.values()
        ),
        overlay_stages=get_args(OverlayStage),
        masks=get_args(MaskMode),
        treatments=get_args(Treatment),
        outputs=get_args(ExtraOutput),
        sends=services.sent is not None,
        rebuilds=services.rebuild is not None,
    )
