"""`ordered_map`: in order, bounded, and no work that nobody waits for."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from structureflow.ordered import ordered_map


class Work:
    """Counts the items that were drawn and not yet yielded."""

    def __init__(self) -> None:
        self.drawn = 0
        self.begun: list[int] = []

    def items(self) -> Iterator[int]:
        for item in itertools.count():
            self.drawn += 1
            yield item

    def square(self, item: int) -> int:
        self.begun.append(item)
        return item * item


@pytest.mark.parametrize("ahead", [0, 1, 5, 100])
def test_results_come_in_the_order_of_their_items(ahead: int) -> None:
    gate = threading.Event()

    def work(item: int) -> int:
        if item == 0 and ahead:
            # the first one ends last
            assert gate.wait(10)
        if item == min(ahead, 39):
            gate.set()
        return item * item

    with ThreadPoolExecutor(8) as pool:
        assert list(ordered_map(range(40), work, ahead, pool=pool)) == [n * n for n in range(40)]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_items_are_drawn_no_further_than_ahead_of_what_was_yielded(ahead: int) -> None:
    work = Work()
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(work.items(), work.square, ahead, pool=pool)
        for yielded in range(1, 20):
            assert next(results) == (yielded - 1) ** 2
            assert work.drawn == yielded + ahead
        results.close()


def test_the_next_item_is_drawn_while_the_last_one_is_worked_on() -> None:
    drawn = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        drawn.set()
        yield 1

    with ThreadPoolExecutor(1) as pool:
        assert list(ordered_map(items(), lambda _: drawn.wait(10), 1, pool=pool)) == [True, True]


def test_what_has_not_begun_when_the_caller_stops_never_does() -> None:
    begun: list[int] = []
    first, rest = threading.Event(), threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            first.set()
            assert rest.wait(10)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = ordered_map(range(100), work, 10, pool=pool)
        assert next(results) == 0
        assert first.wait(10)
        results.close()
        rest.set()
    assert begun == [0, 1]


def test_an_error_of_the_work_comes_at_its_place_and_ends_the_rest() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise LookupError("three")
        return item

    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(LookupError, match="three"):
        seen.extend(ordered_map(itertools.count(), work, 4, pool=pool))
    # `extend` keeps what came before the error
    assert seen == [0, 1, 2]


def test_an_error_of_the_items_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with ThreadPoolExecutor(1) as pool, pytest.raises(LookupError, match="no more"):
        list(ordered_map(items(), abs, 4, pool=pool))


def test_results_that_were_yielded_are_let_go() -> None:
    class Big:
        pass

    with ThreadPoolExecutor(1) as pool:
        results = ordered_map(range(3), lambda _: Big(), 1, pool=pool)
        seen = weakref.ref(next(results))
        assert seen() is None
        results.close()


def test_a_window_below_nothing_is_refused() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="expected 0 or more, got -1"):
        next(ordered_map([1], abs, -1, pool=pool))
