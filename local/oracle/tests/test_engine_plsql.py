"""PL/SQL blocks: variables, control, exceptions, SQL inside, calls, and the errors as Oracle words them."""

from __future__ import annotations

import threading
import time
from decimal import Decimal

import pytest
from engine import opened, rows, run, value

from local.oracle.model import Bind, OracleError


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("plsql"))


@pytest.fixture
def session(database):
    return database.session("FIN")


def failure(session, sql, *values) -> OracleError:
    with pytest.raises(OracleError) as caught:
        run(session, sql, *values)
    return caught.value


def computed(session, declarations: str, body: str) -> object:
    """Return what a block assigns to :r, as text."""
    return run(session, f"DECLARE {declarations} BEGIN {body} END;", "").out[0]


@pytest.mark.parametrize(
    ("declarations", "body", "expected"),
    [
        ("v NUMBER := 2; w NUMBER(5) := 3;", ":r := v * w;", "6"),
        ("v VARCHAR2(10);", "v := 'a' || v; :r := v;", "a"),
        ("n NUMBER := 5;", "IF n > 9 THEN :r := 'a'; ELSIF n = 5 AND TRUE THEN :r := 'b'; ELSE :r := 'c'; END IF;",
         "b"),
        ("n NUMBER;", "IF n = 1 THEN :r := 'a'; ELSE :r := 'unknown is not true'; END IF;", "unknown is not true"),
        ("n NUMBER := 0;",
         "FOR r IN (SELECT 1 l FROM dual UNION ALL SELECT 5 FROM dual) LOOP n := n + r.l; END LOOP; :r := n;", "6"),
        ("a NUMBER; b VARCHAR2(5);", "SELECT 1, 'x' INTO a, b FROM dual; :r := a || b || SQL%ROWCOUNT;", "1x1"),
        ("n NUMBER;",
         "SELECT 1 INTO n FROM dual WHERE 1 = 0; EXCEPTION WHEN NO_DATA_FOUND THEN :r := SQLCODE;", "100"),
        ("n NUMBER;", "n := 1 / 0; EXCEPTION WHEN VALUE_ERROR OR ZERO_DIVIDE THEN :r := SQLCODE;", "-1476"),
        ("e EXCEPTION; PRAGMA EXCEPTION_INIT(e, -20123);",
         "raise_application_error(-20123, 'mine'); EXCEPTION WHEN e THEN :r := SQLCODE;", "-20123"),
        ("e EXCEPTION; PRAGMA EXCEPTION_INIT(e, -20124);",
         """BEGIN raise_application_error(-20123, 'mine'); EXCEPTION WHEN e OR NO_DATA_FOUND THEN :r := 'wrong'; END;
         EXCEPTION WHEN OTHERS THEN :r := SQLCODE;""", "-20123"),
        ("n NUMBER;",
         "BEGIN n := 1 / 0; EXCEPTION WHEN OTHERS THEN RAISE; END; EXCEPTION WHEN ZERO_DIVIDE THEN :r := 'outer';",
         "outer"),
        ("n NUMBER := 1;", "DECLARE n NUMBER := 2; BEGIN :r := n; END; :r := :r || n;", "21"),
        ("b BOOLEAN := FALSE;", "IF NOT b THEN :r := SUBSTR('ab', 2); END IF;", "b"),
        ("v VARCHAR2(99) := q'[print 'hi';]';", ":r := v; /* END; */ -- BEGIN\n", "print 'hi';"),
        ("v VARCHAR2(10) := 'x'; job_name VARCHAR2(9) := 'y';", "SELECT v || job_name INTO v FROM dual; :r := v;",
         "xy"),
    ],
)  # fmt: skip
def test_blocks(session, declarations, body, expected):
    assert computed(session, declarations, body) == expected


@pytest.mark.parametrize(
    ("declarations", "body"),
    [
        ("", "LOOP NULL; END LOOP;"),
        ("", "WHILE TRUE LOOP NULL; END LOOP;"),
        ("", "FOR i IN 1..3 LOOP NULL; END LOOP;"),
        ("", "FOR r IN (SELECT 1 l FROM dual) LOOP EXIT; END LOOP;"),
        ("", "FOR r IN (SELECT 1 l FROM dual) LOOP CONTINUE; END LOOP;"),
        ("", "CASE WHEN TRUE THEN NULL; END CASE;"),
        ("", "EXECUTE IMMEDIATE 'BEGIN NULL; END;';"),
        ("", "RETURN;"),
        ("e EXCEPTION;", "RAISE e;"),
        ("", "<<here>> NULL;"),
        ("v user_scheduler_jobs.job_name%TYPE;", "NULL;"),
        ("v CONSTANT NUMBER := 1;", "NULL;"),
        ("v NUMBER NOT NULL := 1;", "NULL;"),
        ("v NUMBER DEFAULT 1;", "NULL;"),
        ("PRAGMA AUTONOMOUS_TRANSACTION;", "NULL;"),
        ("", "DBMS_OUTPUT.PUT_LINE('x');"),
    ],
)
def test_unknown_statements_do_not_compile(session, declarations, body):
    assert failure(session, f"DECLARE {declarations} BEGIN {body} END;").code == 6550


