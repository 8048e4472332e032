"""The roll-up in PostgreSQL against an independent one, and what is refused, on tables of their own."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from support.drawn_ledgers import expected_findings, gross, ledgers
from support.rollup_helpers import (
    PERIOD,
    as_genius,
    balanced,
    begin,
    expected,
    findings_kept,
    money,
    reading,
    set_branches,
    set_chart,
    written,
)

from handler import balances, ledger, rollup, runs, schema
from handler.errors import Refused

CHART = {"1": None, "11": "1", "1101": "11", "1102": "11", "12": "1", "2": None, "21": "2", "9": None}
ROWS = balanced(
    [
        ("1101", "001", 500, 0, 300, 100, 700, 0),
        ("1101", "002", 100, 0, 0, 0, 100, 0),
        ("1102", "001", 0, 0, 0, 0, 0, 0),
        ("21", "001", 0, 600, 0, 200, 0, 800),
    ]
)
BRANCHES = ("000", "001", "002")


@pytest.fixture(scope="module")
def session(own_schema):
    """Yield a session of the tests' own beside those of the functions under test."""
    with ledger.connected() as opened:
        begin(opened, "owner")
        yield opened


@pytest.fixture(autouse=True)
def chart(session):
    """Write chart and branches of ROWS, and the settings' own rules."""
    set_chart(session, CHART)
    set_branches(session, BRANCHES)


@pytest.fixture
def rules(monkeypatch):
    """Change rules for the ledger."""
    return lambda **changed: [monkeypatch.setattr(ledger.settings.current(), *one) for one in changed.items()]


def replace(rows, **meddling) -> dict:
    return ledger.replace_trial_balance("owner", PERIOD, reading(rows, **meddling))


@hypothesis_settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ledgers())
def test_any_ledger_is_right_or_refused(session, made):
    """Every check is evaluated whatever the others find; the period is the new one, whole, or the old one."""
    chart, rows, branches, limit = made
    set_chart(session, chart)
    set_branches(session, branches)
    before, wanted = written(session), expected_findings(chart, rows, branches)
    unknown = [row for row in rows if row[0] not in chart]
    refused = wanted.keys() & {"inconsistent-balance", "chart-orphan", "empty-chart"}
    if gross(unknown) * 100 > limit * gross(rows):
        refused |= {"unknown-account"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.settings.current(), "ledger_unknown_limit", Decimal(limit))
        try:
            found, error = replace(rows)["findings"], None
        except Refused as caught:
            found, error = recorded(session, "ledger")["findings"], str(caught)
    # Accounts below a missing parent are not reached from a root, so they are in no tree.
    if "chart-orphan" not in wanted:
        assert {one["kind"]: one["count"] for one in found} == wanted
    assert bool(error) == bool(refused)
    assert {one["kind"] for one in found if one["refused"]} >= refused
    assert written(session) == (before if error else expected(chart, rows))


def recorded(session, step: str, owner: str = "owner") -> dict:
    """Return a step's part of the run's row."""
    return session.run("SELECT detail FROM closing_runs WHERE id = CAST(:id AS uuid)", id=runs.run_id(owner))[0][0][
        step
    ]


def kinds(detail: dict) -> dict[str, int]:
    return {one["kind"]: one["count"] for one in detail["findings"]}


def test_a_leaf_of_zero_is_kept_and_an_account_without_value_is_not_written(session):
    def nothing_for_21(balances):
        return [(*one[:3], *[None] * 6) if one[0] == "12" else one for one in balances]

    rows = [*ROWS, ("12", "001", 0, 0, 0, 0, 0, 0)]
    replace(rows, served=nothing_for_21)
    found = written(session)
    assert found["1102", "001"] == (money(0),) * 9
    assert not [key for key in found if key[0] == "12"]
    assert ("1", "003") not in found


def test_an_amount_that_is_missing_beside_others_is_zero(session):
    replace(ROWS, served=lambda rows: [(*r[:3], *(a if Decimal(a) else None for a in r[3:8]), r[8]) for r in rows])
    assert written(session) == expected(CHART, ROWS)


def test_odd_names_arrive_as_they_are(session):
    name = "tab\t back\\slash \\N\nline\rreturn 'quote' \\. ü€"
    replace(ROWS, served=lambda rows: [(one[0], name, *one[2:]) for one in rows])
    found = session.run("SELECT DISTINCT description FROM legacy_trial_balances WHERE chart_of_account_code = '1101'")
    assert found == [[name]]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "~", "1,5", "", Decimal("1.5"), 1.5])
