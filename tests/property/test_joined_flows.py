"""Joined flows are those of the parts, wherever they are read, and however they are stored."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from structureflow.errors import FlowCacheCorruptError, FlowError
from structureflow.flow.archive import FlowArchive, FlowArchiveWriter, open_flow_archive, open_flow_file, quantise
from structureflow.flow.fields import FlowMeta
from structureflow.flow.joined import JoinedFlows, Part, Size, origins, resized_flow, resized_gray, write_joined
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.flows import smooth_flows
from structureflow.testing.old_archives import format_1_archive

HEIGHT, WIDTH = 12, 20
SIZE = Size(24, 40, HEIGHT, WIDTH)


def archive(folder: Path, name: str, flows: NDArray[np.float32], *, backward: bool = True) -> FlowArchive:
    path = folder / name
    with FlowArchiveWriter(path, height=HEIGHT, width=WIDTH, backward=backward) as writer:
        for flow in flows:
            writer.feed(flow, -flow if backward else None)
        writer.finish(
            original_height=24,
            original_width=40,
            original_fps=10.0,
            engine="dis",
            engine_params={},
            timestamps_s=np.arange(len(flows) + 1) / 10,
            scene_cuts=(2,) if len(flows) > 2 else (),
            display_max_px=float(len(flows)),
            source_identity=name,
        )
    return open_flow_file(path)


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(0, 7), st.integers(2, 9)), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_any_range_is_that_of_the_parts(wanted: list[tuple[int, int, int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: list[Any] = []
        plain: list[Any] = []
        cuts: list[int] = []
        for number, (flows, start, frames) in enumerate(wanted):
            begin = min(start, flows - 1)
            count = min(frames, flows + 1 - begin)
            fields = quantise(smooth_flows(flows, HEIGHT, WIDTH, seed=number, scale_px=3.0))
            parts.append(Part(archive(folder, f"{number}.npz", fields), begin, count, {"number": number}))
            if number:
                cuts.append(len(plain))
                plain.append(np.zeros((HEIGHT, WIDTH, 2), np.float32))
            if flows > 2 and begin <= 2 < begin + count - 1:
                cuts.append(len(plain) + 2 - begin)
            plain += list(fields[begin : begin + count - 1])
        meta = write_joined(parts, folder / "joined.npz", SIZE, source_video="v", source_identity="joined:1")
        written = open_flow_file(folder / "joined.npz")
        assert written.meta.total_flows == len(plain)
        assert written.meta.scene_cuts == tuple(sorted(cuts))
        assert [origin["number"] for origin in origins(written.meta)] == list(range(len(wanted)))
        assert (np.diff(written.meta.timestamps_s) > 0).all()
        assert meta.display_max_px == max(flows for flows, _, _ in wanted)
        with np.load(folder / "joined.npz", allow_pickle=False) as opened:
            np.testing.assert_array_equal(opened["flows"], np.stack(plain))
        start = data.draw(st.integers(0, len(plain) - 1))
        stop = data.draw(st.integers(start + 1, len(plain)))
        expected = np.stack(plain[start:stop])
        for flows_of in (written, JoinedFlows(meta, parts)):
            np.testing.assert_array_equal(flows_of.read("forward", start, stop), expected)
            np.testing.assert_array_equal(flows_of.read("backward", start, stop), -expected)


def test_blocks_are_copied_byte_for_byte(tmp_path: Path) -> None:
    fields = smooth_flows(5, HEIGHT, WIDTH, seed=1, scale_px=3.0)
    source = archive(tmp_path, "a.npz", fields)
    write_joined([Part(source, 1, 4, {})], tmp_path / "j.npz", SIZE, source_video="", source_identity="")
    with np.load(tmp_path / "a.npz") as one, np.load(tmp_path / "j.npz") as other:
        for name in ("flows", "flows_backward"):
            np.testing.assert_array_equal(other[f"{name}_crc32"], one[f"{name}_crc32"][1:4])
            first, last = one[f"{name}_offsets"][[1, 4]]
            begin, end = other[f"{name}_offsets"][[0, 3]]
            assert (tmp_path / "a.npz").read_bytes()[first:last] == (tmp_path / "j.npz").read_bytes()[begin:end]


def test_a_rotten_block_is_not_copied(tmp_path: Path) -> None:
    source = archive(tmp_path, "a.npz", smooth_flows(5, HEIGHT, WIDTH, seed=1, scale_px=3.0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[400] ^= 4
    (tmp_path / "b.npz").write_bytes(bytes(data))
    assert source.meta.total_flows == 5
    rotten = Part(open_flow_file(tmp_path / "b.npz"), 0, 6, {})
    with pytest.raises(FlowCacheCorruptError):
        write_joined([rotten], tmp_path / "j.npz", SIZE, source_video="", source_identity="")
    assert not (tmp_path / "j.npz").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}


def test_older_archives_and_those_without_backward_flows_join_too(tmp_path: Path) -> None:
    fields = quantise(smooth_flows(4, HEIGHT, WIDTH, seed=2, scale_px=3.0))
    storage = MemoryStorage()
    storage.put("old.npz", format_1_archive(fields, -fields, scene_cuts=()))
    old = Part(open_flow_archive(storage, "old.npz"), 0, 5, {})
    forward_only = Part(archive(tmp_path, "f.npz", fields, backward=False), 1, 4, {})
    write_joined([old, forward_only], tmp_path / "j.npz", SIZE, source_video="", source_identity="")
    joined = open_flow_file(tmp_path / "j.npz")
    assert not joined.meta.has_backward
    expected = np.concatenate([fields, np.zeros((1, HEIGHT, WIDTH, 2), np.float32), fields[1:4]])
    np.testing.assert_array_equal(joined.read("forward", 0, 8), expected)


@pytest.mark.parametrize(("start", "frames"), [(-1, 3), (0, 7), (5, 2), (0, 1)])
def test_a_part_outside_of_its_video_is_refused(tmp_path: Path, start: int, frames: int) -> None:
    source = archive(tmp_path, "a.npz", smooth_flows(5, HEIGHT, WIDTH, seed=1, scale_px=1.0))
    with pytest.raises(FlowError, match="joined flows: expected a part of 6 frames"):
        write_joined([Part(source, start, frames, {})], tmp_path / "j", SIZE, source_video="", source_identity="")


# --- other shapes ---------------------------------------------------------------------------------------------


def coordinates(size: Size) -> NDArray[np.float32]:
    """A flow field whose vectors are the places of its cells in the video, in pixels of the video from its middle."""
    y, x = np.mgrid[0 : size.grid_height, 0 : size.grid_width].astype(np.float32)
    across = (x + 0.5) * size.width / size.grid_width - size.width / 2
    down = (y + 0.5) * size.height / size.grid_height - size.height / 2
    return np.dstack([across, down]).astype(np.float32)


@given(
    st.tuples(st.integers(40, 400), st.integers(40, 400)),
    st.tuples(st.integers(40, 400), st.integers(40, 400)),
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
)
@settings(max_examples=100)
def test_what_covers_keeps_its_middle_and_its_shape(
    source: tuple[int, int], target: tuple[int, int], grid: tuple[int, int], other_grid: tuple[int, int]
) -> None:
    """As pictures are fitted: one scale for both sides, the middle on the middle, the shorter side covered."""
    one, other = Size(*source, *grid), Size(*target, *other_grid)
    scale = max(target[0] / source[0], target[1] / source[1])
    matrix = other.seen_in(one)
    places, there = coordinates(other), coordinates(one)
    rows, columns = np.mgrid[0 : other_grid[0], 0 : other_grid[1]]
    x = columns * matrix[0, 0] + matrix[0, 2]
    y = rows * matrix[1, 1] + matrix[1, 2]
    across = (x + 0.5) * source[1] / grid[1] - source[1] / 2
    down = (y + 0.5) * source[0] / grid[0] - source[0] / 2
    np.testing.assert_allclose(across * scale, places[..., 0], atol=1e-2)
    np.testing.assert_allclose(down * scale, places[..., 1], atol=1e-2)
    moved = resized_flow(np.full_like(there, 1.0), one, other)
    # one cell of the source, in pixels of the target, on its grid
    np.testing.assert_allclose(moved[..., 0], source[1] / grid[1] * scale * other_grid[1] / target[1], rtol=1e-3)
    np.testing.assert_allclose(moved[..., 1], source[0] / grid[0] * scale * other_grid[0] / target[0], rtol=1e-3)


def test_the_same_size_is_left_as_it_is() -> None:
    flow = smooth_flows(1, HEIGHT, WIDTH, seed=1, scale_px=1.0)[0]
    gray = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert resized_flow(flow, SIZE, SIZE) is flow
    assert resized_gray(gray, SIZE, SIZE) is gray
    meta = FlowMeta(1, HEIGHT, WIDTH, 24, 40, 10.0, True, "dis")
    assert Size.of(meta) == SIZE
