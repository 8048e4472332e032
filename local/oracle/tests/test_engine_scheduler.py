"""The scheduler's jobs in 11.2's terms: what CREATE_JOB's arguments, a job's block and a query's predicate change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from engine import CREATE_JOB, eventually, job_state, opened, outcome, procedure_events, rows, run, value

from local.oracle.database import Database
from local.oracle.model import OracleError

# A job that marks its own start, searches another one of its period, and only then runs the procedure.
GUARDED = r"""
DECLARE
  v_status VARCHAR2(4000); v_message VARCHAR2(4000); v_other VARCHAR2(30);
  e_exists EXCEPTION; PRAGMA EXCEPTION_INIT(e_exists, -27477);
BEGIN
  BEGIN
    DBMS_SCHEDULER.CREATE_SCHEDULE(schedule_name => '{job}_S', repeat_interval => 'FREQ=YEARLY', comments => 'start');
  EXCEPTION WHEN e_exists THEN raise_application_error(-20808, 'started once already');
  END;
  SELECT MIN(job_name) INTO v_other FROM user_scheduler_jobs
   WHERE state = 'RUNNING' AND job_name <> '{job}'
     AND (job_name LIKE '{like}' ESCAPE '\' OR job_name LIKE 'GNS\_2501\_%' ESCAPE '\');
  IF v_other IS NOT NULL THEN raise_application_error(-20807, 'another job is running: ' || v_other); END IF;
  Package_Rpt_Ac_Fi806.get_master_data('2025', '01', '01', 'adm', v_status, v_message);
  IF v_status IS NULL OR v_status = '0' THEN
    raise_application_error(-20806, NVL(v_message, 'the procedure gave no message'));
  END IF;
END;
"""


def guarded(job: str, like: str = r"GNS\_202501\_%") -> str:
    return GUARDED.replace("{job}", job).replace("{like}", like)


@pytest.fixture
def database(tmp_path):
    database = opened(tmp_path)
    yield database
    database.close()


@pytest.fixture
def session(database):
    return database.session("FIN")


def create(session, name: str, action: str, **arguments: str) -> None:
    """Call CREATE_JOB with arguments in PL/SQL's words."""
    arguments = {"job_type": "'PLSQL_BLOCK'", "enabled": "TRUE", "auto_drop": "FALSE", **arguments}
    text = ", ".join(f"{key} => {word}" for key, word in arguments.items())
    run(session, f"BEGIN DBMS_SCHEDULER.CREATE_JOB(job_name => :n, job_action => :a, {text}); END;", name, action)


def failure(session, sql, *values) -> OracleError:
    with pytest.raises(OracleError) as caught:
        run(session, sql, *values)
    return caught.value


def test_a_closing_runs_as_the_client_will_send_it(session, tmp_path):
    run(session, CREATE_JOB, "gns_202501_abc", guarded("GNS_202501_ABC"), "owner")
    assert outcome(session, "GNS_202501_ABC") == ("SUCCEEDED", 0, None)
    (job,) = rows(
        session, "SELECT state, enabled, auto_drop, run_count, comments, job_creator FROM user_scheduler_jobs"
    )
    assert job == ("SUCCEEDED", "FALSE", "FALSE", 1, "owner", "FIN")
    assert value(session, "SELECT schedule_name FROM user_scheduler_schedules") == "GNS_202501_ABC_S"
    (start,) = procedure_events(tmp_path)
    assert (start["job"], start["user_id"], start["month_from"]) == ("GNS_202501_ABC", "adm", "01")
    (end,) = procedure_events(tmp_path, "end")
    assert end["status"] == "1"
    text = "SELECT MIN(createby) FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = '01'"
    assert value(session, text) == "adm"


def test_a_job_that_has_started_once_refuses_to_start_again(session, tmp_path):
    run(session, "BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE('J_S', NULL, 'FREQ=DAILY'); END;")
    run(session, CREATE_JOB, "J", guarded("J"), "")
    status, error, info = outcome(session, "J")
    assert (status, error) == ("FAILED", 20808)
    assert info.startswith("ORA-20808: started once already\nORA-06512: at line ")
    assert job_state(session, "J") == "FAILED"
    assert procedure_events(tmp_path) == []


def test_a_guard_backs_off_only_from_what_its_own_predicate_names(session, database, tmp_path):
    create(session, "GNS_202501_OTHER", "BEGIN DBMS_LOCK.SLEEP(60); END;")
    eventually(lambda: job_state(session, "GNS_202501_OTHER") == "RUNNING")

    run(session, CREATE_JOB, "GNS_202501_A", guarded("GNS_202501_A"), "")
    status, error, info = outcome(session, "GNS_202501_A")
    assert (status, error) == ("FAILED", 20807)
    assert "another job is running: GNS_202501_OTHER" in info

    run(session, CREATE_JOB, "GNS_202501_B", guarded("GNS_202501_B", like=r"GNS\_202502\_%"), "")
    assert outcome(session, "GNS_202501_B")[0] == "SUCCEEDED"
    run(
        session,
        CREATE_JOB,
        "GNS_202501_C",
        guarded("GNS_202501_C", like="GNS!_202501!_%").replace("ESCAPE '\\'", "ESCAPE '!'", 1),
        "",
    )
    assert outcome(session, "GNS_202501_C")[1] == 20807
    assert [start["job"] for start in procedure_events(tmp_path)] == ["GNS_202501_B"]
    run(session, "BEGIN DBMS_SCHEDULER.STOP_JOB('GNS_202501_OTHER'); END;")


@pytest.mark.parametrize(
    ("status", "message", "text"),
    [("0", "period is locked", "period is locked"), ("NULL", None, "the procedure gave no message")],
)
def test_block_decides_which_status_is_a_failure(session, database, status, message, text):
    database.faults.inject("procedure_status", status)
    if message:
        database.faults.inject("procedure_message", message)
    run(session, CREATE_JOB, "CHECKING", guarded("CHECKING"), "")
    assert outcome(session, "CHECKING")[:2] == ("FAILED", 20806)
    assert text in outcome(session, "CHECKING")[2]
    create(session, "CARELESS", guarded("CARELESS").replace("v_status IS NULL OR v_status = '0'", "v_status = '?'"))
    assert outcome(session, "CARELESS")[0] == "SUCCEEDED"


def test_an_error_inside_the_procedure_has_its_backtrace(session, database):
    database.faults.inject("procedure_error", "ORA-01652: unable to extend temp segment")
    create(session, "J", guarded("J"))
    status, error, info = outcome(session, "J")
    assert (status, error) == ("FAILED", 1652)
    assert info.splitlines()[:2] == [
        "ORA-01652: unable to extend temp segment",
        'ORA-06512: at "ACPDB.PACKAGE_RPT_AC_FI806", line 806',
    ]


def test_arguments_of_create_job_decide(session, tmp_path):
    block = "BEGIN Package_Rpt_Ac_Fi806.get_master_data('2025','06','06','x',:s,:m); END;"
    create(session, "DISABLED_ONE", "BEGIN NULL; END;", enabled="FALSE")
    assert job_state(session, "DISABLED_ONE") == "DISABLED"
    create(session, "DROPPED", "BEGIN DBMS_LOCK.SLEEP(0.1); END;", auto_drop="TRUE")
    assert outcome(session, "DROPPED")[0] == "SUCCEEDED"
    eventually(lambda: job_state(session, "DROPPED") is None)
    create(session, "BROKEN_BLOCK", "BEGIN nonsense; END;")
    assert outcome(session, "BROKEN_BLOCK")[:2] == ("FAILED", 6550)
    create(session, "BINDS", block)
    assert outcome(session, "BINDS")[0] == "FAILED"
    create(session, "LATER", "BEGIN NULL; END;", start_date="SYSTIMESTAMP + INTERVAL '1' HOUR")
    assert job_state(session, "LATER") == "SCHEDULED"
    assert procedure_events(tmp_path) == []


def test_a_repeating_job_runs_again(session):
    create(session, "AGAIN", "BEGIN NULL; END;", repeat_interval="'FREQ=SECONDLY; INTERVAL=1'", auto_drop="TRUE")
    eventually(lambda: value(session, "SELECT MAX(run_count) FROM user_scheduler_jobs") == 2)
    run(session, "BEGIN DBMS_SCHEDULER.DROP_JOB('AGAIN', force => TRUE); END;")


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ("CREATE_JOB('taken', 'PLSQL_BLOCK', 'BEGIN NULL; END;')", 27477, '"FIN.TAKEN" already exists'),
        ("CREATE_SCHEDULE('TAKEN', NULL, 'FREQ=DAILY')", 27477, '"FIN.TAKEN" already exists'),
        ("CREATE_JOB('marked', 'PLSQL_BLOCK', 'BEGIN NULL; END;')", 27477, '"FIN.MARKED" already exists'),
        ("CREATE_JOB('a234567890123456789012345678901', 'PLSQL_BLOCK', 'x')", 27452, "invalid name"),
        ("CREATE_JOB('two words', 'PLSQL_BLOCK', 'x')", 27452, "invalid name"),
        ("CREATE_JOB('j', 'NONSENSE', 'x')", 27465, "JOB_TYPE"),
        ("CREATE_JOB('j', 'EXECUTABLE', '/bin/true')", 900, "stand-in"),
        ("CREATE_JOB('j', 'STORED_PROCEDURE', 'acpdb.close_day')", 900, "stand-in"),
        ("CREATE_JOB('j', 'PLSQL_BLOCK', 'x', repeat_interval => 'FREQ=NEVER')", 27412, "NEVER"),
        ("CREATE_JOB('other.j', 'PLSQL_BLOCK', 'x')", 27486, "insufficient privileges"),
        ("DROP_JOB('nope')", 27475, '"FIN.NOPE" must be a job'),
        ("DROP_JOB('marked')", 27475, '"FIN.MARKED" must be a job'),
        ("STOP_JOB('nope')", 27475, '"FIN.NOPE" must be a job'),
        ("STOP_JOB('taken')", 27366, 'job "FIN.TAKEN" is not running'),
        ("STOP_JOB('taken', TRUE)", 27486, "insufficient privileges"),
        ("DROP_SCHEDULE('nope')", 27476, '"FIN.NOPE" does not exist'),
        ("SET_ATTRIBUTE('taken', 'comments', 'x')", 6550, "PLS-00201"),
        ("RUN_JOB('taken')", 6550, "PLS-00201"),
    ],
)
def test_refusals(session, call, code, text):
    create(session, "TAKEN", "BEGIN NULL; END;", enabled="FALSE")
    run(session, "BEGIN DBMS_SCHEDULER.CREATE_SCHEDULE('MARKED', NULL, 'FREQ=DAILY'); END;")
    error = failure(session, f"BEGIN DBMS_SCHEDULER.{call}; END;")
    assert error.code == code
    assert text in error.text