def test_a_value_that_is_no_amount_is_refused_with_its_place(session, value):
    before = written(session)
    with pytest.raises(Refused, match=r"account 1101, branch 002: start_debit is not an amount; correct"):
        replace(ROWS, served=lambda rows: [(*r[:3], value, *r[4:]) if r[2] == "002" else r for r in rows])
    assert written(session) == before


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({0: None}, "account without a code, branch 002: a balance without account or branch"),
        ({0: ""}, "account without a code, branch 002: a balance without account or branch"),
        ({2: None}, "account 1101, branch without a code: a balance without account or branch"),
        ({1: "Kas\0"}, "account 1101, branch 002: a text with a NUL character"),
        ({1: "Kas \udcff"}, "account 1101, branch 002: a text with bytes that are not valid"),
        ({0: "11\udc80"}, r"account 11\?, branch 002: a text with bytes that are not valid"),
    ],
)
def test_a_balance_that_cannot_be_stored_is_refused_with_its_place(session, changed, place):
    """All of them at once: the stream goes on behind the first one."""
    before = written(session)

    def spoilt(rows):
        return [
            tuple(changed.get(n, value) for n, value in enumerate(row)) if row[2] == "002" else row for row in rows
        ] + [("x", None, None, *["0.00"] * 6)]

    with pytest.raises(Refused, match=f"2 balances cannot be stored: {place}.*account x, branch without a code"):
        replace(ROWS, served=spoilt)
    assert written(session) == before
    assert sorted(findings_kept(session, "owner", "bad-balance", "end_debit").values()) == ["0.00", "1.00"]


def test_an_empty_period_is_an_error(session):
    replace(ROWS)
    with pytest.raises(Refused, match="Genius has no balances of this period"):
        replace([])
    assert written(session) == expected(CHART, ROWS)


def test_unknown_accounts_are_written_counted_named_and_logged(session, capsys, rules):
    rules(ledger_unknown_limit=Decimal(100))
    unknown = [(f"x{n:02}", "001", 1, 0, 0, 0, 1, 0) for n in range(30)]
    detail = replace(balanced([*ROWS[:-1], *unknown, ("11", "7", 2, 0, 0, 0, 2, 0)]))
    assert kinds(detail) == {
        "unknown-account": 30, "parent-posting": 1, "unknown-branch": 1, "unbalanced-branch": 4
    }  # fmt: skip
    texts = {one["kind"]: one["text"] for one in detail["findings"]}
    assert texts["unknown-account"].startswith("30 balances of accounts that are not in the chart, ")
    assert texts["unknown-account"].endswith("account x08, branch 001; account x09, branch 001; …")
    assert texts["parent-posting"] == "1 balances of accounts that have children in the chart: account 11, branch 7"
    assert texts["unknown-branch"] == "1 branches that are not in the branch table: branch 7"
    logged = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (logged["event"], logged["period"], logged["findings"]) == ("ledger_findings", PERIOD, detail["findings"])
    assert recorded(session, "ledger")["findings"] == detail["findings"]
    assert written(session)["x29", "001"][0] == money(1)
    kept = findings_kept(session, "owner", "unknown-account")
    assert len(kept) == 30
    assert kept["x29", "001"] == "0.01"


def test_unknown_accounts_can_be_refused_whatever_their_share(session, rules):
    replace(ROWS)
    rules(ledger_unknown_accounts="refuse", ledger_unknown_limit=Decimal(100))
    with pytest.raises(
        Refused, match=r"1 balances of accounts that are not in the chart, .* %\): account x, branch 001; n"
    ):
        replace(balanced([("x", "001", 1, 0, 0, 0, 1, 0)]))
    assert written(session) == expected(CHART, ROWS)


@pytest.mark.parametrize(("limit", "refused"), [("49.99", True), ("50", False)])
def test_the_share_of_unknown_accounts_is_gross(session, rules, limit, refused):
    """Two unknown balances that cancel out are still half of the whole."""
    rows = [
        ("1101", "001", 100, 0, 7, 0, 107, 0),
        ("21", "001", 0, 100, 0, 7, 0, 107),
        ("x", "001", 100, 0, 7, 0, 107, 0),
        ("y", "001", 0, 100, 0, 7, 0, 107),
    ]
    rules(ledger_unknown_limit=Decimal(limit))
    if refused:
        with pytest.raises(Refused, match=r"50.00 % of the gross sum \(limit 49.99 %\): account x, branch 001"):
            replace(rows)
    else:
        assert kinds(replace(rows)) == {"unknown-account": 2}


def test_a_zero_sum_has_no_share(session, rules):
    rules(ledger_unknown_limit=Decimal(0))
    assert kinds(replace([("x", "001", *[0] * 6)])) == {"unknown-account": 1}


