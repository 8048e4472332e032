"""The stand-in's engine: a Database with its users, books, tables and jobs, and its Sessions.

This is what the Oracle Net side calls. A Session runs one statement at a time, in one thread at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from . import commands, plsql, values
from .binds import scan
from .books import BALANCE_COLUMNS, JOURNAL_COLUMNS, OWNER, Books, BookSource
from .closing import ProcedureLog
from .dictionary import RESTRICTED, VIEWS
from .expressions import Names
from .faults import Faults
from .from_list import Single
from .ledger import PERIODS, SEED
from .lexer import is_plsql, tokens
from .model import Bind, Column, OracleError, Result
from .privileges import Privileges
from .scheduler import Scheduler, now
from .sql import Interrupted, Run, Statement, bind_expr, bind_value, compile_sql, execute
from .store import Store
from .tables import Tables, TableSource, Transaction

KEPT_STATEMENTS = 500


class Database:
    """One Genius under a data folder; whoever opens the folder next finds jobs, run details and closed periods.

    users: upper-case name -> password. procedure_seconds: how long a closing takes unless a fault changes it.
    branch_count scales the books: 40 branches make about 16,000 balances a period, 500 make 200,000.
    """

    def __init__(
        self,
        data: Path,
        *,
        service: str,
        users: dict[str, str],
        procedure_seconds: float = 5.0,
        periods: Iterable[str] = PERIODS,
        seed: int = SEED,
        restart_on_recovery: bool = False,
        branch_count: int = 40,
    ):
        data = Path(data)
        data.mkdir(parents=True, exist_ok=True)
        self.service, self.users, self.procedure_seconds = service, users, procedure_seconds
        self.faults = Faults(data)
        self.store = Store(data / "dictionary.jsonl")
        self.procedure_log = ProcedureLog(data / "procedure.log")
        self.books = Books(seed, periods, branch_count)
        self.tables = Tables({mark["period"]: mark for mark in self.store.all("closing")})
        self.privileges = Privileges(list(users))
        self.statements: OrderedDict[tuple, object] = OrderedDict()
        self.statements_guard = threading.Lock()
        self.session_ids = count(100)
        self.scheduler = Scheduler(self, self.store)
        self.scheduler.recover(restart_on_recovery or self.faults.value("restart_on_recovery") is not None)

    def session(self, user: str, number: int | None = None) -> Session:
        """Open a new session of a user."""
        return Session(self, user.upper(), number or self.next_session_id())

    def next_session_id(self) -> int:
        """Return a session number that no other session has had."""
        return next(self.session_ids)

    def close_period(self, period: str, user: str) -> None:
        """Replace a period's open balances by the closed ones, for good."""
        mark = {"period": period, "by": user, "at": now().replace(tzinfo=None, microsecond=0).isoformat()}
        self.store.write(("closing", period, mark))
        self.tables.close_period(period, mark)

    def compiled(self, key: tuple, make) -> object:
        """Return a compiled statement: kept by its text, user, schema, types of binds and version of the tables."""
        key = (*key, self.tables.version)
        with self.statements_guard:
            if key in self.statements:
                self.statements.move_to_end(key)
                return self.statements[key]
        made = make()
        with self.statements_guard:
            self.statements[key] = made
            if len(self.statements) > KEPT_STATEMENTS:
                self.statements.popitem(last=False)
        return made

    def close(self) -> None:
        """Stop as a killed process would: running jobs are found RUNNING by the next start."""
        self.scheduler.close()
        self.store.close()
        self.procedure_log.close()


