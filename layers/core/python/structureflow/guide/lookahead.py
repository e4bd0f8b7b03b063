"""Let a generator run ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

_LOOK_S = 0.05


class RunAhead(Generic[Item]):
    """Gives items in order that are made on `pool`, from now on, at most `most` of them ahead.

    What making them raises is raised here, in its place in the order. Whoever stops early closes it, which stops the
    maker.
    """

    def __init__(self, items: Iterator[Item], pool: Executor, most: int) -> None:
        # an item stands in a list of its own; None is the end
        self._ready: queue.Queue[list[Item] | BaseException | None] = queue.Queue(max(1, most))
        self._stopped = threading.Event()
        self._making = pool.submit(self._make, items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._stopped.is_set():
            raise StopIteration
        entry = self._ready.get()
        if isinstance(entry, list):
            return entry[0]
        self._stopped.set()
        if entry is not None:
            raise entry
        raise StopIteration

    def close(self) -> None:
        """Stop the maker, and return when it has."""
        self._stopped.set()
        self._making.result()

    def _make(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                if not self._put([item]):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._put(error)
            return
        self._put(None)

    def _put(self, entry: list[Item] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(entry, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False
