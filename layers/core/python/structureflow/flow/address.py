"""Where a video's flows are found again, known before a byte of the video is read."""

from __future__ import annotations

import hashlib
import json

from structureflow.flow.archive import FORMAT_VERSION
from structureflow.flow.engines import DEFAULT_ENGINES, EngineRegistry
from structureflow.flow.fields import QUANTIZATION_PX


def flow_address(
    source_identity: str,
    engine: str,
    quality: str,
    *,
    weights: str | None = None,
    engines: EngineRegistry = DEFAULT_ENGINES,
) -> str:
    """Return the content address of a video's flows: 64 lower-case hex digits.

    SHA-256 over all that the flows depend on: the video's identity, the engine's preset (its parameters, library
    versions and working area, which with the video decides the working size), quantisation and archive format.
    `weights` names a network's weights where they are others than the preset's.

    Raises:
        EngineUnavailableError: no such engine or quality.
    """
    preset = engines.preset(engine, quality)
    document = {
        "source": source_identity,
        "engine": preset.name,
        "params": dict(preset.params) | ({} if weights is None else {"weights": weights}),
        "area_px": preset.area_px,
        "quantization_px": QUANTIZATION_PX,
        "format": FORMAT_VERSION,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def joined_identity(document: object) -> str:
    """Return the identity of a video that is made of parts of others, as `document` (JSON) describes it."""
    return f"joined:{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}"


def given_address(archive_identity: str) -> str:
    """Return the content address of the flows of an archive that somebody gives, as `flow_address`."""
    document = {"archive": archive_identity, "quantization_px": QUANTIZATION_PX, "format": FORMAT_VERSION}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
