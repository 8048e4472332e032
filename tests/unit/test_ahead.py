"""Rows that a thread reads ahead: the order, the errors of both sides, and no thread that is left behind."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest

from handler import ahead, balances, deadline
from handler.errors import Unavailable


@pytest.fixture(autouse=True)
def chunks(monkeypatch):
    """Read in chunks of ten rows; no new thread is left at the end, though one of an earlier test may end."""
    monkeypatch.setattr(balances, "CHUNK_LINES", 10)
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def never() -> None:
    raise AssertionError("interrupted")


@pytest.mark.parametrize("count", [0, 1, 10, 95])
def test_rows_arrive_in_order_and_then_the_last_result(count):
    with ahead.ahead(lambda: range(count), lambda: "totals", never) as reading:
        assert list(reading.rows()) == list(range(count))
        assert reading.result() == "totals"


def test_reader_is_at_most_some_chunks_ahead():
    taken = itertools.count()
    with ahead.ahead(lambda: iter(taken.__next__, None), never, never) as reading:
        rows = reading.rows()
        assert [next(rows) for _ in range(1000)] == list(range(1000))
        assert next(taken) <= 1000 + (ahead.CHUNKS + 2) * 10


def test_error_of_the_reader_is_raised_behind_the_rows_before_it():
    def failing():
        yield from range(25)
        raise RuntimeError("ORA-03113")

    with ahead.ahead(failing, never, never) as reading:
        rows = reading.rows()
        assert [next(rows) for _ in range(20)] == list(range(20))
        with pytest.raises(RuntimeError, match="ORA-03113"):
            next(rows)


def test_error_of_the_last_result_is_raised_where_it_is_taken():
    def failing():
        raise RuntimeError("ORA-03113")

    with ahead.ahead(lambda: range(3), failing, never) as reading:
        assert list(reading.rows()) == [0, 1, 2]
        with pytest.raises(RuntimeError, match="ORA-03113"):
            reading.result()


@pytest.mark.parametrize("taken", [0, 1, 500])
def test_error_of_the_block_ends_a_reader_that_waits_for_room(taken):
    def fails():
        with ahead.ahead(itertools.count, never, never) as reading:
            rows = reading.rows()
            for _ in range(taken):
                next(rows)
            raise RuntimeError("PostgreSQL died")

    with pytest.raises(RuntimeError, match="PostgreSQL died"):
        fails()


def test_error_of_the_block_interrupts_a_reader_that_waits_for_its_database():
    cancelled = threading.Event()

    def waiting():
        yield 1
        assert cancelled.wait(10)
        raise RuntimeError("ORA-01013")

    def fails():
        with ahead.ahead(waiting, never, cancelled.set):
            raise RuntimeError("PostgreSQL died")

    with pytest.raises(RuntimeError, match="PostgreSQL died"):
        fails()
    assert cancelled.is_set()


def test_error_of_the_interrupt_does_not_hide_the_error_of_the_block():
    ended = threading.Event()

    def interrupt():
        ended.set()
        raise RuntimeError("DPY-1001: not connected")

    def fails():
        with ahead.ahead(lambda: iter(lambda: ended.wait(10), True), never, interrupt):
            raise RuntimeError("PostgreSQL died")

    with pytest.raises(RuntimeError, match="PostgreSQL died"):
        fails()


def test_rows_that_do_not_come_are_reported_before_the_invocation_ends():
    cancelled = threading.Event()
    deadline.begin(SimpleNamespace(get_remaining_time_in_millis=lambda: 1200))
    try:
        with (
            pytest.raises(Unavailable, match="the invocation's time was over before all rows were read"),
            ahead.ahead(lambda: iter(lambda: cancelled.wait(10), True), never, cancelled.set) as reading,
        ):
            list(reading.rows())
    finally:
        deadline.begin(None)
