"""Who builds on the library takes public names only: of `structureflow`, and of the modules that its page lists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import structureflow
from structureflow import errors, keys

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "python.md").read_text().partition("## For who builds on it")[2].partition("\n## ")[0]
ROWS = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
MODULES = [f"structureflow.{name}" for row in ROWS for name in re.findall(r"`([a-z_.0-9]+)`", row)]
LOCAL = sorted((REPO / "local").rglob("*.py"))
NODES = sorted((REPO / "integrations").rglob("*.py"))


def public_names(module: str) -> set[str]:
    return set(importlib.import_module(module).__all__) if module in {"structureflow", *MODULES} else set()


def taken(source: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that a source takes of the library."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "structureflow":
                    assert alias.name == "structureflow" or alias.asname, f"import {alias.name}"
                    modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "structureflow":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    modules[alias.asname or alias.name] = inner
                else:
                    yield str(node.module), alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def private_names(source: str) -> list[str]:
    return [f"{module}.{name}" for module, name in taken(source) if name not in public_names(module)]


def test_the_page_lists_modules_once() -> None:
    assert len(MODULES) > 20
    assert len(set(MODULES)) == len(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_says_what_it_offers(module: str) -> None:
    loaded = importlib.import_module(module)
    assert inspect.getdoc(loaded), module
    for name in loaded.__all__:
        thing = getattr(loaded, name)
        if inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__ == module):
            assert inspect.getdoc(thing), f"{module}.{name}"


@pytest.mark.parametrize("path", [*LOCAL, *NODES], ids=lambda path: str(path.relative_to(REPO)))
def test_what_builds_on_the_library_takes_public_names(path: Path) -> None:
    found = private_names(path.read_text())
    assert not found, "either it is in the __all__ of a module of docs/python.md, or it is taken from elsewhere"


def test_every_error_and_every_key_is_public() -> None:
    defined = {name for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert defined == set(errors.__all__)
    functions = {name for name, thing in vars(keys).items() if getattr(thing, "__module__", "") == keys.__name__}
    assert {name for name in functions if name[0] != "_"} <= set(keys.__all__)


@pytest.mark.parametrize(
    "source",
    [
        "from structureflow.storage._folders import create",
        "from structureflow.flow.archive.layout import DESCR",
        "from structureflow.keys import _index",
        "from structureflow import keys\nkeys._index(3)",
        "import structureflow as sf\nsf.errors",
        "def late():\n    from structureflow.guide.render import render_segment",
    ],
)
def test_other_names_are_found(source: str) -> None:
    assert len(private_names(source)) == 1


def test_public_names_are_public_from_any_import() -> None:
    source = (
        "from structureflow import keys, FrameCache\nimport structureflow as sf\nkeys.job_prefix('a'), sf.FrameCache"
    )
    assert private_names(source) == []
    assert set(structureflow.__all__) == public_names("structureflow")
