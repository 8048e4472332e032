"""INSERT, UPDATE, DELETE, CREATE TABLE, DROP TABLE and TRUNCATE, compiled like queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlglot import exp

from . import values
from .expr import Expr
from .expressions import Scope, column_type
from .grammar import name_of, parse, position, unknown
from .model import Column, OracleError
from .operations import fitted
from .query import Queries
from .tables import Definition, TableSource


class Change(NamedTuple):
    """A compiled change: apply(run) gives the row count and, per RETURNING expression, the values."""

    apply: Callable
    returning: list[Expr]


def _target(queries: Queries, node: exp.Expression) -> Definition:
    owner, name = name_of(node.args.get("db")), name_of(node.this)
    try:
        source = queries.table(owner, name)
    except OracleError as error:
        raise OracleError(error.code, error.text, position(node)) from None
    if not isinstance(source, TableSource):
        raise OracleError(1031, "insufficient privileges", position(node))
    return source.definition


def insert(queries: Queries, tree: exp.Insert) -> Change:
    """Compile INSERT … VALUES and INSERT … SELECT."""
    named = isinstance(tree.this, exp.Schema)
    definition = _target(queries, tree.this.this if named else tree.this)
    columns = [_place(definition, node) for node in tree.this.expressions] if named else None
    places = columns if columns is not None else list(range(len(definition.columns)))
    if len(set(places)) != len(places):
        raise OracleError(957, "duplicate column name")
    width, rows = _given(queries, tree, definition)
    if width != len(places):
        raise OracleError(
            913 if width > len(places) else 947, "too many values" if width > len(places) else "not enough values"
        )
    defaults = _defaults(queries, definition)
    returning = _returning(queries, tree, definition)

    def apply(run) -> tuple[int, list[list]]:
        run.session.transaction.begin_write()
        made = [_new_row(definition, places, given, defaults, run) for given in rows(run)]
        count = run.session.transaction.insert(definition, made)
        return count, [[expr.fn(row, run) for row in made] for expr in returning]

    return Change(apply, returning)


def _given(queries: Queries, tree: exp.Insert, definition: Definition) -> tuple[int, Callable]:
    source = tree.expression
    if not isinstance(source, exp.Values):
        plan = queries.plan(source)
        return len(plan.columns), plan.rows
    items = source.expressions[0].expressions if isinstance(source.expressions[0], exp.Tuple) else source.expressions
    exprs = [None if _is_default(item) else queries.compiler.compile(item, Scope()) for item in items]

    def rows(run) -> Iterable[tuple]:
        return [tuple(_DEFAULT if expr is None else expr.fn((), run) for expr in exprs)]

    return len(exprs), rows


_DEFAULT = object()


def _is_default(node: exp.Expression) -> bool:
    return isinstance(node, exp.Column) and name_of(node.this) == "DEFAULT" and not node.this.args.get("quoted")


def _place(definition: Definition, node: exp.Expression) -> int:
    name = name_of(node.this if isinstance(node, exp.Column) else node)
    for i, column in enumerate(definition.columns):
        if column.name == name:
            return i
    raise OracleError(904, f'"{name}": invalid identifier', position(node))


def _defaults(queries: Queries, definition: Definition) -> list[Expr | None]:
    compiled = []
    for text in definition.defaults:
        tree = parse(f"SELECT {text} FROM DUAL").tree if text else None
        compiled.append(queries.compiler.compile(tree.expressions[0], Scope()) if tree else None)
    return compiled


def _new_row(definition: Definition, places: list[int], given: tuple, defaults: list[Expr | None], run) -> tuple:
    row = [default.fn((), run) if default else None for default in defaults]
    for place, value in zip(places, given):
        if value is not _DEFAULT:
            row[place] = value
    return tuple([stored(definition, column, value, run) for column, value in zip(definition.columns, row)])


def stored(definition: Definition, column: Column, value: object, run) -> object:
    """Return a value as a column takes it; ORA-01400 for a NULL that may not be."""
    value = values.convert(value, column.type, run.nls)
    if value is None and not column.nullable:
        raise OracleError(1400, f'cannot insert NULL into ("{definition.owner}"."{definition.name}"."{column.name}")')
    try:
        return fitted(value, column)
    except OracleError as error:
        if error.code != 12899:
            raise
        where = f'"{definition.owner}"."{definition.name}"."{column.name}"'
        raise OracleError(12899, error.text.replace(f'"{column.name}"', where)) from None


def _returning(queries: Queries, tree: exp.Expression, definition: Definition) -> list[Expr]:
    node = tree.args.get("returning")
    return queries.compiler.all(node.expressions, _scope(definition, "")) if node else []


def _scope(definition: Definition, alias: str) -> Scope:
    scope = Scope()
    scope.columns = [(alias or definition.name, column) for column in definition.columns]
    return scope


def _matching(queries: Queries, tree: exp.Expression, definition: Definition, scope: Scope) -> Callable:
    where = tree.args.get("where")
    test = queries.compiler.condition(where.this, scope) if where else None
    key = definition.owner, definition.name

    def matching(run) -> dict[int, tuple]:
        rows = run.session.transaction.rows(run.snapshot, key).items()
        return {number: row for number, row in rows if test is None or test(row, run)}

    return matching


def update(queries: Queries, tree: exp.Update) -> Change:
    """Compile UPDATE … SET column = value, … WHERE …"""
    definition = _target(queries, tree.this)
    if tree.args.get("from_"):
        raise unknown(tree)
    scope = _scope(definition, name_of(tree.this.alias))
    matching = _matching(queries, tree, definition, scope)
    settings = []
    for node in tree.expressions:
        if not isinstance(node, exp.EQ) or not isinstance(node.this, exp.Column):
            raise unknown(node)
        place = _place(definition, node.this)
        settings.append((place, queries.compiler.compile(node.expression, scope)))
    returning = _returning(queries, tree, definition)

    def changed_row(row: tuple, run) -> tuple:
        new = list(row)
        for place, expr in settings:
            new[place] = _updated(definition, definition.columns[place], expr.fn(row, run), run)
        return tuple(new)

    def apply(run) -> tuple[int, list[list]]:
        return _rewrite(definition, matching, changed_row, returning, run)

    return Change(apply, returning)


def _updated(definition: Definition, column: Column, value: object, run) -> object:
    try:
        return stored(definition, column, value, run)
    except OracleError as error:
        if error.code == 1400:
            raise OracleError(
                1407, error.text.replace("cannot insert NULL into", "cannot update") + " to NULL"
            ) from None
        raise


def _rewrite(definition: Definition, matching: Callable, change: Callable, returning: list[Expr], run):
    """Change the rows that match; once their locks are held they are read again, as others may have won."""
    transaction = run.session.transaction
    transaction.begin_write()
    found = matching(run)
    transaction.lock(definition, found, run)
    run.snapshot = transaction.snapshot
    found = {number: row for number, row in matching(run).items() if number in found}
    changed = {number: change(row, run) for number, row in found.items()}
    transaction.update(definition, changed)
    shown = [found[number] if row is None else row for number, row in changed.items()]
    return len(changed), [[expr.fn(row, run) for row in shown] for expr in returning]


def delete(queries: Queries, tree: exp.Delete) -> Change:
    """Compile DELETE FROM … WHERE …"""
    target = tree.this or tree.args["tables"][0]
    definition = _target(queries, target)
    scope = _scope(definition, name_of(target.alias))
    matching = _matching(queries, tree, definition, scope)
    returning = _returning(queries, tree, definition)

    def apply(run) -> tuple[int, list[list]]:
        return _rewrite(definition, matching, lambda row, run: None, returning, run)

    return Change(apply, returning)


def created_table(tree: exp.Create, user: str, schema_name: str) -> Definition:
    """Read a user's CREATE TABLE, in its current schema; CREATE TABLE … AS SELECT is unknown."""
    schema = tree.this
    if (
        tree.args.get("kind") != "TABLE"
        or not isinstance(schema, exp.Schema)
        or tree.expression
        or tree.args.get("properties")
    ):
        raise unknown(tree)
    owner, name = name_of(schema.this.args.get("db")) or schema_name, name_of(schema.this.this)
    if owner != user:
        raise OracleError(1031, "insufficient privileges", position(tree))
    columns, defaults, unique = [], [], []
    for node in schema.expressions:
        if isinstance(node, exp.ColumnDef):
            column, default, key = _column(node)
            columns.append(column)
            defaults.append(default)
            unique += [(key, (len(columns) - 1,))] if key else []
        else:
            unique.append(_table_key(node, columns))
    if len({column.name for column in columns}) != len(columns):
        raise OracleError(957, "duplicate column name")
    counted = [(label or f"SYS_C{i:06d}", places) for i, (label, places) in enumerate(unique, 1)]
    return Definition(owner, name, columns, defaults, counted)


