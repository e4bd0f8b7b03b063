"""One bounded, ordered window of work in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

__all__ = ["ordered_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    items: Iterable[Item], work: Callable[[Item], Result], ahead: int, *, pool: Executor
) -> Generator[Result]:
    """Apply `work` to `items` in the threads of `pool`, and yield the results in the order of the items.

    Items are drawn in the caller's thread, the next one while others are worked on. No item or result is kept here
    once it was yielded. Whoever stops early closes the generator, or shuts the pool down with ``cancel_futures``: what
    has not begun then never does, what has begun is not waited for here.

    Args:
        items: may be endless; drawn from no further than `ahead` beyond the one that was yielded.
        work: called once per item.
        ahead: results, done or under way, that may wait while the caller is busy with one; 0 works on one at a time.
        pool: where `work` runs; it is the caller's, and stays open.

    Raises:
        ValueError: `ahead` is below 0.
        Exception: what `items` or `work` raised, at the place of its result.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(ordered_map(["a", "bb", "ccc"], len, 1, pool=pool))
        [1, 2, 3]
    """
    if ahead < 0:
        raise ValueError(f"ahead: expected 0 or more, got {ahead}")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
