"""What a look into a job's files finds, what is asked for in vain, and whose folder results may be put into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from structureflow import keys
from structureflow.errors import InvalidRequestError
from structureflow.models.job import JobRequest
from structureflow.models.results import Manifest
from structureflow.models.wishes import idle_wishes
from structureflow.storage.local import LocalStorage
from structureflow.testing.flows import archive_bytes, smooth_flows
from structureflow.testing.jobs import JobRunner, png, put_pan_clip
from structureflow.testing.videos import pan_frames, texture, write_clip, write_damaged_clip
from structureflow_local.cli import main
from structureflow_local.client import check_target, prepare_job
from structureflow_local.problems import Findings, look_into

HEIGHT, WIDTH, FRAMES = 64, 96, 12
JOB: dict[str, Any] = {"task_id": "t", "structure_video": "clip.mp4", "images": ["a.png", "b.png"], "frames": 17}
LENGTHS = {"overlap": 5, "hold": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", pan_frames(FRAMES, HEIGHT, WIDTH, dx=2, dy=0, seed=1), 20)
    for seed, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(png(texture(HEIGHT, WIDTH, seed=seed)))
    return tmp_path


def look(folder: Path, **changes: Any) -> Findings:
    document = {name: value for name, value in (JOB | LENGTHS | changes).items() if value is not None}
    return look_into(json.dumps(document), folder)


# --- files ---------------------------------------------------------------------------------------------------


def test_a_film_is_judged_by_what_it_holds(folder: Path) -> None:
    """Not by what its container promises: broken off in its middle, it still promises all."""
    write_clip(folder / "long.mp4", pan_frames(40, HEIGHT, WIDTH, dx=2, dy=0, seed=1), 20)
    whole = (folder / "long.mp4").read_bytes()
    for kept in (0.2, 0.5, 0.98):
        (folder / "cut.mp4").write_bytes(whole[: int(len(whole) * kept)])
        (line,) = look(folder, structure_video="cut.mp4").lines
        assert line.startswith("structure_video: cut.mp4: expected a "), line
        assert ", got " in line


@pytest.mark.parametrize(("first", "good"), [(0, True), (9, True), (10, False), (40, False)])
def test_frames_of_a_guide_video_must_be_there(folder: Path, first: int, good: bool) -> None:
    guides = [{"at": 0, "image": "a.png"}, {"at": [4, 6], "video": "clip.mp4", "from": first}]
    found = look(folder, images=None, frames=None, overlap=None, hold=None, segments=[{"frames": 9, "guides": guides}])
    said = f"segments[0].guides[1].video: clip.mp4: expected frames {first} to {first + 2}, as from and at say, got "
    assert found.lines == ([] if good else [f"{said}{FRAMES} frames in all"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("structure_videos", {"source_start_frame": 11}),
        ("structure_guidance", {"source_start_frame": 30}),
    ],
)
def test_a_part_that_has_no_motion_is_refused_as_in_the_cloud(folder: Path, name: str, part: dict[str, int]) -> None:
    videos = [{"path": "clip.mp4", **part}]
    given = videos if name == "structure_videos" else {"videos": videos}
    (line,) = look(folder, structure_video=None, **{name: given}).lines
    place = "structure_videos[0]" if name == "structure_videos" else "structure_guidance.videos[0]"
    start = part["source_start_frame"]
    assert line == f"{place}.source_start_frame: expected at most 10, for clip.mp4 has 12 frames, got {start}"


def test_an_archive_must_be_the_videos(folder: Path) -> None:
    def put(name: str, count: int, height: int, width: int) -> str:
        (folder / name).write_bytes(archive_bytes(smooth_flows(count, height, width)))
        return name

    assert look(folder, flow_cache=put("good.npz", FRAMES - 1, 32, 48)).lines == []
    (line,) = look(folder, flow_cache=put("long.npz", FRAMES, 32, 48)).lines
    assert line == (
        "flow_cache: long.npz: expected the 11 flows of the structure video's 12 frames, got 12; "
        "without structure_video, flows are taken as they are"
    )
    (line,) = look(folder, flow_cache=put("wide.npz", FRAMES - 1, 16, 64)).lines
    assert "expected flows of 96x64, as the structure video has, got those of" in line
    assert look(folder, structure_video=None, flow_cache=put("alone.npz", 40, 16, 64)).lines == []


def test_points_must_lie_in_the_picture_that_the_video_makes(folder: Path) -> None:
    points = {"outputs": ["tracks"], "tracks": {"points": [[95, 63], [96, 10]]}}
    assert look(folder, **points).lines == ["tracks.points[1]: expected a place in a frame of 96x64, got [96, 10]"]
    assert look(folder, **points, resolution=[128, 64]).lines == []


def test_a_name_of_no_file_is_a_key_for_a_bucket_and_nothing_here(folder: Path) -> None:
    document = json.dumps(JOB | LENGTHS | {"structure_video": "videos/clip-7.mp4"})
    there = look_into(document, folder)
    assert there.lines == []
    assert there.remarks == [
        (
            "structure_video: videos/clip-7.mp4 is no file of this machine; it counts as a key of the bucket and was "
            "not looked at"
        )
    ]
    here = look_into(document, folder, here=True)
    assert here.lines == ["structure_video: expected a file, got videos/clip-7.mp4, which is not there"]
    for url, good in (("https://example.com/a.mp4", True), ("s3://bucket/a.mp4", False)):
        found = look_into(json.dumps(JOB | LENGTHS | {"structure_video": url}), folder, here=True)
        assert (found.lines == []) is good, url


def test_a_near_name_is_meant_unless_only_its_digits_differ(folder: Path) -> None:
    for name in ("frame_001.png", "portrait.png"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    lines = look(folder, images=["protrait.png", "frame_002.png"]).lines
    assert lines == ["images[0]: expected a file, got protrait.png, which is not there; did you mean portrait.png?"]
    (line,) = look(folder, images=["a.png", "./c.png"]).lines
    assert "did you mean" not in line, "a name of one letter is like any other"


def test_one_frame_is_no_structure_video_for_init_either(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(folder / "still.mp4", pan_frames(1, HEIGHT, WIDTH, dx=2, dy=0, seed=1), 20)
    assert main(["init", "still.mp4", "a.png", "b.png"]) == 2
    assert "still.mp4: expected at least 2 frames, got 1" in capsys.readouterr().err
    assert not (folder / "job.jsonc").exists()
    assert main(["init", "clip.mp4", "a.png", "b.png"]) == 0
    assert "job.jsonc: 1 segment, 96x64, 12 frames at 20 fps" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["inspect"], ["flows", "export"]])
def test_what_is_no_archive_is_named(folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.npz").write_text("no archive")
    assert main([*command, "text.npz", *(["flows"] if len(command) > 1 else [])]) == 2
    assert "text.npz: expected a flow archive" in capsys.readouterr().err


# --- in vain -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "a walk"}, "prompt: nothing is made of it"),
        ({"tracks": {"grid": [2, 2]}}, "tracks: nothing is made of it: tracks is not among the outputs"),
        ({"noise": {"seed": 1}}, "noise: nothing is made of it: warped_noise is not among the outputs"),
        ({"canny": {"low": 1}}, "canny: nothing is made of it"),
        ({"motion_strength": {"0": 1, "16": 2, "17": 3}}, "motion_strength.17: no segment comes to that frame"),
        ({"match_color": True, "anchors": "start"}, "match_color: it changes nothing"),
        ({"segment_overlap": 2}, "segment_overlap: it changes nothing"),
        ({"treatment": "clip", "images": ["a.png", "b.png", "a.png"]}, "treatment: clip plays 11 flows, and all"),
        (
            {
                "structure_video": None,
                "structure_videos": [
                    {"path": "clip.mp4", "start_frame": 9, "end_frame": 99},
                    {"path": "clip.mp4", "end_frame": 9},
                ],
            },
            "structure_videos[0].end_frame: 99 lies behind the end of the timeline, 17",
        ),
        (
            {"structure_video": None, "structure_videos": [{"path": "clip.mp4", "source_end_frame": 30}]},
            "structure_videos[0].source_end_frame: clip.mp4 has 12 frames, fewer than 30; it is played to its end",
        ),
    ],
)
def test_what_changes_nothing_is_noted(folder: Path, changes: dict[str, Any], said: str) -> None:
    found = look(folder, **changes)
    assert found.lines == []
    (remark,) = found.remarks
    assert remark.startswith(said)


def test_what_is_used_is_not_noted(folder: Path) -> None:
    for changes in (
        {"prompt": "a walk", "outputs": ["ttm"]},
        {"prompt": "a walk", "target": "vace", "frames": 17, "resolution": [96, 64]},
        {"tracks": {"grid": [2, 2]}, "outputs": ["tracks"]},
        {"motion_strength": {"0": 1, "16": 2}},
        {"match_color": True},
        {"treatment": "clip"},
    ):
        assert look(folder, **changes).remarks == [], changes


def test_a_result_notes_it_too(tmp_path: Path) -> None:
    runner = JobRunner(LocalStorage(tmp_path / "store"), tmp_path)
    put_pan_clip(runner.storage, "videos/pan.mp4", tmp_path)
    runner.storage.put("images/a.png", png(texture(96, 160, seed=1)))
    document = {
        "task_id": "t",
        "structure_video": "videos/pan.mp4",
        "prompt": "a walk",
        "segments": [{"frames": 5, "guides": [{"at": [0, 1], "image": "images/a.png"}]}],
    }
    assert runner.run("t", document).state == "done"
    notices = Manifest.model_validate_json(runner.storage.get(keys.job_manifest("t")).data).notices
    (wish,) = map(str, idle_wishes(JobRequest.parse(document)))
    assert wish in notices
    assert "nothing is made of it: it goes into" in runner.storage.get(keys.job_report("t")).data.decode()


# --- fields that are there twice -----------------------------------------------------------------------------


def test_a_field_that_is_there_twice_is_refused_everywhere(folder: Path) -> None:
    text = json.dumps(JOB | LENGTHS).replace('"frames": 17', '"frames": 17, "frames": 18')
    assert look_into(text, folder).lines == ["request: frames: expected it once, got it twice"]
    with pytest.raises(InvalidRequestError, match=r"request\.json: frames: expected it once, got it twice"):
        JobRequest.parse_json(text.encode(), expected_task_id="t")
    with pytest.raises(InvalidRequestError, match="expected a number, got NaN"):
        JobRequest.parse_json(b'{"task_id": "t", "fps": NaN}', expected_task_id="t")


def test_two_names_of_one_field_are_one_too_many() -> None:
    both = {"task_id": "t", "structure_video": "a", "structure_video_path": "b", "segments": [{"frames": 9}]}
    with pytest.raises(InvalidRequestError, match="structure_video_path: expected one of structure_video and"):
        JobRequest.parse(both)


# --- whose folder --------------------------------------------------------------------------------------------


def test_results_of_another_job_stay_unless_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(task_id: str, *options: str) -> int:
        (folder / "job.json").write_text(json.dumps(JOB | LENGTHS | {"task_id": task_id}))
        return main(["run", "job.json", "--out", "out", *options])

    def shown() -> Any:
        return json.loads((folder / "out" / "status.json").read_text())["task_id"]

    assert run("first") == 0
    assert run("first") == 0, "the same again takes its place"
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert run("second") == 2
    assert "expected an empty folder or one of job second, got that of job first; --replace" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()} == before
    assert shown() == "first"
    assert run("second", "--replace") == 0
    assert shown() == "second"


def test_a_job_without_an_id_is_the_same_again_whenever_it_ran(tmp_path: Path) -> None:
    def status(task_id: str) -> None:
        moment = "2026-11-26T06:00:00Z"
        document = {"task_id": task_id, "run_id": "r", "state": "done", "stage": "publish", "updated_at": moment}
        (tmp_path / "status.json").write_text(json.dumps(document))

    status("walk-20261126-060000")
    check_target(tmp_path, "walk-20261126-070000")
    for other in ("run-20261126-070000", "walk-2"):
        with pytest.raises(InvalidRequestError, match="got that of job walk-20261126-060000"):
            check_target(tmp_path, other)
    check_target(tmp_path, "walk-2", replace=True)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(InvalidRequestError, match=r"a job whose status\.json cannot be read"):
        check_target(tmp_path, "walk")


def test_fetching_asks_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = JobRunner(LocalStorage(tmp_path / "store"), tmp_path)
    put_pan_clip(runner.storage, "videos/pan.mp4", tmp_path)
    for task_id in ("one", "two"):
        segments = [{"frames": 3, "guides": []}]
        done = runner.run(task_id, {"task_id": task_id, "structure_video": "videos/pan.mp4", "segments": segments})
        assert done.state == "done", done.error

    def fetch(task_id: str, *options: str) -> int:
        return main(["fetch", task_id, "--out", str(tmp_path / "out"), "--folder", str(tmp_path / "store"), *options])

    assert [fetch("one"), fetch("two"), fetch("one"), fetch("two", "--replace")] == [0, 2, 0, 0]
    assert "got that of job one" in capsys.readouterr().err


def test_a_folder_that_is_not_there_has_no_jobs_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[Callable[[str], list[str]]] = [
        lambda place: ["jobs", "list", "--folder", place],
        lambda place: ["status", "t", "--folder", place],
        lambda place: ["frames", "list", "--folder", place],
    ]
    (tmp_path / "file").touch()
    for command in commands:
        for place, said in ((tmp_path / "gone", "one that is not there"), (tmp_path / "file", "a file")):
            assert main(command(str(place))) == 2
            assert f"--folder: expected a folder, got {said}: {place}" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists()


def test_files_are_called_what_the_user_calls_them(folder: Path) -> None:
    job = prepare_job(json.dumps(JOB | LENGTHS), name="t", folder=folder)
    for key, path in job.uploads.items():
        assert job.in_own_words(f"{key}: damaged") == f"{path.name}: damaged"


def test_what_shows_on_the_way_fails_the_job_in_the_users_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_damaged_clip(folder / "my walk.mp4")
    document = JOB | LENGTHS | {"structure_video": "./my walk.mp4"}
    (folder / "job.json").write_text(json.dumps(document))
    assert look_into(json.dumps(document), folder).lines == [], "it begins well"
    assert main(["run", "job.json", "--out", "out"]) == 3
    out = capsys.readouterr().out
    assert "CorruptMediaError: " in out
    assert "damaged at frame 24" in out
    assert "inputs/" not in out
