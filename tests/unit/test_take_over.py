"""What somebody who takes this over relies on: the map of rooms is true, and nothing outside is needed."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.unit.test_architecture import LEVELS, imports, package_of

REPO = Path(__file__).resolve().parents[2]
LIBRARY = REPO / "layers" / "core" / "python" / "structureflow"
PAGE = (REPO / "docs" / "architecture.md").read_text()
#: Small modules that the map draws as one room, and what is no room of the deployed system.
BASE = {"arguments", "errors", "extras", "files", "keys", "limits", "locks", "ordered", "processors", "references"}
OUTSIDE = {"functions": REPO / "functions", "local": REPO / "local"}


def drawn() -> tuple[set[str], set[tuple[str, str]]]:
    """Return the rooms of the map, and its arrows."""
    (chart,) = re.findall(r"```mermaid\nflowchart TD\n(.*?)```", PAGE, flags=re.DOTALL)
    rooms = set(re.findall(r"^\s*(\w+)\[", chart, flags=re.MULTILINE))
    return rooms, set(re.findall(r"^\s*(\w+) --> (\w+)$", chart, flags=re.MULTILINE))


def files_of(room: str) -> Iterator[Path]:
    if room in OUTSIDE:
        yield from OUTSIDE[room].rglob("*.py")
    elif room == "base":
        yield from (LIBRARY / f"{name}.py" for name in BASE)
    else:
        yield from (LIBRARY / room).rglob("*.py")


def known_by(room: str) -> set[str]:
    """Return the rooms that a room imports."""
    found = {package_of(module) for path in files_of(room) for module in imports(path)} - {None, room}
    return {"base" if name in BASE else str(name) for name in found if name in LEVELS} - {room}


def test_every_room_is_on_the_map_and_every_arrow_is_an_import() -> None:
    rooms, arrows = drawn()
    assert rooms == (set(LEVELS) - BASE - {"testing"}) | {"base", *OUTSIDE}
    for room, below in sorted(arrows):
        assert below in known_by(room), f"{room} imports nothing of {below}"


def test_every_import_is_an_arrow_or_a_way_along_arrows() -> None:
    rooms, arrows = drawn()
    reached = {room: {room} for room in rooms}
    for _ in rooms:
        for room, below in arrows:
            reached[room] |= reached[below]
    for room in rooms:
        assert known_by(room) - {"testing"} <= reached[room], room


def test_the_table_of_rooms_names_them_all() -> None:
    table = PAGE.split("| room |", 1)[1].split("\n\n", 1)[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    assert named == set(LEVELS) - BASE
    for path in re.findall(r"`([\w/]+\.(?:py|j2))`", PAGE):
        assert (LIBRARY / path).exists() or (REPO / path).exists(), path
    dotted = re.findall(r"`(structureflow(?:\.\w+)+)`", PAGE)
    assert all((LIBRARY.parent / name.replace(".", "/")).with_suffix(".py").exists() for name in dotted), dotted


def test_the_licence_is_the_one_that_the_distributions_name() -> None:
    assert (REPO / "LICENSE").read_text().startswith("MIT License")
    for name in ("pyproject.toml", "local/pyproject.toml"):
        assert re.search(r'^license = "MIT"$', (REPO / name).read_text(), flags=re.MULTILINE), name


def test_what_contributors_are_told_of_is_there() -> None:
    page = (REPO / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`([\w./-]+\.(?:py|yaml|json|md))`", page):
        assert "NAME" in name or (REPO / name).exists() or (LIBRARY / name).exists(), name
    tiers = {path.name for path in (REPO / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert tiers == set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    targets = (REPO / "Makefile").read_text()
    for target in re.findall(r"`make ([\w-]+)`", page):
        assert re.search(rf"^{target}:", targets, flags=re.MULTILINE), target


def test_hooks_run_the_tools_of_the_environment() -> None:
    (repo,) = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local", "nothing is fetched"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repo["hooks"])


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [REPO / name for name in done.stdout.split("\0") if name and (REPO / name).is_file()]


def test_the_checkout_is_small_and_its_pictures_open() -> None:
    files = tracked()
    large = {path.name: path.stat().st_size for path in files if path.stat().st_size > 2_000_000}
    assert not large
    picture = REPO / "docs" / "picture.webp"
    assert picture in files
    assert picture.stat().st_size < 600_000
    with Image.open(picture) as image:
        assert image.n_frames > 20  # type: ignore[attr-defined]
        assert image.format == "WEBP"


def test_every_clip_of_the_repository_is_made_by_a_script_of_it() -> None:
    media = [path for path in tracked() if path.suffix in {".mp4", ".mov", ".webm", ".mkv", ".avi"}]
    assert [path.relative_to(REPO).as_posix() for path in media] == ["local/sample/structure.mp4"]
    source = (REPO / "local" / "structureflow_local" / "sample.py").read_text()
    assert "def make_sample" in {ast.unparse(node)[:15] for node in ast.parse(source).body}


def test_nobody_is_told_to_install_this_by_name_from_an_index() -> None:
    """It is on none: what an index has under its names is somebody else's."""
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    told = {
        name: found
        for name in tracked
        if name.endswith((".py", ".md", ".toml", ".json", ".html", ".js"))
        and (found := re.findall(r"pip install (?:-\S+ )*[\"']?structureflow\S*", (REPO / name).read_text()))
    }
    assert told == {}
