"""The members that describe the flows: which arrays they are, and the values that they become."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from structureflow.errors import FlowCacheFormatError
from structureflow.flow.archive.limits import FlowLimits
from structureflow.flow.fields import FlowMeta

_DEFAULT_FPS: Final = 16.0
_MAX_SIDE_PX: Final = 2**20
_WRITTEN_CHARACTERS: Final = 2000


def metadata_arrays(meta: FlowMeta) -> dict[str, NDArray[Any]]:
    """Return the metadata members of an archive, by name, in the order in which they are written."""
    identity = "source_sha256" if re.fullmatch(r"[0-9a-f]{64}", meta.source_identity) else "source_etag"
    return {
        "source_video": np.array(meta.source_video[:_WRITTEN_CHARACTERS]),
        "total_flows": np.array(meta.total_flows, np.int64),
        "original_fps": np.array(meta.original_fps, np.float64),
        "original_resolution": np.array([meta.original_width, meta.original_height], np.int64),
        "engine": np.array(meta.engine),
        "engine_params": np.array(json.dumps(dict(meta.engine_params), sort_keys=True)),
        "quantization_px": np.array(meta.quantization_px, np.float64),
        "timestamps_s": np.asarray(meta.timestamps_s, np.float64),
        "scene_cuts": np.array(meta.scene_cuts, np.int64),
        "display_max_px": np.array(meta.display_max_px, np.float64),
        identity: np.array(meta.source_identity[:_WRITTEN_CHARACTERS]),
        "format_version": np.array(meta.format_version, np.int64),
    }


class MetadataValues:
    """Small arrays of an archive as Python values; whatever does not fit is a `FlowCacheFormatError`."""

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        broken: Callable[[str], FlowCacheFormatError],
        limits: FlowLimits,
    ) -> None:
        """Read from `arrays`, by name; `broken` makes the error."""
        self._arrays = arrays
        self._broken = broken
        self._limits = limits

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; without a default it must be there."""
        value = self._arrays.get(name)
        if value is None and default is not None:
            return default
        if value is None or value.size != 1 or value.dtype.kind not in "iu":
            raise self._broken(f"{name} is no whole number")
        return int(value.reshape(-1)[0])

    def number(self, name: str, default: float) -> float:
        """Return a finite number, not below zero."""
        value = self._arrays.get(name)
        if value is None:
            return default
        found = float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind in "iuf" else math.nan
        if not (math.isfinite(found) and found >= 0):
            raise self._broken(f"{name} is no finite number from 0 on")
        return found

    def text(self, name: str, longest: int | None = None) -> str:
        """Return a text of at most `longest` characters; empty where it is not there."""
        value = self._arrays.get(name)
        if value is None:
            return ""
        longest = self._limits.max_text if longest is None else longest
        if value.size != 1 or value.dtype.kind != "U" or value.dtype.itemsize > 4 * longest:
            raise self._broken(f"{name} is no text of at most {longest} characters")
        try:
            # numpy makes text of numbers that are no characters, at which Python's own functions fail later
            return value.tobytes().decode("utf-32-be" if value.dtype.str[0] == ">" else "utf-32-le").rstrip("\0")
        except ValueError as error:
            raise self._broken(f"{name} is no text: {error}") from error

    def vector(self, name: str, length: int, kinds: str = "iu") -> NDArray[Any]:
        """Return `length` numbers of these kinds of dtype."""
        value = self._arrays.get(name)
        if value is None or value.shape != (length,) or value.dtype.kind not in kinds:
            found = "none" if value is None else f"{value.dtype} {value.shape}"
            raise self._broken(f"{name}: expected {length} numbers, got {found}")
        return value

    def meta(self, shape: tuple[int, int, int], *, has_backward: bool) -> FlowMeta:
        """Build the metadata of flows of a shape (N, h, w).

        What a plain archive lacks is taken from the flows or said to be unknown.
        """
        total, height, width = shape
        original = (width, height)
        if "original_resolution" in self._arrays:
            found_width, found_height = self.vector("original_resolution", 2)
            original = (int(found_width), int(found_height))
            if not 1 <= min(original) <= max(original) <= _MAX_SIDE_PX:
                raise self._broken(f"original_resolution: expected sides of a video, got {original}")
        fps = self.number("original_fps", _DEFAULT_FPS)
        if not 0 < fps <= 1000:
            fps = _DEFAULT_FPS
        if "timestamps_s" in self._arrays:
            with np.errstate(all="ignore"):
                times = self.vector("timestamps_s", total + 1, "iuf").astype(np.float64)
        else:
            times = np.arange(total + 1, dtype=np.float64) / fps
        if not np.isfinite(times).all():
            raise self._broken("timestamps_s is not finite")
        if self.integer("total_flows", total) != total:
            raise self._broken(f"total_flows says {self.integer('total_flows')}, flows holds {total}")
        return FlowMeta(
            total_flows=total,
            height=height,
            width=width,
            original_height=original[1],
            original_width=original[0],
            original_fps=fps,
            has_backward=has_backward,
            engine=self.text("engine") or "unknown",
            engine_params=self._params(),
            quantization_px=self.number("quantization_px", 0.0),
            timestamps_s=times,
            scene_cuts=self._cuts(total),
            display_max_px=self.number("display_max_px", 0.0),
            source_video=self.text("source_video"),
            source_identity=self.text("source_sha256") or self.text("source_etag"),
            format_version=self.integer("format_version", 0),
        )

    def _cuts(self, total: int) -> tuple[int, ...]:
        cuts = self._arrays.get("scene_cuts", np.zeros(0, np.int64))
        fits = cuts.ndim == 1 and cuts.dtype.kind in "iu" and len(cuts) <= total
        if not fits or (len(cuts) and not 0 <= cuts.min() <= cuts.max() < total):
            raise self._broken("scene_cuts is no list of flow numbers")
        return tuple(sorted({int(cut) for cut in cuts}))

    def _params(self) -> dict[str, Any]:
        text = self.text("engine_params", self._limits.max_params_text) or "{}"
        try:
            params = json.loads(text)
            # what JSON itself cannot carry must not reach a record: NaN, infinity, halves of characters
            json.dumps(params, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise self._broken(f"engine_params is no JSON: {error}") from error
        if not isinstance(params, dict):
            raise self._broken("engine_params is no JSON object")
        return params
