"""Everything that is wrong with a job file, at once: its JSON, its fields, and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from structureflow.errors import InvalidRequestError
from structureflow.models.bounds import check_request_bytes, check_shape, read_object
from structureflow.models.job import JobRequest
from structureflow.models.problems import Place, Problem, nearest, problems_in
from structureflow_local.client import REFERENCE_FIELDS, local_file


def problems_with(text: str, folder: Path) -> list[str]:
    """Say what is wrong with the text of a job file, a line each; nothing where it may be run.

    Args:
        text: its JSON, comments blanked out.
        folder: where relative paths in it start.
    """
    try:
        check_request_bytes(len(text.encode()))
        document = read_object(text, "job file")
        document.pop("$schema", None)
        check_shape(document)
    except InvalidRequestError as error:
        return [str(line) for line in error.detail.get("problems", [error.message])]
    if not {"task_id", "orchestrator_task_id"} & set(document):
        document = {"task_id": "job", **document}
    found = _problems_of_model(document)
    found += _problems_of_files(document, folder)
    return list(dict.fromkeys(map(str, found)))


def _problems_of_model(document: dict[str, Any]) -> list[Problem]:
    try:
        JobRequest.model_validate(document)
    except ValidationError as error:
        return problems_in(error)
    return []


def _problems_of_files(document: Any, folder: Path) -> Iterator[Problem]:
    for place, reference in references(document):
        try:
            path = local_file(folder, reference)
        except OSError:
            path = None
            yield Problem(place, f"expected a file, got {reference}, which is not there{near_file(folder, reference)}")
            continue
        if path is None:
            near = near_file(folder, reference)
            if near:
                yield Problem(place, f"expected a file, got {reference}, which is not there{near}")


def references(node: Any, place: Place = (), field: str = "") -> Iterator[tuple[Place, str]]:
    """Iterate over what a job file names that may be files of this machine, each with its place."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from references(value, (*place, name), name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from references(value, (*place, index), field)
    elif isinstance(node, str) and field in REFERENCE_FIELDS and "://" not in node:
        yield place, node


def near_file(folder: Path, reference: str) -> str:
    """Return a hint at a file whose name is near, in the folder where it would be."""
    path = folder / Path(reference).expanduser()
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    # of a few letters, an extension alone would make any two names alike
    stems = {Path(name).stem: name for name in names if Path(name).suffix.lower() == path.suffix.lower()}
    near = nearest(path.stem, stems)
    return "" if near is None else f"; did you mean {stems[near]}?"
