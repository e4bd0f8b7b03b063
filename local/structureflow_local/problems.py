"""Everything that is wrong with a job file, at once: fields by the schema, the rest by the model, files by a look."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from structureflow.errors import InvalidRequestError
from structureflow.models.bounds import check_request_bytes, check_shape
from structureflow.models.defaults import shorthand_defaults, target_of
from structureflow.models.job import JobRequest
from structureflow.models.problems import problems_of
from structureflow.models.schema import request_schema
from structureflow.models.shorthand import SHORTHAND_NAMES, Shorthand
from structureflow_local.client import REFERENCE_FIELDS, local_file

_SEGMENT_FRAMES: Final = 73


def problems_with(text: str, folder: Path) -> list[str]:
    """Say what is wrong with the text of a job file, a line each; nothing where it may be run.

    Args:
        text: its JSON, comments blanked out.
        folder: where relative paths in it start.
    """
    try:
        check_request_bytes(len(text.encode()))
        document = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"line {error.lineno}, column {error.colno}: expected JSON: {error.msg}"]
    except (InvalidRequestError, RecursionError) as error:
        return [str(error)]
    if not isinstance(document, dict):
        return [f"expected a JSON object, got {type(document).__name__}"]
    document.pop("$schema", None)
    try:
        check_shape(document)
    except InvalidRequestError as error:
        return [error.message]
    if not {"task_id", "orchestrator_task_id"} & set(document):
        document = {"task_id": "job", **document}
    schema = request_schema()
    found: list[str] = []
    known = _known_part(document, schema, schema, "", found)
    found += _problems_of_model(known)
    found += _problems_of_files(document, folder)
    return list(dict.fromkeys(found))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest of the known names, empty where none is near."""
    near = difflib.get_close_matches(name.lower(), {one.lower(): one for one in known}, n=1, cutoff=0.6)
    return f"; did you mean {next(one for one in known if one.lower() == near[0])}?" if near else ""


def _known_part(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], place: str, found: list[str]) -> Any:
    """Return what of `value` has names and words that the schema knows; say of the rest what was meant."""
    schema = _resolved(schema, root)
    if isinstance(value, dict) and "properties" in schema:
        known: dict[str, Any] = {}
        for name, item in value.items():
            where = f"{place}.{name}" if place else name
            if name in schema["properties"]:
                part = _known_part(item, schema["properties"][name], root, where, found)
                if part is not _DROPPED:
                    known[name] = part
            else:
                listed = [one for one, part in schema["properties"].items() if not part.get("deprecated")]
                found.append(f"{where}: unknown field{did_you_mean(name, listed)}")
        return known
    if isinstance(value, list):
        items = _items(schema, root)
        parts = [_known_part(item, items, root, f"{place}.{index}", found) for index, item in enumerate(value)]
        return [part for part in parts if part is not _DROPPED]
    words = schema.get("enum")
    if words is not None and isinstance(value, str) and value not in words:
        said = ", ".join(words)
        found.append(f"{place}: expected one of {said}; got {value!r:.60}{did_you_mean(value, words)}")
        return _DROPPED
    return value


_DROPPED: Final = object()


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and of alternatives take the one that says more than null."""
    if "$ref" in schema:
        return _resolved(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for other in schema.get("anyOf", ()):
        if "properties" in other or "enum" in other or "items" in other or "$ref" in other:
            return _resolved(other, root)
    return schema


def _items(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    return _resolved(schema.get("items", {}), root) if isinstance(schema.get("items"), dict) else {}


def _problems_of_model(document: dict[str, Any]) -> list[str]:
    """Ask the model; where its first rule hides others, ask for the parts that it stopped before."""
    found = _refusals(document)
    short: dict[str, Any] = {name: document[name] for name in SHORTHAND_NAMES if name in document}
    if found and short and "segments" not in document:
        target = target_of(document)
        frames = _SEGMENT_FRAMES if target is None else target.frames
        rest = {name: value for name, value in document.items() if name not in short}
        found += _refusals({**rest, "segments": [{"frames": frames, "guides": [{"at": 0, "image": "any"}]}]})
        try:
            Shorthand.model_validate(shorthand_defaults(document, short))
        except ValidationError as error:
            whole = problems_of(error)
            found = [line for line in found if not any(part in line for part in whole)] + whole
    return [line.removeprefix("request: ") for line in found]


def _refusals(document: dict[str, Any]) -> list[str]:
    try:
        JobRequest.parse(document)
    except InvalidRequestError as error:
        return [str(line) for line in error.detail.get("problems", [error.message])]
    return []


def _problems_of_files(document: Any, folder: Path) -> Iterator[str]:
    for place, reference in references(document):
        try:
            path = local_file(folder, reference)
        except OSError:
            path = None
            yield f"{place}: there is no file {reference}{_near_file(folder, reference)}"
            continue
        if path is None:
            near = _near_file(folder, reference)
            if near:
                yield f"{place}: there is no file {reference}{near}"


def references(node: Any, place: str = "", field: str = "") -> Iterator[tuple[str, str]]:
    """Iterate over what a job file names that may be files of this machine, each with its place."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from references(value, f"{place}.{name}" if place else name, name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from references(value, f"{place}.{index}", field)
    elif isinstance(node, str) and field in REFERENCE_FIELDS and "://" not in node:
        yield place, node


def _near_file(folder: Path, reference: str) -> str:
    """Return a hint at a file whose name is near, in the folder where it would be."""
    path = folder / Path(reference).expanduser()
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)
