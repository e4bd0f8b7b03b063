"""Tracks in the forms that their consumers read; each rule is the consumer's own.

* Wan-Move (``generate.py --track --track_visibility``): ``(1, T, N, 2)`` float32 (x, y) in pixels, and
  ``(1, T, N)`` bool, for the T frames that are generated.
* ATI (``wan/utils/motion.py``): ``torch.load`` gives the bytes of an npz, whose ``array`` is ``(N, 121, 1, 3)``: x, y
  and visible, all eight times as large; 121 samples for the 81 frames that it generates.
* ComfyUI's track nodes (``WanTrackToVideo``, ``WanVideoATITracks``): JSON, a list of points for each track; lists
  shorter than 121 go on as hidden. ``WanMoveTracksFromCoords`` takes one point for each frame, all lists alike long.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Tracks = NDArray[np.float32]
"""(x, y) of N points in T frames, output pixels: ``(T, N, 2)``."""
Visibility = NDArray[np.bool_]
"""Which of them are seen: ``(T, N)``."""

ATI_SAMPLES: Final = 121
#: ATI resamples 120 samples to these frames behind the first one.
ATI_FRAMES: Final = 81
ATI_FACTOR: Final = 8

#: Zip entries carry a date; a file of the same tracks is to be the same.
_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write_wan_move(tracks: Tracks, visible: Visibility, tracks_path: Path, visibility_path: Path) -> None:
    """Write the two arrays of Wan-Move."""
    np.save(tracks_path, np.ascontiguousarray(tracks[None], np.float32))
    np.save(visibility_path, np.ascontiguousarray(visible[None], np.bool_))


def write_ati(tracks: Tracks, visible: Visibility, path: Path) -> None:
    """Write ATI's archive: the bytes of an npz, as ``torch.save`` stores them, without torch."""
    places, seen = ati_samples(tracks, visible)
    samples = np.concatenate([places, seen[..., None].astype(np.float32)], axis=-1)
    array = np.ascontiguousarray(samples.transpose(1, 0, 2)[:, :, None] * np.float32(ATI_FACTOR))
    _write_torch(_npz(array), path)


def write_json(tracks: Tracks, visible: Visibility, path: Path) -> None:
    """Write what ATI's nodes of ComfyUI read; a track ends where its point is seen for the last time."""
    places, seen = ati_samples(tracks, visible)
    ends = [int(np.flatnonzero(one)[-1]) + 1 if one.any() else 1 for one in seen.T]
    _dump([_points(places[:end, number]) for number, end in enumerate(ends)], path)


def write_wan_move_json(tracks: Tracks, path: Path) -> None:
    """Write what ``WanMoveTracksFromCoords`` reads: a point for every frame, whether it is seen or not."""
    _dump([_points(tracks[:, number]) for number in range(tracks.shape[1])], path)


def ati_samples(tracks: Tracks, visible: Visibility) -> tuple[Tracks, Visibility]:
    """Resample tracks to ATI's 121 samples, which lie at every two thirds of a frame.

    Behind the last frame points stay where they are and are hidden; frames from the 82nd on are left out.

    Returns:
        ``(121, N, 2)`` float32, and ``(121, N)`` bool: seen in the frames on both sides.
    """
    position = np.arange(ATI_SAMPLES) * (ATI_FRAMES - 1) / (ATI_SAMPLES - 1)
    last = len(tracks) - 1
    before = np.minimum(np.floor(position + 1e-9).astype(int), last)
    after = np.minimum(np.ceil(position - 1e-9).astype(int), last)
    share = np.clip(position - before, 0, 1).astype(np.float32)[:, None, None]
    places = tracks[before] * (1 - share) + tracks[after] * share
    seen = visible[before] & visible[after] & (position <= last + 1e-9)[:, None]
    return places.astype(np.float32), seen


def _points(places: Tracks) -> list[dict[str, float]]:
    return [{"x": round(float(x), 3), "y": round(float(y), 3)} for x, y in places]


def _dump(document: Any, path: Path) -> None:
    path.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")


def _npz(array: NDArray[np.float32]) -> bytes:
    member = io.BytesIO()
    np.save(member, array)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(_entry("array.npy", zipfile.ZIP_DEFLATED), member.getvalue())
    return archive.getvalue()


def _write_torch(content: bytes, path: Path) -> None:
    """Write what ``torch.save(content, path)`` does: a zip of a pickle of protocol 2, and the format's version."""
    # weights_only=True, torch's default, admits just the two names that bytes are pickled with
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in (
            ("data.pkl", pickle.dumps(content, protocol=2)),
            ("byteorder", b"little"),
            ("version", b"3\n"),
        ):
            file.writestr(_entry(f"{path.stem}/{name}", zipfile.ZIP_STORED), data)


def _entry(name: str, method: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = method
    return entry
