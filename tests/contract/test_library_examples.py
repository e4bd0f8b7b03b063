"""Every example of the library runs: those of docs/python.md, and those in the docstrings of the public names."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import structureflow
from structureflow import compat
from tests.contract.library_media import make_media

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "python.md").read_text()
COMPAT = (REPO / "docs" / "compat.md").read_text()
NAMES = [name for name in structureflow.__all__ if name != "__version__"]
#: What callers are given, or inherit from; shown at work where it comes from.
GIVEN = {"FlowArchive", "FlowMeta", "FlowSource", "PointTracks", "RenderedGuide", "Storage", "StructureFlowError"}
#: Plain sets of values, and what needs a server.
PLAIN = {"ApiClient", "ArrayFlows", "DecodeLimits", "Frame", "Masking", "Overlay", "S3Settings", "S3Storage"}
#: One example shows all three.
SHOWN_BY_OTHERS = {"list_overlay_frames", "load_overlays", "read_flo", "read_kitti"}


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_media(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(NAMES) - GIVEN - PLAIN - SHOWN_BY_OTHERS))
@pytest.mark.usefixtures("media")
def test_the_example_of_a_public_name_runs(name: str) -> None:
    public: dict[str, Any] = {each: getattr(structureflow, each) for each in NAMES}
    thing = public[name]
    module = sys.modules[thing.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    found = [test for test in finder.find(thing, name, module=module, globs=vars(module) | public) if test.examples]
    assert found, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(structureflow, name))


def test_the_page_runs_from_top_to_bottom(media: Path) -> None:
    script = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    done = subprocess.run(  # the page as a reader would run it: a fresh process
        [sys.executable, "-W", "error", "-c", script], cwd=media, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "11 flows of 160 x 96" in done.stdout
    assert "(17, 96, 160, 3) (17, 96, 160)" in done.stdout
    for made in ("guide/guide.mp4", "guide/mask.mp4", "second/guide.mp4", "as-flo/flows.json", "first.png"):
        assert (media / made).stat().st_size > 0


def test_the_page_of_the_original_functions_runs(media: Path) -> None:
    script = "\n".join(re.findall(r"```python\n(.*?)```", COMPAT, flags=re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{script}\nprint(flows.shape, flows.dtype)"],
        cwd=media,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(11, 96, 160, 2) float32"


def test_the_table_has_every_function_of_the_original_designs() -> None:
    rows = [line.partition("|")[2].partition("|")[0] for line in COMPAT.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == {name for name in compat.__all__ if not name.startswith("use_")}


def test_the_page_uses_public_names_only() -> None:
    script = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    used = {
        node.attr
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sf"
    }
    assert used <= set(NAMES)
    assert {"extract_flows", "render_guide", "write_guide", "GuidanceTracker", "FrameCache"} <= used
