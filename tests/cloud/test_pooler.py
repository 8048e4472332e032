"""Behind a transaction pooler: our settings hold for our transactions, and for nobody else's."""

from __future__ import annotations

import pytest
from pg8000 import native
from support.pooler import HOST, pooler
from support.rollup_helpers import PERIOD, balanced, reading, set_branches, set_chart

from handler import ledger, postgres, runs, schema, settings

ROWS = balanced([("1101", "001", 500, 0, 300, 100, 700, 0)])
CLOSING = {"owner": "owner", "date": "2025-01-31", "userId": "siti"}
LEFT_BEHIND = "SET search_path = pg_catalog; SET statement_timeout = 5000; SET client_encoding = LATIN1"
SESSION_SETTINGS = "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' ORDER BY name"


@pytest.fixture
def pooled(own_schema, monkeypatch):
    """Return the ledger's modules behind the pooler, and another program there that has settings of its own."""
    with postgres.connected() as session:
        session.run("TRUNCATE closing_runs, closing_findings, calculation_runs, legacy_trial_balances")
        set_chart(session, {"1101": None, "9": None})
        set_branches(session, ["000", "001"])
    now = settings.current()
    with pooler(now.pg_port, now.pg_user, now.pg_password, now.pg_database) as (port, there):
        monkeypatch.setattr(now, "pg_port", port)
        other = native.Connection("other", host=HOST, port=port, ssl_context=False)
        yield there, other
        other.close()


def steps() -> list:
    """Return every kind of transaction of a closing as functions, in its order."""
    return [
        lambda: runs.begin("owner", "2025-01-31", "siti", "GNS_202501_A"),
        lambda: runs.left_out("owner", "2025-01-31", False, None),
        lambda: runs.record_job("GNS_202501_A", "succeeded", {"endedAt": "2025-02-01T00:00:00+00:00"}, CLOSING),
        lambda: ledger.replace_trial_balance("owner", PERIOD, reading(ROWS)),
        lambda: ledger.compute_metrics("owner", PERIOD),
        lambda: runs.finish(*CLOSING.values(), "succeeded", ""),
        lambda: runs.newest(3),
        schema.ping,
    ]


def test_a_closing_shares_one_connection_with_another_program(pooled):
    there, other = pooled
    ((backend,),) = other.run("SELECT pg_backend_pid()")
    for _ in range(5):
        with postgres.connected() as session:
            session.run("TRUNCATE closing_runs, closing_findings, calculation_runs")
        for step in steps():
            # Left by the other program on the connection that our next transaction gets.
            other.run(LEFT_BEHIND)
            theirs = other.run(SESSION_SETTINGS)
            step()
            assert other.run(SESSION_SETTINGS) == theirs
    assert runs.of_date("2025-01-31")[0]["status"] == "succeeded"
    assert there.transactions > 100
    with postgres.connected() as session:
        assert session.run("SELECT pg_backend_pid()") == [[backend]]


def test_another_program_between_two_of_our_statements(pooled):
    """One of our connections, with the other program at work between its transactions."""
    _, other = pooled
    with postgres.connected() as session:
        for _ in range(40):
            other.run(LEFT_BEHIND)
            ((path, limit, encoding),) = session.run(
                "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
                " current_setting('client_encoding')"
            )
            assert (path, encoding) == ("rollup_test", "UTF8")
            assert limit != "5s"
            assert other.run("SHOW search_path") == [["pg_catalog"]]


def test_an_error_leaves_no_transaction_and_no_setting_behind(pooled):
    _, other = pooled
    other.run(LEFT_BEHIND)
    theirs = other.run(SESSION_SETTINGS)
    with postgres.connected() as session, pytest.raises(Exception, match="division by zero"):
        session.run("SELECT 1 / 0")
    assert other.run(SESSION_SETTINGS) == theirs