def test_a_call_and_a_label_are_refused(session):
    assert failure(session, "CALL DBMS_LOCK.SLEEP(0)").code == 900
    assert failure(session, "<<main>> BEGIN NULL; END;").code == 6550


def test_binds_are_one_for_each_name_and_come_back_if_they_may_be_written(session):
    found = run(session, "BEGIN :total := :a + :a + :b; :a := NULL; END;", None, 2, 3)
    assert found.out == {0: Decimal(7), 1: None}


def test_a_bind_is_given_in_its_own_type_and_size(session):
    binds = [Bind("N", "NUMBER", None, 22), Bind("T", "VARCHAR2", None, 3)]
    found = session.execute("BEGIN :n := '12'; :t := 345; END;", binds, threading.Event())
    assert found.out == {0: Decimal(12), 1: "345"}
    with pytest.raises(OracleError, match=r"ORA-06502.*buffer too small"):
        session.execute("BEGIN :n := 1; :t := 'four'; END;", binds, threading.Event())


def test_changes_of_rows(session):
    run(session, "CREATE TABLE p (a NUMBER, b VARCHAR2(9))")
    text = """DECLARE n NUMBER := 2;
    BEGIN
      INSERT INTO p VALUES (1, 'one');
      INSERT INTO p VALUES (n, 'two');
      UPDATE p SET b = 'one' WHERE a = n;
      IF SQL%FOUND THEN COMMIT; END IF;
      INSERT INTO p VALUES (3, 'one');
      ROLLBACK;
    END;"""
    run(session, text)
    assert value(session, "SELECT COUNT(*) FROM p WHERE b = 'one'") == 2
    run(session, "DROP TABLE p")


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        ("BEGIN nope.run(1); END;", 6550, "line 1, column 7:\nPLS-00201: identifier 'NOPE.RUN' must be declared"),
        ("BEGIN\n  v := 1;\nEND;", 6550, "line 2, column 3:\nPLS-00201: identifier 'V' must be declared"),
        ("DECLARE v NUMBER; BEGIN v := w + 1; END;", 6550, "PLS-00201: identifier 'W' must be declared"),
        ("DECLARE n NUMBER; BEGIN SELECT 1 INTO n FROM nope; END;",
         6550, "PL/SQL: ORA-00942: table or view does not exist"),
        ("BEGIN NULL END;", 6550, "PLS-00103"),
        ("BEGIN NULL; END", 6550, "PLS-00103"),
        ("BEGIN SELECT 1 FROM dual; END;", 6550, "PLS-00428"),
        ("BEGIN DBMS_LOCK.SLEEP; END;", 6550, "PLS-00306: wrong number or types of arguments in call to 'SLEEP'"),
        ("BEGIN DBMS_LOCK.SLEEP(nonsense => 1); END;", 6550, "PLS-00306"),
        ("DECLARE v VARCHAR2(2); BEGIN v := 'abc'; END;",
         6502, "character string buffer too small\nORA-06512: at line 1"),
        ("DECLARE v NUMBER; BEGIN v := 'abc'; END;", 6502, "character to number conversion error"),
        ("BEGIN\n raise_application_error(-20806, 'no');\nEND;", 20806, "no\nORA-06512: at line 2"),
        ("BEGIN raise_application_error(-1, 'no'); END;", 21000, "out of range"),
        ("DECLARE n NUMBER; BEGIN SELECT 1 INTO n FROM nls_database_parameters; END;", 1422, "exact fetch"),
    ],
)  # fmt: skip
def test_errors(session, sql, code, message):
    error = failure(session, sql)
    assert error.code == code
    assert message in error.text


def test_nothing_runs_of_a_block_that_does_not_compile(session):
    failure(session, "BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE('early', NULL, 'FREQ=DAILY'); nope; END;")
    assert rows(session, "SELECT schedule_name FROM user_scheduler_schedules") == []


def test_a_sleeping_block_is_cancelled_and_no_handler_hides_that(session):
    cancel = threading.Event()
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    start = time.monotonic()
    with pytest.raises(OracleError, match="ORA-01013"):
        run(session, "BEGIN DBMS_LOCK.SLEEP(30); EXCEPTION WHEN OTHERS THEN NULL; END;", cancel=cancel)
    assert time.monotonic() - start < 5


def test_a_procedure_is_called_with_names_or_positions(session):
    for text in (
        "BEGIN dbms_lock.sleep(0); END;",
        "BEGIN SYS.DBMS_LOCK.SLEEP(seconds => 0); END;",
    ):
        run(session, text)


def test_out_arguments_go_to_variables_and_to_binds(session):
    text = """DECLARE s VARCHAR2(10); BEGIN
      Package_Rpt_Ac_Fi806.Get_Master_Data('2025', '13', '13', 'adm', s, :message); :status := s; END;"""
    found = run(session, text, "", "")
    assert found.out == {0: "no journal for 2025-13", 1: "0"}
