"""A period's trial balance as set-based SQL: loaded, rolled up along the account tree, checked.

Every function takes a session of postgres.connected() with a transaction open, in which all of it happens. A check
returns its findings and decides nothing, so that every check is evaluated every time. A finding's text names accounts
and branches; their amounts go from table to table, into closing_findings.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

from .balances import COLUMNS, Account, Copied
from .errors import Refused, clean
from .findings import KEPT, SHOWN, Finding, finding, place_names

AMOUNTS = ", ".join(COLUMNS.values())
SUMS = ", ".join(f"sum({column}) AS {column}" for column in COLUMNS.values())
KINDS = ("start", "movement", "end")
BALANCES = {kind: f"{kind}_debit - {kind}_credit" for kind in KINDS}

# PostgreSQL cannot know how many rows this transaction writes: if it expects one, a nested loop takes minutes, and if
# it expects few, it sorts for a merge join, which takes longer than to hash.
PLANNING = "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; SET LOCAL work_mem = '64MB'"

# The accounts of a cycle have no root above them, so the query does not reach them.
CREATE_TREE = """
CREATE TEMPORARY TABLE tree ON COMMIT DROP AS
WITH RECURSIVE walk (code, name, parent, root, depth) AS (
  SELECT code, name, parent_code, code, 1 FROM legacy_chart_of_accounts WHERE parent_code IS NULL
  UNION ALL
  SELECT chart.code, chart.name, chart.parent_code, root, depth + 1
    FROM walk JOIN legacy_chart_of_accounts chart ON chart.parent_code = walk.code
)
SELECT code, name, parent, root, depth,
       EXISTS (SELECT FROM legacy_chart_of_accounts child WHERE child.parent_code = walk.code) AS is_parent
  FROM walk"""
ORPHANS = """
SELECT code, parent_code FROM legacy_chart_of_accounts chart
 WHERE parent_code IS NOT NULL
   AND NOT EXISTS (SELECT FROM legacy_chart_of_accounts parent WHERE parent.code = chart.parent_code)
 ORDER BY code"""
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

# The balances of Genius, and then the sums of the parents above them. An account that is not in the chart has no root;
# a parent's own balance has no account, and counts as one more child of that parent.
CREATE_LOADED = """
CREATE TEMPORARY TABLE {table} (
  account text, parent text, root text, depth int, description text, branch text NOT NULL, {columns},
  summed boolean NOT NULL DEFAULT false
) ON COMMIT DROP"""

# One pass over all balances counts for every check; the places of a finding are queried afterwards.
INCONSISTENT = f"{BALANCES['start']} + {BALANCES['movement']} <> {BALANCES['end']}"
CREATE_BY_ROOT = f"""
CREATE TEMPORARY TABLE by_root ON COMMIT DROP AS
SELECT root, branch, {SUMS}, count(*) FILTER (WHERE root IS NULL) AS unknown,
       count(*) FILTER (WHERE account IS NULL) AS on_parents, count(*) FILTER (WHERE {INCONSISTENT}) AS inconsistent
  FROM balances GROUP BY root, branch"""
CREATE_BY_BRANCH = f"""
CREATE TEMPORARY TABLE by_branch ON COMMIT DROP AS
SELECT branch, {SUMS}, sum(unknown) AS unknown, sum(on_parents) AS on_parents, sum(inconsistent) AS inconsistent
  FROM by_root GROUP BY branch"""
OVERVIEW = f"""
SELECT {", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS.values())},
       coalesce(sum(unknown), 0), coalesce(sum(on_parents), 0), coalesce(sum(inconsistent), 0),
       count(*) FILTER (WHERE branch NOT IN (SELECT code FROM branches WHERE code IS NOT NULL)),
       count(*) FILTER (WHERE {" OR ".join(f"{balance} <> 0" for balance in BALANCES.values())})
  FROM by_branch"""
GROSS = f"abs({BALANCES['start']}) + abs(movement_debit) + abs(movement_credit) + abs({BALANCES['end']})"
UNKNOWN_SHARE = f"SELECT sum({GROSS}), sum({GROSS}) FILTER (WHERE root IS NULL) FROM balances"


def amounts_object(prefix: str = "") -> str:
    pairs = ", ".join(f"'{column}', {prefix}{column}" for column in COLUMNS.values())
    return f"jsonb_build_object({pairs})"


def places(source: str) -> str:
    """Return SQL for the first balances or branches of a source: account, branch, amounts as JSON text."""
    account = "coalesce(account, parent) AS account" if source.startswith("balances") else "NULL AS account"
    return f"""
SELECT {account}, branch, CAST({amounts_object()} AS text) FROM {source}
 ORDER BY 1, 2 LIMIT {KEPT}"""


# Kind of finding -> its words, and the query for its places.
BALANCE_CHECKS = {
    "unknown-account": (
        "balances of accounts that are not in the chart",
        places("balances WHERE root IS NULL"),
    ),
    "parent-posting": (
        "balances of accounts that have children in the chart",
        places("balances WHERE account IS NULL"),
    ),
    "inconsistent-balance": (
        "balances whose start and movement do not make their end",
        places(f"balances WHERE {INCONSISTENT}"),
    ),
    "unknown-branch": (
        "branches that are not in the branch table",
        places("by_branch WHERE branch NOT IN (SELECT code FROM branches WHERE code IS NOT NULL)"),
    ),
    "unbalanced-branch": (
        "branches whose debit and credit differ",
        places(f"by_branch WHERE {' OR '.join(f'{balance} <> 0' for balance in BALANCES.values())}"),
    ),
}


# A level of parents: branch by branch the sum of the level below and of their own balances.
ADD_LEVEL = f"""
INSERT INTO balances (account, parent, root, depth, description, branch, {AMOUNTS}, summed)
SELECT code, tree.parent, root, depth, coalesce(own, name), branch, {AMOUNTS}, true
  FROM (SELECT parent AS code, branch, max(description) FILTER (WHERE account IS NULL) AS own, {SUMS}
          FROM balances WHERE depth = :depth + 1 GROUP BY parent, branch) below
  JOIN tree USING (code)"""

# In the order of the table's unique key and with ids that grow: an index takes rows in order in half the time.
WRITE = f"""
INSERT INTO legacy_trial_balances (
  id, chart_of_account_code, description, branch_code, year, month, currency_code,
  {", ".join(f"{kind}_debit, {kind}_credit, {kind}_balance" for kind in KINDS)}, created_at, updated_at)
SELECT CAST(CAST(:prefix AS text) || lpad(to_hex(number), 12, '0') AS uuid), account, description, branch,
  :year, :month, 'IDR', {", ".join(f"{kind}_debit, {kind}_credit, {kind}_debit - {kind}_credit" for kind in KINDS)},
  now(), now()
  FROM (SELECT account, description, branch, {AMOUNTS}, row_number() OVER (ORDER BY account, branch) AS number
          FROM balances WHERE account IS NOT NULL) numbered
 ORDER BY account, branch LIMIT CAST(:count AS bigint) OFFSET :skip"""
WRITTEN = f"""
(SELECT chart_of_account_code AS account, branch_code AS branch, {AMOUNTS}
   FROM legacy_trial_balances WHERE year = :year AND month = :month)"""


PLACE = f"""
SELECT account, branch, CAST({amounts_object()} AS text) FROM balances WHERE account IS NOT NULL
 ORDER BY account, branch LIMIT 1 OFFSET :skip"""


def fingerprint(source: str) -> str:
    """Return SQL for the number of rows of a source and the sum of their hashes, in which 1.0 and 1.00 are the same.

    The report's columns may have a collation whose hashes differ from those of our own tables.
    """
    row = f'ROW(account COLLATE "C", branch COLLATE "C", {AMOUNTS})'
    return f"SELECT count(*), sum(hash_record_extended({row}, 0)) FROM ({source}) source"


def difference(found: str, expected: str) -> str:
    """Return SQL for the places at which two sets of amounts differ: account, branch, both sets as JSON text."""
    sides = {side: ", ".join(f"{side}.{column}" for column in COLUMNS.values()) for side in ("found", "expected")}
    objects = ", ".join(f"'{side}', {amounts_object(side + '.')}" for side in sides)
    return f"""
SELECT account, branch, CAST(jsonb_build_object({objects}) AS text)
  FROM ({found}) found FULL JOIN ({expected}) expected USING (account, branch)
 WHERE ({sides["found"]}) IS DISTINCT FROM ({sides["expected"]})
 ORDER BY account, branch LIMIT {KEPT}"""


# Checks of the written rows, before the commit: the written rows and the expected ones.
WRITTEN_CHECKS = {
    "rows that are not as rolled up": (
        f"SELECT * FROM {WRITTEN} written",
        f"SELECT account, branch, {AMOUNTS} FROM balances WHERE account IS NOT NULL",
    ),
    "roots that are not the sum of their leaves": (
        f"SELECT written.* FROM {WRITTEN} written JOIN tree ON code = account WHERE depth = 1",
        f"SELECT root AS account, branch, {AMOUNTS} FROM by_root WHERE root IS NOT NULL",
    ),
}
LOADED = f"SELECT coalesce(account, parent) AS account, branch, {AMOUNTS} FROM {{}} WHERE NOT summed"
RELOADED = difference(LOADED.format("balances"), LOADED.format("again"))


def read_tree(session) -> tuple[dict[str, Account], list[Finding]]:
    """Make the temporary table tree of the whole chart and return it; an empty chart, orphans, a cycle are findings."""
    session.run(CREATE_TREE)
    session.run("ANALYZE tree")
    tree = {
        code: Account(*row) for code, *row in session.run("SELECT code, name, parent, root, depth, is_parent FROM tree")
    }
    return tree, check_tree(session, len(tree))


def check_tree(session, reached: int) -> list[Finding]:
    """Compare the number of accounts in the tree with the chart."""
    ((known,),) = session.run("SELECT count(*) FROM legacy_chart_of_accounts")
    if not known:
        return [Finding("empty-chart", 1, "the chart of accounts is empty; load it", True)]
    if reached == known:
        return []
    orphans = session.run(ORPHANS)
    if orphans:
        named = ", ".join(f"{code} under {parent}" for code, parent in orphans[:SHOWN])
        text = f"the chart has {len(orphans)} accounts whose parent is not in it: {named}"
        return [Finding("chart-orphan", len(orphans), text, True)]
    ((way,),) = session.run(CYCLE)
    return [Finding("chart-cycle", 1, f"the account tree has a cycle: {way}; correct parent_code in the chart", True)]


def load(session, table: str, balances: Iterable[tuple], tree: Mapping[str, Account]) -> Copied:
    """Stream balances into a new temporary table; return how many there were and which were left out."""
    columns = ", ".join(f"{column} numeric NOT NULL" for column in COLUMNS.values())
    session.run(CREATE_LOADED.format(table=table, columns=columns))
    copied = Copied(session.codec, tree)
    session.run(
        f"COPY {table} (account, parent, root, depth, description, branch, {AMOUNTS}) FROM STDIN",
        stream=copied.text(balances),
    )
    return copied


def check_balances(session, rules) -> list[Finding]:
    """Evaluate every check of the loaded balances; rules: the settings LEDGER_*."""
    session.run(CREATE_BY_ROOT)
    session.run(CREATE_BY_BRANCH)
    ((*_, unknown, on_parents, inconsistent, branches, unbalanced),) = session.run(OVERVIEW)
    ((gross, unknown_gross),) = session.run(UNKNOWN_SHARE) if unknown else [(0, 0)]
    # A zero sum has no share.
    share = unknown_gross * 100 / gross if gross else Decimal(0)
    above = unknown_gross * 100 > rules.ledger_unknown_limit * gross
    counts = {
        "unknown-account": (unknown, above or rules.ledger_unknown_accounts == "refuse"),
        "parent-posting": (on_parents, False),
        "inconsistent-balance": (inconsistent, rules.ledger_inconsistent == "refuse"),
        "unknown-branch": (branches, False),
        "unbalanced-branch": (unbalanced, False),
    }
    notes = {"unknown-account": f", {share:.2f} % of the gross sum (limit {rules.ledger_unknown_limit} %)"}
    return [
        finding(kind, int(count), f"{BALANCE_CHECKS[kind][0]}{notes.get(kind, '')}", rows, refused)
        for kind, (count, refused) in counts.items()
        if count
        for rows in [session.run(BALANCE_CHECKS[kind][1])]
    ]


def check_totals(session, copied: Copied, totals: dict, read: Callable[[], Iterable[tuple]]) -> list[Finding]:
    """Compare the loaded balances with Genius' totals, and debit with credit.

    read: returns the balances of the same moment once more. It is called if the totals differ, and the places at which
    the two readings differ are named.
    """
    return [*check_load(session, copied, totals, read), *empty_period(totals), *unbalanced_totals(totals)]


def check_load(session, copied: Copied, totals: dict, read: Callable[[], Iterable[tuple]]) -> list[Finding]:
    if copied.refused:
        named = "; ".join(
            f"account {account or 'without a code'}, branch {branch or 'without a code'}: {why}"
            for account, branch, _, why in copied.refused[:SHOWN]
        )
        rows = [one[:3] for one in copied.refused[:KEPT]]
        text = clean(f"{len(copied.refused)} balances cannot be stored: {named}; correct them in Genius")
        return [Finding("bad-balance", len(copied.refused), text, True, rows)]
    found = {"rows": copied.rows, **dict(zip(COLUMNS, session.run(OVERVIEW)[0]))}
    if found == totals:
        return []
    differing = ", ".join(f"{name} {found[name]} of {totals[name]}" for name in totals if found[name] != totals[name])
    load(session, "again", read(), copied.tree)
    rows = session.run(RELOADED)
    named = place_names(rows) or "read again, every account and branch is the same"
    text = f"the loaded balances differ from Genius' totals: {differing}; {named}"
    return [Finding("load-difference", max(1, len(rows)), text, True, rows)]


def empty_period(totals: dict) -> list[Finding]:
    return [] if totals["rows"] else [Finding("empty-period", 1, "Genius has no balances of this period", True)]


def unbalanced_totals(totals: dict) -> list[Finding]:
    """Check that debit equals credit over the whole period, at the start, in the movements and at the end."""
    pairs = {kind: (totals[debit], totals[credit]) for kind, debit, credit in zip(KINDS, *[iter(COLUMNS)] * 2)}
    differing = [f"{kind} debit {d} and credit {c}" for kind, (d, c) in pairs.items() if d != c]
    if not differing:
        return []
    return [Finding("unbalanced-period", len(differing), f"debit and credit differ: {', '.join(differing)}", True)]


def replace(session, year: int, month: int) -> tuple[int, list[Finding]]:
    """Put the balances and the sums of roll_up in the place of the period's rows and check them.

    Returns how many rows were written, and findings, for which the caller has to undo the transaction.
    """
    session.run("DELETE FROM legacy_trial_balances WHERE year = :year AND month = :month", year=year, month=month)
    given = {"year": year, "month": month, "prefix": id_prefix()}
    session.run("SAVEPOINT deleted")
    try:
        session.run(WRITE, **given, count=None, skip=0)
        return session.row_count, check_written(session, year, month)
    except Refused as error:
        session.run("ROLLBACK TO deleted")
        return 0, [unstorable(session, given, str(error))]


def roll_up(session, tree: Mapping[str, Account]) -> None:
    """Add the sums of all accounts that have children to the balances, from the lowest level up."""
    for depth in range(max((account.depth for account in tree.values()), default=0) - 1, 0, -1):
        session.run(ADD_LEVEL, depth=depth)


def unstorable(session, given: dict, message: str) -> Finding:
    """Find the first row that the table does not take, by halves: PostgreSQL names it only beside its amounts."""
    ((high,),) = session.run("SELECT count(*) FROM balances WHERE account IS NOT NULL")
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        session.run("SAVEPOINT half")
        try:
            session.run(WRITE, **given, count=middle - low, skip=low)
            low = middle
        except Refused:
            session.run("ROLLBACK TO half")
            high = middle
    rows = session.run(PLACE, skip=low)
    return Finding("refused-row", 1, f"PostgreSQL refuses a row: {place_names(rows)}: {message}", True, rows)


def id_prefix() -> str:
    """Return the first 20 digits of the ids of one replacement: a UUID of version 8, by time, so that they grow
    from one replacement to the next."""
    digits = f"{int(time.time() * 1000):012x}8{secrets.token_hex(2)[1:]}"
    return f"{digits}8{secrets.token_hex(2)[1:]}"


def check_written(session, year: int, month: int) -> list[Finding]:
    """Check that the written rows are Genius' leaves and the sums of them all the way up."""
    findings = []
    for words, (found, expected) in WRITTEN_CHECKS.items():
        # Two sums of hashes take half the time of the join that finds the places.
        (one,), (other,) = (session.run(fingerprint(side), year=year, month=month) for side in (found, expected))
        if one != other:
            rows = session.run(difference(found, expected), year=year, month=month)
            named = words if rows else f"{words}, {one[0]} of {other[0]}, on the same accounts and branches"
            findings.append(finding("written-difference", max(1, len(rows)), named, rows, True))
    return findings
