"""Checks of single values of a template; every message names the place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from structureflow_local.cloud.errors import TemplateError


def merge(inherited: Any, own: Any) -> Any:
    """Merge Globals as SAM does: mappings by key, lists one after the other, anything else overrides."""
    if isinstance(inherited, dict) and isinstance(own, dict):
        merged = dict(inherited)
        for key, value in own.items():
            merged[key] = merge(inherited[key], value) if key in inherited else value
        return merged
    if isinstance(inherited, list) and isinstance(own, list):
        return [*inherited, *own]
    return own


def refuse_unknown(mapping: Any, known: frozenset[str], place: str) -> None:
    """Raise a `TemplateError` where `mapping` is none or has a key beyond `known`."""
    if not isinstance(mapping, Mapping):
        raise TemplateError(f"{place}: expected a mapping, got {mapping!r:.80}")
    for name in mapping:
        if name not in known:
            raise TemplateError(f"{place}.{name}: the local cloud does not understand this")


def integer(value: Any, place: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`, given as one or as text.

    Raises:
        TemplateError: it is none.
    """
    try:
        number = int(str(value))
    except ValueError as error:
        raise TemplateError(f"{place}: expected a whole number, got {value!r:.80}") from error
    if not low <= number <= high:
        raise TemplateError(f"{place}: expected {low} to {high}, got {number}")
    return number


def is_true(value: Any) -> bool:
    """Tell whether a value is CloudFormation's true, which may be text."""
    return value is True or str(value).lower() == "true"
