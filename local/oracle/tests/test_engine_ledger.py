"""The books that are made from a seed: their shape, their balance, and how one period follows another."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import pytest
from engine import opened, rows, run

from local.oracle import ledger

SEED = 806


@pytest.fixture(scope="module")
def january() -> list[ledger.Entry]:
    return list(ledger.journal(SEED, "2025-01"))


def sums(entries: list[ledger.Entry], key) -> dict:
    found: dict = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for entry in entries:
        found[key(entry)][0] += entry.debit
        found[key(entry)][1] += entry.credit
    return found


def test_accounts_form_five_levels_by_the_length_of_their_codes():
    chart = ledger.accounts(SEED)
    codes = {account.code for account in chart}
    assert len(codes) == len(chart) >= 500
    assert {(account.level, len(account.code)) for account in chart} == {(1, 1), (2, 2), (3, 4), (4, 6), (5, 8)}
    parents = {account.code: account.parent_code for account in chart}
    assert all(parent is None or (parent in codes and code.startswith(parent)) for code, parent in parents.items())
    assert set(ledger.GROUPS) == {account.code for account in chart if account.level == 2}


def test_there_are_forty_branches():
    branches = ledger.branches(SEED)
    assert len({branch.code for branch in branches}) == len({branch.name for branch in branches}) == 40


def test_a_period_has_15000_balances_and_several_lines_for_each(january):
    balances = sums(january, lambda entry: (entry.account, entry.branch))
    assert len(balances) >= 15_000
    assert len(january) / len(balances) > 2
    leaves = {account.code for account in ledger.accounts(SEED) if account.level == 5}
    assert {account for account, _ in balances} <= leaves


def test_every_voucher_branch_and_period_balances(january):
    for key in (lambda e: (e.journal_no, e.branch, e.date), lambda e: e.branch, lambda e: None):
        assert all(debit == credit for debit, credit in sums(january, key).values())


def test_amounts_have_two_decimals_and_reach_10_to_12(january):
    amounts = [amount for entry in january for amount in (entry.debit, entry.credit)]
    assert {amount.as_tuple().exponent for amount in amounts} == {-2}
    endings = [abs(c) for branch in ledger.endings(SEED, "2025-01").values() for c in branch.values()]
    assert 10**14 < max(endings) <= 10**15


def test_the_journal_leads_from_one_period_to_the_next(january):
    before, after = ledger.endings(SEED, "2024-12"), ledger.endings(SEED, "2025-01")
    moved = sums(january, lambda entry: (entry.account, entry.branch))
    for branch, accounts in after.items():
        assert sum(accounts.values()) == sum(before[branch].values()) == 0
        for account, cents in accounts.items():
            debit, credit = moved.get((account, branch), (0, 0))
            assert ledger.amount(before[branch][account]) + debit - credit == ledger.amount(cents)


def test_the_seed_alone_decides(january):
    assert list(ledger.journal(SEED, "2025-01")) == january
    assert next(iter(ledger.journal(SEED + 1, "2025-01"))) != january[0]


def test_open_balances_are_stale_until_the_procedure_has_run(tmp_path, january):
    database = opened(tmp_path)
    session = database.session("FIN")
    text = """SELECT coacode, branch, beginning_debit, beginning_credit, debit_amount, credit_amount, ending_debit,
      ending_credit, createby FROM acpdb.ac_glopenbalance WHERE glyear = '2025' AND glmonth = '01'"""
    moved = sums(january, lambda entry: (entry.account, entry.branch))

    stale = rows(session, text)
    assert any((row[4], row[5]) != tuple(moved[row[0], row[1]]) for row in stale)
    assert sum(row[6] - row[7] for row in stale) == 0

    run(session, "BEGIN package_rpt_ac_fi806.get_master_data('2025','01','01','adm',:1,:2); END;", "", "")
    closed = rows(session, text)
    assert len(closed) == len(stale) and {row[8] for row in closed} == {"adm"}
    for account, branch, start_debit, start_credit, debit, credit, end_debit, end_credit, _ in closed:
        assert [debit, credit] == moved.get((account, branch), [0, 0])
        assert start_debit - start_credit + debit - credit == end_debit - end_credit
    assert sum(row[2] - row[3] for row in closed) == sum(row[6] - row[7] for row in closed) == 0


def test_the_journal_by_sql_is_the_journal(tmp_path, january):
    session = opened(tmp_path).session("FIN")
    text = """SELECT branch, SUM(debit), COUNT(*) FROM acpdb.ac_gljournal
      WHERE glyear = 2025 AND glmonth = 1 GROUP BY branch"""
    expected = sums(january, lambda entry: entry.branch)
    assert {branch: debit for branch, debit, _ in rows(session, text)} == {b: d for b, (d, _) in expected.items()}


def test_a_predicate_on_the_period_leaves_other_periods_unmade(tmp_path):
    database = opened(tmp_path, periods=("2025-01", "2025-06"))
    session = database.session("FIN")
    rows(session, "SELECT COUNT(*) FROM acpdb.ac_glopenbalance WHERE glyear = :1 AND glmonth = :2", "2025", "06")
    assert [key[1] for key in database.books.kept] == ["2025-06"]
    both = rows(session, "SELECT glmonth FROM acpdb.ac_glopenbalance GROUP BY glmonth ORDER BY 1")
    assert both == [("01",), ("06",)]
