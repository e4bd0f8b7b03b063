"""The manifest of a timeline's frame cache: its commit, and what every frame is checked against."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, Literal

from pydantic import ValidationError, model_validator

from structureflow import keys
from structureflow.errors import FrameCacheError, FrameNotFoundError, ObjectNotFoundError, TimelineNotFoundError
from structureflow.limits import MAX_FRAME_MANIFEST_BYTES, MAX_FRAME_MANIFEST_VALUES
from structureflow.models.bounds import first_problem, validate_json
from structureflow.models.results import Model, now
from structureflow.storage.base import Storage
from structureflow.storage.bounded import read_bounded

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame as the manifest lists it.

    Attributes:
        sequence: its number, zero-based.
        key: of the JPEG in the store.
        etag, size_bytes, crc32: of the JPEG (CRC-32 as in zlib).
        timestamp: presentation time in seconds, on the clock of the whole timeline.
        chunk_id: which source chunk it comes from.
        perceptual_hash: 16 hex digits, see `structureflow.frames.jpeg.perceptual_hash`.
    """

    sequence: int
    key: str
    etag: str
    size_bytes: int
    crc32: int
    timestamp: float
    chunk_id: str
    perceptual_hash: str


class ChunkEntry(Model):
    """A source chunk, and the size of its frames."""

    chunk_id: str
    width_px: int
    height_px: int


class FrameColumns(Model):
    """All frames, a column per attribute of `FrameRecord`, in order of `sequence`.

    Columns are a third of the size of a list of objects, and quicker to parse. `key` is relative to the
    manifest's folder; `chunk` counts in the manifest's `chunks`.
    """

    sequence: tuple[int, ...]
    key: tuple[str, ...]
    etag: tuple[str, ...]
    size_bytes: tuple[int, ...]
    crc32: tuple[int, ...]
    timestamp_s: tuple[float, ...]
    chunk: tuple[int, ...]
    perceptual_hash: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> FrameColumns:
        total = len(self.sequence)
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if any(length != total for length in lengths.values()):
            raise ValueError(f"expected columns of one length, got {lengths}")
        if any(one >= other for one, other in pairwise(self.sequence)) or min(self.sequence, default=0) < 0:
            raise ValueError("expected sequence numbers that rise")
        return self


class FrameManifest(Model):
    """``manifest.json`` of a timeline.

    Attributes:
        source_identity: changes whenever the bytes of the source may have changed; empty when unknown.
        quality: of the JPEGs, 1 to 100; 0 when they were found, not written.
        removing: since when frames that it does not list are being removed; nobody else commits meanwhile.
    """

    format_version: Literal[1] = FORMAT_VERSION
    timeline_id: str
    source_identity: str = ""
    quality: int
    created_at: datetime
    chunks: tuple[ChunkEntry, ...]
    frames: FrameColumns
    removing: datetime | None = None

    @model_validator(mode="after")
    def _check(self) -> FrameManifest:
        if any(not 0 <= number < len(self.chunks) for number in self.frames.chunk):
            raise ValueError(f"expected chunk numbers below {len(self.chunks)}")
        return self

    @classmethod
    def build(
        cls,
        timeline_id: str,
        records: Iterable[FrameRecord],
        chunks: Iterable[ChunkEntry],
        *,
        quality: int,
        source_identity: str,
    ) -> FrameManifest:
        """Build a manifest of `records`, which are put in order."""
        ordered = sorted(records, key=lambda record: record.sequence)
        entries = tuple(chunks)
        numbers = {entry.chunk_id: number for number, entry in enumerate(entries)}
        prefix = keys.timeline_prefix(timeline_id)
        return cls(
            timeline_id=timeline_id,
            source_identity=source_identity,
            quality=quality,
            created_at=now(),
            chunks=entries,
            frames=FrameColumns(
                sequence=tuple(record.sequence for record in ordered),
                key=tuple(record.key.removeprefix(prefix) for record in ordered),
                etag=tuple(record.etag for record in ordered),
                size_bytes=tuple(record.size_bytes for record in ordered),
                crc32=tuple(record.crc32 for record in ordered),
                timestamp_s=tuple(record.timestamp for record in ordered),
                chunk=tuple(numbers[record.chunk_id] for record in ordered),
                perceptual_hash=tuple(record.perceptual_hash for record in ordered),
            ),
        )

    @classmethod
    def parse(cls, data: bytes, timeline_id: str) -> FrameManifest:
        """Validate the bytes of the manifest of `timeline_id`.

        Raises:
            FrameCacheError: another format version, another timeline, or no manifest at all.
        """
        try:
            manifest = validate_json(cls, data, max_values=MAX_FRAME_MANIFEST_VALUES)
        except ValidationError as error:
            raise FrameCacheError(
                f"manifest of timeline {timeline_id}: {first_problem(error)}", timeline_id=timeline_id
            ) from error
        if manifest.timeline_id != timeline_id:
            raise FrameCacheError(
                f"expected the manifest of timeline {timeline_id}, got that of {manifest.timeline_id}",
                timeline_id=timeline_id,
            )
        return manifest

    def to_json(self) -> bytes:
        """Return the document as it is stored: compact UTF-8 JSON.

        Raises:
            FrameCacheError: it lists so many frames that readers refuse it.
        """
        data = self.model_dump_json(exclude_none=True).encode()
        if len(data) > MAX_FRAME_MANIFEST_BYTES:
            raise FrameCacheError(
                f"timeline {self.timeline_id}: {self.total} frames make a manifest of {len(data)} bytes, "
                f"expected at most {MAX_FRAME_MANIFEST_BYTES}",
                timeline_id=self.timeline_id,
            )
        return data

    @property
    def total(self) -> int:
        """Number of frames."""
        return len(self.frames.sequence)

    def record(self, position: int) -> FrameRecord:
        """Return the frame at `position` (zero-based, in order; not its sequence number)."""
        frames = self.frames
        return FrameRecord(
            sequence=frames.sequence[position],
            key=f"{keys.timeline_prefix(self.timeline_id)}{frames.key[position]}",
            etag=frames.etag[position],
            size_bytes=frames.size_bytes[position],
            crc32=frames.crc32[position],
            timestamp=frames.timestamp_s[position],
            chunk_id=self.chunks[frames.chunk[position]].chunk_id,
            perceptual_hash=frames.perceptual_hash[position],
        )

    def records(self) -> Iterator[FrameRecord]:
        """Iterate over all frames in order."""
        return (self.record(position) for position in range(self.total))

    def position(self, sequence: int) -> int:
        """Return where the frame `sequence` stands.

        Raises:
            FrameNotFoundError: it is not in the timeline.
        """
        position = bisect_left(self.frames.sequence, sequence)
        if position == self.total or self.frames.sequence[position] != sequence:
            held = f"{self.frames.sequence[0]} to {self.frames.sequence[-1]}" if self.total else "none"
            raise FrameNotFoundError(
                f"timeline {self.timeline_id} has no frame {sequence} ({self.total} frames: {held})",
                timeline_id=self.timeline_id,
                sequence=sequence,
            )
        return position

    def select(self, sequences: Iterable[int] | None) -> list[FrameRecord]:
        """Return the frames of `sequences` in the order asked for; None means all.

        Raises:
            FrameNotFoundError: one is not in the timeline.
        """
        if sequences is None:
            return list(self.records())
        return [self.record(self.position(sequence)) for sequence in sequences]


