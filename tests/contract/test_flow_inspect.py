"""``structureflow inspect`` on files, a web server on loopback, and bad references."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from structureflow.errors import (
    FlowCacheCorruptError,
    FlowCacheError,
    InputNotAllowedError,
    InputNotFoundError,
    InvalidRequestError,
    ObjectNotFoundError,
    StorageError,
)
from structureflow.flow.archive import open_flow_archive
from structureflow.models.results import SegmentResult
from structureflow.testing.flows import archive_bytes, smooth_flows
from structureflow_local.cli import build_parser, main
from structureflow_local.inspect import UrlReader, inspect, run
from structureflow_local.output import Output

FLOWS = smooth_flows(70, 48, 64, seed=5)
STORED = archive_bytes(FLOWS, -FLOWS, scene_cuts=(29,))


def _printed(reference: str, **options: Any) -> str:
    out = io.StringIO()
    inspect(reference, output=Output(verbose=True, console=Console(file=out, width=120)), **options)
    return out.getvalue()


def test_the_table_tells_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "flows.npz"
    path.write_bytes(STORED)
    text = _printed(str(path))
    for part in (
        "version 2, read by ranges",
        "70 (forward and backward)",
        "64x48 of a video of 128x96",
        "25 frames per second",
        "dis",
        '"finest_scale": 0',
        "0.03125 px of the grid, 0.0625 px of the video",
        "29 (1.20 s)",
        "s3://bucket/video.mp4",
        "5a" * 32,
        "flows_backward",
        "1 request",
    ):
        assert part in text, part


def test_a_plain_archive_says_what_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(path, flows=FLOWS[:3])
    text = _printed(str(path))
    assert "plain .npz, read in full" in text
    assert "3 (forward only)" in text
    assert "unknown step" in text


def test_the_contact_sheet_shows_the_flows_in_one_scale(tmp_path: Path) -> None:
    flows = np.zeros((10, 48, 64, 2), np.float32)
    flows[5:, :, :, 0] = 8.0
    flows[7, :, :, 0] = 4.0
    source, target = tmp_path / "f.npz", tmp_path / "sheet.png"
    source.write_bytes(archive_bytes(flows, scene_cuts=(4,)))
    _printed(str(source), png=target)
    sheet = np.asarray(cv2.imread(str(target)))[..., ::-1]
    tile_height, tile_width = sheet.shape[0] // 3, sheet.shape[1] // 5

    def middle(index: int) -> list[int]:
        row, column = divmod(index, 5)
        return [int(value) for value in sheet[row * tile_height + 60, column * tile_width + 100]]

    assert middle(0) == [255, 255, 255]
    assert middle(5) == [255, 0, 0]
    assert middle(7) == [255, 128, 128]
    assert sheet[20, 4 * tile_width + 3].max() < 10  # the frame around the cut
    assert sheet[20, 3 * tile_width + 3].min() > 250


def test_verify_reads_every_block(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    path.write_bytes(STORED)
    assert "all checksums are right" in _printed(str(path), verify=True)
    damaged = bytearray(STORED)
    damaged[len(damaged) // 4] ^= 1
    path.write_bytes(damaged)
    _printed(str(path))
    with pytest.raises(FlowCacheCorruptError):
        _printed(str(path), verify=True)


def test_the_command_takes_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.npz"
    path.write_bytes(STORED)
    assert main(["inspect", str(path), "--verify"]) == 0
    assert "checksums" in capsys.readouterr().out


def test_what_is_no_archive_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    path.write_bytes(b"hello")
    with pytest.raises(FlowCacheError):
        _printed(str(path))
    with pytest.raises(InputNotFoundError):
        _printed(str(tmp_path / "absent.npz"))
    with pytest.raises(InputNotAllowedError):
        _printed("http://192.0.2.7/flows.npz")


class _Handler(BaseHTTPRequestHandler):
    ranges: list[str | None]
    data = STORED
    etag = "v1"

    def do_GET(self) -> None:
        header = self.headers.get("Range")
        type(self).ranges.append(header)
        if self.headers.get("If-Match") not in (None, f'"{self.etag}"'):
            self._answer(412, b"")
        elif self.path.startswith("/whole"):
            self._answer(200, self.data)
        elif self.path.startswith("/moved"):
            self._answer(302, b"", {"Location": "/flows.npz"})
        elif not self.path.startswith("/flows.npz"):
            self._answer(404, b"")
        else:
            first, last = (header or "").removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(self.data) - int(last))
            stop = min(len(self.data), int(last) + 1) if first else len(self.data)
            self._answer(206, self.data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(self.data)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{self.etag}"')
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Handler]]]:
    handler = type("Handler", (_Handler,), {"ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", handler
        running.shutdown()
        thread.join()


def test_a_url_is_read_by_ranges(server: tuple[str, type[_Handler]]) -> None:
    url, handler = server
    noise = np.random.default_rng(0).normal(0, 5, (60, 48, 64, 2))
    handler.data = archive_bytes(noise)
    archive = open_flow_archive(UrlReader(), f"{url}/flows.npz?signature=x")
    read = archive.read("forward", 3, 9)
    np.testing.assert_allclose(read, noise[3:9], atol=1 / 16)
    assert len(handler.ranges) == 2
    handler.etag = "v2"
    with pytest.raises(FlowCacheCorruptError, match="overwritten"):
        archive.read("forward", 3, 9)


def test_a_server_without_ranges_serves_too(server: tuple[str, type[_Handler]]) -> None:
    url, _ = server
    archive = open_flow_archive(UrlReader(), f"{url}/whole")
    np.testing.assert_allclose(archive.read("backward", 60, 62), -FLOWS[60:62], atol=1 / 16)


def test_what_a_server_refuses_is_a_typed_error(server: tuple[str, type[_Handler]]) -> None:
    url, handler = server
    with pytest.raises(ObjectNotFoundError):
        open_flow_archive(UrlReader(), f"{url}/absent")
    with pytest.raises(StorageError, match="302"):
        open_flow_archive(UrlReader(), f"{url}/moved")
    assert len(handler.ranges) == 2
    with pytest.raises(StorageError):
        open_flow_archive(UrlReader(timeout_s=2), "http://127.0.0.1:9/flows.npz")


def _result(**changes: Any) -> SegmentResult:
    fields: dict[str, Any] = {
        "task_id": "t",
        "run_id": "r",
        "index": 2,
        "frames": 6,
        "width_px": 64,
        "height_px": 48,
        "fps": 16,
        "treatment": "clip",
        "anchors": "both",
        "motion_strength": 1,
        "flow_source": "cache",
        "engine": "dis",
        "flows_used": 4,
        "unguided": [(1, 4)],
        "filled": [(1, 4)],
        "left_unguided": [],
        "tracking": "anchored",
        "evidence": [
            {"frame": frame, "kept": kept, "unlike": unlike}
            for frame, kept, unlike in ((1, 1.0, 0.0), (2, 0.75, 1.0), (3, 0.5, 4.0), (4, 0.25, 8.0))
        ],
    }
    return SegmentResult.model_validate(fields | changes)


def _shown(path: Path) -> str:
    out = io.StringIO()
    args = build_parser().parse_args(["inspect", str(path)])
    assert run(args, Output(console=Console(file=out, width=120))) == 0
    return out.getvalue()


def test_a_result_shows_how_well_its_frames_are_known(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(_result().model_dump_json())
    text = _shown(path)
    for part in ("segment 2: 6 frames, paths anchored", "·█▆▄▂·", "62%", "25%", "·▁▁▄█·", "3.2", "8.0"):
        assert part in text, text
    path.write_text(_result(tracking="composed", evidence=[]).model_dump_json())
    assert "composed alone" in _shown(path)
    # frames that share a bar show the worst of them
    many = [{"frame": frame, "kept": 0.25 if frame == 100 else 1.0, "unlike": 0.0} for frame in range(1, 160)]
    path.write_text(_result(frames=160, evidence=many).model_dump_json())
    assert "█" * 33 + "▂" + "█" * 20 in _shown(path)


def test_json_that_is_no_result_is_refused(tmp_path: Path) -> None:
    for name, text in (("result.json", '{"index": "x"}'), ("manifest.json", "[]"), ("a.json", "{")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InvalidRequestError, match=r"expected the result\.json of a segment or the manifest\.json"):
            _shown(path)
