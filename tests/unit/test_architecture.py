"""Imports flow one way; handlers stay thin; the environment is read in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
LIBRARY = REPO / "layers" / "core" / "python" / "structureflow"

#: Lower number = closer to the root. A package may import those with a lower number, and itself.
LEVELS = {
    "limits": 0,
    "locks": 0,
    "ordered": 0,
    "processors": 0,
    "references": 0,
    "errors": 1,
    "arguments": 2,
    "extras": 2,
    "files": 2,
    "keys": 2,
    "models": 3,
    "media": 3,
    "storage": 3,
    "flow": 4,
    "frames": 5,
    "guide": 5,
    "report": 5,
    "targets": 6,
    "jobs": 7,
    "api": 8,
    "runtime": 8,
    "compat": 9,
    "testing": 9,
}
NO_PACKAGES = {"__init__.py", "__pycache__", "page", "py.typed"}
#: Packages of one level that must not know each other.
STRANGERS = [
    {"frames", "guide"},
    {"frames", "flow"},
    {"frames", "report"},
    {"guide", "report"},
    {"media", "storage"},
    {"targets", "frames"},
    {"targets", "report"},
    {"targets", "storage"},
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "structureflow" and len(parts) > 1 else None


def library_files() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", library_files(), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_flow_one_way(path: Path) -> None:
    relative = path.relative_to(LIBRARY)
    here = relative.parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for module in imports(path):
        there = package_of(module)
        if there is None or there == "__version__" or there == here:
            continue
        assert LEVELS[there] <= LEVELS[here], f"{relative} imports {module}"
        assert {here, there} not in STRANGERS, f"{relative} imports {module}"
        assert not module.startswith("structureflow_local"), f"{relative} imports {module}"


def test_every_package_has_a_level() -> None:
    packages = {p.name.removesuffix(".py") for p in LIBRARY.iterdir() if p.name not in NO_PACKAGES}
    assert packages == set(LEVELS)


@pytest.mark.parametrize("path", sorted((REPO / "functions").rglob("app.py")), ids=lambda p: p.parent.name)
def test_handlers_are_thin(path: Path) -> None:
    source = path.read_text()
    modules = set(imports(path))
    heavy = {"numpy", "cv2", "boto3", "botocore", "PIL", "av"}
    assert not {module.split(".")[0] for module in modules} & heavy
    assert len(source.splitlines()) < 40
    assert all(
        module.startswith(
            (
                "structureflow.api",
                "structureflow.jobs",
                "structureflow.runtime",
                "structureflow.models",
                "structureflow.errors",
            )
        )
        for module in modules
        if module.startswith("structureflow")
    )


@pytest.mark.parametrize("path", library_files(), ids=lambda p: str(p.relative_to(LIBRARY)))
def test_environment_is_read_in_runtime_only(path: Path) -> None:
    if path.relative_to(LIBRARY).parts[0] in {"runtime", "testing"}:
        return
    reads = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    assert not reads


def test_no_module_is_called_utils() -> None:
    assert not [
        p
        for p in REPO.rglob("*.py")
        if p.stem in {"utils", "helpers", "common"}
        and not any(part.startswith(".") for part in p.relative_to(REPO).parts)
    ]


#: What a reader can take in at once.
MOST_LINES = 400


def all_modules() -> list[Path]:
    folders = (path for path in REPO.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def test_no_module_is_too_long() -> None:
    lines = {str(path.relative_to(REPO)): len(path.read_text().splitlines()) for path in all_modules()}
    assert lines
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


#: Windows that `ordered_map` cannot be: frames are pushed into one, and slots go round in the other.
OWN_WINDOWS = {"flow/extract.py", "guide/render.py"}


def test_windows_of_futures_are_of_one_make() -> None:
    found = {str(path.relative_to(LIBRARY)) for path in library_files() if "deque[Future[" in path.read_text()}
    assert found == {"ordered.py"} | (OWN_WINDOWS & found)


#: What opens video files: the one reader, and the writer, which reads back what it wrote.
OPENERS = {"media/probe.py", "media/encode.py"}


def project_files() -> list[Path]:
    folders = (REPO / name for name in ("layers/core/python", "functions", "local", "bench"))
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def opens_video(path: Path) -> bool:
    """Tell whether a module opens a video with OpenCV at all, or with PyAV other than for writing."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "VideoCapture":
            return True
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {"av.open", "av.container.open"}:
            continue
        mode = node.args[1] if len(node.args) > 1 else None
        if not (isinstance(mode, ast.Constant) and mode.value == "w"):
            return True
    return False


def test_videos_are_opened_in_one_place() -> None:
    found = {path for path in project_files() if opens_video(path)}
    # which write material for tests and proofs
    makers = (LIBRARY / "testing", REPO / "bench" / "proofs")
    testing = {path for path in found if any(path.is_relative_to(folder) for folder in makers)}
    assert {str(path.relative_to(LIBRARY)) for path in found - testing} <= OPENERS
    assert LIBRARY / "media" / "probe.py" in found
