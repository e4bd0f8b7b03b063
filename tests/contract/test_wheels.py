"""What `pip install` brings, outside of this checkout: true metadata, and a library and a command that work."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import structureflow
from structureflow.models.results import Manifest
from tests.contract.installed import Environment, build_wheels, metadata_of
from tests.contract.library_media import make_media

REPO = Path(__file__).resolve().parents[2]
PAGE = "\n".join(re.findall(r"```python\n(.*?)```", (REPO / "docs" / "python.md").read_text(), flags=re.DOTALL))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_wheels(tmp_path_factory.mktemp("wheels"))


def declared(wheel: Path, extra: str) -> set[str]:
    """Return what a wheel requires with an extra, or (``""``) always."""
    requirements = [Requirement(text) for text in metadata_of(wheel).requires or ()]
    return {
        requirement.name
        for requirement in requirements
        if (requirement.marker is None) == (not extra)
        and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))
    }


def test_the_library_asks_for_little(wheels: dict[str, Path]) -> None:
    library = wheels["structureflow"]
    assert declared(library, "") == {"isal", "numpy", "opencv-python-headless", "pillow", "pydantic"}
    assert declared(library, "video") == {"av", "pillow-heif"}
    assert declared(library, "aws") == {"aws-lambda-powertools", "boto3", "jinja2"}
    assert declared(library, "raft") == {"torch", "torchvision"}
    assert declared(library, "cli") == {"structureflow-local"}


def test_there_is_one_version(wheels: dict[str, Path]) -> None:
    versions = {name: metadata_of(wheel).version for name, wheel in wheels.items()}
    assert versions == dict.fromkeys(("structureflow", "structureflow-local"), structureflow.__version__)
    for name, other in (("structureflow", "structureflow-local"), ("structureflow-local", "structureflow")):
        wanted = [Requirement(text) for text in metadata_of(wheels[name]).requires or ()]
        ours = [requirement for requirement in wanted if requirement.name == other]
        assert ours
        assert all(requirement.specifier.contains(structureflow.__version__) for requirement in ours)


def test_a_wheel_has_the_package_and_nothing_else(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["structureflow"]).namelist()
    assert "structureflow/py.typed" in names
    assert not [name for name in names if name.startswith("structureflow/testing")]
    assert {name.partition("/")[0] for name in names} == {
        "structureflow",
        f"structureflow-{structureflow.__version__}.dist-info",
    }
    local = zipfile.ZipFile(wheels["structureflow-local"]).namelist()
    assert {"structureflow_local/segments.asl.json", "structureflow_local/structure.mp4"} <= set(local)
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as pack:
            assert all(info.date_time[0] == 2020 for info in pack.infolist()), "the same checkout, the same bytes"


def test_the_page_runs_with_what_it_asks_for(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheels, "structureflow[video]")
    assert "No broken requirements" in environment.check()
    make_media(tmp_path)
    place = "\nimport structureflow, sys; print(structureflow.__file__)"
    done = environment.run(["python", "-W", "error", "-c", PAGE + place], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "(17, 96, 160, 3) (17, 96, 160)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(str(environment.site_packages))


def test_without_extras_frames_in_memory_become_a_guide(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheels, "structureflow")
    assert "No broken requirements" in environment.check()
    script = """
import numpy as np
import structureflow as sf
picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
frames = [np.roll(picture, t, axis=1) for t in range(4)]
guide = sf.render_guide(sf.extract_flows_of_frames(frames), {0: frames[0], 3: frames[3]}, 4, structure=frames)
print(guide.outcome.filled)
for use in (lambda: sf.extract_flows("clip.mp4"), lambda: sf.S3Storage("bucket").exists("key")):
    try:
        use()
    except sf.StructureFlowError as error:
        print(error)
"""
    done = environment.run(["python", "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "((1, 2),)",
        "extract_flows needs av: pip install '.[video]' in a checkout of structureflow",
        "S3Storage needs botocore: pip install '.[aws]' in a checkout of structureflow",
    ]


@pytest.fixture(scope="module")
def command(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the command line, and without the local cloud's packages."""
    environment = Environment(tmp_path_factory.mktemp("command") / "venv", wheels, "structureflow[cli]")
    assert "No broken requirements" in environment.check()
    return environment


