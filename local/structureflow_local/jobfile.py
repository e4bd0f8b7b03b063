"""Job files: a request in JSON, with ``//`` and ``/* … */`` comments, whose paths may be files of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from structureflow.errors import InputNotFoundError
from structureflow.limits import MAX_REQUEST_BYTES
from structureflow_local.client import PreparedJob, prepare_job

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


def plain_id(path: Path) -> str:
    """Return an id of the file's name, as `structureflow.keys.check_id` wants it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")
    return plain[:100] or "job"
