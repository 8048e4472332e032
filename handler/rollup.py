"""A period's trial balance as set-based SQL: loaded, rolled up along the account tree, checked.

Every function takes a session of ledger.connected() with a transaction open, in which all of it happens.
"""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal

from . import deadline
from .errors import Refused, Unavailable

CHUNK_LINES = 2000
SHOWN = 20

# Genius' name of each amount -> our column.
COLUMNS = {
    "BEGINNING_DEBIT": "start_debit",
    "BEGINNING_CREDIT": "start_credit",
    "DEBIT_AMOUNT": "movement_debit",
    "CREDIT_AMOUNT": "movement_credit",
    "ENDING_DEBIT": "end_debit",
    "ENDING_CREDIT": "end_credit",
}
AMOUNTS = ", ".join(COLUMNS.values())
SUMS = ", ".join(f"sum({column}) AS {column}" for column in COLUMNS.values())
KINDS = ("start", "movement", "end")

# Nothing knows how many rows this transaction writes: where one is expected a nested loop over them takes minutes.
PLANNING = "SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '64MB'"

# A cycle hangs on no root and is never entered.
CREATE_TREE = """
CREATE TEMPORARY TABLE tree ON COMMIT DROP AS
WITH RECURSIVE walk (code, parent, root, depth) AS (
  SELECT code, parent_code, code, 1 FROM legacy_chart_of_accounts WHERE parent_code IS NULL
  UNION ALL
  SELECT chart.code, chart.parent_code, root, depth + 1
    FROM walk JOIN legacy_chart_of_accounts chart ON chart.parent_code = walk.code
)
SELECT code, parent, root, depth,
       EXISTS (SELECT FROM legacy_chart_of_accounts child WHERE child.parent_code = walk.code) AS bears
  FROM walk"""
ORPHANS = """
SELECT code, parent_code FROM legacy_chart_of_accounts chart
 WHERE parent_code IS NOT NULL
   AND NOT EXISTS (SELECT FROM legacy_chart_of_accounts parent WHERE parent.code = chart.parent_code)
 ORDER BY code LIMIT :shown"""
CYCLE = """
WITH RECURSIVE climb (code, parent, way) AS (
  SELECT code, parent_code, ARRAY[code] FROM legacy_chart_of_accounts
   WHERE code NOT IN (SELECT code FROM tree)
  UNION ALL
  SELECT chart.code, chart.parent_code, way || chart.code
    FROM climb JOIN legacy_chart_of_accounts chart ON chart.code = climb.parent
   WHERE NOT climb.parent = ANY (way)
)
SELECT array_to_string(way || parent, ' → ') FROM climb WHERE parent = way[1] ORDER BY way LIMIT 1"""

CREATE_LOADED = """
CREATE TEMPORARY TABLE {table} (
  account text NOT NULL, description text, branch text NOT NULL, {columns}
) ON COMMIT DROP"""
LOADED_TOTALS = f"""
SELECT count(*), {", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS.values())} FROM incoming"""

STRAYS = """
SELECT account, count(*) FROM incoming LEFT JOIN tree ON code = account
 WHERE {condition} GROUP BY account ORDER BY account"""

# What stands at the ends of the tree, and, by itself, what the chart does not know.
LEAVES = f"""
SELECT account, description, branch, {AMOUNTS} FROM incoming LEFT JOIN tree ON code = account
 WHERE bears IS NOT TRUE"""
# Parents, a level at a time from the lowest: branch by branch the sum of the level below and of their own postings.
CREATE_PARENTS = f"""
CREATE TEMPORARY TABLE parents ON COMMIT DROP AS SELECT account, description, branch, {AMOUNTS} FROM incoming LIMIT 0"""
ADD_LEVEL = f"""
INSERT INTO parents
SELECT account, max(description), branch, {SUMS} FROM (
  SELECT parent AS account, NULL AS description, branch, {AMOUNTS}
    FROM ({LEAVES} UNION ALL SELECT * FROM parents) below JOIN tree ON code = account WHERE depth = :depth + 1
  UNION ALL
  SELECT account, description, branch, {AMOUNTS} FROM incoming JOIN tree ON code = account
   WHERE depth = :depth AND bears
) own_and_below GROUP BY account, branch"""

# In the order of the table's unique key and with ids that grow: an index takes rows in order in half the time.
WRITE = f"""
INSERT INTO legacy_trial_balances (
  id, chart_of_account_code, description, branch_code, year, month, currency_code,
  {", ".join(f"{kind}_debit, {kind}_credit, {kind}_balance" for kind in KINDS)}, created_at, updated_at)
SELECT CAST(CAST(:prefix AS text) || lpad(to_hex(row_number() OVER (ORDER BY account, branch)), 12, '0') AS uuid),
  account, coalesce(description, name), branch, :year, :month, 'IDR',
  {", ".join(f"{kind}_debit, {kind}_credit, {kind}_debit - {kind}_credit" for kind in KINDS)}, now(), now()
  FROM ({LEAVES} UNION ALL SELECT * FROM parents) balance
  LEFT JOIN legacy_chart_of_accounts chart ON chart.code = account ORDER BY account, branch"""

