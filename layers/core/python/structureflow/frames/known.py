"""Manifests that were read before: who shows a timeline asks for the same one a hundred times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from structureflow import keys
from structureflow.errors import ObjectNotFoundError
from structureflow.frames.manifest import FrameManifest, read_manifest_object
from structureflow.storage.base import Storage

#: Of all manifests that are kept: 1 kB each as Python objects.
_MAX_FRAMES: Final = 200_000


class KnownManifests:
    """Keeps manifests by their ETag; one that is known takes a request without a body, and no parsing."""

    def __init__(self, max_frames: int = _MAX_FRAMES) -> None:
        self._max_frames = max_frames
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[str, FrameManifest]] = OrderedDict()

    def read(self, storage: Storage, timeline_id: str) -> tuple[FrameManifest, str]:
        """Return a timeline's manifest as it is now, and its ETag; errors as `read_manifest`."""
        key = keys.timeline_manifest(timeline_id)
        place = (storage.uri, timeline_id)
        with self._lock:
            known = self._known.get(place)
        if known is not None and known[0] == _etag(storage, key):
            with self._lock:
                if place in self._known:
                    self._known.move_to_end(place)
            return known[1], known[0]
        manifest, etag = read_manifest_object(storage, timeline_id)
        with self._lock:
            self._known[place] = (etag, manifest)
            self._known.move_to_end(place)
            while len(self._known) > 1 and sum(one.total for _, one in self._known.values()) > self._max_frames:
                self._known.popitem(last=False)
        return manifest, etag


def _etag(storage: Storage, key: str) -> str | None:
    try:
        return storage.head(key).etag
    except ObjectNotFoundError:
        return None