def test_create_job_commits(session, database):
    run(session, "CREATE TABLE t (a NUMBER)")
    run(session, "INSERT INTO t VALUES (1)")
    create(session, "J", "BEGIN NULL; END;", enabled="FALSE")
    session.rollback()
    assert value(database.session("FIN"), "SELECT COUNT(*) FROM t") == 1


def test_a_job_has_the_settings_of_the_session_that_made_it(session):
    run(session, "CREATE TABLE seen (v VARCHAR2(30))")
    run(session, "ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY/MM'")
    create(session, "J", "BEGIN INSERT INTO seen VALUES (TO_CHAR(SYSDATE)); END;")
    run(session, "ALTER SESSION SET NLS_DATE_FORMAT = 'DD'")
    assert outcome(session, "J")[0] == "SUCCEEDED"
    assert value(session, "SELECT v FROM seen") == datetime.now().strftime("%Y/%m")
    assert "NLS_DATE_FORMAT='YYYY/MM'" in value(session, "SELECT nls_env FROM user_scheduler_jobs")


def test_a_running_job_is_seen_and_stopped(session, database, tmp_path):
    database.faults.inject("procedure_seconds", 60)
    create(session, "J", guarded("J"))
    eventually(lambda: procedure_events(tmp_path))
    assert failure(session, "BEGIN DBMS_SCHEDULER.DROP_JOB('J'); END;").code == 27478
    run(session, "BEGIN DBMS_SCHEDULER.STOP_JOB('j', force => FALSE); END;")
    assert job_state(session, "J") == "STOPPED"
    assert outcome(session, "J") == ("STOPPED", 0, "REASON=\"Stop job called by user: 'FIN'\"")
    assert [end["status"] for end in procedure_events(tmp_path, "end")] == ["interrupted"]
    text = "SELECT MIN(createby) FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = '01'"
    assert value(session, text) == "SYSTEM"


