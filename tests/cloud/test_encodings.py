"""Databases that are not UTF8: what they can hold arrives, the rest is refused by account and branch."""

from __future__ import annotations

import pytest
from support.rollup_helpers import PERIOD, balanced, begin, reading, set_branches, set_chart

from handler import ledger, postgres, runs
from handler.errors import Refused

ROWS = balanced([("1101", "001", 500, 0, 300, 100, 700, 0), ("1101", "002", 100, 0, 0, 0, 100, 0)])


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def session(request, other_database):
    other_database(request.param)
    with postgres.connected() as opened:
        set_chart(opened, {"1101": None, "9": None})
        set_branches(opened, ["000", "001", "002"])
        begin(opened, "owner")
        yield opened


def named(description: str):
    """Return Genius' balances with a description for one account and branch."""
    return reading(ROWS, served=lambda rows: [(r[0], description, *r[2:]) if r[2] == "002" else r for r in rows])


def test_a_text_that_the_database_cannot_hold_is_refused_by_account_and_branch(session):
    ledger.replace_trial_balance("owner", PERIOD, reading(ROWS))
    message = r"account 1101, branch 002: a text with '\\u20ac', which the database's encoding .* cannot hold"
    with pytest.raises(Refused, match=message):
        ledger.replace_trial_balance("owner", PERIOD, named("Kas €"))
    assert session.run("SELECT count(*) FROM legacy_trial_balances") == [[3]]


def test_a_text_that_the_database_can_hold_arrives(session):
    name = "Kas é" if session.codec == "iso8859-1" else "Kas"
    ledger.replace_trial_balance("owner", PERIOD, named(name))
    assert [name] in session.run("SELECT description FROM legacy_trial_balances")


def test_any_message_can_be_recorded(session):
    runs.record_step("owner", "genius", "failed", {"message": "Rp € 5, \0, \udcff, 日本"})
    assert runs.finish("owner", "2025-01-31", "siti", "failed", "Rp € 5")["message"] == "Rp ? 5"
    assert runs.of_date("2025-01-31")[0]["detail"]["genius"]["message"] == "Rp ? 5, ?, ?, ??"