def test_an_empty_chart_is_refused(session):
    replace(ROWS)
    set_chart(session, {})
    with pytest.raises(Refused, match="the chart of accounts is empty; load it; 5 balances of accounts"):
        replace(ROWS)
    assert written(session) == expected(CHART, ROWS)


def test_a_chart_of_which_a_half_is_missing_is_refused(session):
    replace(ROWS)
    set_chart(session, {code: parent for code, parent in CHART.items() if not code.startswith("11")})
    with pytest.raises(Refused, match=r"3 balances of accounts .*account 1101, branch 001; account 1101, branch 002"):
        replace(ROWS)
    assert written(session) == expected(CHART, ROWS)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"21": "22"}, "1 accounts whose parent is not in it: 21 under 22"),
        ({"1": "1101"}, "cycle: 1 → 1101 → 11 → 1"),
        ({"1": "1"}, "cycle: 1 → 1;"),
    ],
)
def test_a_broken_tree_is_a_clear_error(session, wrong, text):
    replace(ROWS)
    before = written(session)
    set_chart(session, CHART | wrong)
    with pytest.raises(Refused, match=text):
        replace(ROWS)
    assert written(session) == before


def test_a_short_load_is_reported_by_account_and_branch(session):
    replace(ROWS)
    served = itertools.cycle([lambda rows: rows[:-1], lambda rows: rows])
    with pytest.raises(Refused, match=r"totals: rows 4 of 5.*; account 9, branch 000; nothing was replaced"):
        replace(ROWS, served=lambda rows: iter(next(served)(rows)))
    assert written(session) == expected(CHART, ROWS)


def test_a_changed_amount_is_reported_by_account_and_branch(session):
    served = itertools.cycle([lambda r: [(*r[0][:3], "5.01", *r[0][4:]), *r[1:]], lambda rows: rows])
    with pytest.raises(Refused, match=r"BEGINNING_DEBIT 6.01 of 6.00; account 1101, branch 001; .*start and movement"):
        replace(ROWS, served=lambda rows: iter(next(served)(rows)))
    ((amounts,),) = session.run(
        "SELECT amounts #>> '{found,start_debit}' FROM closing_findings WHERE kind LIKE 'load%'"
    )
    assert amounts == "5.01"


def test_debit_that_is_not_credit_is_reported_with_branch_and_account(session):
    rows = [*ROWS[:-1], (*ROWS[-1][:2], 0, 0, 0, 1, 0, 300)]
    with pytest.raises(Refused) as refused:
        replace(rows)
    assert "debit and credit differ: movement debit 3.00 and credit 3.01, end debit 8.00 and credit 11.00" in str(
        refused.value
    )
    assert "do not make their end: account 9, branch 000" in str(refused.value)
    assert findings_kept(session, "owner", "inconsistent-balance", "end_credit") == {("9", "000"): "3.00"}


def test_balances_whose_ends_do_not_follow_are_refused_though_the_totals_agree(session, rules):
    """Two errors that cancel out: the totals of the period balance."""
    replace(ROWS)
    wrong = [*ROWS, ("1102", "002", 0, 0, 0, 0, 5, 0), ("21", "002", 0, 0, 0, 0, 0, 5)]
    with pytest.raises(Refused, match=r"2 balances .* do not make their end: account 1102, branch 002; account 21, "):
        replace(wrong)
    assert written(session) == expected(CHART, ROWS)
    assert findings_kept(session, "owner", "inconsistent-balance", "end_debit")["1102", "002"] == "0.05"
    rules(ledger_inconsistent="report")
    assert kinds(replace(wrong))["inconsistent-balance"] == 2
    assert written(session) == expected(CHART, wrong)


def test_messages_and_closing_runs_have_no_amount_of_an_account(session, capsys):
    """Every kind of finding, with amounts that nothing else has."""
    set_chart(session, CHART)
    marked = [("x", "77", 918273645, 0, 0, 0, 0, 0), ("11", "77", 0, 918273645, 0, 0, 0, 0)]
    with pytest.raises(Refused) as refused:
        replace([*ROWS, *marked])
    row = session.run("SELECT detail::text || message FROM closing_runs WHERE owner = 'owner'")[0][0]
    for text in (str(refused.value), row, capsys.readouterr().err):
        assert "account x, branch 77" in text
        assert "9182736" not in text.replace("BEGINNING_DEBIT", "")
    assert findings_kept(session, "owner", "unknown-account") == {("x", "77"): "9182736.45"}
    assert set(findings_kept(session, "owner", "inconsistent-balance")) == {("x", "77"), ("11", "77")}