def test_a_procedure_is_held_until_the_fault_is_cleared(session, database, tmp_path):
    database.faults.inject("procedure_holds")
    create(session, "J", guarded("J"))
    eventually(lambda: procedure_events(tmp_path))
    assert job_state(session, "J") == "RUNNING" and procedure_events(tmp_path, "end") == []
    database.faults.clear("procedure_holds")
    assert outcome(session, "J")[0] == "SUCCEEDED"


@pytest.mark.parametrize("while_running", [False, True])
def test_a_slave_that_dies_stops_its_job(session, database, while_running):
    if not while_running:
        database.faults.inject("slave_dies")
    create(session, "J", "BEGIN DBMS_LOCK.SLEEP(60); END;")
    if while_running:
        eventually(lambda: job_state(session, "J") == "RUNNING")
        database.faults.inject("slave_dies")
    assert outcome(session, "J")[0] == "STOPPED"
    assert "slave process was terminated" in outcome(session, "J")[2]
    create(session, "NEXT", "BEGIN NULL; END;")
    assert outcome(session, "NEXT")[0] == "SUCCEEDED"


def test_jobs_never_start_while_that_fault_is_injected(session, database):
    database.faults.inject("jobs_never_start")
    create(session, "J", "BEGIN NULL; END;")
    time.sleep(0.1)
    assert job_state(session, "J") == "SCHEDULED"
    database.faults.clear("jobs_never_start")
    assert outcome(session, "J")[0] == "SUCCEEDED"


