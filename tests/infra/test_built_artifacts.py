"""What is built: small enough for Lambda, of the right architecture, and whole on its own.

Zip functions and their layers by `sam build`; of the media image, which needs a Docker engine, the packages that are
installed for it on the host, and the files that its Dockerfile copies.
"""

from __future__ import annotations

import functools
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from structureflow_local import sam_build, sam_containers
from structureflow_local.cloud.template import FunctionSpec, load_template
from tests.unit.test_architecture import imports

REPO = Path(__file__).resolve().parents[2]
TEMPLATE: dict[str, Any] = yaml_parse((REPO / "template.yaml").read_text())
FUNCTIONS = {
    name: body["Properties"]
    for name, body in TEMPLATE["Resources"].items()
    if body["Type"] == "AWS::Serverless::Function"
}
ZIPS = {
    name: [layer["Ref"] for layer in properties["Layers"]]
    for name, properties in FUNCTIONS.items()
    if "Layers" in properties
}
#: Lambda allows 262,144,000 bytes (AWS Lambda Developer Guide, quotas); these are for a quick start instead.
MAX_ZIP_BYTES = 50_000_000
#: Packages of the media image, which is to stay below 1 GB with its base.
MAX_MEDIA_BYTES = 430_000_000
#: `e_machine` of ELF files (System V ABI).
MACHINES = {"x86_64": 62, "arm64": 183}
RUNS_HERE = sys.version_info[:2] == (3, 13) and (sys.platform, platform.machine()) == ("linux", "x86_64")
#: The SDK, which Lambda's runtime has.
SDK = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six.py", "urllib3")
HEAVY = ("av", "cv2", "numpy")

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("sam")]
both = pytest.mark.parametrize("architecture", sam_build.ARCHITECTURES)
runs_here = pytest.mark.skipif(not RUNS_HERE, reason="needs the deployed interpreter, CPython 3.13 on x86_64 Linux")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of the zip functions' build for an architecture; made once."""
    return functools.cache(
        lambda architecture: sam_build.build(tmp_path_factory.mktemp(architecture), architecture, images=False).parent
    )


@pytest.fixture(scope="module")
def packages() -> Callable[[str], Path]:
    """Gives the folder of the media image's packages for an architecture; made once."""
    return functools.cache(sam_build.install_packages)


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the SDK."""
    import botocore

    folder = tmp_path_factory.mktemp("sdk")
    for name in SDK:
        (folder / name).symlink_to(Path(botocore.__file__).parents[1] / name)
    return folder


def folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


# --- size and content --------------------------------------------------------------------------------


@both
def test_zip_functions_are_small_and_have_nothing_for_pixels(build: Callable[[str], Path], architecture: str) -> None:
    folder = build(architecture)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted([*ZIPS, "CoreLayer", "LightLayer"])
    for name, layers in ZIPS.items():
        assert 5_000_000 < sum(map(folder_bytes, map(folder.joinpath, [name, *layers]))) < MAX_ZIP_BYTES, name
    there = {path.name for path in (folder / "LightLayer" / "python").iterdir()}
    assert {"pydantic", "aws_lambda_powertools", "PIL"} <= there
    assert not there & set(HEAVY)


@both
def test_the_media_image_has_its_packages_and_room_below_a_gigabyte(
    packages: Callable[[str], Path], architecture: str
) -> None:
    folder = packages(architecture)
    assert {"PIL", "aws_lambda_powertools", "isal", "pydantic", *HEAVY} <= {path.name for path in folder.iterdir()}
    assert 200_000_000 < folder_bytes(folder) < MAX_MEDIA_BYTES


@both
def test_every_binary_is_of_the_architecture(
    build: Callable[[str], Path], packages: Callable[[str], Path], architecture: str
) -> None:
    for folder, least in ((build(architecture), 5), (packages(architecture), 50)):
        binaries = [path for path in folder.rglob("*.so*") if path.is_file()]
        assert len(binaries) > least
        for path in binaries:
            with path.open("rb") as file:
                head = file.read(20)
            assert head[:4] == b"\x7fELF", path
            assert int.from_bytes(head[18:20], "little") == MACHINES[architecture], path


@both
def test_the_built_template_deploys_the_architecture_that_was_built(
    build: Callable[[str], Path], architecture: str
) -> None:
    folder = build(architecture)
    built = yaml_parse((folder / "template.yaml").read_text())
    assert "Architecture" not in built["Parameters"]
    assert built["Globals"]["Function"]["Architectures"] == [architecture]


@runs_here
def test_layers_and_packages_come_compiled(build: Callable[[str], Path], packages: Callable[[str], Path]) -> None:
    """Files of a function cannot be written: what is not compiled is compiled by every cold start."""
    layers = [build("x86_64") / name / "python" for name in ("CoreLayer", "LightLayer")]
    for folder in (*layers, packages("x86_64")):
        sources = [path for path in folder.rglob("*.py") if path.stat().st_size]
        compiled = {path.name.removesuffix(".cpython-313.pyc") for path in folder.rglob("*.cpython-313.pyc")}
        assert len(sources) > 50
        assert {path.stem for path in sources} <= compiled


@both
def test_functions_hold_their_code_and_nothing_else(build: Callable[[str], Path], architecture: str) -> None:
    folder = build(architecture)
    for name in ZIPS:
        assert [path.name for path in (folder / name).rglob("*")] == ["app.py"], name


# --- alone -------------------------------------------------------------------------------------------


def in_isolation(program: str, paths: list[Path], environment: dict[str, str]) -> str:
    """Run a program on those folders and the standard library alone; return what it prints."""
    whole = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{program}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", whole],
        env={"LANG": "C.UTF-8", "POWERTOOLS_SERVICE_NAME": "test", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def specs() -> dict[str, FunctionSpec]:
    found = dict(load_template(REPO / "template.yaml").functions)
    with_gpu = {"EnableGpu": "true", "GpuImageUri": "raft:1", "GpuVpcId": "vpc-1", "GpuSubnetIds": "subnet-1"}
    settle = load_template(REPO / "template.yaml", with_gpu).functions["SettleGpuFunction"]
    return {**found, "SettleGpuFunction": settle}


SPECS = specs()


@pytest.fixture(scope="module")
def paths(build: Callable[[str], Path], packages: Callable[[str], Path]) -> Callable[[str], list[Path]]:
    """Gives the folders that a deployed function has."""

    def find(name: str) -> list[Path]:
        if name in ZIPS:
            return [build("x86_64") / name, *(build("x86_64") / layer / "python" for layer in ZIPS[name])]
        return [packages("x86_64"), *SPECS[name].python_path]

    return find


@runs_here
@pytest.mark.parametrize("name", FUNCTIONS)
def test_handlers_import_from_the_built_artifacts_alone(paths: Callable[[str], list[Path]], name: str) -> None:
    """Isolated, without site-packages: what a handler imports is built, or it fails; nothing needs AWS to import."""
    module = SPECS[name].handler.removesuffix(".handler")
    program = (
        "import importlib, importlib.util\n"
        f"assert callable(importlib.import_module({module!r}).handler)\n"
        "assert 'boto3' not in sys.modules\n"
        f"print([name for name in {HEAVY!r} if importlib.util.find_spec(name)])\n"
    )
    found = in_isolation(program, paths(name), {"POWERTOOLS_METRICS_NAMESPACE": "test"})
    assert found.strip() == ("[]" if name in ZIPS else repr(list(HEAVY)))


@runs_here
def test_every_handler_does_its_part_of_a_job_from_the_built_artifacts_alone(
    paths: Callable[[str], list[Path]], sdk: Path, tmp_path: Path
) -> None:
    """The golden events, in the order of a job; zip functions with core and light layer, the others as the image."""

    def invoke(function: str, event: Path, port: int) -> Any:
        spec = SPECS[function]
        environment = {
            **spec.environment,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": sam_build.REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
            "DATA_BUCKET": sam_containers.BUCKET,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
            "GPU_CLUSTER": "",
            "BATCH_QUEUE": "",
            "TMPDIR": str(tmp_path),
        }
        program = (
            "import importlib, json, types\n"
            f"module = importlib.import_module({spec.handler.removesuffix('.handler')!r})\n"
            "context = types.SimpleNamespace(function_name='f', function_version='1', memory_limit_in_mb=512,\n"
            "    invoked_function_arn='arn', aws_request_id='id', get_remaining_time_in_millis=lambda: 60_000)\n"
            f"event = json.load(open({str(event)!r}))\n"
            "answer = json.dumps(module.handler(event, context))\n"
            f"assert not ({function in ZIPS} and {set(HEAVY)!r} & set(sys.modules))\n"
            "print()\n"
            "print(answer)\n"
        )
        return json.loads(in_isolation(program, [*paths(function), sdk], environment).splitlines()[-1])

    lines: list[str] = []
    invoked = sam_containers.run_golden_job(invoke, lines.append)
    payloads = {one.function: one.payload for one in invoked}
    assert set(payloads) == set(FUNCTIONS)
    assert payloads["AssembleJobFunction"]["segments"] == 1
    assert payloads["RenderSegmentFunction"]["fallbacks"] == 0
    assert payloads["ExtractPartFunction"] == {"part": 0, "flows": 96}
    assert payloads["JoinFlowsFunction"]["joined"]
    assert any(f"decode to {sam_containers.FRAMES} frames" in line for line in lines)
    seen = json.loads(payloads["PreviewFunction"]["body"])
    assert (seen["flow_source"], len(seen["frames"])) == ("cache", 3)
    page = json.loads(payloads["ApiFunction"]["body"])
    assert [frame["width_px"] for frame in page["frames"]] == [64] * 4, "thumbnails, so that Pillow was needed"


# --- one list of packages ----------------------------------------------------------------------------


def pins(path: Path) -> dict[str, str]:
    """Package to version in a lock, as for the deployed Python."""
    found = {}
    for line in path.read_text().splitlines():
        match = re.match(r"([a-z0-9-]+)==(\S+)(?: ; (.*?))? ?\\?$", line)
        if match and "< '3.12'" not in (match[3] or ""):
            found[match[1]] = match[2]
    return found


@pytest.mark.parametrize(
    "lock",
    ["requirements/demo.txt", "requirements/dev.txt", "requirements/raft.txt", "layers/light/requirements.txt"],
    ids=str,
)
def test_tests_layers_and_containers_have_the_packages_of_the_image(lock: str) -> None:
    media, other = pins(REPO / "functions" / "requirements.txt"), pins(REPO / lock)
    assert {"av", "numpy", "opencv-python-headless"} <= set(media)
    shared = set(media) & set(other)
    assert {name: other[name] for name in shared} == {name: media[name] for name in shared}
    assert shared == set(media) if lock.startswith("requirements") else shared == set(other)


def requirement_lines(name: str) -> set[str]:
    return {line for line in (REPO / name).read_text().splitlines() if line and not line.startswith("#")}


def test_the_packages_of_the_demo_are_those_of_the_tests_and_fewer() -> None:
    demo, dev = requirement_lines("requirements/demo.txt"), requirement_lines("requirements/dev.txt")
    assert demo <= dev, "lock requirements/demo.in again, with -c requirements/dev.txt"
    assert len(demo) < len(dev) / 2


def test_what_runs_a_job_here_imports_only_what_the_demo_installs() -> None:
    """Everything but the tests' own parts and the builds, wherever in a module it stands."""
    brought = metadata.packages_distributions()
    files = [
        path
        for folder in ("layers/core/python/structureflow", "local/structureflow_local", "functions")
        for path in (REPO / folder).rglob("*.py")
        if "testing" not in path.parts and not path.name.startswith("sam")
    ]
    roots = {module.partition(".")[0] for path in files for module in imports(path)}
    roots -= sys.stdlib_module_names | {"structureflow", "structureflow_local"}
    roots -= {"torch", "torchvision"}  # of `make setup-raft`
    roots -= {root for root in roots if root.startswith(("_typeshed", "mypy_boto3_"))}  # types alone
    assert {"av", "cv2", "moto", "rich", "werkzeug"} <= roots
    locked = {line.partition("==")[0] for line in requirement_lines("requirements/demo.txt")}
    for root in sorted(roots):
        names = {name.lower().replace("_", "-") for name in brought.get(root, [root])}
        assert names & locked, f"{root} is imported, but requirements/demo.in does not ask for it"


def test_images_need_an_engine_and_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sam_build, "engine_answers", lambda: False)
    with pytest.raises(sam_build.SamError, match="the media image needs a Docker engine"):
        sam_build.build(tmp_path / "build", "x86_64")
    assert not (tmp_path / "build").exists()
