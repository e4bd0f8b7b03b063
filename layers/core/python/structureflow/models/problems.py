"""What is wrong with a document from outside, in sentences: where, what was expected, what came.

Every refusal of a field is said here, whichever model finds it: Pydantic's own words never reach a user.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from structureflow.limits import MAX_PROBLEMS
from structureflow.references import without_queries

__all__ = ["Place", "Problem", "counted", "nearest", "problems_in", "problems_of"]

Place = tuple[str | int, ...]
"""Where in a document: names of fields and numbers of items, from the outside in."""

_SAID: Final = "said"
_MOST_SHOWN_CHARS: Final = 60
_MOST_SHOWN_ITEMS: Final = 6
#: Names less alike are other names: at 0.6 `fps` would be meant by `ops`, and every file of three letters by another.
_ALIKE: Final = 0.7

#: What was expected, by Pydantic's name of the error; its facts stand in braces.
_EXPECTED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "text"),
    **dict.fromkeys(("bytes_type", "bytes_invalid_encoding"), "bytes"),
    "string_pattern_mismatch": "text of the form {pattern}",
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type", "arguments_type"),
        "an object",
    ),
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "none_required": "nothing",
    "json_type": "JSON",
    **dict.fromkeys(("datetime_type", "datetime_parsing", "datetime_from_date_parsing"), "a date and time"),
    **dict.fromkeys(("date_type", "date_parsing"), "a date"),
    **dict.fromkeys(("timezone_aware", "timezone_naive"), "a time with its zone"),
}
#: Of how many, by Pydantic's name of the error: which fact is the bound, in words, and of what.
_COUNTED: Final[Mapping[str, tuple[str, str, str]]] = {
    "too_short": ("min_length", "at least", "item"),
    "too_long": ("max_length", "at most", "item"),
    "string_too_short": ("min_length", "at least", "character"),
    "string_too_long": ("max_length", "at most", "character"),
    "bytes_too_short": ("min_length", "at least", "byte"),
    "bytes_too_long": ("max_length", "at most", "byte"),
}


class Problem(NamedTuple):
    """One thing that is wrong, and where: `place` in the document, and a sentence without it."""

    place: Place
    sentence: str

    def below(self, *outer: str | int) -> Problem:
        """Return the same problem in a document of which this one's is a part."""
        return Problem((*outer, *self.place), self.sentence)

    def __str__(self) -> str:
        """Say it in a line, as in ``segments[0].guides[2].image: expected …, got …``."""
        return f"{path_of(self.place) or 'request'}: {self.sentence}"


def path_of(place: Sequence[str | int]) -> str:
    """Return a place as it is written in JavaScript and Python: ``segments[0].guides[2].image``."""
    said = ""
    for part in place:
        said += f"[{part}]" if isinstance(part, int) else f".{part}" if said else part
    return said


def counted(count: int, noun: str) -> str:
    """Say how many there are of something: ``1 frame``, ``2 frames``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shown(value: Any) -> str:
    """Return what came as a message shows it: short, and without the queries of URLs."""
    if isinstance(value, str):
        # before it is cut: half a URL's query would not be known as one
        return _cut(repr(without_queries(value)))
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        if len(value) > _MOST_SHOWN_ITEMS or any(isinstance(one, list | tuple | Mapping) for one in value):
            return f"a list of {counted(len(value), 'item')}"
        return _cut(f"[{', '.join(shown(one) for one in value)}]")
    if value is None or isinstance(value, bool | int | float):
        return _cut(json.dumps(value))
    return _cut(without_queries(repr(value)))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN_CHARS else f"{text[:_MOST_SHOWN_CHARS]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest of the known names, empty where none is near."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant, None where none is near.

    Names that differ in their digits alone are different names: ``frame_2`` is not meant by ``frame_1``.
    """
    lowered = {one.lower(): one for one in known}
    wanted = name.lower()
    near = difflib.get_close_matches(wanted, lowered, n=1, cutoff=_ALIKE)
    if not near or (near[0] != wanted and _without_digits(near[0]) == _without_digits(wanted)):
        return None
    return lowered[near[0]]


def _without_digits(name: str) -> str:
    return re.sub(r"\d", "", name)


def one_of(words: Iterable[str], got: Any) -> str:
    """Say that a word is none of those that there are."""
    listed = list(words)
    near = did_you_mean(got, listed) if isinstance(got, str) else ""
    return f"expected one of {', '.join(listed)}, got {shown(got)}{near}"


def refused(title: str, problems: Iterable[Problem]) -> ValidationError:
    """Return the error by which a validator refuses several places at once; around it, places grow outwards."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError("refused", f"{{{_SAID}}}", {_SAID: problem.sentence}),
                loc=problem.place,
                input=None,
            )
            for problem in problems
        ],
    )


def problems_in(error: ValidationError, known: Sequence[str] = ()) -> list[Problem]:
    """Return everything that an error refuses; `known` are the names of the fields of its outermost object."""
    return problems_of_details(error.errors(include_url=False), known)


def problems_of_details(details: Sequence[Any], known: Sequence[str] = ()) -> list[Problem]:
    """Return what errors refuse that come as `ValidationError.errors` gives them; otherwise as `problems_in`."""
    return [Problem(tuple(one["loc"]), _sentence(one, known)) for one in _causes(details)]


def problems_of(error: ValidationError) -> list[str]:
    """Return a line for each bad field, at most `MAX_PROBLEMS` and how many more there are."""
    return lines_of(problems_in(error))


def lines_of(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem, at most `MAX_PROBLEMS` and how many more there are."""
    lines = list(dict.fromkeys(map(str, problems)))
    if len(lines) <= MAX_PROBLEMS:
        return lines
    return [*lines[: MAX_PROBLEMS - 1], f"and {len(lines) - MAX_PROBLEMS + 1} more"]


def _causes(problems: Sequence[Any]) -> list[Any]:
    """Drop what only follows from another problem: a list counts as too short when one of its items is bad."""
    places = {tuple(problem["loc"][:depth]) for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or tuple(problem["loc"]) not in places]


def _sentence(problem: Any, known: Sequence[str]) -> str:
    """Say one error of Pydantic's."""
    kind, facts, got = problem["type"], problem.get("ctx", {}), problem.get("input")
    if kind == "refused":
        return str(facts[_SAID])
    if kind in ("value_error", "assertion_error"):
        return str(facts["error"])
    if kind == "missing":
        return "expected a value, got none"
    if kind == "extra_forbidden":
        hint = did_you_mean(str(problem["loc"][-1]), known) if len(problem["loc"]) == 1 else ""
        return f"unknown field{hint}"
    if kind in ("literal_error", "enum"):
        return one_of(re.findall(r"'([^']*)'", str(facts.get("expected", ""))), got)
    if kind == "json_invalid":
        return f"expected JSON, got {shown(got)}: {facts.get('error', '')}"
    if kind in _COUNTED:
        fact, bound, noun = _COUNTED[kind]
        length = facts.get("actual_length", len(got) if isinstance(got, str | bytes) else None)
        return f"expected {bound} {counted(facts[fact], noun)}, got {shown(got) if length is None else length}"
    facts = {name: f"{fact:g}" if isinstance(fact, float) else fact for name, fact in facts.items()}
    return f"expected {_EXPECTED.get(kind, 'another value').format_map(facts)}, got {shown(got)}"