def test_run_details_come_late_and_may_be_purged(session, database):
    database.faults.inject("detail_gap_seconds", 0.4)
    create(session, "J", "BEGIN NULL; END;")
    eventually(lambda: job_state(session, "J") == "SUCCEEDED")
    text = "SELECT COUNT(*) FROM user_scheduler_job_run_details"
    assert value(session, text) == 0
    assert outcome(session, "J")[0] == "SUCCEEDED"
    database.faults.inject("log_purged")
    assert value(session, text) == 0


def test_a_job_can_be_enabled_and_dropped(session):
    create(session, "J", "BEGIN NULL; END;", enabled="FALSE")
    run(session, "BEGIN DBMS_SCHEDULER.ENABLE('J'); END;")
    assert outcome(session, "J")[0] == "SUCCEEDED"
    run(session, "BEGIN DBMS_SCHEDULER.DROP_JOB('J'); END;")
    assert job_state(session, "J") is None


def test_two_submissions_at_once_make_one_job(session, database, tmp_path):
    results: list[int] = []

    def submit() -> None:
        try:
            run(database.session("FIN"), CREATE_JOB, "ONCE", guarded("ONCE"), "")
            results.append(0)
        except OracleError as error:
            results.append(error.code)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, *[27477] * 7]
    assert outcome(session, "ONCE")[0] == "SUCCEEDED"
    assert len(procedure_events(tmp_path)) == 1


CHILD = """
import os, sys
from pathlib import Path
from engine import CREATE_JOB, eventually, opened, outcome, procedure_events, run
folder, action = Path(sys.argv[1]), sys.argv[2]
session = opened(folder, procedure_seconds=0.0).session("FIN")
run(session, CREATE_JOB, "DONE", "BEGIN NULL; END;", "kept")
outcome(session, "DONE")
run(session, "BEGIN package_rpt_ac_fi806.get_master_data('2025','06','06','before',:1,:2); END;", "", "")
run(session, "BEGIN DBMS_SCHEDULER.CREATE_JOB('LATER','PLSQL_BLOCK','BEGIN NULL; END;'); END;")
(folder / "faults" / "procedure_seconds").write_text("60")
run(session, CREATE_JOB, "DYING", action, "")
eventually(lambda: len(procedure_events(folder)) == 2)
os._exit(9)
"""


@pytest.fixture
def killed(tmp_path):
    """Return a folder whose database died with a job running."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", CHILD, str(tmp_path), guarded("DYING")]
    assert subprocess.run(command, env=environment, timeout=30).returncode == 9
    with (tmp_path / "dictionary.jsonl").open("a") as file:
        file.write('[["job", "FIN.TORN", {"na')
    (tmp_path / "faults" / "procedure_seconds").unlink()
    return tmp_path


def test_what_was_answered_outlives_a_kill(killed):
    session = opened(killed).session("FIN")
    jobs = dict(rows(session, "SELECT job_name, state FROM user_scheduler_jobs"))
    assert jobs == {"DONE": "SUCCEEDED", "LATER": "DISABLED", "DYING": "STOPPED"}
    assert outcome(session, "DYING")[0] == "STOPPED"
    assert "ORA-01014" in outcome(session, "DYING")[2]
    assert outcome(session, "DONE") == ("SUCCEEDED", 0, None)
    text = "SELECT MIN(createby) FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = :1"
    assert (value(session, text, "06"), value(session, text, "01")) == ("before", "SYSTEM")
    assert value(session, "SELECT MAX(log_id) - MIN(log_id) FROM user_scheduler_job_run_details") == 1
    assert len(procedure_events(killed)) == 2


@pytest.mark.parametrize("by", ["option", "fault"])
def test_restart_on_recovery_runs_the_job_again_and_its_guard_refuses(killed, by):
    if by == "fault":
        (killed / "faults" / "restart_on_recovery").touch()
    database: Database = opened(killed, restart_on_recovery=by == "option")
    assert outcome(database.session("FIN"), "DYING")[:2] == ("FAILED", 20808)
    assert len(procedure_events(killed)) == 2
