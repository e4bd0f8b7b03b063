"""``structureflow inspect``: what is inside a flow archive, wherever it lies, without downloading it.

Of the JSON of results it shows how well their frames are known (`evidence`).
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import math
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from structureflow import FlowMeta, flow_normaliser, flow_to_rgb
from structureflow.errors import (
    FlowCacheError,
    InputNotAllowedError,
    InvalidRequestError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.flow.archive import FileReader, FlowArchive, RangeReader, open_flow_archive
from structureflow.models.problems import counted
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix
from structureflow_local.evidence import inspect_results
from structureflow_local.exits import DONE
from structureflow_local.output import Output, cells, table
from structureflow_local.progress import counting

_TILE_WIDTH_PX: Final = 240
_COLUMNS: Final = 5
_PICTURES: Final = 20
_CAPTION_PX: Final = 20
#: Bytes of flow that `--verify` reads at a time.
_VERIFIED_BYTES: Final = 32 * 2**20


def run(args: argparse.Namespace, output: Output) -> int:
    """Run ``structureflow inspect``; returns the exit code."""
    if args.reference.partition("?")[0].endswith(".json"):
        results = inspect_results(*_reader(args.reference, args.endpoint_url), output)
        output.give(segments=results)
        return DONE
    inspect(args.reference, png=args.png, verify=args.verify, endpoint_url=args.endpoint_url, output=output)
    return DONE


def inspect(
    reference: str,
    *,
    png: Path | None = None,
    verify: bool = False,
    endpoint_url: str | None = None,
    output: Output,
) -> FlowArchive:
    """Print what is inside an archive, and optionally draw it and check it in full.

    Args:
        reference: a local path, ``s3://bucket/key``, or ``https://…`` (``http`` on loopback only).
        png: where a contact sheet of up to 20 forward flows shall be written.
        verify: read every flow, and so check every checksum.
        endpoint_url: of an S3-compatible store.
        output: where it goes.

    Raises:
        FlowCacheError: it is no readable flow archive, or `verify` found damage.
        StorageError, InputNotFoundError, InputNotAllowedError: it can't be reached.
    """
    reader, key = _reader(reference, endpoint_url)
    try:
        archive = open_flow_archive(reader, key)
    except FlowCacheError as error:
        raise error.within(reference, instead_of=key) from error
    facts = _facts(archive)
    output.give(reference=reference, **{name.replace(" ", "_"): value for name, value in facts.items()})
    output.say(reference, style="bold")
    for name, value in facts.items():
        output.say(f"{name:<12} {value}")
    output.detail(_members(archive))
    if verify:
        _verify(archive, output)
    if png is not None:
        _write_png(png, contact_sheet(archive))
        output.give(png=png)
        output.say(f"contact sheet: {png}")
    output.give(requests=archive.requests)
    output.say(counted(archive.requests, "request"), style="dim")
    return archive


def contact_sheet(archive: FlowArchive) -> NDArray[np.uint8]:
    """Draw up to 20 forward flows, evenly spread, in one colour scale.

    Flows across a scene cut have a black frame around them; the last tile is the colour wheel.

    Returns:
        ``(H, W, 3) uint8 RGB``.
    """
    meta = archive.meta
    indices = sorted({round(i) for i in np.linspace(0, meta.total_flows - 1, min(meta.total_flows, _PICTURES))})
    # one field at a time: they may be large, and their pictures are small
    max_px = flow_normaliser(archive.read("forward", index, index + 1)[0] for index in indices)
    height = max(24, round(_TILE_WIDTH_PX * meta.height / meta.width))
    tiles = []
    for index in indices:
        flow = archive.read("forward", index, index + 1)[0]
        picture = cv2.resize(flow_to_rgb(flow, max_px), (_TILE_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        cut = index in meta.scene_cuts
        if cut:
            cv2.rectangle(picture, (0, 0), (_TILE_WIDTH_PX - 1, height - 1), (0, 0, 0), 4)
        caption = f"{index}  {meta.timestamps_s[index]:.2f} s{'  CUT' if cut else ''}"
        tiles.append(_captioned(picture, caption))
    scale = meta.original_width / meta.width
    tiles.append(_captioned(_wheel_picture(height), f"edge: {max_px * scale:.1f} px per frame"))
    while len(tiles) % min(_COLUMNS, len(tiles)):
        tiles.append(np.full_like(tiles[0], 255))
    columns = min(_COLUMNS, len(tiles))
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _wheel_picture(height: int) -> NDArray[np.uint8]:
    radius = min(height, _TILE_WIDTH_PX) / 2 - 2
    y, x = np.mgrid[0:height, 0:_TILE_WIDTH_PX].astype(np.float32)
    flow = np.dstack([x - _TILE_WIDTH_PX / 2, y - height / 2]) / np.float32(radius)
    flow[np.hypot(flow[..., 0], flow[..., 1]) > 1] = 0
    return flow_to_rgb(flow, 1.0)


def _captioned(picture: Any, caption: str) -> NDArray[np.uint8]:
    band = np.full((_CAPTION_PX, _TILE_WIDTH_PX, 3), 255, np.uint8)
    cv2.putText(band, caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    tile = np.vstack([picture, band])
    return cast("NDArray[np.uint8]", cv2.copyMakeBorder(tile, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255)))


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise StorageError(f"{path}: the picture could not be encoded")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise InvalidRequestError(f"{path}: cannot be written: {error.strerror}") from error


def _facts(archive: FlowArchive) -> dict[str, str]:
    meta = archive.meta
    frame_bytes = meta.height * meta.width * 8
    directions = 2 if meta.has_backward else 1
    raw_bytes = meta.total_flows * frame_bytes * directions
    return {
        "format": f"version {meta.format_version}, read by ranges" if archive.seekable else "plain .npz, read in full",
        "size": f"{_size(archive.info.size_bytes)}, {raw_bytes / max(1, archive.info.size_bytes):.1f} times packed",
        "flows": f"{meta.total_flows} ({'forward and backward' if meta.has_backward else 'forward only'})",
        "grid": f"{meta.width}x{meta.height} of a video of {meta.original_width}x{meta.original_height}",
        "time": f"{meta.timestamps_s[-1] - meta.timestamps_s[0]:.3f} s at {meta.original_fps:g} frames per second",
        "engine": meta.engine,
        "parameters": json.dumps(dict(meta.engine_params)) if meta.engine_params else "unknown",
        "error bound": _error_bound(meta),
        "scene cuts": _cuts(meta),
        "source": meta.source_video or "unknown",
        "identity": meta.source_identity or "unknown",
        "ETag": archive.etag,
    }


def _error_bound(meta: FlowMeta) -> str:
    if not meta.quantization_px:
        return "unknown step (not written by structureflow)"
    half = meta.quantization_px / 2
    scale = max(meta.original_width / meta.width, meta.original_height / meta.height)
    coarser = "; coarser beyond 128 px" if meta.format_version == 1 else ""
    return (
        f"{half:g} px of the grid, {half * scale:.3g} px of the video, per component "
        f"(step {meta.quantization_px:g} px{coarser})"
    )


def _cuts(meta: FlowMeta) -> str:
    if not meta.scene_cuts:
        return "none"
    shown = [f"{cut} ({meta.timestamps_s[cut + 1]:.2f} s)" for cut in meta.scene_cuts[:20]]
    more = len(meta.scene_cuts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _members(archive: FlowArchive) -> Table:
    made = table("Members", "member", "stored", "plain", "ratio", numbers=("stored", "plain", "ratio"))
    for member in archive.members.values():
        ratio = member.size_bytes / member.compressed_bytes if member.compressed_bytes else math.nan
        name = member.name.removesuffix(".npy")
        made.add_row(*cells(name, _size(member.compressed_bytes), _size(member.size_bytes), f"{ratio:.1f}"))
    return made


def _size(size_bytes: int) -> str:
    if size_bytes < 10_000:
        return f"{size_bytes} B"
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:.1f} MB"


def _verify(archive: FlowArchive, output: Output) -> None:
    meta = archive.meta
    step = max(1, _VERIFIED_BYTES // (meta.height * meta.width * 8))
    longest, spread = 0.0, 0.0
    with counting(output, "verify", meta.total_flows, "flows") as done:
        for start in range(0, meta.total_flows, step):
            stop = min(meta.total_flows, start + step)
            flows = archive.read("forward", start, stop)
            longest = max(longest, float(np.abs(flows).max()))
            if meta.has_backward:
                backward = archive.read("backward", start, stop)
                spread = max(spread, float(np.abs(backward).max()))
            done(stop - start)
    output.give(verified=True)
    output.say(f"all checksums are right; longest component {max(longest, spread):g} px of the grid")


# --- where archives lie ------------------------------------------------------------------------------


def _reader(reference: str, endpoint_url: str | None) -> tuple[RangeReader, str]:
    if reference.startswith("s3://"):
        from structureflow import S3Settings, S3Storage

        bucket, _, key = reference.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise InvalidRequestError(f"expected s3://bucket/key, got {reference!r:.300}")
        settings = S3Settings(endpoint_url=endpoint_url) if endpoint_url else None
        return S3Storage(bucket, settings=settings), key
    if reference.startswith(("https://", "http://")):
        return UrlReader(), reference
    return FileReader(), reference


class UrlReader:
    """Read byte ranges over HTTPS (plain HTTP from loopback only); the key is the URL. Follows no redirects."""

    def __init__(self, *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read an object or a part of it (`Storage.get`); a server that ignores ranges sends it all.

        Raises:
            InputNotAllowedError: plain HTTP to another machine.
            ObjectNotFoundError, ObjectChangedError, RangeNotSatisfiableError: as the server says.
            StorageError: it refuses; `TransientStorageError`: it does not answer.
        """
        headers = {"Accept-Encoding": "identity"}
        if isinstance(byte_range, Suffix):
            headers["Range"] = f"bytes=-{byte_range.length}"
        elif byte_range is not None:
            headers["Range"] = f"bytes={byte_range.start}-{byte_range.stop - 1}"
        if if_match:
            headers["If-Match"] = f'"{if_match}"'
        connection = self._connect(key)
        parts = urlsplit(key)
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=headers)
            response = connection.getresponse()
            self._check(key, response.status)
            data = response.read()
            return _stored(key, response, data, byte_range)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, StorageError):
                raise
            raise TransientStorageError(f"{_plain(key)}: {error}") from error
        finally:
            connection.close()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=self._timeout_s)
        if not _is_loopback(host):
            raise InputNotAllowedError(f"{_plain(url)}: expected https, plain http is for this machine only")
        return http.client.HTTPConnection(host, parts.port, timeout=self._timeout_s)

    def _check(self, url: str, status: int) -> None:
        if status in (200, 206):
            return
        message = f"{_plain(url)}: the server answers {status}"
        if status in (404, 410):
            raise ObjectNotFoundError(message)
        if status == 412:
            raise ObjectChangedError(message)
        if status == 416:
            raise RangeNotSatisfiableError(message)
        if status == 429 or status >= 500:
            raise TransientStorageError(message)
        raise StorageError(message)


def _stored(
    url: str, response: http.client.HTTPResponse, data: bytes, byte_range: ByteRange | Suffix | None
) -> StoredObject:
    etag = (response.headers.get("ETag") or "").removeprefix("W/").strip('"')
    if response.status == 206:
        span, _, total = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        if not (first.isdecimal() and last.isdecimal() and total.isdecimal()) or int(last) - int(first) + 1 != len(
            data
        ):
            raise StorageError(
                f"{_plain(url)}: Content-Range does not fit: {response.headers.get('Content-Range')!r:.80}"
            )
        return StoredObject(data, ObjectInfo(url, int(total), etag), int(first))
    start, stop = 0, len(data)
    if isinstance(byte_range, Suffix):
        start = max(0, stop - byte_range.length)
    elif byte_range is not None:
        start, stop = byte_range.start, min(stop, byte_range.stop)
    return StoredObject(data[start:stop], ObjectInfo(url, len(data), etag), start)


def _plain(url: str) -> str:
    """Return the URL without its query, which may hold a signature."""
    return url.partition("?")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
