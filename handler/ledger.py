"""The ledger in PostgreSQL: trial balance, metrics and the closing log. The only module that knows PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import uuid
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from . import settings
from .errors import Refused, Unavailable

CONNECT_SECONDS = 10
PING_SECONDS = 5
STATEMENT_SECONDS = 600
CHUNK_LINES = 2000
# The class of our advisory locks, so that they cannot meet those of the report's own programs.
LOCK_CLASS = 806
NAMESPACE = uuid.UUID("6f6b8d0e-5f0b-5c6e-9d0a-806806806806")

# Genius' name of each amount -> our column.
COLUMNS = {
    "BEGINNING_DEBIT": "start_debit",
    "BEGINNING_CREDIT": "start_credit",
    "DEBIT_AMOUNT": "movement_debit",
    "CREDIT_AMOUNT": "movement_credit",
    "ENDING_DEBIT": "end_debit",
    "ENDING_CREDIT": "end_credit",
}
SUMS = ", ".join(f"sum({column}) AS {column}" for column in COLUMNS.values())

CREATE_INCOMING = f"""
CREATE TEMPORARY TABLE incoming (
  account text NOT NULL, description text, branch text NOT NULL,
  {", ".join(f"{column} numeric NOT NULL" for column in COLUMNS.values())}
) ON COMMIT DROP"""

UNKNOWN_ACCOUNTS = """
SELECT account, count(*) FROM incoming
 WHERE NOT EXISTS (SELECT FROM legacy_chart_of_accounts chart WHERE chart.code = incoming.account)
 GROUP BY account ORDER BY account"""

# Every account is its own ancestor, so a posting counts once on its leaf and once on each parent up to the root.
ROLL_UP = f"""
WITH RECURSIVE ancestry (account, ancestor, parent) AS (
  SELECT code, code, parent_code FROM legacy_chart_of_accounts
   WHERE code IN (SELECT account FROM incoming)
  UNION ALL
  SELECT ancestry.account, chart.code, chart.parent_code
    FROM ancestry JOIN legacy_chart_of_accounts chart ON chart.code = ancestry.parent
) CYCLE ancestor SET looped USING path,
rolled AS (
  SELECT ancestor, branch, max(description) FILTER (WHERE ancestor = account) AS description, {SUMS}
    FROM incoming JOIN ancestry USING (account) GROUP BY ancestor, branch
)
INSERT INTO legacy_trial_balances (
  id, chart_of_account_code, description, branch_code, year, month, currency_code,
  start_debit, start_credit, start_balance, movement_debit, movement_credit, movement_balance,
  end_debit, end_credit, end_balance, created_at, updated_at)
SELECT gen_random_uuid(), ancestor, coalesce(rolled.description, chart.name), branch, :year, :month, 'IDR',
  start_debit, start_credit, start_debit - start_credit,
  movement_debit, movement_credit, movement_debit - movement_credit,
  end_debit, end_credit, end_debit - end_credit, now(), now()
  FROM rolled JOIN legacy_chart_of_accounts chart ON chart.code = ancestor"""


def run_id(owner: str) -> str:
    """The key of an owner's row in closing_runs, and the id of its metrics run."""
    return str(uuid.uuid5(NAMESPACE, owner))


def describe(error: Exception) -> str:
    """PostgreSQL's own message in one line; pg8000 hands over a dictionary of the protocol's fields."""
    fields = error.args[0] if error.args else ""
    if isinstance(fields, dict):
        return " ".join(fields[key] for key in ("M", "D", "H") if key in fields).replace("\n", " ")
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def tls() -> ssl.SSLContext | bool:
    now = settings.current()
    # pg8000 would try TLS without verifying and fall back to plain text: say which of the two it is.
    return False if now.pg_sslmode == "disable" else ssl.create_default_context(cafile=now.pg_sslrootcert)


