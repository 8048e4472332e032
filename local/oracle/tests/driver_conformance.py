"""The checks that every version of the thin driver must pass; run in a venv of its own by test_drivers.py.

Usage: DRIVE_PASSWORD=... driver_conformance.py PORT    Needs: oracledb, a server with the engine of net_helpers.py
With ORACLE_CLIENT_LIB, a folder, it uses the Oracle client there (thick mode). It then skips time-outs, which do not
work with the stand-in, and the event loop, which needs thin mode.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import datetime, timedelta
from decimal import Decimal

import oracledb


def code_of(call: object, *args: object, **kwargs: object) -> str:
    try:
        call(*args, **kwargs)
    except oracledb.Error as error:
        return error.args[0].full_code
    return "no error"


def values(connection: oracledb.Connection) -> None:
    moment = datetime(2025, 2, 28, 23, 59, 58)
    sent = [
        Decimal("-1234567890123.45"),
        10**37,
        "é" * 9000,
        "short",
        moment,
        timedelta(days=-2, seconds=1),
        b"\0\1",
        None,
    ]
    places = ", ".join(f":{place}" for place in range(1, len(sent) + 1))
    assert connection.cursor().execute(f"select {places} from dual", sent).fetchone() == tuple(sent)


def fetches(connection: oracledb.Connection) -> None:
    for prefetch, array in ((0, 1), (1, 7), (2, 100), (100, 5000)):
        cursor = connection.cursor()
        cursor.prefetchrows, cursor.arraysize = prefetch, array
        for _ in range(2):
            assert [row[0] for row in cursor.execute("select 503 rows from x")] == list(range(503))


def blocks(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    out, both = cursor.var(int), cursor.var(str)
    for number, text in ((21, None), (5, "abc")):
        both.setvalue(0, text)
        cursor.execute("begin :o := twice(:i); :b := twice(:b); end;", o=out, i=number, b=both)
        assert (out.getvalue(), both.getvalue()) == (2 * number, text and text * 2)


def changes(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.executemany("insert into t values (:1, :2)", [(n, "x" * n) for n in range(300)])
    assert cursor.rowcount == 300
    connection.rollback()
    assert code_of(cursor.executemany, "insert into t values (:1)", [("a",), ("bad",)]) == "ORA-00001"
    connection.commit()


def errors(connection: oracledb.Connection, options: dict) -> None:
    assert code_of(connection.cursor().execute, "fail 942 at 3") == "ORA-00942"
    assert code_of(oracledb.connect, **{**options, "password": "wrong"}) == "ORA-01017"


def time_outs(connection: oracledb.Connection) -> None:
    connection.call_timeout = 100
    assert code_of(connection.cursor().execute, "begin sleep(60); end;") == "DPY-4024"
    connection.call_timeout = 0
    connection.ping()


async def in_a_loop(options: dict) -> None:
    async with oracledb.connect_async(**options) as connection:
        assert await connection.fetchone("select :1 from dual", [5]) == (5,)


def main() -> None:
    client = os.environ.get("ORACLE_CLIENT_LIB")
    if client:
        oracledb.init_oracle_client(lib_dir=client)
    oracledb.defaults.fetch_decimals = True
    options = {"user": "adm", "password": os.environ["DRIVE_PASSWORD"], "dsn": f"127.0.0.1:{sys.argv[1]}/GENIUS"}
    with oracledb.connect(**options) as connection:
        for part in (values, fetches, blocks, changes, *(() if client else (time_outs,))):
            part(connection)
        errors(connection, options)
    if not client:
        asyncio.run(in_a_loop(options))
    print(f"done with {oracledb.__version__}")


if __name__ == "__main__":
    main()