def test_the_command_comes_with_its_extra(command: Environment, tmp_path: Path) -> None:
    done = command.run(["structureflow", "--version"], tmp_path)
    assert (done.returncode, done.stdout) == (0, f"structureflow {structureflow.__version__}\n"), done.stderr


def test_a_job_runs_outside_of_the_checkout(command: Environment, tmp_path: Path) -> None:
    make_media(tmp_path)
    job = {"task_id": "walk", "structure_video": "clip.mp4", "images": ["a.png", "b.png"], "frames": 17, "overlap": 3}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = command.run(["structureflow", "run", "job.json", "--out", "out"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = Manifest.model_validate_json((tmp_path / "out" / "manifest.json").read_bytes())
    assert [segment.frames for segment in manifest.segments] == [17]
    assert not manifest.fallbacks
    assert (tmp_path / "out" / "segments" / "000" / "guide.mp4").stat().st_size > 0
    assert b"job report" in (tmp_path / "out" / "report.html").read_bytes()
    # what it left runs again, and finds the flows
    done = command.run(["structureflow", "run", "out/request.json", "--out", "again"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "found in the cache" in done.stdout
    for name in ("guide.mp4", "mask.mp4"):
        first, second = ((tmp_path / out / "segments" / "000" / name).read_bytes() for out in ("out", "again"))
        assert first == second


def test_the_sample_comes_with_it(command: Environment, tmp_path: Path) -> None:
    done = command.run(["structureflow", "demo", "--out", "out", "--no-store"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "segments" / "002" / "guide.mp4").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_commands_that_need_no_cloud_work(command: Environment, tmp_path: Path) -> None:
    make_media(tmp_path)
    (tmp_path / "store").mkdir()
    for words in (
        ["init", "clip.mp4", "a.png", "b.png", "--out", "job.jsonc"],
        ["validate", "job.jsonc"],
        ["doctor"],
        ["inspect", "flows.npz", "--png", "sheet.png"],
        ["flows", "export", "flows.npz", "plain.npz", "--format", "npz"],
        ["frames", "--folder", "store", "list"],
    ):
        done = command.run(["structureflow", *words], tmp_path)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_local_cloud_says_what_it_needs(command: Environment, tmp_path: Path) -> None:
    for words in (["demo", "--out", "out", "--cloud"], ["serve"]):
        done = command.run(["structureflow", *words], tmp_path)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "SettingsError: the local cloud runs the template.yaml of a checkout" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["viewer", "--folder", "store"], "werkzeug", "'.[video,aws]' './local[viewer]'"),
        (["doctor", "--stack", "s"], "boto3", "'.[aws]'"),
        (["doctor", "--bucket", "b"], "botocore", "'.[aws]'"),
        (["jobs", "list", "--bucket", "b"], "botocore", "'.[aws]'"),
        (["submit", "job.json", "--bucket", "b"], "botocore", "'.[aws]'"),
        (["frames", "--bucket", "b", "list"], "botocore", "'.[aws]'"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_command_that_needs_more_says_what(
    command: Environment, tmp_path: Path, words: list[str], package: str, extra: str
) -> None:
    make_media(tmp_path)
    (tmp_path / "store").mkdir()
    job = {"task_id": "walk", "structure_video": "clip.mp4", "images": ["a.png", "b.png"], "frames": 17, "overlap": 3}
    (tmp_path / "job.json").write_text(json.dumps(job))
    done = command.run(["structureflow", *words], tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = done.stdout if words[:2] == ["doctor", "--bucket"] else done.stderr
    assert f"needs {package}: pip install {extra} in a checkout of structureflow" in said
    assert "check its name" not in said


def test_the_page_is_served_with_its_extra_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheels, "structureflow-local[viewer]")
    assert "No broken requirements" in environment.check()
    script = """
import threading, urllib.request
from structureflow import ApiClient, LocalStorage
from structureflow_local.page_server import page_server
server = page_server(LocalStorage("store"), 0)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
print(list(ApiClient(url).jobs()), b"<html" in urllib.request.urlopen(url).read())
"""
    done = environment.run(["python", "-c", script], tmp_path)
    assert (done.returncode, done.stdout) == (0, "[] True\n"), done.stderr
