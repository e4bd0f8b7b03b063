"""Flows to and from the files of other programs: nothing is lost but what a format cannot say."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from structureflow.errors import FlowError, InputNotFoundError
from structureflow.flow.archive import FlowArchiveWriter, open_flow_file
from structureflow.flow.exchange import export_flows, import_flows
from structureflow.flow.fields import FlowMeta
from structureflow.flow.image_files import read_flo, read_kitti, write_flo, write_kitti

HEIGHT, WIDTH, COUNT = 40, 56, 5


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive whose vectors are on its grid of 1/16 pixel."""
    random = np.random.default_rng(7)
    path = tmp_path / "flows.npz"
    with FlowArchiveWriter(path, height=HEIGHT, width=WIDTH) as writer:
        for _ in range(COUNT):
            writer.feed(*(np.rint(random.normal(0, 90, (2, HEIGHT, WIDTH, 2))) / 16).astype(np.float32))
        writer.finish(
            original_height=80,
            original_width=112,
            original_fps=24.0,
            engine="dis",
            engine_params={"finest_scale": 2},
            timestamps_s=np.array([0, 0.04, 0.1, 0.12, 0.16, 0.2]),
            scene_cuts=(2,),
            display_max_px=9.5,
            source_video="dance.mp4",
            source_identity="ab" * 32,
        )
    return path


def same_meta(one: FlowMeta, other: FlowMeta) -> None:
    for name in FlowMeta.__dataclass_fields__:
        if name not in {"format_version", "quantization_px"}:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("form", ["flo", "kitti", "npz"])
def test_what_went_out_comes_in_as_it_was(archive: Path, form: str, tmp_path: Path) -> None:
    flows = open_flow_file(archive)
    target = tmp_path / ("plain.npz" if form == "npz" else "folder")
    files = export_flows(flows, target, form)  # type: ignore[arg-type]
    assert all(file.is_file() for file in files)
    assert len(files) == (1 if form == "npz" else 2 * COUNT + 1)
    back = import_flows(target, tmp_path / "back.npz")
    same_meta(flows.meta, back.meta)
    for direction in ("forward", "backward"):
        np.testing.assert_array_equal(flows.read(direction, 0, COUNT), back.read(direction, 0, COUNT))


def test_numpy_reads_the_plain_file(archive: Path, tmp_path: Path) -> None:
    export_flows(open_flow_file(archive), tmp_path / "plain.npz", "npz")
    with np.load(tmp_path / "plain.npz", allow_pickle=False) as plain:
        assert plain["flows"].dtype == np.float32
        np.testing.assert_array_equal(plain["flows"], open_flow_file(archive).read("forward", 0, COUNT))
        assert plain["original_resolution"].tolist() == [112, 80]
    assert open_flow_file(tmp_path / "plain.npz").meta.format_version == 0


def test_files_of_others_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    for number in (1, 2, 10):
        write_flo(folder / f"flow_{number}.flo", np.full((HEIGHT, WIDTH, 2), number, np.float32))
    found = import_flows(folder, tmp_path / "flows.npz", fps=30, size=(1280, 720))
    assert found.read("forward", 0, 3)[:, 0, 0, 0].tolist() == [1, 2, 10]
    meta = found.meta
    assert (meta.original_fps, meta.original_width, meta.original_height) == (30, 1280, 720)
    assert not meta.has_backward
    np.testing.assert_allclose(meta.timestamps_s, np.arange(4) / 30)


def test_a_plain_archive_without_a_rate_is_given_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", flows=np.ones((3, HEIGHT, WIDTH, 2), np.float16))
    meta = import_flows(tmp_path / "plain.npz", tmp_path / "flows.npz", fps=12, size=(640, 480)).meta
    assert (meta.original_fps, meta.original_width, meta.original_height) == (12, 640, 480)
    np.testing.assert_allclose(meta.timestamps_s, np.arange(4) / 12)


def test_the_flo_file_is_middleburys(tmp_path: Path) -> None:
    flow = np.arange(2 * 3 * 2, dtype=np.float32).reshape(2, 3, 2) - 5.5
    write_flo(tmp_path / "a.flo", flow, known=np.array([[True, True, True], [True, True, False]]))
    data = (tmp_path / "a.flo").read_bytes()
    # the tag is the float 202021.25; width before height; u and v interleaved; beyond 1e9: unknown
    assert struct.unpack("<f2i", data[:12]) == (202021.25, 3, 2)
    numbers = np.frombuffer(data[12:], "<f4")
    assert numbers[:10].tolist() == flow.ravel()[:10].tolist()
    assert (np.abs(numbers[10:]) > 1e9).all()
    back, known = read_flo(tmp_path / "a.flo")
    assert known.tolist() == [[True, True, True], [True, True, False]]
    assert back[1, 2].tolist() == [0, 0]