class Session:
    """One connection's side of the database: a transaction, NLS settings, and the error being handled."""

    def __init__(self, database: Database, user: str, number: int):
        self.database, self.user, self.number = database, user, number
        self.schema = self.user
        self.nls = dict(commands.NLS_DEFAULTS)
        self.job: str | None = None
        self.transaction = Transaction(database.tables)
        self.handled: list[OracleError] = []

    # --- statements

    def execute(self, sql: str, binds: list[Bind], cancel: threading.Event) -> Result:
        """Run one statement; raises OracleError, ORA-01013 once cancel is set.

        binds: for SQL one per occurrence, for PL/SQL one per distinct name by first appearance.
        """
        values.use_numbers()
        self.handled = []
        types = [(bind.type, bind.size) for bind in binds]
        kind, compiled = self.database.compiled(
            (sql, self.user, self.schema, tuple(types)), lambda: self._compile(sql, types)
        )
        if kind == "command":
            compiled(self)
            return Result()
        run = Run(self, [bind_value(bind) for bind in binds], cancel)
        if kind == "sql":
            return execute(compiled, run)
        return self._run_block(compiled, run)

    def _compile(self, sql: str, types: list[tuple[str, int]]) -> tuple[str, object]:
        try:
            return self._compile_any(sql, types)
        except RecursionError:
            raise OracleError(900, "invalid SQL statement: nested too deeply for the stand-in") from None

    def _compile_any(self, sql: str, types: list[tuple[str, int]]) -> tuple[str, object]:
        words = tokens(sql)
        if is_plsql(words):
            return "plsql", plsql.compile_block(sql, self, types)
        command = commands.find(words)
        if command is not None:
            return "command", command
        return "sql", compile_sql(sql, self, Names(bind_expr(types), lambda name: None))

    def _run_block(self, block: plsql.Block, run: Run) -> Result:
        run.frame = [None] * block.slots
        try:
            block.run(run)
        except Interrupted:
            raise
        except OracleError as error:
            at = [*getattr(error, "where", []), f"at line {getattr(error, 'line', 1)}"]
            raise OracleError(error.code, "\n".join([error.text, *(f"ORA-06512: {place}" for place in at)])) from None
        return Result(out={place: run.binds[place] for place in block.writes})

    def describe(self, sql: str) -> list[Column] | None:
        """Return the columns of a query, None for any other statement; binds are taken for text."""
        if is_plsql(tokens(sql)):
            return None
        types = [("VARCHAR2", 0)] * len(scan(sql).names)
        compiled = self.database.compiled(
            (sql, self.user, self.schema, tuple(types)), lambda: self._compile(sql, types)
        )[1]
        return compiled.columns if isinstance(compiled, Statement) else None

    def table(self, owner: str, name: str) -> object:
        """Return the table that a FROM list means by a name; ORA-00942 if there is none."""
        if name == "DUAL" and owner in ("", "SYS", "PUBLIC"):
            return Single()
        hidden = name in RESTRICTED and not self.database.privileges.has(self.user, "SELECT ANY DICTIONARY")
        if owner in ("", "SYS") and name in VIEWS and not hidden:
            return VIEWS[name]
        books = {"AC_GLOPENBALANCE": BALANCE_COLUMNS, "AC_GLJOURNAL": JOURNAL_COLUMNS}
        if (owner or self.schema) == OWNER and name in books:
            return BookSource(self.database.books, books[name])
        return TableSource(self.database.tables.find(owner or self.schema, name))

    # --- transactions

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self.transaction.open

    def commit(self) -> None:
        """Make this session's changes visible to all sessions."""
        self.transaction.commit()

    def rollback(self) -> None:
        """Forget this session's changes."""
        self.transaction.rollback()

    def begin_read_only(self) -> None:
        """Read the committed state of this moment until the transaction ends; ORA-01453 if one is open."""
        if self.transaction.open:
            raise OracleError(1453, "SET TRANSACTION must be first statement of transaction")
        self.transaction.read_only = self.database.tables.committed

    def close(self) -> None:
        """End the session; what was not committed is lost."""
        self.rollback()

    # --- the error that an exception handler is at

    @contextlib.contextmanager
    def handling(self, error: OracleError) -> Iterator[None]:
        """Let SQLCODE and RAISE mean this error."""
        self.handled.append(error)
        try:
            yield
        finally:
            self.handled.pop()

    def raise_again(self) -> None:
        """Raise the current error again, as RAISE without a name; ORA-06512 keeps its first place."""
        if not self.handled:
            raise OracleError(6550, "PLS-00367: a RAISE statement with no exception name must be inside a handler")
        raise self.handled[-1]

    @property
    def error_code(self) -> int:
        """Return SQLCODE: 0 outside handlers, 100 for no data found."""
        if not self.handled:
            return 0
        error = self.handled[-1]
        return 100 if error.code == 1403 else -error.code
