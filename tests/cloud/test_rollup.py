"""The roll-up in PostgreSQL against an independent one, and what is refused, on tables of their own."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.rollup_helpers import PERIOD, as_genius, balanced, begin, expected, money, reading, set_chart, written

from handler import ledger, rollup, schema
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


@pytest.fixture(scope="module")
def session(own_schema):
    """A session of the tests' own beside those of the functions under test."""
    with ledger.connected() as opened:
        begin(opened, "owner")
        set_chart(opened, CHART)
        yield opened


@pytest.fixture(autouse=True)
def chart(session):
    yield
    set_chart(session, CHART)


def replace(rows, **meddling) -> dict:
    return ledger.replace_trial_balance("owner", PERIOD, reading(rows, **meddling))


@st.composite
def ledgers(draw):
    """A chart and rows: any forest; postings to leaves, parents and accounts that are not in it."""
    codes = [f"a{number}" for number in range(draw(st.integers(1, 12)))]
    chart: dict[str, str | None] = {"9": None}
    for place, code in enumerate(codes):
        chart[code] = draw(st.sampled_from([None, *codes[:place]]))
    places = draw(st.sets(st.tuples(st.sampled_from([*codes, "u1", "u2"]), st.sampled_from("αbc")), max_size=20))
    size = draw(st.sampled_from([0, 10**4, 10**38 - 1]))
    cents = st.one_of(st.just(0), st.integers(-size, size))
    rows = [(*place, *draw(st.tuples(*[cents] * 4)), 0, 0) for place in sorted(places)]
    # What an account has at the end follows from the rest, as in any ledger.
    rows = [(*row[:6], row[2] + row[4], row[3] + row[5]) for row in rows]
    return chart, balanced(rows)


@hypothesis_settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ledgers())
def test_any_ledger_is_rolled_up_as_in_python(session, made):
    chart, rows = made
    set_chart(session, chart)
    detail = replace(rows)
    assert written(session) == expected(chart, rows)
    parents = set(chart.values())
    assert detail["unknownAccountCount"] == len({account for account, *_ in rows if account not in chart})
    assert detail["parentPostingCount"] == len({account for account, *_ in rows if account in parents})


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
    replace(ROWS, served=lambda rows: [(*r[:3], *(a if a else None for a in r[3:8]), r[8]) for r in rows])
    assert written(session) == expected(CHART, ROWS)


def test_odd_names_arrive_as_they_are(session):
    name = "tab\t back\\slash \\N\nline\rreturn 'quote' \\. ü€"
    replace(ROWS, served=lambda rows: [(one[0], name, *one[2:]) for one in rows])
    found = session.run("SELECT DISTINCT description FROM legacy_trial_balances WHERE chart_of_account_code = '1101'")
    assert found == [[name]]


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), 1.5])
def test_what_is_no_amount_is_refused_by_name(session, value):
    before = written(session)
    with pytest.raises(Refused, match=r"account 1101, branch 002: .* is not an amount"):
        replace(ROWS, served=lambda rows: [(*r[:3], value, *r[4:]) if r[2] == "002" else r for r in rows])
    assert written(session) == before


def test_an_empty_period_is_an_error(session):
    replace(ROWS)
    with pytest.raises(Refused, match="Genius has no balances of this period"):
        replace([])
    assert written(session) == expected(CHART, ROWS)


def test_strays_are_written_counted_named_and_logged(session, capsys):
    strays = [(f"x{n:02}", "001", 1, 0, 0, 0, 1, 0) for n in range(30)]
    detail = replace(balanced([*ROWS[:-1], *strays, ("11", "7", 2, 0, 0, 0, 2, 0)]))
    assert (detail["unknownAccountCount"], len(detail["unknownAccounts"])) == (30, 20)
    assert detail["unknownAccounts"][0] == "x00 (1 balances)"
    assert (detail["parentPostingCount"], detail["parentPostings"]) == (1, ["11 (1 balances)"])
    logged = json.loads(capsys.readouterr().err)
    assert (logged["event"], logged["period"], logged["unknownAccountCount"]) == ("stray_postings", PERIOD, 30)
    assert logged["parentPostings"] == ["11 (1 balances)"]
    assert written(session)["x29", "001"][0] == money(1)