def test_the_png_is_kittis(tmp_path: Path) -> None:
    flow = np.full((40, 56, 2), (-3.25, 511.0), np.float32)
    known = np.ones((40, 56), np.bool_)
    known[0, 0] = False
    write_kitti(tmp_path / "a.png", flow, known)
    image = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    blue, green, red = image[5, 5].tolist()
    assert (red, green, blue) == (2**15 - 208, 2**15 + 511 * 64, 1)
    assert image[0, 0].tolist() == [0, 0, 0]
    back, valid = read_kitti(tmp_path / "a.png")
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(back[known], flow[known])


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda shape: (*shape, 2)),
        elements=st.floats(-511, 511, width=32),
    )
)
def test_any_flow_survives_both_files(tmp_path_factory: pytest.TempPathFactory, flow: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("files")
    write_flo(folder / "a.flo", flow)
    np.testing.assert_array_equal(read_flo(folder / "a.flo")[0], flow)
    write_kitti(folder / "a.png", flow)
    assert np.abs(read_kitti(folder / "a.png")[0] - flow).max() <= 1 / 128 + 1e-6


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.flo", b"", "begins with PIEH"),
        ("a.flo", b"PIEX" + struct.pack("<2i", 1, 1) + bytes(8), "begins with PIEH"),
        ("a.flo", b"PIEH" + struct.pack("<2i", 1, 2) + bytes(8), "expected 16 bytes"),
        ("a.flo", b"PIEH" + struct.pack("<2i", 1, 1) + bytes(9), "expected 8 bytes"),
        ("a.flo", b"PIEH" + struct.pack("<2i", 2**30, 2**30), "sides of 1 to 4096"),
        ("a.flo", b"PIEH" + struct.pack("<2i", -1, 4), "sides of 1 to 4096"),
        ("a.png", b"GIF89a", "expected a PNG"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">2I", 60000, 60000), "sides of 1 to 4096"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">2I", 6, 6), "16 bits"),
    ],
)
def test_what_is_no_flow_file_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FlowError, match=said):
        (read_flo if name.endswith("flo") else read_kitti)(tmp_path / name)
    with pytest.raises(FlowError, match=said):
        import_flows(tmp_path, tmp_path / "out" / "flows.npz")
    assert not list(tmp_path.glob("out/*"))


def test_an_ordinary_picture_is_no_flow(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 56, 3), np.uint8))
    with pytest.raises(FlowError, match="16 bits"):
        read_kitti(tmp_path / "a.png")


def test_what_does_not_fit_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="up to 512"):
        write_kitti(tmp_path / "a.png", np.full((4, 4, 2), 600, np.float32))
    with pytest.raises(FlowError, match="NaN"):
        write_flo(tmp_path / "a.flo", np.full((4, 4, 2), np.nan, np.float32))
    with pytest.raises(FlowError, match="known: expected"):
        write_flo(tmp_path / "a.flo", np.zeros((4, 4, 2), np.float32), np.ones((3, 4), np.bool_))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FlowError, match="expected an empty folder"):
        export_flows(open_flow_file(archive), tmp_path / "full", "flo")
    with pytest.raises(FlowError, match="expected flo, kitti or npz"):
        export_flows(open_flow_file(archive), tmp_path / "x", "exr")  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_folder_that_does_not_hold_together_is_refused(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    export_flows(open_flow_file(archive), folder, "flo")
    with pytest.raises(InputNotFoundError):
        import_flows(tmp_path / "nowhere", tmp_path / "x.npz")
    notes = json.loads((folder / "flows.json").read_text())
    for wrong in ({"original_fps": 0}, {"original_resolution": [1]}, {"timestamps_s": [1, 2]}, {"scene_cuts": [99]}):
        (folder / "flows.json").write_text(json.dumps(notes | wrong))
        with pytest.raises(FlowError):
            import_flows(folder, tmp_path / "x.npz")
    (folder / "flows.json").write_text(json.dumps(notes))
    (folder / "backward" / "000004.flo").unlink()
    with pytest.raises(FlowError, match="as many backward flows"):
        import_flows(folder, tmp_path / "x.npz")
    write_flo(folder / "backward" / "000004.flo", np.zeros((8, 8, 2), np.float32))
    with pytest.raises(FlowError, match="expected"):
        import_flows(folder, tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
    assert not list(tmp_path.glob(".x.npz*"))
