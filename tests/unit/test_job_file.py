"""Job files: comments, everything that is wrong at once, and what `init` writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from structureflow.errors import InputNotFoundError, InvalidRequestError, StructureFlowError
from structureflow.models.job import JobRequest
from structureflow.models.schema import MEANINGS, request_schema
from structureflow.models.shorthand import Shorthand
from structureflow.testing.jobs import png
from structureflow.testing.videos import pan_frames, texture, write_clip
from structureflow_local.jobfile import prepare, without_comments
from structureflow_local.problems import look_into
from structureflow_local.starter import schema_text, write_job_file

GOOD: dict[str, Any] = {"task_id": "t", "structure_video": "v.mp4", "images": ["a.png", "b.png"]}


def problems(folder: Path, **changes: Any) -> list[str]:
    document = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return look_into(json.dumps(document), folder).lines


def test_comments_are_blanked_out_and_nothing_else() -> None:
    text = '{ // first\n  "a": "http://x/*no*/", /* two\n lines */ "b": "\\"//", "c": 1 // end\n}'
    plain = without_comments(text)
    assert json.loads(plain) == {"a": "http://x/*no*/", "b": '"//', "c": 1}
    assert len(plain) == len(text)
    assert plain.count("\n") == text.count("\n")


def test_a_good_job_file_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    assert problems(tmp_path, task_id=None) == [], "a job file may leave its name out"


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"treatmnt": "clip"}, ["treatmnt: unknown field; did you mean treatment?"]),
        ({"zzz": 1}, ["zzz: unknown field"]),
        ({"quality": "bets"}, ["quality: expected one of fast, balanced, best, got 'bets'; did you mean best?"]),
        ({"outputs": ["tarcks"]}, ["did you mean tracks?"]),
        ({"tracks": {"gird": [2, 2]}}, ["tracks.gird: unknown field; did you mean grid?"]),
        (
            {"images": None, "segments": [{"frames": 9, "guides": [{"at": 0, "imgae": "a.png"}]}]},
            ["segments[0].guides[0].imgae: unknown field; did you mean image?", "expected exactly one of image"],
        ),
        ({"fps": "fast"}, ["fps: "]),
        ({"images": ["a.png"]}, ["images"]),
        ({"frames": 10, "overlap": 30}, ["frames: expected at least overlap 30 + hold 10, 40, got 10"]),
        ({"images": None}, ["segments"]),
        ({"structure_video": None}, ["structure_video: expected the video"]),
        ({"target": "ltx", "frames": 70}, ["frames: expected 8n+1 frames for ltx, got 70"]),
        ({"structure_video": "./gone.mp4"}, ["structure_video: expected a file, got ./gone.mp4, which is not there"]),
        ({"images": ["/gone/a.png", "~nobody/b.png"]}, ["images[0]: expected a file", "images[1]: expected a file"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, changes: dict[str, Any], lines: list[str]) -> None:
    found = problems(tmp_path, **changes)
    assert len(found) == len(lines), found
    for line in lines:
        assert any(line in one for one in found), (line, found)


def test_everything_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "first.png").touch()
    found = problems(
        tmp_path,
        task_id="a b",
        engine="rft",
        fps=900,
        frames=10,
        overlap=30,
        trecks={},
        motion_strength=50,
        images=["frist.png", "./b.png"],
    )
    for part in (
        "did you mean raft?",
        "fps: ",
        "frames: expected at least overlap 30 + hold 10, 40, got 10",
        "did you mean tracks?",
        "motion_strength: expected a number from 0 to 10",
        "task_id: expected",
        "images[0]: expected a file, got frist.png, which is not there; did you mean first.png?",
        "images[1]: expected a file, got ./b.png, which is not there",
    ):
        assert sum(part in line for line in found) == 1, (part, found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "a" 1\n}', "line 2, column 6: expected JSON"),
        ("[1]", "expected a JSON object, got [1]"),
        ("", "line 1, column 1"),
        ("[" * 100_000, "recursion"),
        (json.dumps({"a": "x" * 5000}), "at most"),
    ],
)
def test_what_is_no_request_at_all_is_said(tmp_path: Path, text: str, said: str) -> None:
    (line,) = look_into(text, tmp_path).lines
    assert said in line


def test_who_says_that_a_job_is_valid_lets_the_model_take_it(tmp_path: Path) -> None:
    """And the other way round: nothing is called a problem that the model takes."""
    for changes in (
        {},
        {"fps": 500},
        {"overlap": 80},
        {"resolution": "640x360"},
        {"motion_strength": {"0": 1, "9": 2}},
    ):
        document = GOOD | changes
        try:
            JobRequest.parse(document)
            taken = True
        except StructureFlowError:
            taken = False
        assert (look_into(json.dumps(document), tmp_path).lines == []) is taken, changes


def test_validating_imports_nothing_that_takes_long(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(GOOD))
    code = (
        "import sys; from structureflow_local.cli import main\n"
        "assert main(['validate', 'job.json']) == 0\n"
        "slow = {'numpy', 'cv2', 'av', 'boto3', 'moto', 'werkzeug', 'PIL'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- the schema --------------------------------------------------------------------------------------


def test_the_schema_for_editors_is_the_one_that_the_model_makes(repo: Path) -> None:
    assert (repo / "docs" / "job.schema.json").read_text() == schema_text(), "write it again by structureflow init"


def test_every_field_has_a_meaning_and_a_place_in_the_schema() -> None:
    assert set(MEANINGS) == set(JobRequest.model_fields) | set(Shorthand.model_fields)
    properties = request_schema()["properties"]
    assert set(MEANINGS) < set(properties)
    assert all(properties[name]["description"] for name in properties)


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"$schema": "./job.schema.json"}, True),
        ({"resolution": "640x360"}, True),
        ({"resolution": [640, 360]}, True),
        ({"motion_strength": {"0": 0.5, "40": 1.2}}, True),
        ({"parsed_resolution_wh": "640x360"}, True),
        ({"structure_video": None, "structure_videos": [{"path": "a.mp4", "end_frame": 30}]}, True),
        ({"structure_video": None, "structure_videos": [{"path": "a.mp4", "structure_type": "flow"}]}, True),
        ({"structure_video": None, "structure_guidance": {"videos": [{"path": "a.mp4"}]}}, True),
        ({"structure_video": None, "structure_guidance": {"vidoes": [{"path": "a.mp4"}]}}, False),
        ({"structure_video": None, "structure_videos": [{"paht": "a.mp4"}]}, False),
        ({"images": None, "segments": [{"frames": 9, "guides": [{"at": [0, 1], "image": "a"}]}]}, True),
        ({"images": None}, False),
        ({"treatmnt": "clip"}, False),
        ({"quality": "bets"}, False),
        ({"motion_strength": 11}, False),
        ({"motion_strength": {"x": 1}}, False),
        ({"resolution": "large"}, False),
        ({"tracks": {"gird": []}}, False),
        ({"images": None, "segments": [{"guides": []}]}, False),
    ],
)
def test_editors_accept_and_refuse_as_the_model_does(changes: dict[str, Any], valid: bool) -> None:
    document = {name: value for name, value in (GOOD | changes).items() if value is not None}
    checker = jsonschema.Draft202012Validator(request_schema())
    checker.check_schema(request_schema())
    assert checker.is_valid(document) is valid
    document.pop("$schema", None)
    try:
        JobRequest.parse(document)
    except InvalidRequestError:
        assert not valid
    else:
        assert valid


# --- what init writes --------------------------------------------------------------------------------


@pytest.fixture
def material(tmp_path: Path) -> tuple[Path, list[Path]]:
    (tmp_path / "my [clips]").mkdir()
    video = write_clip(tmp_path / "my [clips]" / "walk.mp4", pan_frames(5, 64, 96, dx=2, dy=0, seed=1), 20)
    images = []
    for seed, name in enumerate("ab"):
        images.append(tmp_path / f"{name}.png")
        images[-1].write_bytes(png(texture(64, 96, seed=seed)))
    return video, images


def test_a_written_job_file_is_valid_and_finds_its_files(material: tuple[Path, list[Path]], tmp_path: Path) -> None:
    video, images = material
    path = tmp_path / "jobs" / "my walk.jsonc"
    facts = write_job_file(video, images, path, target="ltx")
    assert facts == {"segments": 1, "video": "96x64, 5 frames at 20 fps"}
    job = prepare(path)
    assert job.task_id == "my-walk"
    assert {found.resolve() for found in job.uploads.values()} == {video, *images}
    request = JobRequest.parse(json.loads(job.request))
    assert (request.target, len(request.segments)) == ("ltx", 1)
    assert look_into(without_comments(path.read_text()), path.parent).lines == []
    assert json.loads((path.parent / "job.schema.json").read_text()) == request_schema()


def test_each_field_that_is_commented_out_may_be_used(material: tuple[Path, list[Path]], tmp_path: Path) -> None:
    video, images = material
    path = tmp_path / "job.jsonc"
    write_job_file(video, images, path, target="vace")
    lines = path.read_text().splitlines()
    off = [at for at, line in enumerate(lines) if re.match(r'  // "', line)]
    named = {json.loads(f"[{lines[at].split('//', 1)[1].partition(':')[0].strip()}]")[0] for at in off}
    said = {"task_id", "structure_video", "target", "images"}
    assert named == set(MEANINGS) - said - {"structure_videos", "segment_overlap", "flow_cache", "segments"}
    for at in off:
        used = [*lines[:at], lines[at].replace("// ", "", 1), *lines[at + 1 :]]
        assert look_into(without_comments("\n".join(used)), tmp_path).lines == [], lines[at]


def test_nothing_is_overwritten_unasked_and_nothing_half_made(
    material: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    video, images = material
    path = tmp_path / "job.jsonc"
    path.write_text("mine")
    with pytest.raises(InvalidRequestError, match="it is there already"):
        write_job_file(video, images, path, target="vace")
    assert path.read_text() == "mine"
    write_job_file(video, images, path, target="vace", overwrite=True)
    with pytest.raises(InvalidRequestError, match="two or more, got 1"):
        write_job_file(video, images[:1], tmp_path / "x.jsonc", target="vace")
    with pytest.raises(InputNotFoundError, match=r"gone\.png"):
        write_job_file(video, [*images, tmp_path / "gone.png"], tmp_path / "x.jsonc", target="vace")
    with pytest.raises(StructureFlowError, match=r"a\.png"):
        write_job_file(images[0], images, tmp_path / "x.jsonc", target="vace")
    assert not (tmp_path / "x.jsonc").exists()


def test_a_job_without_an_id_is_called_after_its_file_whatever_that_is_called(tmp_path: Path) -> None:
    names = {"j s [1].json": "j-s-1-", "größe.json": "gr-e-", "\u2026.json": "job-", "plain_1.json": "plain_1-"}
    for name, begin in names.items():
        path = tmp_path / name
        path.write_text('{"structure_video": "videos/clip.mp4", "segments": []}')
        assert prepare(path).task_id.startswith(begin)