class RemovalMark(Model):
    """Stands in a manifest's place while frames are removed: there is no cache, and nobody commits one meanwhile."""

    format_version: Literal[1] = FORMAT_VERSION
    timeline_id: str
    removing: datetime
    #: Tells two marks apart that are set in the same moment.
    token: str

    @classmethod
    def of(cls, timeline_id: str, moment: datetime) -> RemovalMark:
        """Return a mark of a moment."""
        return cls(timeline_id=timeline_id, removing=moment, token=secrets.token_hex(8))


def parse_slot(data: bytes, timeline_id: str) -> FrameManifest | RemovalMark:
    """Validate the bytes that lie in the place of a timeline's manifest; errors as `FrameManifest.parse`."""
    try:
        return validate_json(RemovalMark, data)
    except ValidationError:
        return FrameManifest.parse(data, timeline_id)


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """How a timeline's objects compare with its manifest, by listing.

    `missing` and `changed` are sequence numbers, `extra` the number of objects that the manifest does not list.
    """

    total: int
    missing: tuple[int, ...]
    changed: tuple[int, ...]
    extra: int

    @property
    def whole(self) -> bool:
        """Whether every listed frame is there, unchanged; extra objects do no harm."""
        return not self.missing and not self.changed


def read_manifest(storage: Storage, timeline_id: str) -> FrameManifest:
    """Read the manifest of a timeline, in one request.

    Raises:
        TimelineNotFoundError: there is none.
        FrameCacheError: it cannot be used.
    """
    return read_manifest_object(storage, timeline_id)[0]


def read_manifest_object(storage: Storage, timeline_id: str) -> tuple[FrameManifest, str]:
    """Read the manifest of a timeline and its ETag; errors as `read_manifest`."""
    key = keys.timeline_manifest(timeline_id)
    try:
        found = read_bounded(storage, key, MAX_FRAME_MANIFEST_BYTES)
    except ObjectNotFoundError as error:
        raise TimelineNotFoundError(f"timeline {timeline_id} has no cached frames", timeline_id=timeline_id) from error
    if found.info.size_bytes > MAX_FRAME_MANIFEST_BYTES:
        raise FrameCacheError(
            f"{key}: expected at most {MAX_FRAME_MANIFEST_BYTES} bytes, got {found.info.size_bytes}",
            timeline_id=timeline_id,
        )
    slot = parse_slot(found.data, timeline_id)
    if isinstance(slot, RemovalMark):
        raise TimelineNotFoundError(f"timeline {timeline_id}: its frames are being removed", timeline_id=timeline_id)
    return slot, found.info.etag


def compare_listing(storage: Storage, manifest: FrameManifest) -> CacheCheck:
    """Compare the objects of a timeline with its manifest, holding a page of the listing at a time."""
    positions = {key: position for position, key in enumerate(manifest.frames.key)}
    prefix = keys.timeline_prefix(manifest.timeline_id)
    frames = manifest.frames
    seen = bytearray(manifest.total)
    changed: list[int] = []
    extra = 0
    for info in storage.list(keys.timeline_frames_prefix(manifest.timeline_id)):
        position = positions.get(info.key.removeprefix(prefix))
        if position is None:
            extra += 1
            continue
        seen[position] = 1
        if (info.size_bytes, info.etag) != (frames.size_bytes[position], frames.etag[position]):
            changed.append(frames.sequence[position])
    missing = tuple(frames.sequence[position] for position, there in enumerate(seen) if not there)
    return CacheCheck(manifest.total, missing, tuple(sorted(changed)), extra)