def test_strays_can_fail_the_closing(session, monkeypatch):
    replace(ROWS)
    monkeypatch.setattr(ledger.settings.current(), "ledger_unknown_accounts", "refuse")
    with pytest.raises(
        Refused, match=r"1 accounts not in the chart: x \(1 balances\); LEDGER_UNKNOWN_ACCOUNTS is refuse"
    ):
        replace(balanced([("x", "001", 1, 0, 0, 0, 1, 0)]))
    assert written(session) == expected(CHART, ROWS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"21": "22"}, "orphans, .*: 21 under 22"),
        ({"1": "1101"}, "cycle: 1 → 1101 → 11 → 1"),
        ({"1": "1"}, "cycle: 1 → 1;"),
    ],
)
def test_a_broken_tree_is_a_clear_error(session, wrong, said):
    replace(ROWS)
    before = written(session)
    set_chart(session, CHART | wrong)
    with pytest.raises(Refused, match=said):
        replace(ROWS)
    assert written(session) == before


def test_a_short_load_is_told_by_account_and_branch(session):
    replace(ROWS)
    served = itertools.cycle([lambda rows: rows[:-1], lambda rows: rows])
    with pytest.raises(Refused, match=r"rows 4 of 5; account 9, branch 000: start_debit is nothing loaded, 0.00 in"):
        replace(ROWS, served=lambda rows: iter(next(served)(rows)))
    assert written(session) == expected(CHART, ROWS)


def test_a_changed_amount_is_told_by_account_and_branch(session):
    served = itertools.cycle([lambda r: [(*r[0][:3], money(501), *r[0][4:]), *r[1:]], lambda rows: rows])
    with pytest.raises(Refused, match=r"account 1101, branch 001: start_debit is 5.01 loaded, 5.00 in Genius"):
        replace(ROWS, served=lambda rows: iter(next(served)(rows)))


def test_debit_that_is_not_credit_is_told_by_branch_and_account(session):
    rows = [*ROWS[:-1], (*ROWS[-1][:2], 0, 0, 0, 1, 0, 300)]
    with pytest.raises(Refused) as refused:
        replace(rows)
    assert "end debit 8.00 and credit 11.00 differ" in str(refused.value)
    assert "branch 000 is out by movement -0.01, end -3.00" in str(refused.value)
    assert "account 9, branch 000: start 0.00 and movement -0.01 do not make end -3.00" in str(refused.value)


@pytest.mark.parametrize("account", ["1101", "11", "1"])
def test_a_row_that_is_not_stored_as_computed_is_told_by_account_and_branch(session, account):
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
        with pytest.raises(Refused, match=f"account {account}, branch 001: end_credit is .*; nothing was replaced"):
            replace(ROWS)
    finally:
        session.run("DROP TRIGGER meddle ON legacy_trial_balances")
    assert written(session) == expected(CHART, ROWS)


def test_roots_that_are_not_their_leaves_are_told(session, monkeypatch):
    """A roll-up that loses a level writes what it computed; the roots give it away."""
    monkeypatch.setattr(rollup, "ADD_LEVEL", rollup.ADD_LEVEL.replace(":depth + 1", ":depth + 2"))
    with pytest.raises(Refused, match="roots against leaves: account 1, branch 001: start_debit is nothing as written"):
        replace(ROWS)


def test_rows_are_taken_from_genius_as_they_are_sent():
    taken = itertools.count()
    rows = ((*one[:2], str(next(taken)), *one[3:]) for one in as_genius(ROWS * 5000))
    chunks = rollup.copy_text(rows, {"rows": 0})
    assert next(chunks).count("\n") == rollup.CHUNK_LINES
    assert next(taken) == rollup.CHUNK_LINES


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
