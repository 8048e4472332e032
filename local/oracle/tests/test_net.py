"""The unmodified driver over a real socket, against a small engine."""

from __future__ import annotations

import resource
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import oracledb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from net_helpers import PASSWORD, ConnectableServer, FakeDatabase, failure, one

from local.oracle.model import Column

pytestmark = pytest.mark.usefixtures("exact_values")
WAIT = 10
# A smaller case is not searched: if bytes are missing, each try would wait for the call's time-out.
over_a_socket = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


# Negotiation and login


def test_the_driver_logs_in_and_sees_a_stand_in(connection: oracledb.Connection):
    assert connection.thin
    assert connection.version == "11.2.0.4.0"
    assert connection.service_name == "GENIUS" and connection.instance_name == "GENIUS"
    connection.ping()
    assert connection.is_healthy()


@pytest.mark.parametrize("verifier", ["11g", "12c"])
def test_both_kinds_of_verifier(database: FakeDatabase, running: ConnectableServer, verifier: str):
    database.faults.inject("verifier", verifier)
    with running.connect() as connection:
        assert one(connection, 1) == (1,)
    assert failure(running.connect, password="wrong").full_code == "ORA-01017"


@pytest.mark.parametrize("who", [{"password": "tiger"}, {"user": "nobody"}, {"password": PASSWORD + " "}])
def test_wrong_password_and_unknown_user_get_the_same_error(running: ConnectableServer, who: dict):
    error = failure(running.connect, **who)
    assert (error.full_code, error.message.splitlines()[0]) == (
        "ORA-01017",
        "ORA-01017: invalid username/password; logon denied",
    )


def test_a_password_changes_at_run_time(database: FakeDatabase, running: ConnectableServer):
    database.faults.inject("password", "ADM:another one")
    assert failure(running.connect).full_code == "ORA-01017"
    running.connect(password="another one").close()
    database.faults.clear("password")
    running.connect().close()


def test_an_unknown_service_and_sid_are_refused(running: ConnectableServer):
    wrong = failure(running.connect, dsn=running.dsn("OTHER"))
    assert wrong.full_code == "DPY-6001" or "DPY-6001" in wrong.message
    sid = "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=127.0.0.1)(PORT={}))(CONNECT_DATA=(SID={})))"
    assert "DPY-6003" in failure(running.connect, dsn=sid.format(running.port, "OTHER")).message
    running.connect(dsn=sid.format(running.port, "GENIUS")).close()


def test_an_address_too_long_for_its_packet(running: ConnectableServer):
    address = (
        f"(DESCRIPTION=(RETRY_COUNT=0)(ADDRESS=(PROTOCOL=tcp)(HOST=127.0.0.1)(PORT={running.port}))"
        f"(CONNECT_DATA=(SERVICE_NAME=GENIUS)(CID=(PROGRAM={'p' * 300}))))"
    )
    running.connect(dsn=address, program="q" * 300).close()


@pytest.mark.parametrize("sdu", [512, 8192, 65535, 100_000])
def test_packets_of_any_size(running: ConnectableServer, sdu: int):
    with running.connect(sdu=sdu) as connection:
        assert one(connection, "y" * 30000) == ("y" * 30000,)
        assert len(connection.cursor().execute("select 5000 rows from x").fetchall()) == 5000


# Values, there and back


numbers = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30)


