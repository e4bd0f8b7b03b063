"""What is wrong with a request, in a line for each bad field."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from structureflow.limits import MAX_PROBLEMS
from structureflow.references import without_queries

__all__ = ["problems_of"]


def problems_of(error: ValidationError) -> list[str]:
    """Return a line for each bad field, at most `MAX_PROBLEMS` and how many more there are."""
    found = _causes(error.errors(include_url=False, include_context=False))
    problems = [_describe(problem) for problem in found[:MAX_PROBLEMS]]
    return problems if len(found) <= MAX_PROBLEMS else [*problems[:-1], f"and {len(found) - MAX_PROBLEMS + 1} more"]


def _causes(problems: list[Any]) -> list[Any]:
    """Drop what only follows from another problem: a list counts as too short when one of its items is bad."""
    places = {tuple(problem["loc"][:depth]) for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or tuple(problem["loc"]) not in places]


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "request"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix(f"{path}: ")
    got = problem.get("input")
    if problem["type"] in ("missing", "value_error"):
        return f"{path}: {message}"
    # Before it is cut: half a URL's query would not be known as one.
    return f"{path}: {message}, got {without_queries(repr(got)):.120}"
