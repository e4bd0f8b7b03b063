"""Job files: a request in JSON, with ``//`` and ``/* … */`` comments, whose paths may be files of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from structureflow.errors import InputNotFoundError, InvalidRequestError
from structureflow.limits import MAX_PROBLEMS, MAX_REQUEST_BYTES
from structureflow.models.problems import counted
from structureflow_local.client import PreparedJob, prepare_job
from structureflow_local.output import Output

#: Texts first: a comment does not begin inside of one.
_TOKENS: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)


def read_job_file(path: Path) -> str:
    """Return the text of a job file, comments blanked out, so that lines and columns stay as they are.

    Raises:
        InputNotFoundError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REQUEST_BYTES + 1)
    except OSError as error:
        raise InputNotFoundError(f"{path}: cannot be read: {error.strerror}") from error
    return without_comments(data.decode("utf-8", "replace"))


def without_comments(text: str) -> str:
    """Return JSON with spaces in the place of comments."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return _TOKENS.sub(blank, text)


def prepare(path: Path) -> PreparedJob:
    """Read a job file into a request and the files to upload before it; see `prepare_job`.

    Raises:
        InputNotFoundError: it, or a file that it names, is not there.
        InvalidRequestError, InvalidIdError: as `prepare_job`.
    """
    return prepare_job(read_job_file(path), name=plain_id(path), folder=path.parent)


def checked(path: Path, output: Output, *, here: bool = False, engine: str | None = None) -> PreparedJob:
    """Read a job file, look at all that it says and into all files that it names, and make it ready.

    What is asked for in vain is remarked.

    Args:
        path: of the job file.
        output: where remarks go.
        here: whether it is to run on this machine; see `look_into`.
        engine: in place of the file's own.

    Raises:
        InputNotFoundError: it cannot be read.
        InvalidRequestError: with everything for which it cannot be run.
    """
    from structureflow_local.problems import look_into

    text = read_job_file(path)
    changes = {} if engine is None else {"engine": engine}
    found = look_into(text, path.parent, here=here, changes=changes)
    lines = found.lines
    if lines:
        if len(lines) > MAX_PROBLEMS:
            left = len(lines) - MAX_PROBLEMS + 1
            lines = [*lines[: MAX_PROBLEMS - 1], f"and {left} more, which structureflow validate {path} shows"]
        raise InvalidRequestError(f"{path}: {counted(len(found.lines), 'problem')}", problems=lines)
    for remark in found.remarks:
        output.remark(f"note: {remark}")
    return prepare_job(text, name=plain_id(path), folder=path.parent, changes=changes)


def plain_id(path: Path) -> str:
    """Return an id of the file's name, as `structureflow.keys.check_id` wants it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")
    return plain[:100] or "job"
