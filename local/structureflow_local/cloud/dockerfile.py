"""Which folders of the repository an image holds in its task root, read from its Dockerfile.

Locally no image is built: its files are run where they lie. What this cannot follow is an error, so that a local run
never passes with other files than the image has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from structureflow_local.cloud.errors import TemplateError

_TASK_ROOT: Final = PurePosixPath("/var/task")
#: Below it lies what only a build makes: installed packages.
_BUILT: Final = PurePosixPath(".aws-sam")


@dataclass(frozen=True, slots=True)
class _Copy:
    source: PurePosixPath
    target: PurePosixPath
    stage: str | None


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    copies: list[_Copy] = field(default_factory=list)


def copied_folders(dockerfile: Path, context: Path, place: str) -> list[Path]:
    """Return the folders whose content is the image's task root, in the order in which they are copied.

    Built packages are left out.

    Raises:
        TemplateError: the file is not there, or copies in a way that is not followed here.
    """
    stages = _stages(dockerfile, place)
    by_name = {stage.name: stage for stage in stages}
    folders: list[Path] = []
    for copy in stages[-1].copies:
        if copy.stage is None:
            sources = [copy]
        elif copy.stage in by_name:
            sources = [
                _Copy(inner.source, copy.target / inner.target.relative_to(copy.source), None)
                for inner in by_name[copy.stage].copies
                if inner.target.is_relative_to(copy.source)
            ]
        else:
            raise TemplateError(f"{place}: COPY --from={copy.stage}: expected a stage of {dockerfile}")
        for source in sources:
            folder = _folder(source, context, place)
            if folder is not None and folder not in folders:
                folders.append(folder)
    return folders


def _folder(copy: _Copy, context: Path, place: str) -> Path | None:
    """Return the folder that stands for the task root, where `copy` brings a folder of the context to its place."""
    if copy.source.is_relative_to(_BUILT):
        return None
    source = context / copy.source
    if not source.is_dir():
        raise TemplateError(f"{place}: COPY {copy.source}: no such folder: {source}")
    if not copy.target.is_relative_to(_TASK_ROOT):
        raise TemplateError(f"{place}: COPY {copy.source}: expected a target in the task root, got {copy.target}")
    below = copy.target.relative_to(_TASK_ROOT).parts
    if below and source.parts[-len(below) :] != below:
        raise TemplateError(f"{place}: COPY {copy.source} to {copy.target}: another name than here")
    return source.parents[len(below) - 1] if below else source


def _stages(dockerfile: Path, place: str) -> list[_Stage]:
    stages: list[_Stage] = []
    for instruction, rest in _instructions(dockerfile, place):
        if instruction == "FROM":
            named = re.fullmatch(r"\S+(?:\s+AS\s+(\S+))?", rest, re.IGNORECASE)
            if named is None:
                raise TemplateError(f"{place}: FROM {rest}: expected FROM image [AS name]")
            stages.append(_Stage(named[1] or str(len(stages))))
        elif instruction == "COPY":
            copied = re.fullmatch(r"(?:--from=(\S+)\s+)?(\S+)\s+(\S+)", rest)
            if copied is None or not stages:
                raise TemplateError(f"{place}: COPY {rest}: expected COPY [--from=stage] source target, in a stage")
            stages[-1].copies.append(_Copy(PurePosixPath(copied[2]), _absolute(copied[3]), copied[1]))
        elif instruction == "ADD":
            raise TemplateError(f"{place}: ADD {rest}: only COPY is followed here")
    if not stages:
        raise TemplateError(f"{place}: {dockerfile} has no FROM")
    return stages


def _absolute(target: str) -> PurePosixPath:
    return PurePosixPath(target.replace("${LAMBDA_TASK_ROOT}", str(_TASK_ROOT)))


def _instructions(dockerfile: Path, place: str) -> Iterator[tuple[str, str]]:
    try:
        text = dockerfile.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateError(f"{place}: cannot read {dockerfile}: {error}") from error
    whole = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    for line in whole.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction:
            yield instruction.upper(), rest.strip()
