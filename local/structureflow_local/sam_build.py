"""Builds the deployable artefacts with SAM: layers, functions, and what the media image copies."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml
from samtranslator.yaml_helper import yaml_parse

from structureflow.errors import StructureFlowError

REPO: Final = Path(__file__).resolve().parents[2]
#: Where `sam build` puts x86_64 artefacts, and where `sam deploy` looks for them.
BUILD_DIR: Final = Path(".aws-sam") / "build"
#: What functions/Dockerfile copies, by architecture.
MEDIA_PACKAGES: Final = Path(".aws-sam") / "media"
ARCHITECTURES: Final = ("x86_64", "arm64")
REGION: Final = "us-east-1"


class SamError(StructureFlowError, RuntimeError):
    """SAM could not build, or a function did not do in its container what it does elsewhere."""


def build(build_dir: Path, architecture: str, *, images: bool = True) -> Path:
    """Build every function and layer for `architecture`; return the built template.

    The layers' Makefile cannot see template parameters, so the architecture goes to it by its environment; and the
    built template has it in the parameter's place. A stack keeps a parameter's value from one deployment to the next,
    whatever the default, and would pair functions of the old architecture with images and layers of the new one.

    Args:
        build_dir: where the artefacts and the built template go; images go to the Docker engine.
        architecture: one of `ARCHITECTURES`.
        images: False leaves out the functions that are images, and needs no Docker engine.

    Raises:
        SamError: no engine answers, or `sam build` failed; the message ends with what it said.
    """
    if images and not engine_answers():
        raise SamError("the media image needs a Docker engine, and none answers on this machine")
    with _packages(architecture) as cache, TemporaryDirectory(prefix="structureflow-sam-") as name:
        template = REPO / "template.yaml"
        if not images:
            template = Path(name, "template.yaml")
            template.write_text(_without_images((REPO / "template.yaml").read_text()))
        run_sam(
            "build",
            "--template",
            str(template),
            "--base-dir",
            str(REPO),
            "--build-dir",
            str(build_dir.absolute()),
            "--parallel",
            "--parameter-overrides",
            f"Architecture={architecture}",
            environment=_make_environment(architecture, cache),
        )
    built = build_dir / "template.yaml"
    built.write_text(settled(built.read_text(), architecture))
    return built


def settled(template: str, architecture: str) -> str:
    """Return a template without its parameter Architecture, and the architecture wherever it is referred to.

    Raises:
        SamError: it has no such parameter.
    """
    document = yaml_parse(template)
    if document.get("Parameters", {}).pop("Architecture", None) is None:
        raise SamError("template.yaml: expected a parameter Architecture")
    return str(yaml.safe_dump(_with_architecture(document, architecture), sort_keys=False))


def _with_architecture(node: Any, architecture: str) -> Any:
    if node == {"Ref": "Architecture"}:
        return architecture
    if isinstance(node, dict):
        return {name: _with_architecture(value, architecture) for name, value in node.items()}
    if isinstance(node, list):
        return [_with_architecture(value, architecture) for value in node]
    return node


def install_packages(architecture: str) -> Path:
    """Install what functions/Dockerfile copies into the media image; return the folder.

    Raises:
        SamError: they cannot be installed; the message ends with what pip said.
    """
    with _packages(architecture):
        return REPO / MEDIA_PACKAGES / architecture


@contextmanager
def _packages(architecture: str) -> Iterator[Path]:
    """Install the media image's packages and give the cache of packages, while no other build fills it."""
    cache = REPO / ".aws-sam" / "packages"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Released with the file.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(["make", "--silent", "-C", "layers", "media"], _make_environment(architecture, cache))
        yield cache


def _make_environment(architecture: str, cache: Path) -> dict[str, str]:
    return {"ARCHITECTURE": architecture, "PYTHON": sys.executable, "PACKAGE_CACHE": str(cache)}


def _without_images(template: str) -> str:
    """Return a template without the functions that are images; what refers to them is not looked at by a build."""
    document = yaml_parse(template)
    document["Resources"] = {
        name: body
        for name, body in document["Resources"].items()
        if body.get("Properties", {}).get("PackageType") != "Image"
    }
    return str(yaml.safe_dump(document, sort_keys=False))


def run_sam(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    sam = Path(sys.executable).with_name("sam")
    return _run(
        [str(sam), *arguments],
        {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": REGION, **environment},
    )


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=REPO,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise SamError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done


def engine_answers() -> bool:
    """Tell whether a Docker engine answers on this machine."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
