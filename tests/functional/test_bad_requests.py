"""Requests of all kinds, each made bad in every field in turn: what is said, how commands end, that nothing is left."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from structureflow.models.problems import Place, path_of
from structureflow.testing.flows import archive_bytes, smooth_flows
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.cli import main

HEIGHT, WIDTH, FRAMES = 64, 96, 12

BASES: Final[dict[str, dict[str, Any]]] = {
    "shorthand": {
        "$schema": "./job.schema.json",
        "task_id": "walk",
        "project_id": "film",
        "structure_video": "clip.mp4",
        "images": ["a.png", "b.png", "a.png"],
        "frames": 17,
        "overlap": 5,
        "hold": 4,
        "fade": 2,
        "treatment": "retime",
        "motion_strength": {"0": 0.5, "9": 1.2},
        "resolution": [WIDTH, HEIGHT],
        "fps": 16,
        "engine": "dis",
        "quality": "fast",
        "flow_span": "timeline",
        "anchors": "both",
        "tracking": "anchored",
        "motion": "all",
        "seams": "choose",
        "match_color": True,
        "target": "vace",
        "mask": "visibility",
        "holes": "grey",
        "mask_grid": 16,
        "outputs": ["flow_vis", "tracks", "canny", "warped_noise", "ttm"],
        "prompt": "a walk",
        "tracks": {"grid": [4, 3], "box": [0, 0, 50, 50]},
        "noise": {"channels": 4, "latent_size": [12, 8], "seed": 3},
        "canny": {"low": 50, "high": 100, "intensity": 0.5},
        "overlays": ["flow", "path"],
        "timeline_id": "mine",
    },
    "segments": {
        "task_id": "walk",
        "structure_video": "clip.mp4",
        "outputs": ["tracks"],
        "tracks": {"points": [[3, 4], [20.5, 30]]},
        "segments": [
            {
                "frames": 20,
                "guides": [
                    {"at": [0, 3], "image": "a.png"},
                    {"at": 5, "image": "b.png"},
                    {"at": [8, 11], "video": "clip.mp4", "from": 2},
                    {"at": [15, 19], "fade": ["a.png", "b.png"]},
                ],
            },
            {"frames": 9, "guides": [{"at": 0, "image": "b.png"}]},
        ],
    },
    "several": {
        "task_id": "walk",
        "segment_overlap": [2],
        "structure_videos": [
            {"path": "clip.mp4", "end_frame": 8, "source_start_frame": 1, "source_end_frame": 9},
            {"path": "clip.mp4", "start_frame": 9, "treatment": "clip", "motion_strength": 2},
        ],
        "segments": [{"frames": 9, "guides": [{"at": 0, "image": "a.png"}]}, {"frames": 9}],
    },
    "archive": {
        "task_id": "walk",
        "structure_video": "clip.mp4",
        "flow_cache": "flows.npz",
        "images": ["a.png", "b.png"],
        "frames": 17,
        "overlap": 3,
    },
    "older": {
        "orchestrator_task_id": "walk",
        "structure_video_path": "clip.mp4",
        "structure_video_treatment": "adjust",
        "structure_video_motion_strength": 1.5,
        "parsed_resolution_wh": f"{WIDTH}x{HEIGHT}",
        "fps_helpers": 24,
        "images": ["a.png", "b.png"],
        "frames": 17,
        "overlap": 3,
        "fade": 2,
    },
    "guidance": {
        "orchestrator_task_id": "walk",
        "frame_overlap_expanded": 2,
        "structure_guidance": {
            "target": "vace",
            "preprocessing": "canny",
            "strength": 0.5,
            "canny_intensity": 0.7,
            "step_window": [0, 0.8],
            "frame_policy": "fit",
            "zero_empty_frames": True,
            "videos": [{"path": "clip.mp4", "start_frame": 0, "end_frame": 16, "source_start_frame": 2}],
        },
        "segments": [{"frames": 9, "guides": [{"at": 0, "image": "a.png"}]}, {"frames": 9}],
    },
}
#: What may not be changed as the others are: any text is a label, any whole number a seed.
ANY_TEXT: Final = {"project_id", "prompt", "frame_policy", "$schema"}
FILES: Final = {
    "structure_video", "structure_video_path", "path", "images", "image", "fade", "video", "flow_cache"
}  # fmt: skip
#: May be fractions.
FRACTIONS: Final = {"fps", "fps_helpers", "box", "points", "motion_strength", "step_window"}
REQUIRED: Final = {"structure_video", "structure_video_path", "path", "images", "at", "videos"}
FIXED_LENGTH: Final = {"resolution", "at", "grid", "box", "latent_size", "fade", "step_window"}
#: Words of Pydantic's and of its schemas, of Python's, and of places that are no user's.
RAW: Final = re.compile(
    r"Input should|Field required|Extra inputs|[Vv]alidation error|pydantic|Value error|type=|constrained-|function-|"
    r"NoneType|Traceback|jobs/|inputs/|/tmp/",
)


def put_files(folder: Path) -> None:
    write_clip(folder / "clip.mp4", pan_frames(FRAMES, HEIGHT, WIDTH, dx=2, dy=0, seed=1), 20)
    for seed, name in enumerate("ab"):
        (folder / f"{name}.png").write_bytes(png(texture(HEIGHT, WIDTH, seed=seed)))
    for name, count in (("flows.npz", FRAMES - 1), ("other.npz", FRAMES + 5)):
        (folder / name).write_bytes(archive_bytes(smooth_flows(count, HEIGHT // 2, WIDTH // 2)))
    (folder / "text.txt").write_text("no picture, no film")
    (folder / "empty.bin").touch()
    (folder / "folder").mkdir()
    write_clip(folder / "still.mp4", pan_frames(1, HEIGHT, WIDTH, dx=2, dy=0, seed=1), 20)


def places(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a document with its place, the outer ones first."""
    yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield from places(value, (*place, name))


