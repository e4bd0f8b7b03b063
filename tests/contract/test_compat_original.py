"""The original designs' own calling code runs on `structureflow.compat`; skipped where their texts are absent."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import compat
from structureflow.testing.videos import pan_frames, write_clip

REPO = Path(__file__).resolve().parents[2]
ORIGINAL = REPO.parent / "shared" / "original"
pytestmark = pytest.mark.skipif(not ORIGINAL.is_dir(), reason=f"{ORIGINAL} is absent: it has the original designs")

PUBLIC = {name: getattr(compat, name) for name in compat.__all__}
FRAMES, HEIGHT, WIDTH = 60, 96, 160


def blocks() -> list[str]:
    text = (ORIGINAL / "structure_flow_cache_design.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def block_with(*words: str) -> str:
    return next(block for block in blocks() if all(word in block for word in words))


def parameters_in(source: str) -> dict[str, list[tuple[str, str | None]]]:
    """Return the parameters of every function that a text defines: name, and default as it is written."""
    found = {}
    for match in re.finditer(r"\bdef (\w+)\(", source):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        try:
            # comments of new parameters end with their line
            tree = ast.parse(f"def f({source[match.end() : end - 1]}): pass")
        except SyntaxError:
            continue
        arguments = tree.body[0].args  # type: ignore[attr-defined]
        defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(map(ast.unparse, arguments.defaults))
        found[match[1]] = [(each.arg, default) for each, default in zip(arguments.args, defaults, strict=True)]
    return found


def signatures() -> dict[str, list[tuple[str, str | None]]]:
    module = (ORIGINAL / "frame_cache_module.txt").read_text()
    public = {name: found for name, found in parameters_in(module).items() if not name.startswith("_")}
    pipeline = parameters_in("\n".join(blocks()))
    return public | {name: found for name, found in pipeline.items() if hasattr(compat, name)}


def test_every_function_of_both_designs_is_there() -> None:
    assert set(signatures()) == {
        "_extract_and_upload_structure_flows", "apply_structure_motion_with_tracking", "cache_exists", "cache_frames",
        "clear_cache", "download_and_load_cached_flows", "frames_to_b64", "list_overlay_frames", "load_cached_frames",
        "load_cached_frames_b64", "load_overlays", "save_overlays",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(signatures()) if ORIGINAL.is_dir() else [])
def test_its_parameters_are_the_originals(name: str) -> None:
    ours = inspect.signature(getattr(compat, name)).parameters.values()
    written = [
        (each.name, None if each.default is each.empty else getattr(each.default, "__name__", repr(each.default)))
        for each in ours
    ]
    assert written == [(name, default and default.replace('"', "'")) for name, default in signatures()[name]]


def test_calls_in_the_text_bind_to_our_parameters() -> None:
    calls = []
    for block in blocks():
        try:
            tree = ast.parse(block.replace("(...)", "(*given)"))
        except SyntaxError:  # one says by comments alone what is done
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and hasattr(compat, node.func.id):
                names = [keyword.arg or "" for keyword in node.keywords]
                if any(isinstance(argument, ast.Starred) for argument in node.args):
                    continue
                function = getattr(compat, node.func.id)
                inspect.signature(function).bind(*node.args, **dict.fromkeys(names))
                calls.append(node.func.id)
    assert {"load_structure_video_frames", "extract_optical_flow_from_frames", "adjust_flow_field_count"} <= set(calls)


def run_text(source: str, names: dict[str, Any]) -> None:
    exec(source, names)  # noqa: S102 - what these tests are for


# --- their code, run ----------------------------------------------------------------------------------


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "dance.mp4", pan_frames(FRAMES, HEIGHT, WIDTH, dx=2, dy=0), fps=16)


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Uploads, as the program around them makes them: into a folder that stands for their store."""
    calls: list[dict[str, Any]] = []

    def upload_and_get_final_output_location(**call: Any) -> str:
        calls.append(call)
        stored = tmp_path / "store" / call["task_id"] / Path(call["local_path"]).name
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(Path(call["local_path"]).read_bytes())
        return str(stored.as_uri())

    monkeypatch.setattr(compat.places._PLACES, "upload", upload_and_get_final_output_location)
    common = types.ModuleType("source.common_utils")
    common.download_video_if_url = lambda path, **_: path  # type: ignore[attr-defined]
    common.upload_and_get_final_output_location = upload_and_get_final_output_location  # type: ignore[attr-defined]
    guidance = types.ModuleType("source.structure_video_guidance")
    guidance.__dict__.update(PUBLIC)
    for name, module in (
        ("source", types.ModuleType("source")),
        ("source.sm_functions", types.ModuleType("source.sm_functions")),
        ("source.common_utils", common),
        ("source.structure_video_guidance", guidance),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def orchestrator(said: list[str]) -> Any:
    """Their integration in the handler, with names for what it takes from around it, and what it queues."""
    source = block_with("_handle_travel_orchestrator_task(...)")
    given = (
        "orchestrator_payload, current_run_output_dir, orchestrator_task_id_str, orchestrator_project_id, num_segments"
    )
    source = source.replace("_handle_travel_orchestrator_task(...)", f"_handle_travel_orchestrator_task({given})")
    source = source.rstrip() + "\n        queued.append(segment_payload)\n    return queued\n"
    source = source.replace("# ... existing code ...", "queued = []", 1)
    names = {**PUBLIC, "__package__": "source.sm_functions", "Path": Path, "dprint": said.append}
    run_text(source, names)
    return names["_handle_travel_orchestrator_task"]


def segment(payload: dict[str, Any], folder: Path, picture: Any, said: list[str]) -> tuple[list[Any], Any]:
    """Their call site of a segment of 73 frames: overlap of 20, cross-fade of 10."""
    tracker = compat.GuidanceTracker(73)
    tracker.mark_guided(0, 19)
    tracker.mark_guided(63, 72)
    names: dict[str, Any] = {
        **PUBLIC,
        "full_orchestrator_payload": payload,
        "structure_video_path": payload["structure_video_path"],
        "structure_video_treatment": payload["structure_video_treatment"],
        "structure_video_motion_strength": payload["structure_video_motion_strength"],
        "guidance_tracker": tracker,
        "frames_for_guide_list": [
            picture if tracker.is_guided(index) else np.zeros_like(picture) for index in range(73)
        ],
        "parsed_res_wh": (WIDTH, HEIGHT),
        "fps_helpers": 16,
        "output_target_dir": folder,
        "task_id_for_logging": "segment-0",
        "dprint": said.append,
    }
    run_text(block_with("[GUIDANCE_TRACK]"), names)
    return names["frames_for_guide_list"], tracker


def request(clip: Path) -> dict[str, Any]:
    return {"structure_video_path": str(clip), "structure_video_treatment": "clip"}


def test_orchestrator_and_segments_run_on_it(
    clip: Path, tmp_path: Path, upload: list[dict[str, Any]], said: list[str]
) -> None:
    payloads = orchestrator(said)(request(clip), tmp_path, "task-1", "project-9", 3)
    (call,) = upload
    assert call == {
        "local_path": str(tmp_path / "structure_flows_task-1.npz"),
        "task_id": "task-1",
        "project_id": "project-9",
        "is_final_output": False,
    }
    assert len(payloads) == 3
    assert payloads[0]["structure_flow_cache_url"].endswith("/task-1/structure_flows_task-1.npz")
    picture = next(pan_frames(1, HEIGHT, WIDTH, dx=0, dy=0, seed=3))
    frames, tracker = segment(payloads[0], tmp_path, picture, said)
    assert len(frames) == 73
    assert tracker.get_unguidanced_ranges() == []
    # 43 flows of two pixels each, and the pixels went the way of the video
    moved = frames[20 + 9]
    assert np.abs(moved[16:-16, 40:-8].astype(int) - picture[16:-16, 20:-28]).mean() < 4
    assert any("filled by 59 flows" in line for line in said)
    assert not any("extracting" in line for line in said)


def test_without_a_cache_segments_extract_flows_themselves(
    clip: Path, tmp_path: Path, upload: list[dict[str, Any]], said: list[str]
) -> None:
    (payload,) = orchestrator(said)(request(clip), tmp_path, "task-1", None, 1)
    picture = next(pan_frames(1, HEIGHT, WIDTH, dx=0, dy=0, seed=3))
    cached, _ = segment(payload, tmp_path, picture, said)
    Path(payload["structure_flow_cache_url"].removeprefix("file://")).write_bytes(b"damaged")
    frames, tracker = segment(payload, tmp_path, picture, said)
    assert any("[ERROR] cached flows of task segment-0" in line for line in said)
    assert any("extracting from the video" in line for line in said)
    assert tracker.get_unguidanced_ranges() == []
    assert np.abs(np.stack(frames).astype(int) - np.stack(cached)).mean() < 3
    # the original's own way to say that there is none
    no_cache, _ = segment(payload | {"structure_flow_cache_url": None}, tmp_path, picture, said)
    np.testing.assert_array_equal(np.stack(no_cache), np.stack(frames))


def test_a_video_that_cannot_be_used_leaves_no_url(
    tmp_path: Path, upload: list[dict[str, Any]], said: list[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(bytes(5000))
    (payload,) = orchestrator(said)(request(tmp_path / "broken.mp4"), tmp_path, "task-1", None, 1)
    assert payload["structure_flow_cache_url"] is None
    assert not upload
    assert any("[ERROR] flow extraction failed" in line for line in said)
    assert any("No flow cache" in line for line in said)


def test_their_reader_reads_our_archive(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    url = compat._extract_and_upload_structure_flows(str(clip), "task-1", tmp_path, None, said.append)
    assert url is not None

    def get(address: str, timeout: float) -> Any:  # as requests does
        data = Path(address.removeprefix("file://")).read_bytes()
        return types.SimpleNamespace(content=data, raise_for_status=lambda: None)

    requests = types.ModuleType("requests")
    requests.get = get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "requests", requests)
    names: dict[str, Any] = {"Path": Path, "Callable": Any, "Optional": list, "np": np}
    run_text(textwrap.dedent(block_with("def download_and_load_cached_flows(")), names)
    (tmp_path / "theirs").mkdir()
    theirs = names["download_and_load_cached_flows"](url, tmp_path / "theirs", "task-1", said.append)
    assert theirs is not None, said
    ours = compat.download_and_load_cached_flows(url, tmp_path, "task-1", said.append)
    assert ours is not None
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(theirs, ours)
    assert any(f"Original: {WIDTH}x{HEIGHT} @ 16.0 fps" in line for line in said)


def test_we_read_the_archive_of_their_writer(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upload: list[dict[str, Any]], said: list[str]
) -> None:
    wgp = types.ModuleType("Wan2GP.wgp")
    wgp.get_resampled_video = lambda path, **_: compat.load_structure_video_frames(  # type: ignore[attr-defined]
        path, FRAMES, 16, (WIDTH, HEIGHT), dprint=said.append
    )
    monkeypatch.setitem(sys.modules, "Wan2GP", types.ModuleType("Wan2GP"))
    monkeypatch.setitem(sys.modules, "Wan2GP.wgp", wgp)
    names: dict[str, Any] = {"Path": Path}
    run_text(block_with("def _extract_and_upload_structure_flows("), names)
    url = names["_extract_and_upload_structure_flows"](str(clip), "task-2", tmp_path, None, said.append)
    assert url is not None, said
    flows = compat.download_and_load_cached_flows(url, tmp_path, "task-2", said.append)
    assert flows is not None
    assert flows.shape == (FRAMES - 1, HEIGHT, WIDTH, 2)
    np.testing.assert_allclose(np.median(flows, axis=(0, 1, 2)), (2, 0), atol=0.1)


def test_their_slicing_gives_as_many_flows_as_frames(said: list[str]) -> None:
    flows = list(np.random.default_rng(0).normal(0, 1, (200, 8, 8, 2)).astype(np.float32))
    names: dict[str, Any] = {
        "unguidanced_ranges": [(20, 62)],
        "flow_fields": flows,
        "dprint": said.append,
        "adjust_flow_field_count": compat.adjust_flow_field_count,
    }
    run_text(block_with("Each segment calculates", "target_count=43,"), names)
    assert names["total_unguidanced"] == len(names["flow_fields"]) == 43
    np.testing.assert_array_equal(names["flow_fields"][-1], flows[-1])