@contextlib.contextmanager
def connected(statement_seconds: float = STATEMENT_SECONDS, connect_seconds: float = CONNECT_SECONDS):
    """One connection for one step; raises Refused for a refused login and Unavailable for a dead line."""
    from pg8000 import native

    now = settings.current()
    where = f"PostgreSQL at {now.pg_host}:{now.pg_port}"
    try:
        connection = native.Connection(
            now.pg_user,
            host=now.pg_host,
            port=now.pg_port,
            database=now.pg_database,
            password=now.pg_password,
            ssl_context=tls(),
            timeout=connect_seconds,
            application_name="finance-closing",
        )
    except native.DatabaseError as error:
        state = error.args[0].get("C", "") if isinstance(error.args[0], dict) else ""
        # 28…: login refused; 3D000: no such database. 57P0x, while it starts or stops, is worth another try.
        kind = Refused if state[:2] in ("28", "3D") else Unavailable
        raise kind(f"{where}: {describe(error)}") from error
    except (native.InterfaceError, OSError) as error:
        raise Unavailable(f"{where}: {describe(error)}") from error
    try:
        connection._usock.settimeout(statement_seconds + CONNECT_SECONDS)
        connection.run(f"SET statement_timeout = {int(statement_seconds * 1000)}")
        connection.run(f'SET search_path = "{now.pg_schema}"')
        yield connection
    except native.Error as error:
        raise Unavailable(f"{where}: {describe(error)}") from error
    finally:
        # A connection that died in the middle of a COPY cannot be closed politely.
        with contextlib.suppress(native.Error, OSError):
            connection.close()


@contextlib.contextmanager
def transaction(connection):
    """BEGIN … COMMIT around a block; an error leaves the roll-back to the server, which sees the line close."""
    connection.run("START TRANSACTION")
    yield connection
    connection.run("COMMIT")


def apply_schema() -> str:
    """Create what is missing of our own tables, and return the schema that has them."""
    with connected() as connection, transaction(connection):
        for statement in statements((Path(__file__).parent / "schema.sql").read_text()):
            connection.run(statement)
    return settings.current().pg_schema


def statements(script: str) -> list[str]:
    """A script of plain statements, each ended by a semicolon at a line's end."""
    lines = [line for line in script.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]


