"""The ComfyUI nodes, with torch tensors on the CPU, and by the rules that ComfyUI's documentation has for nodes."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from structureflow.testing.videos import pan_frames, write_clip

torch = pytest.importorskip("torch")

PACK = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
WORKFLOW = json.loads((PACK / "example_workflows" / "structure_to_wan_vace.json").read_text())
#: Types whose inputs are widgets, whose value stands in the workflow (docs.comfy.org, "Datatypes").
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN"}


def load_pack() -> types.ModuleType:
    """Import the folder as ComfyUI does: as a package of a name of its own."""
    spec = importlib.util.spec_from_file_location(
        "comfyui_pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["comfyui_pack"] = module
    spec.loader.exec_module(module)
    return module


NODES: dict[str, Any] = load_pack().NODE_CLASS_MAPPINGS


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ComfyUI has of folders."""
    module = types.ModuleType("folder_paths")
    module.get_user_directory = lambda: str(tmp_path / "user")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    return tmp_path / "user" / "structureflow"


def images(frames: list[NDArray[np.uint8]] | NDArray[np.uint8]) -> Any:
    return torch.from_numpy(np.stack(list(frames)).astype(np.float32) / 255)


@pytest.fixture
def frames() -> list[NDArray[np.uint8]]:
    return list(pan_frames(12, 96, 160, dx=4, dy=0))


def extracted(frames: list[NDArray[np.uint8]]) -> Any:
    flows, pictures = NODES["StructureFlowsFromImages"]().extract(images(frames), 16.0, "dis", "balanced")
    assert pictures.shape == (11, 96, 160, 3)
    return flows


def guide(flows: Any, keyframes: Any, positions: str = "0, -1", **changes: Any) -> tuple[Any, Any]:
    given = {
        "width": 160, "height": 96, "length": 13, "treatment": "retime", "anchors": "both", "mask": "visibility",
        "holes": "grey", "motion_strength": 1.0,
    }  # fmt: skip
    made: tuple[Any, Any] = NODES["StructureGuide"]().render(flows, keyframes, positions, **(given | changes))
    return made


# --- what they make -----------------------------------------------------------------------------------


def test_a_guide_and_its_mask(frames: list[NDArray[np.uint8]]) -> None:
    shown, mask = guide(extracted(frames), images([frames[0], frames[-1]]))
    assert (shown.shape, shown.dtype) == ((13, 96, 160, 3), torch.float32)
    assert (mask.shape, mask.dtype) == ((13, 96, 160), torch.float32)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    assert set(np.unique(mask.numpy())) <= {0.0, 1.0}
    # key frames are kept as they are; white is for the generator, as WanVaceToVideo reads it
    torch.testing.assert_close(shown[0], images([frames[0]])[0])
    torch.testing.assert_close(shown[-1], images([frames[-1]])[0])
    assert float(mask[0].sum()) == float(mask[-1].sum()) == 0
    # between, what the pan really shows, 40 pixels on
    middle = shown[6].numpy() * 255
    assert np.abs(middle[16:-16, 60:-60] - frames[0][16:-16, 38:-82].astype(float)).mean() < 12
    assert float(mask[6].mean()) < 0.5


def test_masks_are_the_same_for_every_four_frames(frames: list[NDArray[np.uint8]]) -> None:
    _, mask = guide(extracted(frames), images([frames[0]]), "0", anchors="start")
    for first in range(1, 13, 4):
        for other in range(first + 1, first + 4):
            torch.testing.assert_close(mask[first], mask[other])
    blocks = mask.reshape(13, 6, 16, 10, 16)
    assert float((blocks.amax((2, 4)) - blocks.amin((2, 4))).max()) == 0


def test_pictures_of_any_size_are_cut_not_stretched(frames: list[NDArray[np.uint8]]) -> None:
    square = np.zeros((300, 300, 3), np.uint8)
    square[:, 100:200] = 200
    shown, _ = guide(extracted(frames), images([square]), "0", length=5)
    assert shown.shape == (5, 96, 160, 3)
    assert 0.3 < float((shown[0, :, :, 0] > 0.5).float().mean()) < 0.37


def test_held_and_following_key_frames(frames: list[NDArray[np.uint8]]) -> None:
    shown, mask = guide(extracted(frames), images([frames[0], frames[5], frames[6]]), "0-2, 8, 9")
    for index in range(3):
        torch.testing.assert_close(shown[index], images([frames[0]])[0])
    torch.testing.assert_close(shown[9], images([frames[6]])[0])
    assert [index for index in range(13) if float(mask[index].sum()) == 0][:3] == [0, 1, 2]


