"""SQL in Oracle's meaning: values, NULLs, predicates, joins, groups, changes, errors with their positions."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from engine import opened, rows, run, value

from local.oracle.model import Bind, OracleError


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def session(database):
    session = database.session("FIN")
    run(session, "CREATE TABLE t (a NUMBER(5), b VARCHAR2(10), c DATE, d NUMBER(9,2))")
    for a, b, d in ((1, "one", "1.5"), (2, "two", None), (3, "three", "-2.25"), (4, None, "0")):
        run(session, "INSERT INTO t (a, b, d) VALUES (:1, :2, :3)", a, b, d)
    session.commit()
    yield session
    run(session, "DROP TABLE t")


def failure(session, sql, *values) -> OracleError:
    with pytest.raises(OracleError) as caught:
        found = run(session, sql, *values)
        list(found.rows or [])
    return caught.value


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1/3", Decimal("0." + "3" * 40)),
        ("'' || NULL", None),
        ("NVL('', 'null')", "null"),
        ("TO_CHAR(0.5)", ".5"),
        ("'n' || 100", "n100"),
        ("TO_CHAR(SYSTIMESTAMP - SYSTIMESTAMP)", "+00 00:00:00.000000"),
        ("SYSTIMESTAMP + INTERVAL '90' MINUTE - SYSTIMESTAMP", timedelta(minutes=90)),
        ("SUBSTR('Jakarta', -3)", "rta"),
        ("SUBSTR('Jakarta', 3, 2) || LENGTH('abc') || RTRIM('x ')", "ka3x"),
        ("'12.50' * 2", 25),
        ("USER", "FIN"),
        ("q'[it's]'", "it's"),
    ],
)
def test_expressions(database, expression, expected):
    assert value(database.session("FIN"), f"SELECT {expression} FROM dual") == expected


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("INSTR('banana', 'a')", 904),
        ("TO_DATE('2025-02-30', 'YYYY-MM-DD')", 904),
        ("COALESCE(NULL, 3)", 904),
        ("TRIM(' x ')", 904),
        ("CAST('12' AS NUMBER)", 900),
        ("EXTRACT(MONTH FROM SYSDATE)", 907),
        ("CASE WHEN 1 = 1 THEN 2 END", 900),
        ("DATE '2025-03-01'", 900),
        ("INTERVAL '1' YEAR", 900),
        ("TO_CHAR(7, '000')", 1481),
        ("TO_CHAR(SYSDATE, 'YYYY-Q')", 1821),
    ],
)
def test_unknown_functions_and_formats_are_refused(database, expression, code):
    assert failure(database.session("FIN"), f"SELECT {expression} FROM dual").code == code


def test_text_is_no_date(database):
    error = failure(database.session("FIN"), "SELECT 1 FROM dual WHERE SYSDATE > '01-JAN-25'")
    assert (error.code, "reads no dates from text" in error.text) == (932, True)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ("b = 'one' OR b IS NULL", [1, 4]),
        ("NOT b = 'one'", [2, 3]),
        ("b NOT IN ('one', NULL)", []),
        ("a >= '2' AND a < 4", [2, 3]),
        ("b LIKE 't%'", [2, 3]),
        ("b NOT LIKE 't%'", [1]),
        ("d < 1 AND d <> 0", [3]),
        ("a IN (SELECT MAX(a) FROM t)", [4]),
    ],
)
def test_predicates(session, predicate, expected):
    assert [row[0] for row in rows(session, f"SELECT a FROM t WHERE {predicate} ORDER BY a")] == expected


def test_like_with_escape_takes_the_underscore_at_its_word(session):
    text = "SELECT COUNT(*) FROM dual WHERE :1 LIKE 'GNS\\_2025%' ESCAPE '\\'"
    assert value(session, text, "GNS_202501") == 1
    assert value(session, text, "GNSX202501") == 0
    assert failure(session, "SELECT 1 FROM dual WHERE 'a' LIKE '!a' ESCAPE '!'").code == 1424


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT NVL(b, '-') n, COUNT(*) FROM t GROUP BY NVL(b, '-') ORDER BY n",
         [(n, 1) for n in ("-", "one", "three", "two")]),
        ("SELECT COUNT(b), COUNT(*), SUM(d), MIN(b), MAX(d) FROM t",
         [(3, 4, Decimal("-0.75"), "one", Decimal("1.5"))]),
        ("SELECT SUM(a) FROM t WHERE a > 99", [(None,)]),
        ("SELECT b FROM t ORDER BY b", [("one",), ("three",), ("two",), (None,)]),
        ("SELECT a FROM t UNION SELECT 1 FROM dual ORDER BY 1 DESC", [(4,), (3,), (2,), (1,)]),
        ("SELECT a FROM t UNION ALL SELECT 1 FROM dual ORDER BY 1", [(1,), (1,), (2,), (3,), (4,)]),
        ("SELECT SUM(n) FROM (SELECT x.a + 1 AS n FROM t x) WHERE n > 3", [(9,)]),
    ],
)  # fmt: skip
def test_queries(session, sql, expected):
    assert rows(session, sql) == expected


@pytest.mark.parametrize(
    ("sql", "code", "offset"),
    [
        ("SELEC a FROM t", 900, 0),
        ("SELECT a FRO t", 933, 13),
        ("SELECT nope FROM t", 904, 7),
        ("SELECT a FROM nope", 942, 14),
        ("SELECT a FROM (SELECT a, b a FROM t)", 918, None),
        ("SELECT x.a FROM t x, t y", 900, None),
        ("SELECT a FROM t WHERE a(+) = 1", 900, None),
        ("SELECT x.a FROM t x JOIN t y ON y.a = x.a", 900, None),
        ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM dual)", 900, None),
        ("SELECT a FROM t WHERE a = (SELECT MIN(a) FROM t)", 900, None),
        ("SELECT a FROM t WHERE (a, b) IN (SELECT a, b FROM t)", 900, None),
        ("SELECT a FROM t x WHERE a IN (SELECT 1 FROM dual WHERE x.b = 'one')", 904, None),
        ("SELECT a FROM t MINUS SELECT 1 FROM dual", 900, None),
        ("SELECT a FROM t WHERE a BETWEEN 1 AND 2", 900, None),
        ("SELECT INTERVAL '1' DAY * 2 FROM dual", 932, None),
        ("WITH q AS (SELECT a FROM t) SELECT a FROM q", 900, None),
        ("SELECT LEVEL FROM dual CONNECT BY LEVEL <= 3", 900, None),
        ("SELECT a FROM t WHERE ROWNUM <= 2", 904, None),
        ("SELECT DISTINCT a FROM t", 900, None),
        ("(SELECT a FROM t) ORDER BY a", 900, None),
        ("SELECT a FROM t SAMPLE (10)", 900, None),
        ("WITH q AS (SELECT a FROM t) SELECT a FROM q UNION SELECT a FROM q", 900, None),
        ("SELECT COUNT(DISTINCT a) FROM t", 900, None),
        ("SELECT AVG(a) FROM t", 904, None),
        ("SELECT b FROM t GROUP BY b HAVING COUNT(*) > 1", 900, None),
        ("SELECT a, COUNT(*) FROM t", 937, 7),
        ("SELECT a, b FROM t GROUP BY a", 979, 10),
        ("SELECT a FROM t WHERE COUNT(*) = 1", 934, None),
        ("SELECT a FROM t WHERE b = 1", 1722, None),
        ("SELECT a FROM t WHERE a = SYSDATE", 932, None),
        ("SELECT a FROM t ORDER BY a OFFSET 5 ROWS FETCH NEXT 5 ROWS ONLY", 933, None),
        ("SELECT 1/0 FROM dual", 1476, None),
        ("SELECT 'x FROM dual", 1756, 7),
        ("SELECT a FROM t;", 911, 15),
        ("SELECT a FROM t WHERE a = :1", 1008, None),
        ("SELECT SUM(a) OVER (PARTITION BY b) FROM t", 900, None),
        ("INSERT INTO t (a, b) VALUES (9, '12345678901')", 12899, None),
        ("INSERT INTO t (a) VALUES (123456)", 1438, None),
        ("INSERT INTO t (a) VALUES (1, 2)", 913, None),
        ("UPDATE acpdb.ac_glopenbalance SET branch = 'x'", 1031, None),
        ("INSERT INTO t SELECT * FROM t", 900, None),
        ("INSERT INTO t (a) VALUES (8), (9)", 933, None),
        ("INSERT INTO t (a) VALUES (9) RETURNING a INTO :1", 900, None),
        ("UPDATE t SET a = 9 RETURNING a INTO :1", 900, None),
        ("DELETE FROM t", 900, None),
        ("TRUNCATE TABLE t", 900, None),
        ("CREATE TABLE k (a NUMBER PRIMARY KEY)", 900, None),
        ("CREATE TABLE k (a NUMBER, UNIQUE (a))", 900, None),
        ("CREATE TABLE t (a NUMBER)", 955, None),
        ("DROP TABLE nope", 942, None),
        ("ALTER SYSTEM KILL SESSION '1,1'", 940, None),
        (f"SELECT {'(' * 5000}1{')' * 5000} FROM dual", 900, None),
        ("SELECT a FROM t FOR UPDATE", 900, None),
        ("EXPLAIN PLAN FOR SELECT 1 FROM dual", 900, 0),
    ],
)  # fmt: skip
def test_errors_have_their_name_and_position(session, sql, code, offset):
    error = failure(session, sql)
    assert error.code == code, error
    assert offset is None or error.offset == offset


def test_positions_are_of_the_text_that_was_sent(session):
    sql = "SELECT /* a comment */ :a_long_bind, q'[text]', nope FROM t"
    assert failure(session, sql, "x").offset == sql.index("nope")


def test_changes_count(session):
    assert run(session, "UPDATE t SET b = b || '!' WHERE a > 1").rowcount == 3
    assert run(session, "INSERT INTO t (a, b) VALUES (5, 'five')").rowcount == 1
    session.rollback()
    assert value(session, "SELECT COUNT(*) FROM t WHERE b LIKE '%!'") == 0


def test_others_see_a_change_only_after_the_commit(session, database):
    other = database.session("FIN")
    run(session, "INSERT INTO t (a) VALUES (5)")
    assert session.in_transaction
    assert (value(session, "SELECT COUNT(*) FROM t"), value(other, "SELECT COUNT(*) FROM t")) == (5, 4)
    session.commit()
    assert not session.in_transaction
    assert value(other, "SELECT COUNT(*) FROM t") == 5


def test_a_query_keeps_reading_the_rows_of_its_start(session, database):
    found = run(session, "SELECT a FROM t").rows
    first = next(found)
    other = database.session("FIN")
    run(other, "UPDATE t SET a = 0")
    other.commit()
    assert [first, *found] == [(1,), (2,), (3,), (4,)]


def test_a_read_only_transaction_sees_one_moment(session, database):
    other = database.session("FIN")
    run(session, "SET TRANSACTION READ ONLY")
    run(other, "UPDATE t SET b = 'new'")
    other.commit()
    assert value(session, "SELECT COUNT(*) FROM t WHERE b = 'new'") == 0
    assert failure(session, "UPDATE t SET a = 0").code == 1456
    session.commit()
    assert value(session, "SELECT COUNT(*) FROM t WHERE b = 'new'") == 4


def test_a_read_only_transaction_does_not_see_a_closing(database):
    reader, closer = database.session("FIN"), database.session("FIN")
    text = "SELECT MAX(createby) FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = '06'"
    run(reader, "SET TRANSACTION READ ONLY")
    run(closer, "BEGIN package_rpt_ac_fi806.get_master_data('2025', '06', '06', 'eve', :1, :2); END;", "", "")
    assert (value(reader, text), value(closer, text)) == ("SYSTEM", "eve")
    reader.commit()
    assert value(reader, text) == "eve"


def test_a_row_that_another_changes_is_waited_for(session, database):
    other, cancel = database.session("FIN"), threading.Event()
    run(session, "UPDATE t SET b = 'mine' WHERE a = 1")
    waiter = threading.Thread(target=lambda: run(other, "UPDATE t SET d = 7 WHERE a = 1"))
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    session.commit()
    waiter.join(5)
    other.commit()
    assert rows(session, "SELECT b, d FROM t WHERE a = 1") == [("mine", 7)]
    run(session, "UPDATE t SET b = 'x' WHERE a = 1")
    cancel.set()
    with pytest.raises(OracleError, match="ORA-01013"):
        run(other, "UPDATE t SET b = 'y' WHERE a = 1", cancel=cancel)
    session.rollback()


def test_a_long_query_is_cancelled(database):
    session, cancel = database.session("FIN"), threading.Event()
    found = run(session, "SELECT glyear FROM acpdb.ac_gljournal", cancel=cancel).rows
    assert next(found) == ("2025",)
    cancel.set()
    with pytest.raises(OracleError, match="ORA-01013"):
        list(found)


def test_columns_have_types_before_anything_runs(session):
    columns = session.describe("SELECT a, b, c n, SYSTIMESTAMP, :1 FROM t WHERE a = :2")
    assert [(c.name, c.type, c.size, c.precision, c.scale) for c in columns[:3]] == [
        ("A", "NUMBER", 0, 5, 0), ("B", "VARCHAR2", 10, 0, -127), ("N", "DATE", 0, 0, -127),
    ]  # fmt: skip
    assert columns[3].type == "TIMESTAMP WITH TIME ZONE"
    assert session.describe("BEGIN NULL; END;") is None


def test_the_types_of_binds_decide_the_types_of_columns(database):
    session, event = database.session("FIN"), threading.Event()
    for kind, given in (("NUMBER", Decimal("1.5")), ("DATE", datetime(2025, 1, 1)), ("VARCHAR2", "x")):
        found = session.execute("SELECT :v FROM dual", [Bind("V", kind, given, 30)], event)
        assert (found.columns[0].type, list(found.rows)) == (kind, [(given,)])


def test_session_settings_are_the_sessions_own(database):
    one, other = database.session("FIN"), database.session("FIN")
    run(one, "ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD' NLS_LANGUAGE = AMERICAN")
    given = [Bind("D", "DATE", datetime(2025, 1, 31), 0)]
    shown = [next(s.execute("SELECT TO_CHAR(:d) FROM dual", given, threading.Event()).rows) for s in (one, other)]
    assert shown == [("2025-01-31",), ("31-JAN-25",)]
    assert failure(one, "ALTER SESSION SET nonsense = 1").code == 2248


def test_dictionary_has_version_and_privileges(database):
    session = database.session("FIN")
    assert "stand-in" in value(session, "SELECT banner FROM v$version")
    text = "SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'"
    assert value(session, text) == "AL32UTF8"
    database.faults.inject("nls_characterset", "WE8MSWIN1252")
    assert value(session, text) == "WE8MSWIN1252"
    database.faults.clear("nls_characterset")
    run(session, "GRANT MANAGE SCHEDULER TO fin")
    assert ("MANAGE SCHEDULER",) in rows(session, "SELECT privilege FROM session_privs")
    assert value(session, "SELECT COUNT(*) FROM all_tab_privs WHERE privilege = 'EXECUTE'") == 1