def field_of(place: Place) -> str:
    return next(str(part) for part in reversed(place) if isinstance(part, str))


def changed(document: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(document)
    inner: Any = made
    for part in place[:-1]:
        inner = inner[part]
    if value is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return made


REMOVED: Final = object()


def bad_values(place: Place, value: Any) -> Iterator[tuple[str, Any]]:
    """What a field cannot be, whatever it is: each with a name."""
    name, is_item = field_of(place), isinstance(place[-1], int)
    if name == "$schema":
        return
    if not (name == "motion_strength" and is_item):
        yield "an object", {"no": "such"}
    if isinstance(value, dict):
        yield "a list", [1, 2]
        return
    if isinstance(value, list):
        yield "a number", 0.5
        if name in FIXED_LENGTH:
            yield "shorter", value[:-1]
        return
    yield "lists", [[[]]]
    if isinstance(value, bool):
        yield "a word", "perhaps"
    elif isinstance(value, int | float):
        yield "a word", "many"
        yield "below", -1
        if name not in {"seed", "source_end_frame"}:
            yield "above", 1_000_000_000
        if isinstance(value, int) and name not in FRACTIONS:
            yield "between", value + 0.5
    elif name in FILES:
        for kind in ("./gone.bin", "text.txt", "empty.bin", "folder"):
            yield kind, kind
        if name not in {"images", "image", "fade", "video", "flow_cache"}:
            yield "one frame", "still.mp4"
        if name == "flow_cache":
            yield "of another video", "other.npz"
    elif name not in ANY_TEXT:
        yield "another word", f"{value}/"
        yield "nothing", ""


def cases() -> list[Any]:
    """Each field of each kind of request once, whichever item of a list it is in."""
    found: dict[tuple[Any, ...], Any] = {}

    def add(base: str, place: Place, kind: str, bad: Any) -> None:
        key = (kind, *(part for part in place if isinstance(part, str)), isinstance(place[-1], int))
        found.setdefault(key, pytest.param(base, place, bad, id=f"{base}-{path_of(place)}-{kind}"))

    for base, document in BASES.items():
        add(base, ("qqq",), f"unknown in {base}", 1)
        for place, value in places(document):
            if not place:
                continue
            for kind, bad in bad_values(place, value):
                add(base, place, kind, bad)
            if isinstance(value, dict) and field_of(place) != "motion_strength":
                add(base, (*place, "qqq"), "unknown", 1)
            needed = place[-1] in REQUIRED or (place[-1] == "frames" and len(place) > 1)
            # of an archive the motion is enough
            if needed and (base, place) != ("archive", ("structure_video",)):
                add(base, place, "missing", REMOVED)
    return [*found.values()]


CASES: Final = cases()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    put_files(folder)
    return folder


@pytest.fixture
def workplace(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("base", BASES)
def test_each_kind_of_request_is_good_before(base: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "job.json").write_text(json.dumps(BASES[base]))
    assert main(["validate", "job.json"]) == 0, capsys.readouterr().out


def test_there_are_many() -> None:
    assert len(CASES) >= 150


@pytest.mark.parametrize(("base", "place", "bad"), CASES)
def test_a_bad_field_is_named_with_what_was_expected_and_what_came(
    base: str, place: Place, bad: Any, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "job.json").write_text(json.dumps(changed(BASES[base], place, bad)))
    before = sorted(workplace.rglob("*"))
    assert main(["validate", "job.json", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert not said["valid"]
    lines = said["problems"]
    assert lines
    for line in lines:
        where, _, sentence = line.partition(": ")
        assert re.search(r"expected .*got |^unknown field", sentence), line
        assert not RAW.search(line), line
        assert re.fullmatch(r"[\w$.\[\]]+", where), line
    wanted = path_of(place)
    named = [line.partition(": ")[0] for line in lines]
    assert any(name.startswith(wanted) or wanted.startswith(name) for name in named) or any(
        re.search(rf"\b{field_of(place)}\b", line) for line in lines
    ), (wanted, lines)
    if isinstance(bad, str) and field_of(place) in FILES and bad:
        assert any(bad in line for line in lines), "the file is called what the user calls it"

    assert main(["run", "job.json", "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert all(line in err for line in lines[:19]), err
    assert sorted(workplace.rglob("*")) == before, "nothing is written"


def test_all_that_is_wrong_is_said_at_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At every level, of every kind: fields, rules over several of them, files, and what files hold."""
    bad = {
        "task_id": "a b",
        "structure_video": "still.mp4",
        "qualty": "best",
        "engine": "rft",
        "resolution": [97, 64],
        "outputs": ["tracks", "ttm"],
        "tracks": {"points": [[3, 4], [2000, 4]], "grid": [2, 2]},
        "canny": {"low": 9, "high": 5},
        "target": "vace",
        "segments": [
            {
                "frames": 20,
                "guides": [
                    {"at": [1, 3], "image": "text.txt"},
                    {"at": 2, "image": "empty.bin"},
                    {"at": 30, "image": "folder"},
                    {"at": [8, 11], "video": "clip.mp4", "from": 9},
                    {"at": "x", "imag": "a.png"},
                ],
            },
            {"frames": 9, "guides": [{"at": [4, 2], "image": "aa.png"}]},
            {"frames": 9, "guides": [{"at": 3, "image": "b.png"}]},
        ],
    }
    (workplace / "job.json").write_text(json.dumps(bad))
    assert main(["validate", "job.json", "--json"]) == 2
    lines = json.loads(capsys.readouterr().out)["problems"]
    for said in (
        "task_id: expected 1 to 128 characters",
        "structure_video: still.mp4: expected at least 2 frames, got 1",
        "qualty: unknown field; did you mean quality?",
        "engine: expected one of auto, dis, farneback, raft, got 'rft'; did you mean raft?",
        "resolution: width: expected an even number",
        "tracks.grid: expected none beside points, got one",
        "canny.low: expected at most high, 5, got 9",
        "segments[0].frames: expected 4n+1 frames for vace, got 20",
        "segments[2].guides: expected a guide at frame 0, with which the output ttm begins, got none",
        "segments[0].guides[0].image: text.txt: expected ",
        "segments[0].guides[1].at: expected frames that no other guide has, got 2; guides[0] has [1, 3]",
        "segments[0].guides[1].image: empty.bin: expected an image, got an empty file",
        "segments[0].guides[2].at: expected frames 0 to 19 of the segment, got 30",
        "segments[0].guides[2].image: expected a file, got the folder folder",
        "segments[0].guides[3].video: clip.mp4: expected frames 9 to 12",
        "segments[0].guides[4].at: expected a frame number or [first, last], got 'x'",
        "segments[0].guides[4].imag: unknown field; did you mean image?",
        "segments[1].guides[0].at: expected 0 <= first <= last, got [4, 2]",
    ):
        assert sum(line.startswith(said) for line in lines) == 1, (said, lines)
