"""Let a generator run ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_S = 0.05


def run_ahead(items: Iterator[Item], pool: Executor, most: int) -> Generator[Item, None, None]:
    """Yield `items`, which are made on `pool`, at most `most` of them ahead.

    What making them raises is raised here, in its place in the order. A consumer that stops early stops the maker.
    """
    # an item stands in a list of its own; None is the end
    ready: queue.Queue[list[Item] | BaseException | None] = queue.Queue(max(1, most))
    stopped = threading.Event()

    def put(entry: list[Item] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put([item]):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            put(error)
            return
        put(None)

    making = pool.submit(make)
    try:
        while True:
            entry = ready.get()
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
        making.result()