WRITTEN = f"""
(SELECT chart_of_account_code AS account, branch_code AS branch, {AMOUNTS}
   FROM legacy_trial_balances WHERE year = :year AND month = :month)"""


def difference(found: str, expected: str) -> str:
    """SQL for the first places where two sets of amounts differ: account, branch, what is there, what should be."""
    sides = {side: ", ".join(f"{side}.{column}" for column in COLUMNS.values()) for side in ("found", "expected")}
    return f"""
SELECT account, branch, {sides["found"]}, {sides["expected"]}
  FROM ({found}) found FULL JOIN ({expected}) expected USING (account, branch)
 WHERE ({sides["found"]}) IS DISTINCT FROM ({sides["expected"]})
 ORDER BY account, branch LIMIT 3"""


# What is asked of the rows as they stand in the table, before the commit.
CHECKS = {
    "rows as rolled up": difference(
        f"SELECT * FROM {WRITTEN} written",
        f"SELECT account, branch, {AMOUNTS} FROM ({LEAVES} UNION ALL SELECT * FROM parents) balance",
    ),
    "roots against leaves": difference(
        f"SELECT written.* FROM {WRITTEN} written JOIN tree ON code = account WHERE depth = 1",
        f"SELECT root AS account, branch, {SUMS} FROM incoming JOIN tree ON code = account GROUP BY root, branch",
    ),
}
RELOADED = difference(
    f"SELECT account, branch, {AMOUNTS} FROM incoming", f"SELECT account, branch, {AMOUNTS} FROM again"
)
UNBALANCED = f"""
SELECT branch, {", ".join(f"sum({kind}_debit - {kind}_credit)" for kind in KINDS)} FROM incoming
 GROUP BY branch HAVING {" OR ".join(f"sum({kind}_debit - {kind}_credit) <> 0" for kind in KINDS)}
 ORDER BY branch LIMIT 3"""
INCONSISTENT = f"""
SELECT account, branch, {", ".join(f"{kind}_debit - {kind}_credit" for kind in KINDS)} FROM incoming
 WHERE start_debit - start_credit + movement_debit - movement_credit <> end_debit - end_credit
 ORDER BY account, branch LIMIT 3"""


def read_tree(session) -> None:
    """Make the temporary table tree of the whole chart; raises Refused for an orphan and for a cycle."""
    session.run(CREATE_TREE)
    ((reached, known),) = session.run("SELECT count(*), (SELECT count(*) FROM legacy_chart_of_accounts) FROM tree")
    if reached == known:
        session.run("ANALYZE tree")
        return
    orphans = session.run(ORPHANS, shown=SHOWN)
    if orphans:
        named = ", ".join(f"{code} under {parent}" for code, parent in orphans)
        raise Refused(f"the account tree has orphans, whose parent is not in the chart: {named}; nothing was replaced")
    ((way,),) = session.run(CYCLE)
    raise Refused(f"the account tree has a cycle: {way}; correct parent_code in the chart; nothing was replaced")


def load(session, table: str, balances: Iterable[tuple]) -> int:
    """Stream balances into a new temporary table; returns how many there were, those without a value included."""
    columns = ", ".join(f"{column} numeric NOT NULL" for column in COLUMNS.values())
    session.run(CREATE_LOADED.format(table=table, columns=columns))
    tally = {"rows": 0}
    session.run(f"COPY {table} FROM STDIN", stream=copy_text(balances, tally))
    return tally["rows"]


def copy_text(balances: Iterable[tuple], tally: dict) -> Iterator[str]:
    """Balances as chunks of COPY text; tally["rows"] counts them as they pass.

    An account for which Genius has no amount at all is counted and left out; beside another amount a missing one
    is 0, as it is to Oracle's SUM.
    """
    lines = []
    for account, description, branch, *amounts in balances:
        tally["rows"] += 1
        try:
            finite = all([amount.is_finite() for amount in amounts])
        except AttributeError:
            finite = False
        if not finite:
            if all(amount is None for amount in amounts):
                continue
            amounts = [Decimal(0) if amount is None else amount for amount in amounts]
        if not finite or not account or not branch:
            check_balance(account, branch, amounts)
        lines.append("\t".join((escaped(account), escaped(description), escaped(branch), *map(str, amounts))))
        if len(lines) == CHUNK_LINES:
            if deadline.left() < 0:
                # An error here ends the connection, and PostgreSQL drops what it has got.
                raise Unavailable(
                    f"the invocation's time was over after {tally['rows']} balances; nothing was replaced"
                )
            yield "\n".join(lines) + "\n"
            lines.clear()
    if lines:
        yield "\n".join(lines) + "\n"


def check_balance(account: str | None, branch: str | None, amounts: list) -> None:
    where = f"account {account or 'without a code'}, branch {branch or 'without a code'}"
    if not account or not branch:
        raise Refused(f"{where}: a balance that nobody can place; correct it in Genius; nothing was replaced")
    for amount in amounts:
        if not isinstance(amount, Decimal) or not amount.is_finite():
            raise Refused(f"{where}: {amount} is not an amount; correct it in Genius; nothing was replaced")


