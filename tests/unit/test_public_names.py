"""`import structureflow` offers what it says, and costs nothing until a name is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import structureflow

SOURCE = Path(structureflow.__file__)


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_for_type_checkers_are_those_that_are_loaded() -> None:
    block = next(
        node
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    declared = {
        (alias.asname, f"{node.module}.{alias.name}")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {(name, f"{structureflow._HOMES[name]}.{name}") for name in structureflow.__all__ if name[0] != "_"}
    assert declared == loaded


@pytest.mark.parametrize("name", structureflow.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(structureflow, name) is not None
    assert name in dir(structureflow)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'extract_flow'"):
        _ = structureflow.extract_flow


def test_importing_costs_nothing() -> None:
    script = "import sys; before = set(sys.modules); import structureflow; print(*sorted(set(sys.modules) - before))"
    allowed = {"structureflow", "__future__", "typing", "collections.abc", "importlib"}
    loaded = {name.partition(".")[0] for name in run(script).split()}
    assert not loaded & {"numpy", "cv2", "pydantic", "av", "PIL", "isal", "boto3"}
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= allowed


def test_the_tracker_needs_no_numpy() -> None:
    script = "import sys, structureflow; structureflow.GuidanceTracker(5); print('numpy' in sys.modules)"
    assert run(script).strip() == "False"


@pytest.mark.parametrize("use", ["VideoReader", "encode_h264", "extract_flows('clip.mp4')"])
def test_a_missing_extra_is_named(use: str) -> None:
    script = (
        "import sys; sys.modules['av'] = None\n"
        "import structureflow\n"
        f"try: structureflow.{use}\n"
        "except structureflow.StructureFlowError as error: print(error.code, error)\n"
    )
    said = run(script).strip()
    assert said.startswith("MissingExtraError ")
    assert said.endswith("needs av: pip install '.[video]' in a checkout of structureflow")


def test_what_needs_no_video_file_works_with_the_core_alone() -> None:
    script = """
import sys
for name in ("av", "pillow_heif", "boto3", "botocore", "aws_lambda_powertools", "torch", "rich"):
    sys.modules[name] = None
import numpy as np
import structureflow as sf
frames = [np.roll(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8), t, axis=1) for t in range(4)]
flows = sf.extract_flows_of_frames(frames)
guide = sf.render_guide(flows, {0: frames[0], 3: frames[3]}, 4, structure=frames)
print(sf.FrameCache(sf.MemoryStorage()).cache_exists("walk"), guide.outcome.filled, guide.outcome.tracking)
"""
    assert run(script).strip() == "False ((1, 2),) anchored"
