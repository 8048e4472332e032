"""The report of `inv schema`, the deep ping and the doctor on the database, by the same check."""

from __future__ import annotations

import pytest
from support.rollup_helpers import SCHEMA, make_schema

from handler import health, schema, settings
from handler.errors import Refused

FUNCTION = "calculate_financial_metrics"
ARGUMENTS = "uuid, integer, integer"


@pytest.fixture
def bare(own_schema, admin):
    """Make the schema anew, with our own tables."""
    make_schema(admin)
    schema.apply()
    yield admin
    make_schema(admin)
    schema.apply()


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (
            "ALTER TABLE {s}.legacy_trial_balances OWNER TO postgres",
            "GRANT SELECT ON {s}.legacy_trial_balances TO finance",
        ),
        ("ALTER TABLE {s}.branches OWNER TO postgres", "GRANT SELECT ON {s}.branches TO finance"),
        ("ALTER TABLE {s}.closing_findings OWNER TO postgres", "GRANT DELETE ON {s}.closing_findings TO finance"),
        ("REVOKE USAGE ON SCHEMA {s} FROM finance; ALTER SCHEMA {s} OWNER TO postgres", "GRANT USAGE ON SCHEMA {s}"),
        ("ALTER TABLE {s}.branches RENAME TO away", "schema {s} has no branches; PG_SCHEMA must be the report's"),
        ("DROP TABLE {s}.closing_decisions", "schema {s} has no closing_decisions; run `inv schema --env ENV`"),
        ("ALTER TABLE {s}.legacy_trial_balances DROP description", "legacy_trial_balances has no column description"),
        ("ALTER TABLE {s}.closing_runs DROP ledger_job", "closing_runs has no column ledger_job"),
        (
            "ALTER TABLE {s}.legacy_trial_balances ALTER end_debit TYPE float8",
            "legacy_trial_balances.end_debit is double precision, expected numeric",
        ),
        (
            "ALTER TABLE {s}.calculation_runs ALTER metadata DROP DEFAULT, ALTER metadata TYPE text",
            "calculation_runs.metadata is text, expected jsonb or json",
        ),
        (
            "DROP FUNCTION {s}.{f}; CREATE FUNCTION {s}.{f}(uuid, text) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
            "has no function {f}({a}); it has {f}(uuid, text)",
        ),
        ("DROP FUNCTION {s}.{f}", "has no function {f}({a}); PG_SCHEMA must be the report's"),
        ("REVOKE EXECUTE ON FUNCTION {s}.{f} FROM public", "GRANT EXECUTE ON FUNCTION {s}.{f}({a}) TO finance"),
    ],
)
def test_each_fault_is_reported(bare, broken, fault):
    given = {"s": SCHEMA, "f": FUNCTION, "a": ARGUMENTS}
    assert schema.ping()["faults"] == []
    bare.run(broken.format(**given))
    faults = schema.ping()["faults"]
    assert [one for one in faults if fault.format(**given) in one], faults
    deep = health.measure({"postgres": schema.ping}, 10)["postgres"]
    assert deep["faults"] == faults
    if "run `inv schema --env ENV`" in fault:
        schema.apply()
    else:
        with pytest.raises(Refused) as refused:
            schema.apply()
        assert fault.format(**given) in str(refused.value)


def test_every_column_of_our_own_tables_is_checked(bare):
    created: dict[str, set] = {}
    for table, column, _ in bare.run(schema.COLUMNS, schema=SCHEMA):
        created.setdefault(table, set()).add(column)
    assert {table: created[table] for table in schema.OWN_TABLES} == {
        table: set(columns) for table, (_, columns) in schema.OWN_TABLES.items()
    }


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_reported(other_database, encoding):
    other_database(encoding)
    name = settings.current().pg_database
    faults = schema.ping()["faults"]
    assert faults[0] == f"database {name} is encoded in {encoding}, expected UTF8: it cannot hold every text of Genius"


def test_a_server_that_is_too_old_is_reported(bare, monkeypatch):
    monkeypatch.setattr(schema, "OLDEST", 99)
    ((version,),) = bare.run("SHOW server_version")
    assert schema.ping()["faults"] == [f"PostgreSQL {version} is too old; the ledger step needs version 99 or later"]


def test_the_deep_ping_is_not_ok_with_a_fault(bare, monkeypatch):
    monkeypatch.setattr(health, "genius", FakeGenius)
    assert health.deep()["ok"]
    bare.run(f"ALTER TABLE {SCHEMA}.branches OWNER TO postgres")
    answer = health.deep()
    assert answer["postgres"]["ok"] and not answer["ok"]


class FakeGenius:
    """Genius at the very edge: this test is about PostgreSQL."""

    check_client = staticmethod(lambda: {"error": None})
    ping = staticmethod(lambda: {"version": "11.2"})