def test_flows_are_found_again_on_disk(
    frames: list[NDArray[np.uint8]], user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extracted(frames)
    (stored,) = user_folder.iterdir()
    before = stored.stat().st_mtime_ns
    second = extracted(frames)
    assert stored.stat().st_mtime_ns == before
    np.testing.assert_array_equal(first.flows.read("forward", 0, 11), second.flows.read("forward", 0, 11))
    stored.write_bytes(b"damaged")
    extracted(frames)
    assert stored.stat().st_size > 1000
    extracted([*frames[:-1], frames[0]])
    assert len(list(user_folder.iterdir())) == 2


def test_a_file_gives_the_same_as_its_frames(
    frames: list[NDArray[np.uint8]], tmp_path: Path, user_folder: Path
) -> None:
    from structureflow.media.decode import VideoReader

    clip = write_clip(tmp_path / "clip.mp4", frames, fps=16)
    with VideoReader(clip) as video:
        decoded = [frame.image for frame in video]
    node = NODES["StructureFlowsFromFile"]
    assert node.VALIDATE_INPUTS(str(clip)) is True
    from_file, _ = node().extract(str(clip), "dis", "balanced")
    keys = images([decoded[0], decoded[-1]])
    one, other = guide(from_file, keys), guide(extracted(decoded), keys)
    torch.testing.assert_close(one, other)
    assert len(list(user_folder.iterdir())) == 2
    # as Windows copies a path
    assert node.VALIDATE_INPUTS(f'"{clip}" ') is True
    assert node().extract(f'"{clip}" ', "dis", "balanced")[0].structure == clip
    assert len(list(user_folder.iterdir())) == 2
    # ComfyUI knows no value of an input that another node gives, and takes an error for a change each time
    assert node.IS_CHANGED(None, "dis", "balanced") == node.IS_CHANGED(None, "dis", "balanced")
    state = node.IS_CHANGED(str(clip), "dis", "balanced")
    clip.write_bytes(clip.read_bytes() + b"\0")
    assert node.IS_CHANGED(str(clip), "dis", "balanced") != state


@pytest.mark.parametrize(("form", "samples"), [("WanTrackToVideo", 121), ("WanMoveTracksFromCoords", 13)])
def test_tracks_are_what_the_nodes_read(frames: list[NDArray[np.uint8]], form: str, samples: int) -> None:
    (text,) = NODES["StructureTracks"]().follow(extracted(frames), 160, 96, 13, 4, 3, form)
    tracks = json.loads(text)
    assert len(tracks) == 12
    assert all(1 <= len(track) <= samples for track in tracks)
    assert all(set(point) == {"x", "y"} for track in tracks for point in track)
    if form == "WanMoveTracksFromCoords":
        assert {len(track) for track in tracks} == {13}
        # 44 pixels of pan in 12 steps
        assert tracks[4][12]["x"] - tracks[4][0]["x"] == pytest.approx(44, abs=2)


def test_alpha_and_values_outside_are_no_trouble(frames: list[NDArray[np.uint8]]) -> None:
    batch = torch.cat([images(frames) * 1.5 - 0.2, torch.ones(12, 96, 160, 1)], dim=-1)
    flows, _ = NODES["StructureFlowsFromImages"]().extract(batch, 16.0, "dis", "fast")
    assert flows.structure.shape == (12, 96, 160, 3)
    assert flows.structure.dtype == np.uint8


def test_pictures_of_a_long_film_are_spread(frames: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["comfyui_pack.nodes"], "_MOST_PICTURES", 4)
    flows, pictures = NODES["StructureFlowsFromImages"]().extract(images(frames), 16.0, "dis", "balanced")
    assert flows.flows.meta.total_flows == 11
    assert len(pictures) == 4


# --- what they refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["", "a", "0,", "0-", "1.5", "0;1", "0--"])
def test_positions_are_checked_before_anything_runs(positions: str) -> None:
    said = NODES["StructureGuide"].VALIDATE_INPUTS(positions)
    assert isinstance(said, str)
    assert said.startswith("positions: expected")


@pytest.mark.parametrize("positions", ["0", "0, 5-9, -1", "-5--1", " 3 ,4 ", None])
def test_positions_that_are_some_pass(positions: str | None) -> None:
    assert NODES["StructureGuide"].VALIDATE_INPUTS(positions) is True


def test_what_does_not_fit_is_said(frames: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    flows = extracted(frames)
    with pytest.raises(ValueError, match="one for each of 2 key frames, got 1"):
        guide(flows, images(frames[:2]), "0")
    for positions in ("13", "0-13", "-14", "5-2"):
        with pytest.raises(ValueError, match="expected places in 13 frames"):
            guide(flows, images(frames[:1]), positions)
    with pytest.raises(ValueError, match="no other one covers"):
        guide(flows, images(frames[:2]), "0-4, 3")
    with pytest.raises(ValueError, match="expected"):
        extracted(frames[:1])
    assert NODES["StructureFlowsFromFile"].VALIDATE_INPUTS(str(tmp_path / "no.mp4")) != True  # noqa: E712


# --- ComfyUI's rules for nodes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NODES))
def test_a_node_is_declared_by_the_rules(name: str) -> None:
    """docs.comfy.org, "Properties", "Datatypes", "More on inputs"."""
    node = NODES[name]
    declared = node.INPUT_TYPES()
    assert inspect.ismethod(node.INPUT_TYPES)
    assert "required" in declared
    assert set(declared) <= {"required", "optional", "hidden"}
    function = inspect.signature(getattr(node, node.FUNCTION))
    assert list(function.parameters)[1:] == [*declared["required"], *declared.get("optional", {})]
    for kind, *options in (*declared["required"].values(), *declared.get("optional", {}).values()):
        assert len(options) <= 1
        choices = options[0] if options else {}
        if isinstance(kind, list):
            assert kind
            assert choices.get("default", kind[0]) in kind
            continue
        assert isinstance(kind, str)
        assert kind == kind.upper()
        assert set(choices) <= {"default", "min", "max", "step", "tooltip", "multiline"}
        if kind in {"INT", "FLOAT"}:
            assert choices["min"] <= choices["default"] <= choices["max"]
            assert type(choices["default"]) is {"INT": int, "FLOAT": float}[kind]
            if kind == "INT":
                assert (choices["default"] - choices["min"]) % choices["step"] == 0
    assert isinstance(node.RETURN_TYPES, tuple)
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
    assert isinstance(node.CATEGORY, str)
    # what VALIDATE_INPUTS names is not checked by ComfyUI itself, so it must be an input, and checked there
    if hasattr(node, "VALIDATE_INPUTS"):
        assert set(inspect.signature(node.VALIDATE_INPUTS).parameters) <= set(declared["required"])
    if hasattr(node, "IS_CHANGED"):
        assert list(inspect.signature(node.IS_CHANGED).parameters) == list(declared["required"])


def test_every_node_has_a_name_for_people() -> None:
    pack = sys.modules["comfyui_pack"]
    assert set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(NODES)  # type: ignore[attr-defined]
    # managers of nodes install what it lists by name, and an index may have a stranger's package of ours
    assert not (PACK / "requirements.txt").exists()


def test_the_example_is_connected_as_nodes_are_declared() -> None:
    nodes = {node["id"]: node for node in WORKFLOW["nodes"]}
    assert len(nodes) == WORKFLOW["last_node_id"]
    for number, origin, output, target, slot, kind in WORKFLOW["links"]:
        given, taken = nodes[origin]["outputs"][output], nodes[target]["inputs"][slot]
        assert given["type"] == taken["type"] == kind
        assert number in given["links"]
        assert taken["link"] == number
    ours = [node for node in nodes.values() if node["type"] in NODES]
    assert {node["type"] for node in ours} == {"StructureFlowsFromImages", "StructureGuide"}
    for node in ours:
        declared = NODES[node["type"]].INPUT_TYPES()["required"]
        links = {name: kind for name, (kind, *_) in declared.items() if isinstance(kind, str) and kind not in WIDGETS}
        assert {taken["name"]: taken["type"] for taken in node["inputs"]} == links
        assert all(taken["link"] is not None for taken in node["inputs"])
        assert [made["type"] for made in node["outputs"]] == list(NODES[node["type"]].RETURN_TYPES)
        widgets = [(kind, options) for name, (kind, *options) in declared.items() if name not in links]
        for value, (kind, options) in zip(node["widgets_values"], widgets, strict=True):
            if isinstance(kind, list):
                assert value in kind
            elif kind in {"INT", "FLOAT"}:
                assert options[0]["min"] <= value <= options[0]["max"]
    (guide_node,) = (node for node in ours if node["type"] == "StructureGuide")
    (wan,) = (node for node in nodes.values() if node["type"] == "WanVaceToVideo")
    assert guide_node["widgets_values"][1:4] == wan["widgets_values"][:3]
    names = [taken["name"] for taken in wan["inputs"]]
    for name, output in (("control_video", 0), ("control_masks", 1)):
        link = wan["inputs"][names.index(name)]["link"]
        assert WORKFLOW["links"][link - 1][1:3] == [guide_node["id"], output]
