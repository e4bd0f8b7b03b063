"""How long a step has: known from the runtime, asked in long loops, compared with an estimate before work starts.

A function that the runtime kills leaves no error behind, only a crash that is tried again and killed again. So it
stops itself in time, with an error that says so and is never retried, and it does not begin what cannot end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from structureflow.errors import DeadlineError
from structureflow.limits import STOP_BEFORE_END_S

__all__ = ["Deadline"]

_Item = TypeVar("_Item")
#: Of a call's time, at most, that is held back: of the half minute of a call that somebody waits for, some is for work.
_HELD_BACK: Final = 0.25


class Deadline:
    """The end of the call under way.

    Args:
        remaining_s: tells the seconds until the runtime ends the call; None where nothing does.
    """

    def __init__(self, remaining_s: Callable[[], float] | None = None) -> None:
        self._remaining_s = remaining_s
        self._reserve_s = STOP_BEFORE_END_S

    def restart(self, remaining_s: Callable[[], float] | None) -> None:
        """Take the time of a new call; a short one keeps three quarters of it for work."""
        self._remaining_s = remaining_s
        if remaining_s is not None:
            self._reserve_s = min(STOP_BEFORE_END_S, _HELD_BACK * remaining_s())

    @property
    def left_s(self) -> float | None:
        """Seconds that work may still take; None without a bound."""
        return None if self._remaining_s is None else self._remaining_s() - self._reserve_s

    def check(self, doing: str) -> None:
        """Go on, while there is time.

        Raises:
            DeadlineError: there is none left.
        """
        left_s = self.left_s
        if left_s is not None and left_s <= 0:
            raise DeadlineError(
                f"{doing}: stopped {self._reserve_s:.3g} s before the function's time is over", doing=doing
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
