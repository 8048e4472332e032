"""Calls that are stopped, sessions that die, pools and event loops: the unmodified driver over a real socket."""

from __future__ import annotations

import asyncio
import threading

import oracledb
import pytest
from net_helpers import PASSWORD, ConnectableServer, FakeDatabase, failure, one

from local.oracle.model import Column

pytestmark = pytest.mark.usefixtures("exact_values")
WAIT = 10

# Breaks


def test_a_call_times_out_and_the_session_lives(connection: oracledb.Connection, database: FakeDatabase):
    for _ in range(3):
        database.woken.clear()
        connection.call_timeout = 50
        assert failure(connection.cursor().execute, "begin sleep(60); end;").full_code == "DPY-4024"
        connection.call_timeout = 0
        assert one(connection, 5) == (5,)
        assert database.woken.is_set()
    assert database.slept == 0


def test_a_call_is_cancelled_from_another_thread(connection: oracledb.Connection, database: FakeDatabase):
    def cancel() -> None:
        assert database.asleep.wait(WAIT)
        connection.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    assert failure(connection.cursor().execute, "begin sleep(60); end;").full_code == "ORA-01013"
    thread.join()
    assert one(connection, 5) == (5,) and database.slept == 0


def test_a_late_cancel_does_not_hang(connection: oracledb.Connection):
    connection.cancel()
    assert failure(connection.cursor().execute, "select 1 rows from x").full_code == "ORA-01013"
    assert one(connection, 5) == (5,)


def test_a_time_out_while_rows_come(connection: oracledb.Connection, database: FakeDatabase):
    def rows() -> object:
        yield from ((n,) for n in range(2000))
        database.asleep.set()
        assert database.woken.wait(WAIT)
        yield from ((n,) for n in range(2000))

    database.tables["t"] = ([Column("N", "NUMBER")], rows())
    connection.call_timeout = 100
    cursor = connection.cursor()
    cursor.prefetchrows = cursor.arraysize = 4000
    assert failure(cursor.execute, "select * from t").full_code == "DPY-4024"
    database.woken.set()
    connection.call_timeout = 0
    assert one(connection, 5) == (5,)


# Pools and asyncio


def test_a_pool_gives_clean_sessions_and_replaces_dead_ones(running: ConnectableServer, database: FakeDatabase):
    pool = oracledb.create_pool(user="adm", password=PASSWORD, dsn=running.dsn(), min=1, max=4)
    with pool.acquire() as connection:
        connection.cursor().execute("insert into t values (1)")
    with pool.acquire() as connection:
        assert connection.cursor().execute("select count from t").fetchone() == (0,)
        database.faults.inject("cut_before", "select 1 rows")
        assert failure(connection.cursor().execute, "select 1 rows from x").isrecoverable
    several = [pool.acquire() for _ in range(4)]
    assert [one(connection, n) for n, connection in enumerate(several)] == [(0,), (1,), (2,), (3,)]
    for connection in several:
        connection.close()
    pool.close()


def test_asyncio(running: ConnectableServer):
    async def work(n: int) -> list:
        async with oracledb.connect_async(user="adm", password=PASSWORD, dsn=running.dsn()) as connection:
            with connection.cursor() as cursor:
                await cursor.execute("select 1500 rows from x")
                rows = await cursor.fetchall()
            connection.call_timeout = 50
            with pytest.raises(oracledb.Error, match="DPY-4024"):
                await connection.execute("begin sleep(60); end;")
            connection.call_timeout = 0
            return [len(rows), await connection.fetchone("select :1 from dual", [n])]

    async def everyone() -> list:
        return await asyncio.gather(*(work(n) for n in range(5)))

    assert asyncio.run(everyone()) == [[1500, (n,)] for n in range(5)]


def test_sessions_do_not_wait_for_each_other(running: ConnectableServer, database: FakeDatabase):
    with running.connect() as slow, running.connect() as quick:
        thread = threading.Thread(target=lambda: failure(slow.cursor().execute, "begin sleep(60); end;"))
        thread.start()
        assert database.asleep.wait(WAIT)
        assert one(quick, 1) == (1,)
        slow.cancel()
        thread.join()


# Faults


def test_latency(running: ConnectableServer, connection: oracledb.Connection, database: FakeDatabase):
    connection.call_timeout = 60
    database.faults.inject("latency_ms", 60_000)
    assert failure(connection.cursor().execute, "insert into t values (1)").full_code == "DPY-4024"
    database.faults.clear("latency_ms")
    connection.call_timeout = 0
    assert connection.cursor().execute("select count from t").fetchone() == (0,)


def test_a_listener_that_is_down(running: ConnectableServer, connection: oracledb.Connection, database: FakeDatabase):
    database.faults.inject("listener_down")
    failure(running.connect)
    assert one(connection, "sessions go on") == ("sessions go on",)
    database.faults.clear("listener_down")
    running.connect().close()


@pytest.mark.parametrize(("fault", "ran"), [("cut_before", 0), ("cut_after", 1)])
def test_a_connection_cut_around_a_call(running: ConnectableServer, database: FakeDatabase, fault: str, ran: int):
    connection = running.connect()
    connection.autocommit = True
    database.faults.inject(fault, r"insert into t values \(2\)")
    connection.cursor().execute("insert into t values (1)")
    error = failure(connection.cursor().execute, "insert into t values (2)")
    assert (error.full_code, error.isrecoverable) == ("DPY-4011", True)
    assert not connection.is_healthy()
    with running.connect() as again:
        again.autocommit = True
        again.cursor().execute("insert into t values (2)")
    assert len(database.committed) == 2 + ran


def test_a_connection_cut_during_a_call_whose_effect_goes_on(running: ConnectableServer, database: FakeDatabase):
    connection = running.connect()
    database.faults.inject("cut_during", "sleep")
    assert failure(connection.cursor().execute, "begin sleep(0.2); end;").full_code == "DPY-4011"
    with running.connect() as again:
        assert one(again, 1) == (1,)
    for _ in range(100):
        if database.closed.count("ADM") == 2:
            break
        threading.Event().wait(0.05)
    assert database.slept == 1 and database.faults.value("cut_during") is None


def test_a_commit_cut_before_its_reply(running: ConnectableServer, database: FakeDatabase):
    connection = running.connect()
    connection.cursor().execute("insert into t values (1)")
    database.faults.inject("cut_after", "^commit$")
    assert failure(connection.commit).full_code == "DPY-4011"
    assert database.committed == [()]
