"""CREATE TABLE, INSERT … VALUES and UPDATE on a user's own tables, for `inv genius.sql`.

An INSERT or UPDATE is compiled to a function that takes a run and returns the row count.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from . import values
from .expressions import Scope, column_type
from .grammar import name_of, position, unknown
from .model import OracleError
from .operations import fitted
from .query import Queries
from .tables import Definition, TableSource


def _target(queries: Queries, node: exp.Expression) -> Definition:
    owner, name = name_of(node.args.get("db")), name_of(node.this)
    try:
        source = queries.table(owner, name)
    except OracleError as error:
        raise OracleError(error.code, error.text, position(node)) from None
    if not isinstance(source, TableSource):
        raise OracleError(1031, "insufficient privileges", position(node))
    return source.definition


def insert(queries: Queries, tree: exp.Insert) -> Callable:
    """Compile INSERT … VALUES of one row."""
    source = tree.expression
    if tree.args.get("returning") or not isinstance(source, exp.Values):
        raise unknown(tree.args.get("returning") or source or tree)
    named = isinstance(tree.this, exp.Schema)
    definition = _target(queries, tree.this.this if named else tree.this)
    columns = [_place(definition, node) for node in tree.this.expressions] if named else None
    places = columns if columns is not None else list(range(len(definition.columns)))
    if len(set(places)) != len(places):
        raise OracleError(957, "duplicate column name")
    tuples = [item for item in source.expressions if isinstance(item, exp.Tuple)]
    if len(tuples) > 1:
        raise OracleError(933, "SQL command not properly ended", position(tuples[1]))
    items = tuples[0].expressions if tuples else source.expressions
    if len(items) > len(places):
        raise OracleError(913, "too many values")
    if len(items) < len(places):
        raise OracleError(947, "not enough values")
    given = queries.compiler.all(items, Scope())

    def apply(run) -> int:
        run.session.transaction.begin_write()
        row: list = [None] * len(definition.columns)
        for place, expr in zip(places, given):
            row[place] = _stored(definition, place, expr.fn((), run), run)
        run.session.transaction.insert(definition, tuple(row))
        return 1

    return apply


def _place(definition: Definition, node: exp.Expression) -> int:
    name = name_of(node.this if isinstance(node, exp.Column) else node)
    for i, column in enumerate(definition.columns):
        if column.name == name:
            return i
    raise OracleError(904, f'"{name}": invalid identifier', position(node))


def _stored(definition: Definition, place: int, value: object, run) -> object:
    """Return a value as a column takes it; ORA-12899 names the column."""
    column = definition.columns[place]
    try:
        return fitted(values.convert(value, column.type, run.nls), column)
    except OracleError as error:
        if error.code != 12899:
            raise
        where = f'"{definition.owner}"."{definition.name}"."{column.name}"'
        raise OracleError(12899, error.text.replace(f'"{column.name}"', where)) from None


def update(queries: Queries, tree: exp.Update) -> Callable:
    """Compile UPDATE … SET column = value, … WHERE …"""
    definition = _target(queries, tree.this)
    if tree.args.get("from_") or tree.args.get("returning"):
        raise unknown(tree.args.get("returning") or tree)
    scope = Scope()
    scope.columns = [(name_of(tree.this.alias) or definition.name, column) for column in definition.columns]
    where = tree.args.get("where")
    test = queries.compiler.condition(where.this, scope) if where else None
    settings = []
    for node in tree.expressions:
        if not isinstance(node, exp.EQ) or not isinstance(node.this, exp.Column):
            raise unknown(node)
        settings.append((_place(definition, node.this), queries.compiler.compile(node.expression, scope)))

    def matching(run) -> dict[int, tuple]:
        rows = run.session.transaction.rows(run.snapshot, (definition.owner, definition.name)).items()
        return {number: row for number, row in rows if test is None or test(row, run)}

    def changed(row: tuple, run) -> tuple:
        new = list(row)
        for place, expr in settings:
            new[place] = _stored(definition, place, expr.fn(row, run), run)
        return tuple(new)

    def apply(run) -> int:
        """Lock the rows that match, read them again, because another session can have changed them, and change them."""
        transaction = run.session.transaction
        transaction.begin_write()
        found = matching(run)
        transaction.lock(definition, found, run)
        run.snapshot = transaction.snapshot
        rows = {number: row for number, row in matching(run).items() if number in found}
        transaction.update(definition, {number: changed(row, run) for number, row in rows.items()})
        return len(rows)

    return apply


def created_table(tree: exp.Create, user: str, schema_name: str) -> Definition:
    """Read a user's CREATE TABLE of plain columns, in its current schema."""
    schema = tree.this
    plain = tree.args.get("kind") == "TABLE" and isinstance(schema, exp.Schema)
    if not plain or tree.expression or tree.args.get("properties"):
        raise unknown(tree)
    owner, name = name_of(schema.this.args.get("db")) or schema_name, name_of(schema.this.this)
    if owner != user:
        raise OracleError(1031, "insufficient privileges", position(tree))
    columns = []
    for node in schema.expressions:
        if not isinstance(node, exp.ColumnDef) or node.args.get("constraints"):
            raise unknown(node)
        if node.args.get("kind") is None:
            raise OracleError(902, "invalid datatype", position(node))
        columns.append(column_type(node.args["kind"], name_of(node.this)))
    if len({column.name for column in columns}) != len(columns):
        raise OracleError(957, "duplicate column name")
    return Definition(owner, name, columns)
