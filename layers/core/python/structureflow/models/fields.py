"""Kinds of fields that a request is made of: bounded lists, sizes, schedules, each with its refusal."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sized
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator

from structureflow.errors import InvalidIdError
from structureflow.keys import check_id
from structureflow.limits import (
    MAX_MOTION_STRENGTH,
    MAX_OUTPUT_SIDE_PX,
    MAX_SEGMENT_FRAMES,
    MIN_OUTPUT_SIDE_PX,
)
from structureflow.models.problems import Problem, refused, shown

_Item = TypeVar("_Item")
_RESOLUTION = re.compile(r"\s*([0-9]{1,6})\s*[xX]\s*([0-9]{1,6})\s*")


def at_most(count: int) -> BeforeValidator:
    """Look at the length of a list before any of its items is looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, Sized) and not isinstance(value, str) and len(value) > count:
            raise ValueError(f"expected at most {count} items, got {len(value)}")
        return value

    return BeforeValidator(check)


def list_of(names: str, count: int) -> BeforeValidator:
    """Look at the shape of a list of so many items before they are looked at; `names` says them: ``[left, right]``."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != count:
            raise ValueError(f"expected {names}, got {shown(value)}")
        return value

    return BeforeValidator(check)


def whole_number(value: Any) -> int | None:
    """Return the whole number that a field means, also of ``5.0`` or ``"5"``; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]{1,16}\s*", value) else None
    return int(value) if math.isfinite(value) and value == int(value) else None


def once_each(names: tuple[_Item, ...]) -> tuple[_Item, ...]:
    """Refuse a name that is there twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"expected every name once, got {name!r} {count} times")
    return names


def id_checker(what: str) -> Any:
    """Return a validator of ids, which errors call `what`."""

    def check(value: str) -> str:
        try:
            return check_id(value, what)
        except InvalidIdError as error:
            raise ValueError(error.message.removeprefix(f"{what}: ")) from error

    return AfterValidator(check)


def _resolution(value: Any) -> Any:
    """Accept ``"1280x720"`` beside ``[1280, 720]``."""
    if isinstance(value, str):
        match = _RESOLUTION.fullmatch(value)
        if match is None:
            raise ValueError(f"expected [width, height] or 'WIDTHxHEIGHT', got {shown(value)}")
        return int(match[1]), int(match[2])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"expected [width, height] or 'WIDTHxHEIGHT', got {shown(value)}")
    return value


def _check_resolution(value: tuple[int, int]) -> tuple[int, int]:
    for side, name in zip(value, ("width", "height"), strict=True):
        if side % 2 or not MIN_OUTPUT_SIDE_PX <= side <= MAX_OUTPUT_SIDE_PX:
            raise ValueError(
                f"{name}: expected an even number from {MIN_OUTPUT_SIDE_PX} to {MAX_OUTPUT_SIDE_PX}, got {side}"
            )
    return value


Resolution = Annotated[tuple[int, int], BeforeValidator(_resolution), AfterValidator(_check_resolution)]
"""(width, height) in pixels, both even."""


def _strength(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0 <= number <= MAX_MOTION_STRENGTH:
        raise ValueError(f"expected a number from 0 to {MAX_MOTION_STRENGTH:g}, got {shown(value)}")
    return number


def _strengths(value: Any) -> float | dict[int, float]:
    if not isinstance(value, Mapping):
        return _strength(value)
    if not value:
        raise ValueError("expected a number, or at least one frame with its strength, got none")
    found: dict[int, float] = {}
    problems: list[Problem] = []
    for name, strength in value.items():
        text = str(name).strip()
        if not (text.isascii() and text.isdigit()) or int(text) >= MAX_SEGMENT_FRAMES or int(text) in found:
            said = f"expected frame numbers from 0 to {MAX_SEGMENT_FRAMES - 1}, each once, got {shown(name)}"
            problems.append(Problem((), said))
            continue
        try:
            found[int(text)] = _strength(strength)
        except ValueError as error:
            problems.append(Problem((str(name),), str(error)))
    if problems:
        raise refused("motion_strength", problems)
    return dict(sorted(found.items()))


def _written(value: float | dict[int, float]) -> Any:
    return {str(frame): strength for frame, strength in value.items()} if isinstance(value, dict) else value


MotionStrength = Annotated[float | dict[int, float], PlainValidator(_strengths), PlainSerializer(_written)]
"""A factor of the motion from 0 to 10; or key frames of it over a segment, frame number to factor, linear between."""
