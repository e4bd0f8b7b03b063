"""Bounds of memory that the threads of a process share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """A number of bytes that may be in use at the same time; who needs more waits, in the order of asking.

    Who holds a part of one budget may ask another one, but never the same again.

    Args:
        capacity_bytes: the whole of it. A demand above it waits until nothing else is held, and then goes alone.

    Attributes:
        held_bytes: what is held now.
        waiting: one entry for each that waits, in order.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.hold(60):
        ...     budget.held_bytes
        60
        >>> budget.held_bytes
        0
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self._changed = threading.Condition()
        self.waiting: deque[object] = deque()

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them until the block ends."""
        size = min(size_bytes, self.capacity_bytes)
        ticket = object()
        with self._changed:
            self.waiting.append(ticket)
            self._changed.wait_for(lambda: self.waiting[0] is ticket and self.held_bytes + size <= self.capacity_bytes)
            self.waiting.popleft()
            self.held_bytes += size
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.held_bytes -= size
                self._changed.notify_all()