def record(connection, owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row, in the caller's transaction."""
    assert step in ("genius", "ledger", "metrics"), step
    connection.run(
        f"UPDATE closing_runs SET {step} = :outcome, detail = detail || CAST(:detail AS jsonb)"
        " WHERE id = CAST(:id AS uuid)",
        outcome=outcome,
        detail=json.dumps({step: {**detail, "at": time.time()}}, default=str),
        id=run_id(owner),
    )


def record_step(owner: str, step: str, outcome: str, detail: dict) -> None:
    """Write one step's outcome to the run's row."""
    with connected() as connection, transaction(connection):
        record(connection, owner, step, outcome, detail)


def finish(owner: str, status: str, message: str) -> None:
    """Write how the run ended; the first end that was written stands."""
    with connected() as connection:
        connection.run(
            "UPDATE closing_runs SET status = :status, message = :message, ended_at = now()"
            " WHERE id = CAST(:id AS uuid) AND status = 'running'",
            status=status,
            message=message,
            id=run_id(owner),
        )


def copy_lines(balances: Iterable[tuple], tally: dict) -> Iterator[str]:
    """Balances as chunks of COPY text; counts rows and sums the amounts into tally as they pass."""
    lines, sums = [], [Decimal(0)] * len(COLUMNS)
    for balance in balances:
        account, description, branch, *amounts = balance
        for place, amount in enumerate(amounts):
            if amount is None or not amount.is_finite():
                raise Refused(f"account {account}, branch {branch}: {amount} is not an amount; nothing was replaced")
            sums[place] += amount
        lines.append("\t".join((escape(account), escape(description), escape(branch), *map(str, amounts))))
        tally["rows"] += 1
        if len(lines) == CHUNK_LINES:
            yield "\n".join(lines) + "\n"
            lines.clear()
    if lines:
        yield "\n".join(lines) + "\n"
    tally.update(zip(COLUMNS, sums))


def escape(value: str | None) -> str:
    if value is None:
        return r"\N"
    return value.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def replace_trial_balance(owner: str, period: str, totals: dict, balances: Iterable[tuple]) -> dict:
    """Replace a period's trial balance by these balances, rolled up along the account tree, or leave it whole.

    totals: {"rows": int, Genius' column: Decimal}, as read beside the balances. Returns {"balances", "rows",
    "unknownAccounts", "totals": {column: text}}. Raises Refused for an empty period and for any difference.
    """
    if not totals["rows"]:
        raise Refused(f"{period}: Genius has no balances of this period; the trial balance was left as it is")
    year, month = (int(part) for part in period.split("-"))
    with connected() as connection, transaction(connection):
        connection.run("SELECT pg_advisory_xact_lock(:class, :key)", **{"class": LOCK_CLASS}, key=year * 100 + month)
        connection.run(CREATE_INCOMING)
        tally = {"rows": 0}
        connection.run("COPY incoming FROM STDIN", stream=copy_lines(balances, tally))
        if tally != totals:
            differing = ", ".join(f"{key} {tally[key]} of {totals[key]}" for key in totals if tally[key] != totals[key])
            raise Refused(f"{period}: what was loaded differs from Genius' totals: {differing}; nothing was replaced")
        connection.run("ANALYZE incoming")
        unknown = connection.run(UNKNOWN_ACCOUNTS)
        connection.run(
            "DELETE FROM legacy_trial_balances WHERE year = :year AND month = :month", year=year, month=month
        )
        connection.run(ROLL_UP, year=year, month=month)
        rows = connection.row_count
        check_roots(connection, period, unknown)
        detail = {
            "balances": totals["rows"],
            "rows": rows,
            "unknownAccounts": [f"{account} ({count} balances)" for account, count in unknown[:20]],
            "unknownAccountCount": len(unknown),
            "totals": {COLUMNS[name]: str(totals[name]) for name in COLUMNS},
        }
        record(connection, owner, "ledger", "succeeded", detail)
    return detail


def check_roots(connection, period: str, unknown: list) -> None:
    """Raise Refused unless the roots of the tree hold what the known accounts hold, and debit equals credit."""
    year, month = (int(part) for part in period.split("-"))
    sums = ", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS.values())
    (known,) = connection.run(
        f"SELECT {sums} FROM incoming WHERE account IN (SELECT code FROM legacy_chart_of_accounts)"
    )
    (roots,) = connection.run(
        f"SELECT {sums} FROM legacy_trial_balances balance"
        " JOIN legacy_chart_of_accounts chart ON chart.code = balance.chart_of_account_code"
        " WHERE year = :year AND month = :month AND chart.parent_code IS NULL",
        year=year,
        month=month,
    )
    if roots != known:
        raise Refused(f"{period}: the roots hold {roots}, their leaves {known}; nothing was replaced")
    if not unknown and roots[4] != roots[5]:
        raise Refused(f"{period}: debit {roots[4]} and credit {roots[5]} differ at the end; nothing was replaced")


def compute_metrics(owner: str, period: str) -> dict:
    """Call calculate_financial_metrics once for this owner, close the run's row, and return how it went.

    All in one transaction under a lock on the run's id, so that a lost reply never starts the calculation twice.
    """
    year, month = (int(part) for part in period.split("-"))
    identity = run_id(owner)
    with connected() as connection, transaction(connection):
        connection.run(
            "SELECT pg_advisory_xact_lock(hashtextextended(:id, :class))", id=identity, **{"class": LOCK_CLASS}
        )
        found = read_metrics_run(connection, identity)
        if not found:
            connection.run(
                "SELECT calculate_financial_metrics(CAST(:id AS uuid), CAST(:year AS int), CAST(:month AS int))",
                id=identity,
                year=year,
                month=month,
            )
            found = read_metrics_run(connection, identity)
        if not found:
            raise Refused(f"{period}: calculate_financial_metrics left no row {identity} in calculation_runs")
        if found["errors"]:
            raise Refused(
                f"{period}: the metrics run {identity} ended as {found['status']} with {found['errors']} errors"
            )
        record(connection, owner, "metrics", "succeeded", found)
    return found


def read_metrics_run(connection, identity: str) -> dict | None:
    rows = connection.run(
        "SELECT status, completed_steps, total_steps, error_count, warning_count FROM calculation_runs"
        " WHERE id = CAST(:id AS uuid)",
        id=identity,
    )
    names = ("status", "completedSteps", "totalSteps", "errors", "warnings")
    return {"run": identity, **dict(zip(names, rows[0]))} if rows else None


def ping() -> dict:
    """The server's version, read over a new connection."""
    with connected(PING_SECONDS, PING_SECONDS) as connection:
        return {"version": connection.run("SHOW server_version")[0][0]}
