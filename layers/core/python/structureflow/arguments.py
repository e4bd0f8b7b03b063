"""What callers without a job give is looked at before anything is done with it: `checked`, and the checks it takes.

A check takes a value and the name of its parameter, and raises `InvalidArgumentError` where the value is of no use;
what it returns is not looked at. Checks of what only one part knows (flows, stores) are in that part.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from structureflow.errors import InvalidArgumentError

Check = Callable[[Any, str], object]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Class = TypeVar("Class", bound=type)

_SHOWN: Final = (str, bytes, bool, int, float, type(None))
#: What pictures may have at most on a side.
_MAX_SIDE_PX: Final = 16_384


def checked(**checks: Check) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Have a function's arguments checked, by parameter, in the order of `checks`; defaults are not looked at."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            given = signature.bind(*args, **kwargs).arguments
            for name, check in checks.items():
                if name in given:
                    check(given[name], name)
            return function(*args, **kwargs)

        return call

    return decorate


def checking(table: Mapping[str, Check]) -> Callable[[Class], Class]:
    """Have the arguments of a class's own methods and constructor checked, by parameter; a class decorator."""

    def decorate(owner: Class) -> Class:
        for name, method in list(vars(owner).items()):
            plain = method.__func__ if isinstance(method, staticmethod) else method
            if not inspect.isfunction(plain) or (name[0] == "_" and name != "__init__"):
                continue
            parameters = inspect.signature(plain).parameters
            if checks := {each: check for each, check in table.items() if each in parameters}:
                wrapped = checked(**checks)(plain)
                setattr(owner, name, staticmethod(wrapped) if isinstance(method, staticmethod) else wrapped)
        return owner

    return decorate


def check_fields(record: Any, **checks: Check) -> None:
    """Check attributes of a value, for ``__post_init__``."""
    for name, check in checks.items():
        check(getattr(record, name), name)


def refuse(value: Any, name: str, expected: str) -> NoReturn:
    """Say that a value is of no use as the argument `name`.

    Raises:
        InvalidArgumentError: always.
    """
    raise InvalidArgumentError(f"{name}: expected {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """Return a short text of any value, for a message."""
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, _SHOWN) or (isinstance(value, tuple) and all(isinstance(each, _SHOWN) for each in value)):
        return f"{value!r:.80}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)} {getattr(value, 'dtype', '')}".rstrip()
    return f"{type(value).__name__}"


def is_text(value: Any) -> bool:
    """Tell whether a value is a string, whatever its type says."""
    return isinstance(value, str)


# --- checks ------------------------------------------------------------------------------------------


def optional(check: Check) -> Check:
    """Return a check that lets None pass too."""

    def either(value: Any, name: str) -> None:
        if value is not None:
            check(value, name)

    return either


def text(value: Any, name: str) -> None:
    """Expect a string; what else it is, which may be a secret, is not shown."""
    if not isinstance(value, str):
        refuse(type(value), name, "a text")


def path(value: Any, name: str) -> None:
    """Expect what names a file or a folder: a string or a `pathlib.Path`, not empty."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(given := os.fspath(value), str):
        refuse(value, name, "a path, as a str or pathlib.Path")
    if not given or "\0" in given:
        refuse(given, name, "a path of at least one character, and no NUL")


def function(value: Any, name: str) -> None:
    """Expect something that can be called."""
    if not callable(value):
        refuse(value, name, "a function")


def instance(kind: type | tuple[type, ...], words: str) -> Check:
    """Return a check for values of a class, which `words` describe."""

    def one(value: Any, name: str) -> None:
        if not isinstance(value, kind):
            refuse(value, name, words)

    return one


def choice(*known: str) -> Check:
    """Return a check for one of some texts."""

    def one(value: Any, name: str) -> None:
        if not isinstance(value, str) or value not in known:
            refuse(value, name, f"one of {', '.join(known)}")

    return one


def whole(least: int, most: int | None = None) -> Check:
    """Return a check for whole numbers of a range, NumPy's too."""
    words = f"a whole number from {least} on" if most is None else f"a whole number from {least} to {most}"

    def one(value: Any, name: str) -> None:
        found = index_of(value)
        if found is None or found < least or (most is not None and found > most):
            refuse(value, name, words)

    return one


def index_of(value: Any) -> int | None:
    """Return a whole number as an `int`; None where it is none, or a truth value."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def number(*, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> Check:
    """Return a check for finite numbers from `least`, or above `above`, to `most`."""
    words = "a number"
    if above > -math.inf:
        words += f" above {above:g}"
    elif least > -math.inf:
        words += f" from {least:g} on" if most == math.inf else f" from {least:g}"
    if most < math.inf:
        words += f" up to {most:g}" if above > -math.inf else f" to {most:g}"

    def one(value: Any, name: str) -> None:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not (least <= value <= most and value > above):
            refuse(value, name, words)

    return one


def size(value: Any, name: str) -> None:
    """Expect (width, height) of a picture in pixels."""
    side = whole(1, _MAX_SIDE_PX)
    try:
        width, height = value
        side(width, name)
        side(height, name)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{name}: expected (width, height), whole numbers from 1 to {_MAX_SIDE_PX}, got {shown(value)}"
        ) from error


def mapping(value: Any, name: str) -> None:
    """Expect names, or other keys, and their values."""
    if not isinstance(value, Mapping):
        refuse(value, name, "a mapping")


def iterable(of: str, kind: type | None = None) -> Check:
    """Return a check for what can be gone through, but no text; `of` says of what, `kind` which class."""

    def one(value: Any, name: str) -> None:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            refuse(value, name, of)
        if kind is not None and isinstance(value, (list, tuple)):
            for each in value:
                if not isinstance(each, kind):
                    refuse(each, name, of)

    return one


def whole_numbers(least: int, most: int | None = None) -> Check:
    """Return a check for a list of whole numbers; what comes one by one (an iterator) is not gone through."""
    each = whole(least, most)

    def one(value: Any, name: str) -> None:
        iterable("whole numbers")(value, name)
        if not hasattr(value, "__next__"):
            for found in value:
                each(found, name)

    return one


def array(value: Any, name: str, expected: str = "an array") -> Any:
    """Return the value if it is a NumPy array."""
    # who only keeps track of frames has no need of it
    import numpy as np

    if not isinstance(value, np.ndarray):
        refuse(value, name, expected)
    return value


def picture(value: Any, name: str) -> None:
    """Expect ``(H, W, 3)`` uint8 RGB."""
    expected = "(H, W, 3) uint8 RGB"
    found = array(value, name, expected)
    if found.ndim != 3 or found.shape[2] != 3 or found.dtype.name != "uint8" or not found.size:
        refuse(found, name, expected)