def _column(node: exp.ColumnDef) -> tuple[Column, str | None, str | None]:
    if node.args.get("kind") is None:
        raise OracleError(902, "invalid datatype", position(node))
    column, default, key = column_type(node.args["kind"], name_of(node.this)), None, None
    for constraint in node.args.get("constraints") or []:
        kind = constraint.args["kind"]
        if isinstance(kind, exp.DefaultColumnConstraint):
            default = kind.this.sql(dialect="oracle")
        elif isinstance(kind, (exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint)):
            key = name_of(constraint.this) or f"SYS_C_{column.name}"
        elif not isinstance(kind, exp.NotNullColumnConstraint):
            raise unknown(kind)
        not_null = isinstance(kind, exp.NotNullColumnConstraint) and not kind.args.get("allow_null")
        if not_null or isinstance(kind, exp.PrimaryKeyColumnConstraint):
            column = column._replace(nullable=False)
    return column, default, key


def _table_key(node: exp.Expression, columns: list[Column]) -> tuple[str, tuple[int, ...]]:
    label = name_of(node.this) if isinstance(node, exp.Constraint) else ""
    inner = node.expressions[0] if isinstance(node, exp.Constraint) else node
    if not isinstance(inner, (exp.PrimaryKey, exp.UniqueColumnConstraint)):
        raise unknown(inner)
    names = inner.expressions if isinstance(inner, exp.PrimaryKey) else inner.this.expressions
    known = [column.name for column in columns]
    places = []
    for name in map(lambda n: name_of(n.this if isinstance(n, exp.Ordered) else n), names):
        if name not in known:
            raise OracleError(904, f'"{name}": invalid identifier', position(inner))
        places.append(known.index(name))
    for place in places if isinstance(inner, exp.PrimaryKey) else []:
        columns[place] = columns[place]._replace(nullable=False)
    return label, tuple(places)
