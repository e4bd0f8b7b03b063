"""Every function in Lambda's own container, on its golden event, in the order of a job; and the media image itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow_local import sam_build, sam_containers

REPO = Path(__file__).resolve().parents[2]
STEMS = sorted(path.parent.name for path in (REPO / "functions").glob("*/app.py"))
#: As Lambda runs a container: a user of its own without rights, nothing writable but /tmp.
AS_ON_LAMBDA = ("--user", "993:990", "--cap-drop", "ALL", "--read-only", "--tmpfs", "/tmp", "--network", "none")
INSIDE = """
import importlib, json, os, pathlib, sys
root = pathlib.Path("/var/task")
sys.path.insert(0, str(root))
os.environ["POWERTOOLS_SERVICE_NAME"] = "test"
handlers = sorted(path.parent.name for path in root.glob("*/app.py"))
for name in handlers:
    assert callable(importlib.import_module(f"{name}.app").handler)
files = {module.__file__: module.__cached__ for module in list(sys.modules.values())
         if getattr(module, "__file__", "") and hasattr(module, "__cached__")}
ours = {file: cached for file, cached in files.items() if file.startswith("/var/task") and file.endswith(".py")}
print(json.dumps({
    "user": os.getuid(),
    "handlers": handlers,
    "loaded": len(ours),
    "not_compiled": [file for file, cached in ours.items() if not os.path.exists(cached or "")],
    "top": sorted(path.name for path in root.iterdir()),
    "wheels": [str(path) for path in pathlib.Path("/").rglob("*.whl") if "ensurepip" not in str(path)],
    "testing": (root / "structureflow" / "testing").exists(),
}))
"""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.docker,
    pytest.mark.xdist_group("sam"),
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not sam_build.engine_answers(), reason="no Docker engine answers on this machine"),
]


@pytest.fixture(scope="module")
def template() -> Path:
    """The built template; the image is in the engine."""
    return sam_build.build(REPO / sam_build.BUILD_DIR, "x86_64")


@pytest.fixture(scope="module")
def image(template: Path) -> str:
    """The name of the one image that was built."""
    resources = yaml_parse(template.read_text())["Resources"].values()
    (name,) = {body["Properties"]["ImageUri"] for body in resources if "ImageUri" in body.get("Properties", {})}
    return str(name)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_media_image_is_below_a_gigabyte_and_holds_what_it_should(image: str) -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", image)) < 1_000_000_000
    ran = docker("run", "--rm", *AS_ON_LAMBDA, "--entrypoint", "python", image, "-B", "-c", INSIDE)
    found = json.loads(ran.splitlines()[-1])
    assert found["user"] == 993
    assert found["handlers"] == [
        "extract_part",
        "join_flows",
        "orchestrator",
        "preview",
        "rebuild_timeline",
        "render_segment",
        "settle_gpu",
    ]
    assert {"av", "cv2", "numpy", "structureflow"} <= set(found["top"])
    assert found["loaded"] > 100
    assert (found["not_compiled"], found["wheels"], found["testing"]) == ([], [], False)


def test_every_function_runs_in_its_container(template: Path) -> None:
    lines: list[str] = []
    invoked = sam_containers.invoke_all(template, lines.append)
    assert {one.function for one in invoked} == {
        "".join(part.title() for part in stem.split("_")) + "Function" for stem in STEMS
    }
    payloads = {one.function: one.payload for one in invoked}
    assert payloads["OrchestratorFunction"]["state"] == "running"
    assert payloads["ExtractPartFunction"] == {"part": 0, "flows": 96}
    assert payloads["JoinFlowsFunction"]["joined"]
    assert payloads["PlanSegmentsFunction"]["segments"] == [0]
    assert payloads["RenderSegmentFunction"]["flow_source"] == "cache"
    assert payloads["RenderSegmentFunction"]["fallbacks"] == 0
    assert payloads["AssembleJobFunction"]["segments"] == 1
    assert len(json.loads(payloads["PreviewFunction"]["body"])["frames"]) == 3
    assert payloads["FailJobFunction"]["error"]["code"] == "NotAnImageError"
    assert any(f"decode to {sam_containers.FRAMES} frames" in line for line in lines)