@functools.lru_cache(maxsize=8192)
def escaped(value: str | None) -> str:
    """A text as COPY takes it; accounts, branches and names come again and again."""
    if value is None:
        return r"\N"
    return re.sub(r"[\\\t\n\r]", lambda match: ESCAPES[match[0]], value)


ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def check_loaded(session, period: str, read: int, totals: dict, read_again) -> None:
    """Compare what was loaded with Genius' totals.

    read_again: returns the balances of the same moment once more; where the totals differ, the two readings are
    compared and the first places where they differ are named.
    """
    (loaded,) = session.run(LOADED_TOTALS)
    found = {"rows": read, **dict(zip(COLUMNS, loaded[1:]))}
    if found == totals:
        return
    differing = ", ".join(f"{name} {found[name]} of {totals[name]}" for name in totals if found[name] != totals[name])
    load(session, "again", read_again())
    places = session.run(RELOADED)
    named = places_text(places, "loaded", "in Genius") or "read again, every account and branch is the same"
    raise Refused(f"{period}: what was loaded differs from Genius' totals: {differing}; {named}; nothing was replaced")


def places_text(places: list, found: str, expected: str) -> str:
    return "; ".join(place_text(place, found, expected) for place in places)


def place_text(place: list, found: str, expected: str) -> str:
    """One row of a difference in words: the first amount that differs, by account and branch."""
    account, branch, *amounts = place
    here, there = amounts[: len(COLUMNS)], amounts[len(COLUMNS) :]
    column, one, other = next(
        (column, one, other) for column, one, other in zip(COLUMNS.values(), here, there) if one != other
    )
    one, other = ("nothing" if value is None else value for value in (one, other))
    return f"account {account}, branch {branch}: {column} is {one} {found}, {other} {expected}"


def check_balanced(session, period: str, totals: dict) -> None:
    """Debit equals credit, at the start, in the movements and at the end."""
    pairs = {kind: (totals[debit], totals[credit]) for kind, debit, credit in zip(KINDS, *[iter(COLUMNS)] * 2)}
    if all(debit == credit for debit, credit in pairs.values()):
        return
    said = [
        f"{kind} debit {debit} and credit {credit} differ" for kind, (debit, credit) in pairs.items() if debit != credit
    ]
    for branch, *differences in session.run(UNBALANCED):
        kinds = ", ".join(f"{kind} {value:+}" for kind, value in zip(KINDS, differences) if value)
        said.append(f"branch {branch} is out by {kinds}")
    for account, branch, start, movement, end in session.run(INCONSISTENT):
        said.append(f"account {account}, branch {branch}: start {start} and movement {movement} do not make end {end}")
    raise Refused(f"{period}: {'; '.join(said)}; nothing was replaced")


def find_strays(session) -> dict:
    """Balances outside the leaves of the tree, counted by account and the first ones named."""
    found = {}
    for name, condition in (("unknownAccount", "code IS NULL"), ("parentPosting", "bears")):
        rows = session.run(STRAYS.format(condition=condition))
        found[f"{name}s"] = [f"{account} ({count} balances)" for account, count in rows[:SHOWN]]
        found[f"{name}Count"] = len(rows)
    return found


def strays_text(strays: dict) -> str:
    """The strays in one line, or nothing."""
    said = []
    for name, words in (("unknownAccount", "not in the chart"), ("parentPosting", "with children in the chart")):
        if strays[f"{name}Count"]:
            more = ", …" if strays[f"{name}Count"] > SHOWN else ""
            said.append(f"{strays[f'{name}Count']} accounts {words}: {', '.join(strays[f'{name}s'])}{more}")
    return "; ".join(said)


def write(session, year: int, month: int) -> int:
    """Put the rolled-up balances in the place of the period's rows; returns how many rows were written."""
    session.run(CREATE_PARENTS)
    ((deepest,),) = session.run("SELECT coalesce(max(depth), 0) FROM tree")
    for depth in range(deepest - 1, 0, -1):
        session.run(ADD_LEVEL, depth=depth)
    session.run("DELETE FROM legacy_trial_balances WHERE year = :year AND month = :month", year=year, month=month)
    session.run(WRITE, year=year, month=month, prefix=id_prefix())
    return session.row_count


def id_prefix() -> str:
    """The first 20 digits of the ids of one replacement: a UUID of version 8, by time, so that they grow
    from one replacement to the next."""
    digits = f"{int(time.time() * 1000):012x}8{secrets.token_hex(2)[1:]}"
    return f"{digits}8{secrets.token_hex(2)[1:]}"


def check_written(session, period: str) -> None:
    """Raise Refused unless the written rows are Genius' leaves and the sums of them all the way up."""
    year, month = (int(part) for part in period.split("-"))
    for name, sql in CHECKS.items():
        places = session.run(sql, year=year, month=month)
        if places:
            named = places_text(places, "as written", "expected")
            raise Refused(f"{period}: {name}: {named}; nothing was replaced")
