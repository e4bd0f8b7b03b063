"""What `sam build` makes: small enough for Lambda, of the right architecture, and whole on its own."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow_local import sam

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
FUNCTIONS = {
    name: [layer["Ref"] for layer in body["Properties"]["Layers"]]
    for name, body in TEMPLATE["Resources"].items()
    if body["Type"] == "AWS::Serverless::Function"
}
#: Lambda allows 262,144,000 bytes (AWS Lambda Developer Guide, quotas); the rest is room for the next release.
MAX_BYTES = 250_000_000
#: `e_machine` of ELF files (System V ABI).
MACHINES = {"x86_64": 62, "arm64": 183}
RUNS_HERE = sys.version_info[:2] == (3, 13) and (sys.platform, platform.machine()) == ("linux", "x86_64")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of the build for an architecture; made once."""
    return functools.cache(lambda architecture: sam.build(tmp_path_factory.mktemp(architecture), architecture).parent)


both = pytest.mark.parametrize("architecture", sam.ARCHITECTURES)


def folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(600)
@both
def test_every_function_fits_with_its_layers(build: Callable[[str], Path], architecture: str) -> None:
    folder = build(architecture)
    sizes = {name: sum(map(folder_bytes, map(folder.joinpath, [name, *layers]))) for name, layers in FUNCTIONS.items()}
    assert min(sizes.values()) > 100_000_000, "a layer is missing"
    assert {name: size for name, size in sizes.items() if size >= MAX_BYTES} == {}


@pytest.mark.timeout(600)
@both
def test_every_binary_is_of_the_architecture(build: Callable[[str], Path], architecture: str) -> None:
    folder = build(architecture)
    binaries = [path for path in folder.rglob("*.so*") if path.is_file()]
    assert len(binaries) > 20
    for path in binaries:
        with path.open("rb") as file:
            head = file.read(20)
        assert head[:4] == b"\x7fELF", path
        assert int.from_bytes(head[18:20], "little") == MACHINES[architecture], path


@pytest.mark.timeout(600)
@both
def test_the_built_template_deploys_the_architecture_that_was_built(
    build: Callable[[str], Path], architecture: str
) -> None:
    folder = build(architecture)
    assert yaml_parse((folder / "template.yaml").read_text())["Parameters"]["Architecture"]["Default"] == architecture


@pytest.mark.timeout(600)
@both
def test_functions_hold_their_code_and_nothing_else(build: Callable[[str], Path], architecture: str) -> None:
    folder = build(architecture)
    for name in FUNCTIONS:
        assert [path.name for path in (folder / name).rglob("*")] == ["app.py"], name


@pytest.mark.timeout(600)
@pytest.mark.skipif(not RUNS_HERE, reason="needs the deployed interpreter, CPython 3.13 on x86_64 Linux")
# RenderSegment needs OpenCV and PyAV together, which no zip function holds: it is for the media image
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "RenderSegmentFunction"])
def test_handlers_import_from_the_built_artifacts_alone(build: Callable[[str], Path], name: str) -> None:
    """Isolated, without site-packages: what a handler imports is built, or it fails; nothing needs AWS to import."""
    folder = build("x86_64")
    paths = [str(folder / name), *(str(folder / layer / "python") for layer in FUNCTIONS[name])]
    program = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "import app, structureflow\n"
        "assert callable(app.handler)\n"
        f"assert app.__file__.startswith({str(folder)!r}) and structureflow.__file__.startswith({str(folder)!r})\n"
        "assert 'boto3' not in sys.modules\n"
    )
    environment = {"POWERTOOLS_SERVICE_NAME": "test", "POWERTOOLS_METRICS_NAMESPACE": "test", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.skipif(not RUNS_HERE, reason="needs the deployed interpreter, CPython 3.13 on x86_64 Linux")
@pytest.mark.parametrize("layer", ["VisionLayer", "VideoLayer"])
def test_the_tracer_works_from_the_layer_with_the_runtimes_own_sdk(build: Callable[[str], Path], layer: str) -> None:
    """The tracer's package needs botocore, which the layers leave to Lambda's runtime; here the environment has it."""
    import botocore

    folder = build("x86_64") / layer / "python"
    runtime = Path(botocore.__file__).parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(folder)!r}]; sys.path.append({str(runtime)!r})\n"
        "from aws_lambda_powertools import Tracer\n"
        "tracer = Tracer(auto_patch=False, disabled=False)\n"
        "import aws_xray_sdk\n"
        f"assert aws_xray_sdk.__file__.startswith({str(folder)!r}), aws_xray_sdk.__file__\n"
        "tracer.provider.begin_segment('function')\n"
        "with tracer.provider.in_subsegment(name='## app') as part:\n"
        "    part.put_annotation('task_id', 'sample')\n"
        "assert part.annotations == {'task_id': 'sample'}\n"
        "tracer.provider.clear_trace_entities()\n"
    )
    environment = {"POWERTOOLS_SERVICE_NAME": "test", "LAMBDA_TASK_ROOT": "", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