@over_a_socket
@given(numbers, st.integers(-(10**38) + 1, 10**38 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_number_and_text(connection: oracledb.Connection, amount: Decimal, count: int, text: str):
    assert one(connection, amount, count, text) == (amount, count, text or None)


def test_values_of_every_type(connection: oracledb.Connection):
    zone = timezone.utc
    moment = datetime(2025, 2, 28, 23, 59, 58, 123456)
    cursor = connection.cursor()
    cursor.setinputsizes(None, oracledb.DB_TYPE_TIMESTAMP, oracledb.DB_TYPE_TIMESTAMP_TZ, None, None, None, None)
    values = [moment, moment, moment.replace(tzinfo=zone), timedelta(days=-3, seconds=5), b"\0\xff", None, None]
    cursor.setinputsizes(
        None,
        oracledb.DB_TYPE_TIMESTAMP,
        oracledb.DB_TYPE_TIMESTAMP_TZ,
        None,
        None,
        None,
        None,
    )
    row = cursor.execute("select :1, :2, :3, :4, :5, :6, :7 from dual", values).fetchone()
    assert row == (
        moment.replace(microsecond=0),
        moment,
        moment,
        timedelta(days=-3, seconds=5),
        b"\0\xff",
        None,
        None,
    )
    kinds = [column[1] for column in cursor.description]
    assert kinds[:3] == [oracledb.DB_TYPE_DATE, oracledb.DB_TYPE_TIMESTAMP, oracledb.DB_TYPE_TIMESTAMP_TZ]


def test_numbers_at_the_edges(connection: oracledb.Connection):
    edges = ["1E-130", "-9.9E125", "9" * 38, "-" + "9" * 38, "0.1", "-0.5", "100", "1E+100", "9999999999999.99"]
    values = [Decimal(edge) for edge in edges]
    assert one(connection, *values) == tuple(values)


def test_columns_are_described(connection: oracledb.Connection, database: FakeDatabase):
    columns = [
        Column("AMOUNT", "NUMBER", precision=18, scale=2, nullable=False),
        Column("ANY_NUMBER", "NUMBER"),
        Column("NAME", "VARCHAR2", 30),
        Column("CODE", "CHAR", 3),
        Column("DATA", "RAW", 16),
        Column("D", "DATE"),
        Column("EMPTY", "VARCHAR2", 0),
    ]
    row = (Decimal("-1234567890123.45"), Decimal("1.10"), "Kas", "IDR", b"1", datetime(2025, 1, 31), None)
    database.tables["t"] = (columns, [row, (None,) * 7])
    cursor = connection.cursor()
    cursor.execute("select * from t")
    assert cursor.description[0][:1] + cursor.description[0][4:] == ("AMOUNT", 18, 2, False)
    assert cursor.description[1][4:6] == (0, -127)
    assert (cursor.description[2][0], cursor.description[2][2]) == ("NAME", 30)
    assert cursor.fetchall() == [row, (None,) * 7]


def test_binds_of_a_type_that_no_closing_sends_are_refused(connection: oracledb.Connection):
    cursor = connection.cursor()
    for kind, value in ((oracledb.DB_TYPE_BINARY_DOUBLE, 1.5), (oracledb.DB_TYPE_CLOB, None)):
        cursor.setinputsizes(kind)
        assert failure(cursor.execute, "select :1 from dual", [value]).full_code == "ORA-03115"
    assert one(connection, 1) == (1,)


# Fetching


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100, 1203])
@pytest.mark.parametrize(("prefetch", "array"), [(0, 1), (0, 100), (1, 1), (2, 100), (7, 7), (100, 3), (5000, 1)])
def test_every_mix_of_sizes(connection: oracledb.Connection, rows: int, prefetch: int, array: int):
    cursor = connection.cursor()
    cursor.prefetchrows, cursor.arraysize = prefetch, array
    for _ in range(2):
        cursor.execute(f"select {rows} rows from x")
        assert [row[0] for row in cursor.fetchall()] == list(range(rows))
        assert cursor.rowcount == rows


def test_two_cursors_fetch_in_turns_and_one_is_left(connection: oracledb.Connection):
    first, second = connection.cursor(), connection.cursor()
    for cursor in (first, second):
        cursor.prefetchrows, cursor.arraysize = 1, 1
        cursor.execute("select 5 rows from x")
    assert [first.fetchone()[0], second.fetchone()[0], first.fetchone()[0]] == [0, 0, 1]
    first.close()
    assert [row[0] for row in second] == [1, 2, 3, 4]


def test_many_statements_do_not_use_up_cursors(connection: oracledb.Connection):
    with connection.cursor() as cursor:
        for count in range(700):
            cursor.execute(f"select {count % 3} rows from x{count}")
    kept = [connection.cursor() for _ in range(320)]
    errors = 0
    for index, cursor in enumerate(kept):
        try:
            cursor.execute(f"select 9 rows from y{index}")
        except oracledb.Error as error:
            assert error.args[0].full_code == "ORA-01000"
            errors += 1
    assert 0 < errors < 100


