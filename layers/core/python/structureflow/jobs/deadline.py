"""How long a step has: known from the runtime, asked in long loops, compared with an estimate before work starts.

A function that the runtime kills leaves no error behind, only a crash that is tried again and killed again. So it
stops itself in time, with an error that says so and is never retried, and it does not begin what cannot end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from structureflow.errors import DeadlineError
from structureflow.limits import STOP_BEFORE_END_S

__all__ = ["Deadline"]

_Item = TypeVar("_Item")


class Deadline:
    """The end of the call under way.

    Args:
        remaining_s: tells the seconds until the runtime ends the call; None where nothing does.
    """

    def __init__(self, remaining_s: Callable[[], float] | None = None) -> None:
        self._remaining_s = remaining_s

    def restart(self, remaining_s: Callable[[], float] | None) -> None:
        """Take the time of a new call."""
        self._remaining_s = remaining_s

    @property
    def left_s(self) -> float | None:
        """Seconds that work may still take; None without a bound."""
        return None if self._remaining_s is None else self._remaining_s() - STOP_BEFORE_END_S

    def check(self, doing: str) -> None:
        """Go on, while there is time.

        Raises:
            DeadlineError: there is none left.
        """
        left_s = self.left_s
        if left_s is not None and left_s <= 0:
            raise DeadlineError(
                f"{doing}: stopped {STOP_BEFORE_END_S:g} s before the function's time is over", doing=doing
            )

    def each(self, items: Iterator[_Item], doing: str) -> Iterator[_Item]:
        """Hand items on, while there is time; errors as `check`."""
        for item in items:
            self.check(doing)
            yield item

    def fits(self, estimate_s: float) -> bool:
        """Tell whether work of about that length ends in time."""
        left_s = self.left_s
        return left_s is None or estimate_s <= left_s
