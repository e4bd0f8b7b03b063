"""The place of a timeline's manifest, which changes by compare-and-swap only; who removes frames holds it meanwhile.

Frames of all writers have the same keys, so nobody can tell whose a frame is. Yet none must be removed that a
manifest lists. Therefore whoever removes frames first swaps a mark into the manifest's place: a writer that finds it
there does not commit, and a writer that committed before has changed the place, so that the mark cannot be set. A mark
that was left by a process that died is void after `_MARK_LIFE`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from structureflow import keys
from structureflow.errors import (
    FrameCacheConflictError,
    FrameCacheError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    TransientError,
)
from structureflow.frames.manifest import FrameManifest, RemovalMark, parse_slot
from structureflow.limits import MAX_FRAME_MANIFEST_BYTES
from structureflow.models.results import now
from structureflow.storage.base import ObjectInfo, Storage
from structureflow.storage.bounded import read_bounded

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: A removal takes seconds: 10,000 frames are ten requests.
_MARK_LIFE: Final = timedelta(minutes=3)
#: Pauses before a place that somebody holds counts as taken.
_PAUSES_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
_ROUNDS: Final = 8
_JSON: Final = "application/json"
#: Tries of a writing that can be repeated, when another writer comes in between.
_CONFLICT_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Waiting:
    """How time passes; replaced by tests."""

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = now


@dataclass(frozen=True, slots=True)
class _Found:
    etag: str
    mark: bool
    held: bool


class ManifestSlot:
    """The manifest's place of one timeline."""

    def __init__(self, storage: Storage, timeline_id: str, wait: Waiting | None = None) -> None:
        self._storage = storage
        self._timeline_id = timeline_id
        self._key = keys.timeline_manifest(timeline_id)
        self._wait = wait or Waiting()

    @contextmanager
    def emptied(self) -> Iterator[bool]:
        """Remove whatever manifest lies there and hold the place while the block lasts.

        Yields:
            Whether there was a manifest.

        Raises:
            FrameCacheConflictError: somebody else holds the place, or it keeps changing.
        """
        for _ in range(_ROUNDS):
            found = self._free()
            with self.held(None if found is None else found.etag) as held:
                if held:
                    yield found is not None and not found.mark
                    return
        raise self._conflict("other writers keep committing frames")

    def empty(self) -> None:
        """Remove whatever manifest lies there; errors as `emptied`. An empty place takes one request."""
        if self._free() is not None:
            with self.emptied():
                pass

    def commit(self, manifest: FrameManifest, mine: str | None) -> ObjectInfo:
        """Put a manifest in place of `mine` (an ETag; None for the first), or of another writer's.

        Raises:
            FrameCacheConflictError: somebody removes frames at this moment, or the place keeps changing.
        """
        data = manifest.to_json()
        for _ in range(_ROUNDS):
            try:
                return self._storage.put(self._key, data, content_type=_JSON, if_absent=mine is None, if_match=mine)
            except (ObjectExistsError, ObjectChangedError):
                found = self._free()
                mine = None if found is None else found.etag
        raise self._conflict("other writers keep committing frames")

    def withdraw(self, mine: str) -> None:
        """Remove the manifest with the ETag `mine`, and no other."""
        with self.held(mine):
            pass

    @contextmanager
    def held(self, mine: str | None, *, keep: FrameManifest | None = None) -> Iterator[bool]:
        """Hold the place while the block lasts, so that frames can be removed.

        Args:
            mine: the ETag of what lies there; None where nothing does.
            keep: the manifest to be read meanwhile, and to be there in the end; None leaves nothing.

        Yields:
            Whether it is held: False where something else lies there by now.
        """
        moment = self._wait.now()
        mark = keep.model_copy(update={"removing": moment}) if keep else RemovalMark.of(self._timeline_id, moment)
        try:
            marked = self._storage.put(
                self._key, mark.to_json(), content_type=_JSON, if_absent=mine is None, if_match=mine
            )
        except (ObjectExistsError, ObjectChangedError):
            yield False
            return
        except TransientError:
            self._take_back(mark.to_json())
            raise
        try:
            yield True
        finally:
            if keep is None:
                self._storage.delete([self._key])
            else:
                self._restore(keep, marked.etag)

    def _take_back(self, mark: bytes) -> None:
        """Remove a mark whose writing was answered by an error, though it may have been done."""
        try:
            if read_bounded(self._storage, self._key, MAX_FRAME_MANIFEST_BYTES).data == mark:
                self._storage.delete([self._key])
        except ObjectNotFoundError:
            return
        except StorageError as error:
            _log.warning("%s: a mark may remain for %s: %s", self._key, _MARK_LIFE, error)

    def _restore(self, keep: FrameManifest, marked: str) -> None:
        try:
            self._storage.put(self._key, keep.to_json(), content_type=_JSON, if_match=marked)
        except ObjectChangedError as error:
            _log.warning("%s: a mark was taken for void while it was held", error)

    def _free(self) -> _Found | None:
        """Return what lies there once nobody holds it; None where nothing does."""
        for pause_s in _PAUSES_S:
            found = self._look()
            if found is None or not found.held:
                return found
            self._wait.sleep(pause_s)
        raise self._conflict("somebody removes its frames")

    def _look(self) -> _Found | None:
        try:
            stored = read_bounded(self._storage, self._key, MAX_FRAME_MANIFEST_BYTES)
        except ObjectNotFoundError:
            return None
        if b'"removing"' not in stored.data:
            # Most manifests, of which a long one is not parsed for this alone.
            return _Found(stored.info.etag, mark=False, held=False)
        try:
            slot = parse_slot(stored.data, self._timeline_id)
        except FrameCacheError as error:
            _log.warning("%s: its frames are written anew", error)
            return _Found(stored.info.etag, mark=False, held=False)
        held = slot.removing is not None and self._wait.now() - slot.removing < _MARK_LIFE
        return _Found(stored.info.etag, mark=isinstance(slot, RemovalMark), held=held)

    def _conflict(self, why: str) -> FrameCacheConflictError:
        return FrameCacheConflictError(f"timeline {self._timeline_id}: {why}", timeline_id=self._timeline_id)


def clear_timeline(storage: Storage, timeline_id: str, *, overlays: bool = False, wait: Waiting | None = None) -> int:
    """Remove a timeline's manifest and frames, and its overlays if asked; return how many objects.

    The manifest goes first, so a run that dies half-way leaves no cache rather than a broken one.

    Raises:
        FrameCacheConflictError: another one removes its frames, or writers keep committing.
    """
    prefixes = [keys.timeline_frames_prefix(timeline_id)]
    if overlays:
        prefixes.append(keys.timeline_overlays_prefix(timeline_id))
    with ManifestSlot(storage, timeline_id, wait).emptied() as had_manifest:
        return had_manifest + sum(storage.delete(info.key for info in storage.list(prefix)) for prefix in prefixes)


def until_alone(write: Callable[[], _T], wait: Waiting) -> _T:
    """Do a writing again, after a random pause as long as it took, while another writer interferes."""
    for attempt in range(1, _CONFLICT_ATTEMPTS):
        started = time.monotonic()
        try:
            return write()
        except FrameCacheConflictError as error:
            _log.warning("%s (try %d)", error, attempt)
            wait.sleep(random.uniform(0, 2 * (time.monotonic() - started)))  # noqa: S311 - no secret
    return write()
