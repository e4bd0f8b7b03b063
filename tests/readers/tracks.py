"""Wan-Move, ATI and ComfyUI's track nodes, each by its own rules.

Wan-Move: generate.py loads both arrays with numpy; wan/modules/trajectory.py takes ``(1, T, N, 2)`` and ``(1, T, N)``.
ATI: wan/utils/motion.py. ComfyUI: comfy_extras/nodes_wan.py (WanTrackToVideo), nodes_wanmove.py.
"""

from __future__ import annotations

import codecs
import io
import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ATI_LENGTH: Final = 121
#: What bytes need of the operations that PyTorch's own unpickler knows.
_KNOWN: Final = {"PROTO", "GLOBAL", "BINUNICODE", "BINPUT", "LONG_BINPUT", "TUPLE2", "REDUCE", "STOP"}


def read_wan_move(tracks: Path, visibility: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return ``(T, N, 2)`` and ``(T, N)``; nothing but plain arrays of the right type is taken."""
    places, seen = (np.load(path, allow_pickle=False) for path in (tracks, visibility))
    assert places.dtype == np.float32
    assert seen.dtype == np.bool_
    assert places.flags.c_contiguous
    assert places.shape[0] == 1
    assert places.ndim == 4
    assert places.shape[-1] == 2
    assert seen.shape == places.shape[:3]
    assert np.isfinite(places).all()
    return places[0], seen[0]


def read_ati(path: Path, width: int, height: int) -> NDArray[np.float64]:
    """Return what ATI's model is given: ``(81, N, 4)``, time, x, y and visibility, all from -1 to 1 in the frame."""
    array = _npz(torch_load(path))["array"]
    assert array.dtype.kind == "f"
    return process_tracks(array.astype(np.float64) / 8, width, height)


def ati_array(path: Path) -> NDArray[np.float32]:
    """Return the archive's array as it is stored."""
    return _npz(torch_load(path))["array"]


def read_comfy(path: Path, width: int, height: int) -> NDArray[np.float64]:
    """Return what ``WanTrackToVideo`` makes of its JSON: as `read_ati`."""
    padded = np.stack([_padded(track) for track in parse_tracks(path)])
    return process_tracks(padded, width, height)


def read_comfy_wan_move(path: Path) -> NDArray[np.float64]:
    """Return ``(T, N, 2)`` as ``WanMoveTracksFromCoords`` makes of its JSON: all lists as long as the first."""
    tracks = parse_tracks(path)
    return np.array([[[track[t]["x"], track[t]["y"]] for track in tracks] for t in range(len(tracks[0]))])


def parse_tracks(path: Path) -> list[list[dict[str, float]]]:
    """Parse the nodes' text; they turn single quotes to double ones first."""
    parsed = json.loads(path.read_text(encoding="utf-8").replace("'", '"'))
    assert isinstance(parsed, list)
    assert all(set(point) == {"x", "y"} for track in parsed for point in track)
    assert all(track for track in parsed)
    return parsed


def _padded(track: list[dict[str, float]]) -> NDArray[np.float64]:
    points = np.array([[point["x"], point["y"], 1] for point in track])[:ATI_LENGTH]
    padding = np.zeros((ATI_LENGTH - len(points), 3))
    return np.concatenate([points, padding]).reshape(ATI_LENGTH, 1, 3)


def process_tracks(tracks: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Bring ``(N, 121, 1, 3)`` samples at 24 a second to the 81 frames of the model."""
    assert tracks.shape[1:] == (ATI_LENGTH, 1, 3)
    tracks = tracks.transpose(1, 0, 2, 3)
    places, seen = tracks[..., :2], tracks[..., 2:]
    assert np.isin(seen, (0, 1)).all()
    places = (places - np.array([width, height]) / 2) / min(width, height) * 2
    times = np.broadcast_to(np.linspace(-1, 1, ATI_LENGTH)[:, None, None, None], seen.shape)
    joined = np.concatenate([times, places, seen * 2 - 1], axis=-1).reshape(ATI_LENGTH, -1, 4)
    return np.concatenate([joined[:1], np.repeat(joined[1:], 2, axis=0)[1::3]])


def torch_load(path: Path) -> Any:
    """Read what ``torch.load(path, weights_only=True)`` would, of a file that holds no tensor.

    PyTorch's reader wants a zip whose entries lie in one folder, stored, with the format's version; its unpickler
    (torch/_weights_only_unpickler.py) knows the operations of protocol 2 and few names, of which bytes take one.
    """
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        (folder,) = {entry.filename.split("/")[0] for entry in entries}
        assert int(file.read(f"{folder}/version")) >= 1
        assert file.read(f"{folder}/byteorder") == b"little"
        data = file.read(f"{folder}/data.pkl")
    assert {operation.name for operation, _, _ in pickletools.genops(data)} <= _KNOWN
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        assert (module, name) == ("_codecs", "encode")
        return codecs.encode


def _npz(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)
