"""Debug overlays of a job on a timeline: PNGs per job, stage and frame, beside the frames they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast, get_args

from structureflow import arguments, keys
from structureflow.arguments import checked, is_text, optional
from structureflow.errors import InvalidIdError, InvalidKeyError, NotAnImageError, ObjectNotFoundError
from structureflow.models.job import OverlayStage
from structureflow.ordered import ordered_map
from structureflow.storage.base import ObjectInfo, Storage, check_store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAGES: Final[tuple[str, ...]] = get_args(OverlayStage)
_CONCURRENCY: Final = 16
#: Level 1 writes three times as fast as the default for a few per cent more bytes.
_PNG_LEVEL: Final = 1
_MAX_SIDE_PX: Final = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """A picture of what a job did at one frame.

    Attributes:
        sequence: the frame's number, zero-based.
        name: tells overlays of one frame and stage apart; an id.
        image: ``(H, W, 3) uint8 RGB`` or ``(H, W) uint8`` grey.
    """

    sequence: int
    name: str
    image: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Refuse what is no overlay.

        Raises:
            InvalidKeyError, InvalidIdError, InvalidArgumentError, NotAnImageError: the message says which attribute.
        """
        keys.check_sequence(self.sequence)
        keys.check_id(self.name, "overlay name")
        shape, kind = arguments.array(self.image, "image").shape, self.image.dtype
        if kind.name != "uint8" or not (len(shape) == 2 or shape[2:] == (3,)) or not min(shape):
            raise NotAnImageError(f"image: expected (H, W, 3) RGB or (H, W) grey uint8, got {shape} {kind}")


@dataclass(frozen=True, slots=True)
class OverlayEntry:
    """An overlay that lies in the store."""

    job_id: str
    stage: str
    sequence: int
    name: str
    key: str
    size_bytes: int


@checked(storage=check_store, overlays=arguments.iterable("Overlay objects", Overlay))
def save_overlays(
    storage: Storage, timeline_id: str, job_id: str, stage: OverlayStage, overlays: Iterable[Overlay]
) -> int:
    """Write overlays of one stage as PNGs, several at once; return how many.

    Images are kept until they are encoded, and must not be changed. An overlay of the same frame and name is
    replaced.

    Raises:
        InvalidIdError: a bad id, name or stage.
        InvalidArgumentError: `overlays` are no `Overlay` objects.
        StorageError: an overlay cannot be stored; those written before stay.

    >>> import numpy as np
    >>> from structureflow import MemoryStorage
    >>> store = MemoryStorage()
    >>> save_overlays(store, "walk", "job-1", "flow", [Overlay(7, "forward", np.zeros((48, 64, 3), np.uint8))])
    1
    >>> [(entry.sequence, entry.name) for entry in list_overlay_frames(store, "walk", "job-1", "flow")]
    [(7, 'forward')]
    >>> [overlay.image.shape for overlay in load_overlays(store, "walk", "job-1", "flow")]
    [(48, 64, 3)]
    """
    _check_stage(stage)
    keys.timeline_overlays_prefix(timeline_id, keys.check_id(job_id, "job_id"), stage)

    def save(overlay: Overlay) -> None:
        key = keys.timeline_overlay(timeline_id, job_id, stage, overlay.sequence, overlay.name)
        storage.put(key, _encode_png(overlay.image), content_type="image/png")

    with ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="overlays") as pool:
        return sum(1 for _ in ordered_map(overlays, save, _CONCURRENCY - 1, pool=pool))


@checked(storage=check_store)
def list_overlay_frames(
    storage: Storage, timeline_id: str, job_id: str | None = None, stage: OverlayStage | None = None
) -> Iterator[OverlayEntry]:
    """Iterate over the overlays of a timeline: of all jobs, of one, or of one stage; by job, stage and frame.

    Raises:
        InvalidIdError: a bad id or stage.
        InvalidKeyError: a stage without a job.
    """
    if stage is not None:
        _check_stage(stage)
    prefix = keys.timeline_overlays_prefix(timeline_id)
    entries = storage.list(keys.timeline_overlays_prefix(timeline_id, job_id, stage))
    return (entry for info in entries if (entry := _entry(info, prefix)) is not None)


@checked(storage=check_store, sequences=optional(arguments.whole_numbers(0)))
def load_overlays(
    storage: Storage,
    timeline_id: str,
    job_id: str,
    stage: OverlayStage,
    sequences: Iterable[int] | None = None,
) -> Iterator[Overlay]:
    """Iterate over the overlays of a job and stage in order of frame and name, reading a few ahead.

    Args:
        storage: where they are.
        timeline_id: the timeline.
        job_id: the job.
        stage: the stage.
        sequences: only those of these frames; frames without overlays are no error.

    Raises:
        InvalidIdError: a bad id or stage.
        NotAnImageError: an object is no PNG; it is named.
    """
    _check_stage(stage)
    keys.check_id(job_id, "job_id")
    entries: Iterable[OverlayEntry] = list_overlay_frames(storage, timeline_id, job_id, stage)
    if sequences is not None:
        wanted = frozenset(sequences)
        entries = (entry for entry in entries if entry.sequence in wanted)
    return _load(storage, entries)


def _load(storage: Storage, entries: Iterable[OverlayEntry]) -> Iterator[Overlay]:
    def load(entry: OverlayEntry) -> Overlay | None:
        try:
            data = storage.get(entry.key).data
        except ObjectNotFoundError:
            # Cleared between the listing and now: as if it had never been listed.
            return None
        return Overlay(entry.sequence, entry.name, _decode_png(data, entry.key))

    pool = ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="overlays")
    try:
        for overlay in ordered_map(entries, load, _CONCURRENCY - 1, pool=pool):
            if overlay is not None:
                yield overlay
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _entry(info: ObjectInfo, prefix: str) -> OverlayEntry | None:
    """Return the entry of a listed object; None for an object that is no overlay."""
    parts = info.key.removeprefix(prefix).split("/")
    if len(parts) != 3:
        return None
    try:
        sequence, name = keys.parse_timeline_overlay(parts[2])
    except InvalidKeyError:
        return None
    return OverlayEntry(parts[0], parts[1], sequence, name, info.key, info.size_bytes)


def _check_stage(stage: str) -> None:
    if not is_text(stage) or stage not in STAGES:
        raise InvalidIdError(f"stage: expected one of {', '.join(STAGES)}, got {stage!r:.60}")


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    # Here and below: who only lists overlays, as the API does, has neither.
    import cv2
    import numpy as np

    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else np.ascontiguousarray(image)
    encoded, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    if not encoded:
        raise NotAnImageError(f"cannot encode {image.shape} as PNG")
    return buffer.tobytes()


def _decode_png(data: bytes, key: str) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    # IHDR is always first: eight bytes of signature, eight of chunk header, then width and height.
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or not 1 <= max(width, height) <= _MAX_SIDE_PX:
        raise NotAnImageError(f"{key}: expected a PNG of at most {_MAX_SIDE_PX} px a side, got {data[:8]!r}", key=key)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or (image.ndim == 3 and image.shape[2] != 3):
        raise NotAnImageError(f"{key}: expected an 8-bit grey or RGB PNG", key=key)
    return cast("NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image)
