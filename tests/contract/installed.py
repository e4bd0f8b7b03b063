"""Wheels of this checkout, and environments that have exactly what a wheel declares, made without a network.

An environment gets the packages that pip would install, by the metadata of the wheels and of the packages themselves,
as links to those of the environment that the tests run in. What is not declared is not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]


def build_wheels(folder: Path) -> dict[str, Path]:
    """Build both distributions by the project's own files; return the wheels by name."""
    for project in (REPO, REPO / "local"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    return {wheel.name.partition("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


def metadata_of(wheel: Path) -> Distribution:
    """Return what a wheel says of itself."""
    return PathDistribution(next(part for part in ZipPath(wheel).iterdir() if part.name.endswith(".dist-info")))


class Environment:
    """A virtual environment in `folder` with `wheels` and what `wanted` asks for, such as ``structureflow[video]``."""

    def __init__(self, folder: Path, wheels: dict[str, Path], wanted: str) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        place = {"base": str(folder), "platbase": str(folder)}
        self.scripts = Path(sysconfig.get_path("scripts", "venv", vars=place))
        self.site_packages = Path(sysconfig.get_path("purelib", "venv", vars=place))
        self.python = self.scripts / "python"
        ours, theirs = _needed(wanted, wheels)
        for name in theirs:
            self._link(distribution(name))
        self._pip(
            "install", "--quiet", "--no-deps", "--no-index", "--no-compile", *(str(wheels[name]) for name in ours)
        )

    def check(self) -> str:
        """Let pip check that all that is declared is there, in a version that is asked for."""
        return self._pip("check")

    def run(self, command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its scripts, or ``python``, in a folder, with nothing of this process's environment but HOME."""
        environment = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return subprocess.run(
            [str(self.scripts / command[0]), *command[1:]],
            cwd=folder,
            env={**environment, "PATH": str(self.scripts)},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def _pip(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _link(self, found: Distribution) -> None:
        for name in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            link = self.site_packages / name
            source = Path(str(found.locate_file(name)))
            if not source.is_dir():
                link.symlink_to(source)
                continue
            # several distributions may fill one folder
            for file in found.files or ():
                if file.parts[0] == name and "__pycache__" not in file.parts:
                    path = self.site_packages / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not path.exists():
                        os.link(Path(str(found.locate_file(file))), path)


def _needed(wanted: str, wheels: dict[str, Path]) -> tuple[list[str], list[str]]:
    """Return the names of the wheels, and of other distributions, that a requirement brings."""
    waiting = [Requirement(wanted)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        waiting += _requirements(
            metadata_of(wheels[name]) if name in wheels else distribution(name), requirement.extras
        )
    names = sorted({name for name, _ in seen})
    return [name for name in names if name in wheels], [name for name in names if name not in wheels]


def _requirements(found: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement
