"""The first look at a document from outside: how large it is in every direction, before anything reads it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

from structureflow.errors import InvalidRequestError
from structureflow.limits import (
    MAX_DOCUMENT_VALUES,
    MAX_FIELD_NAME_CHARS,
    MAX_FIELDS,
    MAX_ITEMS,
    MAX_LEVELS,
    MAX_LISTED_ERRORS,
    MAX_REFERENCE_CHARS,
    MAX_REQUEST_BYTES,
    MAX_WHOLE_NUMBER,
)
from structureflow.models.problems import path_of, problems_in, shown

__all__ = ["check_request_bytes", "check_shape", "read_object"]

_Document = TypeVar("_Document", bound=BaseModel)


def validate_json(model: type[_Document], data: bytes, *, max_values: int = MAX_DOCUMENT_VALUES) -> _Document:
    """Validate the bytes of a JSON document, in at most a dozen times their memory.

    Pydantic's own ``model_validate_json`` takes up to 400 times: 8 MiB of ``[[],[],…`` are 3.4 GB. Python's objects
    take up to 25 times, and a kilobyte for each bad field, so their number is bounded too: commas, colons and brackets
    are counted before anything is parsed (those in texts as well).

    Raises:
        ValidationError: it is not what `model` describes, or not JSON, or has more than `max_values`.
    """
    problem: InitErrorDetails | None = None
    document: Any = None
    values = sum(data.count(mark) for mark in (b",", b":", b"[", b"{"))
    if values > max_values:
        said = PydanticCustomError("too_many_values", f"expected at most {max_values} values, got about {values}")
        problem = InitErrorDetails(type=said, input=data[:60])
    else:
        try:
            document = from_json(data)
        except ValueError as error:
            problem = InitErrorDetails(type="json_invalid", ctx={"error": str(error)}, input=data[:60])
    if problem is not None:
        raise ValidationError.from_exception_data(model.__name__, [problem])
    return model.model_validate(document)


def first_problem(error: ValidationError) -> str:
    """Return the first bad field and what is wrong with it, and how many there are: never what came."""
    count = error.error_count()
    if count > MAX_LISTED_ERRORS:
        return f"{count} bad fields"
    place, sentence = problems_in(error)[0]
    # what came may be a secret, or megabytes
    said = f"{path_of(place) or 'document'}: {sentence.partition(', got ')[0]}"
    return said + (f"; and {count - 1} more" if count > 1 else "")


def check_request_bytes(size_bytes: int) -> None:
    """Refuse a request by its size alone, before it is read.

    Raises:
        InvalidRequestError: it has more than `MAX_REQUEST_BYTES`.
    """
    if size_bytes > MAX_REQUEST_BYTES:
        raise InvalidRequestError(f"request.json: expected at most {MAX_REQUEST_BYTES} bytes, got {size_bytes}")


def load_request(data: bytes) -> dict[str, Any]:
    """Parse the bytes of a ``request.json`` into an object of bounded size.

    Raises:
        InvalidRequestError: too many bytes, not JSON, not an object, or `check_shape` refuses it.
    """
    check_request_bytes(len(data))
    document = read_object(data, "request.json")
    check_shape(document)
    return document


def read_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object that people write: a request, a job file. The one reader of such documents.

    What JSON leaves open is refused: a field that is there twice, of which parsers take the last, and NaN and infinity.

    Args:
        text: of bounded size.
        name: of the document, for messages.

    Raises:
        InvalidRequestError: no JSON, no object, a field twice; the message says where.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return made

    try:
        document = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        got = shown(error.doc[error.pos : error.pos + 30])
        raise InvalidRequestError(f"{name}: {where}: expected JSON, got {got}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: expected JSON, got {text[:60]!r}: {error}") from error
    if twice:
        lines = [f"{one[:MAX_FIELD_NAME_CHARS]}: expected it once, got it twice" for one in dict.fromkeys(twice)]
        raise InvalidRequestError(f"{name}: {'; '.join(lines)}", problems=lines)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"{name}: expected a JSON object, got {shown(document)}")
    return document


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"expected a number, got {text}")


def check_shape(document: Any) -> None:
    """Refuse a JSON document with endless fields, names, texts, lists, levels or numbers, whatever they mean.

    Nothing is copied, and a list's length is looked at before its items.

    Raises:
        InvalidRequestError: a bound of `structureflow.limits` is exceeded; the message names the field and the bound.
    """
    waiting: list[tuple[str, int, Any]] = [("request", 0, document)]
    while waiting:
        where, level, value = waiting.pop()
        if level > MAX_LEVELS:
            raise InvalidRequestError(f"{where}: expected at most {MAX_LEVELS} levels of objects and lists, got more")
        if isinstance(value, dict):
            if len(value) > MAX_FIELDS:
                raise InvalidRequestError(f"{where}: expected at most {MAX_FIELDS} fields, got {len(value)}")
            for name, item in value.items():
                if not isinstance(name, str) or len(name) > MAX_FIELD_NAME_CHARS:
                    raise InvalidRequestError(
                        f"{where}: expected field names of at most {MAX_FIELD_NAME_CHARS} characters, "
                        f"got {str(name)[:MAX_FIELD_NAME_CHARS]!r}…"
                    )
                waiting.append((name, level + 1, item))
        elif isinstance(value, list | tuple):
            if len(value) > MAX_ITEMS:
                raise InvalidRequestError(f"{where}: expected at most {MAX_ITEMS} items, got {len(value)}")
            waiting.extend((where, level + 1, item) for item in value)
        elif isinstance(value, str) and len(value) > MAX_REFERENCE_CHARS:
            raise InvalidRequestError(
                f"{where}: expected at most {MAX_REFERENCE_CHARS} characters, got {len(value)}: {value[:60]!r}…"
            )
        elif isinstance(value, int) and abs(value) > MAX_WHOLE_NUMBER:
            raise InvalidRequestError(f"{where}: expected a number of at most {MAX_WHOLE_NUMBER}, got a larger one")