def test_many_rows_come_fast_and_cost_no_memory(connection: oracledb.Connection, database: FakeDatabase):
    """The floor is far below what a quiet machine does, which is 50,000 rows a second and more."""
    names = [Column(f"A{n}", "NUMBER", precision=18, scale=2) for n in range(6)]
    columns = [Column("ACCOUNT", "VARCHAR2", 20), Column("N", "NUMBER"), *names, Column("D", "DATE")]
    columns += [Column(f"T{n}", "VARCHAR2", 60) for n in range(4)]
    day = datetime(2025, 1, 31)
    amounts = [[Decimal(n * 7919 + place).scaleb(-2) for place in range(6)] for n in range(1000)]
    rows = ((f"{n:012d}", n, *amounts[n % 1000], day, "IDR", "text", f"note {n}", None) for n in range(60_000))
    database.tables["t"] = (columns, rows)
    cursor = connection.cursor()
    cursor.prefetchrows = cursor.arraysize = 2000
    cursor.execute("select * from t")
    before, started, count = peak(), time.monotonic(), 0
    while found := cursor.fetchmany():
        count += len(found)
    assert count == 60_000
    assert count / (time.monotonic() - started) > 5_000
    assert peak() - before < 40_000


def peak() -> int:
    """Return the most memory this process has ever held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Binds


def test_names_reach_the_engine(connection: oracledb.Connection, database: FakeDatabase):
    cursor = connection.cursor()
    assert cursor.execute("select :a, :b, :a from dual", a=1, b="x").fetchone() == (1, "x", 1)
    cursor.execute("begin :o := :i; end;", o=cursor.var(int), i=3)
    assert [bind.name for bind in database.calls[0][1]] == ["A", "B", "A"]
    assert [(bind.name, bind.value) for bind in database.calls[1][1]] == [("O", None), ("I", 3)]


def test_long_binds_find_their_places(connection: oracledb.Connection):
    values = ["long" * 5000, "short", "é" * 20000, 7]
    assert one(connection, *values) == tuple(values)
    cursor = connection.cursor()
    out = cursor.var(str, 32767)
    cursor.execute("begin :o := :i; end;", o=out, i="z" * 32767)
    assert out.getvalue() == "z" * 32767


def test_out_and_in_out_change_from_call_to_call(connection: oracledb.Connection):
    cursor = connection.cursor()
    out, both = cursor.var(int), cursor.var(int)
    for start in (None, 5, None, 7):
        both.setvalue(0, start)
        cursor.execute("begin :b := twice(:b); :o := :i; end;", b=both, o=out, i=start)
        assert (both.getvalue(), out.getvalue()) == (start and start * 2, start)


def test_out_values_of_every_type(connection: oracledb.Connection):
    cursor = connection.cursor()
    moment = datetime(2025, 1, 31, 12, 30)
    for kind, value in (
        (str, "text"),
        (Decimal, Decimal("0.1")),
        (bool, True),
        (bool, False),
        (bool, None),
        (oracledb.DB_TYPE_DATE, moment),
        (oracledb.DB_TYPE_RAW, b"\1\2"),
        (oracledb.DB_TYPE_INTERVAL_DS, timedelta(hours=6)),
        (oracledb.DB_TYPE_NVARCHAR, "é"),
    ):
        out, given_value = cursor.var(kind), cursor.var(kind)
        given_value.setvalue(0, value)
        cursor.execute("begin :o := :i; end;", o=out, i=given_value)
        assert out.getvalue() == value


def test_an_out_value_too_long_for_its_variable(connection: oracledb.Connection):
    cursor = connection.cursor()
    error = failure(cursor.execute, "begin :o := :i; end;", o=cursor.var(str, 2), i="much too long")
    assert error.full_code == "ORA-06502"


def test_arrays_of_plsql_are_refused(connection: oracledb.Connection):
    cursor = connection.cursor()
    error = failure(cursor.execute, "begin :o := :i; end;", o=cursor.arrayvar(int, 5), i=3)
    assert error.full_code == "ORA-03115"
    assert one(connection, 1) == (1,)


# Changes


def test_executemany_and_the_end_of_a_transaction(running: ConnectableServer, connection: oracledb.Connection):
    cursor = connection.cursor()
    rows = [(n, f"row {n}", None if n % 2 else Decimal(n) / 100) for n in range(3000)]
    for _ in range(2):
        cursor.executemany("insert into t values (:1, :2, :3)", rows)
        assert cursor.rowcount == 3000 and connection.transaction_in_progress
        connection.rollback()
        assert not connection.transaction_in_progress
    cursor.executemany("insert into t values (:1, :2, :3)", rows)
    connection.commit()
    assert not connection.transaction_in_progress
    assert running.database.committed == rows
    cursor.executemany("begin null; end;", 3)


def test_long_rows_in_an_array(connection: oracledb.Connection, database: FakeDatabase):
    rows = [("x" * 40_000, n, "y" * 9000) for n in range(20)]
    connection.cursor().executemany("insert into t values (:1, :2, :3)", rows)
    connection.commit()
    assert database.committed == rows


def test_an_array_ends_at_its_first_error(connection: oracledb.Connection):
    cursor = connection.cursor()
    error = failure(cursor.executemany, "insert into t values (:1)", [("a",), ("b",), ("bad",), ("c",)])
    assert error.full_code == "ORA-00001" and cursor.rowcount == 2
    assert connection.transaction_in_progress
    cursor.executemany("insert into t values (:1)", [("a",), ("b",)])
    assert cursor.execute("select count from t").fetchone() == (4,)


@pytest.mark.parametrize("option", ["batcherrors", "arraydmlrowcounts"])
def test_errors_and_row_counts_of_each_row_are_refused(connection: oracledb.Connection, option: str):
    cursor = connection.cursor()
    error = failure(cursor.executemany, "insert into t values (:1)", [("a",), ("b",)], **{option: True})
    assert error.full_code == "ORA-03001"
    assert cursor.execute("select count from t").fetchone() == (0,)


def test_autocommit(connection: oracledb.Connection, database: FakeDatabase):
    connection.autocommit = True
    cursor = connection.cursor()
    for value in (1, 2):
        cursor.execute("insert into t values (:1)", [value])
    assert database.committed == [(1,), (2,)] and not connection.transaction_in_progress


def test_returning_is_read_and_refused(connection: oracledb.Connection):
    cursor = connection.cursor()
    text = "update t set a = 1 where n < :n returning a into :a"
    assert failure(cursor.execute, text, n=2, a=cursor.var(int)).full_code == "ORA-00900"
    assert one(connection, 5) == (5,)


def test_what_is_not_committed_is_gone_with_its_session(running: ConnectableServer, database: FakeDatabase):
    connection = running.connect()
    connection.cursor().execute("insert into t values (1)")
    connection.close()
    with running.connect() as again:
        assert again.cursor().execute("select count from t").fetchone() == (0,)


# Errors


def test_an_error_brings_number_text_and_position(connection: oracledb.Connection):
    cursor = connection.cursor()
    error = failure(cursor.execute, "fail 942 at 14")
    assert (error.full_code, error.code, error.offset) == ("ORA-00942", 942, 14)
    assert error.message.splitlines()[0] == "ORA-00942: as you wish"
    assert failure(cursor.execute, "nonsense").full_code == "ORA-00900"
    with pytest.raises(oracledb.IntegrityError):
        cursor.execute("begin fail 1 at 0; end;")
    assert one(connection, "still here") == ("still here",)


def test_too_few_binds(connection: oracledb.Connection):
    assert failure(connection.cursor().execute, "select :a, :b from dual").full_code in ("ORA-01008", "DPY-4010")


def test_a_bug_in_the_engine_is_an_internal_error(running: ConnectableServer, connection: oracledb.Connection, capfd):
    assert "ORA-00600" in failure(connection.cursor().execute, "begin bug; end;").message
    assert "KeyError" in capfd.readouterr().err
    running.connect().close()


def test_parsing_alone(connection: oracledb.Connection, database: FakeDatabase):
    cursor = connection.cursor()
    cursor.parse("select n from t")
    assert cursor.description[0][0] == "N" and database.calls == []
    cursor.parse("insert into t values (:1)")
    assert cursor.execute("select 3 rows from x").fetchall()[-1] == (2, "row 2")