@pytest.mark.parametrize("account", ["1101", "11", "1"])
def test_a_row_that_is_not_stored_as_computed_is_reported_by_account_and_branch(session, account):
    replace(ROWS)
    session.run(
        "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " $f$ BEGIN NEW.end_credit := NEW.end_credit + 0.01; RETURN NEW; END $f$"
    )
    session.run(
        "CREATE TRIGGER meddle BEFORE INSERT ON legacy_trial_balances FOR EACH ROW"
        f" WHEN (NEW.chart_of_account_code = '{account}' AND NEW.branch_code = '001') EXECUTE FUNCTION meddle()"
    )
    try:
        with pytest.raises(Refused, match=f"account {account}, branch 001; .*nothing was replaced"):
            replace(ROWS)
    finally:
        session.run("DROP TRIGGER meddle ON legacy_trial_balances")
    assert written(session) == expected(CHART, ROWS)
    ((found, wanted),) = session.run(
        "SELECT amounts #>> '{found,end_credit}', amounts #>> '{expected,end_credit}' FROM closing_findings"
        " WHERE kind = 'written-difference' AND account = :account LIMIT 1",
        account=account,
    )
    assert Decimal(found) - Decimal(wanted) == money(1)


def test_a_row_that_is_stored_twice_is_reported(session):
    """The second one has another currency, so account and branch are the same and the unique key permits it."""
    session.run(
        "CREATE OR REPLACE FUNCTION repeat() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.id := gen_random_uuid();"
        " NEW.currency_code := 'USD'; INSERT INTO legacy_trial_balances SELECT NEW.*; RETURN NULL; END $f$"
    )
    session.run(
        "CREATE TRIGGER repeat AFTER INSERT ON legacy_trial_balances FOR EACH ROW"
        " WHEN (NEW.chart_of_account_code = '1101' AND NEW.currency_code = 'IDR') EXECUTE FUNCTION repeat()"
    )
    try:
        with pytest.raises(Refused, match="rows that are not as rolled up, 12 of 10, on the same accounts"):
            replace(ROWS)
    finally:
        session.run("DROP TRIGGER repeat ON legacy_trial_balances")


def test_roots_that_are_not_their_leaves_are_reported(session, monkeypatch):
    """A roll-up that loses a level writes what it computed; the roots show it."""
    monkeypatch.setattr(rollup, "ADD_LEVEL", rollup.ADD_LEVEL.replace(":depth + 1", ":depth + 2"))
    with pytest.raises(Refused, match="roots that are not the sum of their leaves: account 1, branch 001"):
        replace(ROWS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER chart_of_account_code TYPE varchar(3)", "value too long for type character varying"),
        ("ALTER description TYPE varchar(9)", "value too long for type character varying"),
        ("ALTER movement_debit TYPE numeric(4, 2)", "numeric field overflow"),
        ("ADD CONSTRAINT small CHECK (start_debit < 4 OR branch_code <> '002') NOT VALID", "violates check constraint"),
    ],
)
def test_a_row_that_the_table_does_not_take_is_named_without_its_amounts(session, change, reason):
    rows = balanced([("1101", "002", 500, 0, 98765, 0, 99265, 0)])
    replace(ROWS)
    session.run("CREATE TABLE spare (LIKE legacy_trial_balances INCLUDING ALL)")
    session.run("ALTER TABLE legacy_trial_balances RENAME TO usual; ALTER TABLE spare RENAME TO legacy_trial_balances")
    session.run(f"ALTER TABLE legacy_trial_balances {change}")
    try:
        with pytest.raises(
            Refused, match=rf"PostgreSQL refuses a row: account 1\d*, branch 002: .*{reason}"
        ) as refused:
            replace(rows)
        assert "987.65" not in str(refused.value)
        assert "Failing row" not in str(refused.value)
        assert list(findings_kept(session, "owner", "refused-row", "movement_debit").values()) == ["987.65"]
    finally:
        session.run("DROP TABLE legacy_trial_balances; ALTER TABLE usual RENAME TO legacy_trial_balances")


def test_rows_are_taken_from_genius_as_they_are_sent():
    taken = itertools.count()
    rows = ((*one[:2], str(next(taken)), *one[3:]) for one in as_genius(ROWS * 5000))
    chunks = balances.Copied("utf-8", {}).text(rows)
    assert next(chunks).count("\n") == balances.CHUNK_LINES
    assert next(taken) == balances.CHUNK_LINES


def test_ids_grow_and_are_uuids_of_version_8(session):
    replace(ROWS)
    ids = [
        one
        for (one,) in session.run("SELECT id FROM legacy_trial_balances ORDER BY chart_of_account_code, branch_code")
    ]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {8}
    replace(ROWS)
    assert session.run("SELECT min(id::text) FROM legacy_trial_balances")[0][0] > str(ids[-1])


def test_schema_is_repeatable(session):
    assert schema.apply() == schema.apply() == "rollup_test"
