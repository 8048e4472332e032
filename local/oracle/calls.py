"""One session's calls: requests in, replies out, with the cursors in between. Runs in worker threads, one at a time."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import islice

from local.oracle import replies
from local.oracle.binds import Statement, scan
from local.oracle.datatypes import ENCODERS
from local.oracle.model import Bind, Column, OracleError, Result
from local.oracle.requests import (
    COMMIT,
    OCI_VERSION,
    PING,
    ROLLBACK,
    Caps,
    Execute,
    Fetch,
    Option,
    Plain,
    Plan,
    Reexecute,
    Request,
    Slot,
    plan_for,
)
from local.oracle.wire import clr, ub

BANNER = "Genius stand-in, not an Oracle database"
VERSION = "11.2.0.4.0"
MOST_CURSORS = 300
MOST_EXECUTIONS = 1_000_000
ROWS_A_PART = 500
MOST_REPLY_BYTES = 16 * 1024 * 1024
CANCELLED = 1013

# Sends a part of a reply to the client while the rest is made; False if the client no longer wants it.
Send = Callable[[bytes], bool]


def cancelled() -> OracleError:
    return OracleError(CANCELLED, "user requested cancel of current operation")


class Cursor:
    """One open statement: its text, its binds as last described, and the rows that are left."""

    def __init__(self, number: int, sql: str):
        self.number = number
        self.sql = sql
        self.statement = scan(sql)
        self.binds: list[Slot] = []
        self.written: list[int] = []
        self.columns: list[Column] = []
        self.rows: Iterator[tuple] | None = None
        self.fetched = 0

    def close_rows(self) -> None:
        """Release the rows that were not fetched."""
        rows, self.rows = self.rows, None
        if hasattr(rows, "close"):
            rows.close()


class Calls:
    """Answers the requests of one session. `session` is the engine's."""

    def __init__(self, session: object, caps: Caps):
        self.session = session
        self.caps = caps
        self.cursors: dict[int, Cursor] = {}
        self.gone = threading.Event()
        self._last = 0
        self._fresh = 0
        self._unknown: list[int] = []

    def plan(self, number: int) -> Plan | None:
        """Return the values that follow when a cursor is run again; None if it is not open."""
        cursor = self.cursors.get(number)
        return cursor and plan_for(cursor.statement, cursor.binds, 1)

    def statement(self, number: int) -> Statement | None:
        cursor = self.cursors.get(number)
        return cursor and cursor.statement

    def text(self, request: Request) -> str:
        """Return a request as a fault's pattern sees it: its SQL, or the name of the call."""
        head = request.head
        if isinstance(head, Execute) and head.sql is not None:
            return head.sql
        if isinstance(head, Plain):
            return {COMMIT: "COMMIT", ROLLBACK: "ROLLBACK", PING: "PING"}.get(head.function, "")
        cursor = self.cursors.get(head.cursor)
        sql = cursor.sql if cursor else ""
        return f"FETCH {sql}" if isinstance(head, Fetch) else sql

    def answer(self, request: Request, cancel: threading.Event, send: Send) -> bytes:
        """Do what a request asks; the reply, or what `send` has not taken of it."""
        self._fresh = 0
        for number in request.closed + self._unknown:
            self._close(number)
        self._unknown = []
        try:
            return self._answer(request, cancel, send)
        except OracleError as error:
            return self.failure(error, self._fresh)
        except Exception as error:  # an engine's bug must reach the client, not end the server
            traceback.print_exc(file=sys.stderr)
            text = f"internal error code, arguments: [stand-in], [{type(error).__name__}], [{error}]"
            return self.failure(OracleError(600, text))

    def undelivered(self) -> None:
        """Note that the last reply never left: the cursor that it named is unknown to the client."""
        if self._fresh:
            self._unknown.append(self._fresh)

    def failure(self, error: OracleError, cursor: int = 0) -> bytes:
        """Return the reply that is an error, also as a line of the log."""
        print(f"error     {' '.join(str(error).split())}", flush=True)
        return replies.end(self.caps, self.session.in_transaction, error, cursor=cursor)

    def close(self) -> None:
        """End the session; what is not committed is rolled back."""
        for number in list(self.cursors):
            self._close(number)
        self.session.close()

    def _answer(self, request: Request, cancel: threading.Event, send: Send) -> bytes:
        head = request.head
        if isinstance(head, Plain):
            return self._plain(head.function)
        if isinstance(head, Fetch):
            return self._fetch(self._open(head.cursor), head.count, cancel, send)
        if isinstance(head, Reexecute):
            cursor = self._open(head.cursor)
            option = Option.FETCH if head.fetch else 0
            option |= Option.COMMIT if head.commit else 0
            head = Execute(Option.RUN | option, head.cursor, None, head.count, head.count, False, cursor.binds, [])
            return self._run(cursor, head, request.rows, cancel, send, described=True)
        return self._execute(head, request.rows, cancel, send)

    def _plain(self, function: int) -> bytes:
        if function == OCI_VERSION:
            text = BANNER.encode()
            return b"\x08" + ub(len(text)) + clr(text) + ub(version_number(self.caps)) + replies.status(False)
        if function == COMMIT:
            self.session.commit()
        elif function == ROLLBACK:
            self.session.rollback()
        return replies.status(self.session.in_transaction)

    def _open(self, number: int) -> Cursor:
        cursor = self.cursors.get(number)
        if cursor is None:
            raise OracleError(1001, "invalid cursor")
        return cursor

    def _close(self, number: int) -> None:
        cursor = self.cursors.pop(number, None)
        if cursor:
            cursor.close_rows()

    def _parse(self, head: Execute) -> Cursor:
        """Open a new cursor, or give an old one a new text."""
        if head.cursor in self.cursors:
            self._close(head.cursor)
            number = head.cursor
        elif len(self.cursors) >= MOST_CURSORS:
            raise OracleError(1000, "maximum open cursors exceeded")
        else:
            self._last += 1
            number = self._fresh = self._last
        cursor = self.cursors[number] = Cursor(number, head.sql or "")
        return cursor

    def _execute(self, head: Execute, rows: list[list], cancel: threading.Event, send: Send) -> bytes:
        cursor = self._parse(head) if head.sql is not None else self._open(head.cursor)
        if head.binds:
            cursor.binds = head.binds
        if head.options & Option.RUN:
            return self._run(cursor, head, rows, cancel, send, described=head.sql is None)
        if head.defines:
            return self._fetch(cursor, head.iterations if head.options & Option.FETCH else 0, cancel, send)
        columns = self.session.describe(cursor.sql)
        description = replies.describe(self.caps, columns) if columns else b""
        return description + self._end(cursor, 0)

    def _run(
        self, cursor: Cursor, head: Execute, rows: list[list], cancel: threading.Event, send: Send, described: bool
    ) -> bytes:
        """Execute a cursor."""
        if cursor.statement.kind != "query":
            return self._run_array(cursor, head, rows, cancel)
        result = self._once(cursor, rows[0] if rows else [], cancel)
        if result.columns is None:
            raise OracleError(600, "internal error code, arguments: [stand-in], [a query without columns]")
        return self._query(cursor, head, result, cancel, send, described)

    def _once(self, cursor: Cursor, values: list, cancel: threading.Event) -> Result:
        cursor.close_rows()
        names = cursor.statement.names
        if len(names) > len(cursor.binds):
            raise OracleError(1008, "not all variables bound")
        if len(names) < len(cursor.binds):
            raise OracleError(1036, "illegal variable name/number")
        values = values or [None] * len(names)
        binds = [
            Bind(name, slot.type, value, slot.size)
            for name, slot, value in zip(names, cursor.binds, values, strict=True)
        ]
        return self.session.execute(cursor.sql, binds, cancel)

    def _commit(self, head: Execute) -> None:
        if head.options & Option.COMMIT and self.session.in_transaction:
            self.session.commit()

    def _run_array(self, cursor: Cursor, head: Execute, rows: list[list], cancel: threading.Event) -> bytes:
        """Execute a statement other than a query, once per row of values; an error counts the rows before it."""
        if head.executions > MOST_EXECUTIONS:
            raise OracleError(3001, f"unimplemented feature: more than {MOST_EXECUTIONS} executions at once")
        if head.options & Option.BATCH_ERRORS or head.row_counts:
            raise OracleError(3001, "unimplemented feature: the stand-in gives no errors and row counts of each row")
        parts: list[bytes] = []
        count = 0
        for index in range(len(rows) or max(1, head.executions)):
            try:
                self._check(cancel)
                result = self._once(cursor, rows[index] if rows else [], cancel)
                parts.append(self._given_back(cursor, head, result, rows[index] if rows else []))
                count += result.rowcount
            except OracleError as error:
                return b"".join(parts) + self._end(cursor, count, error)
        self._commit(head)
        return b"".join(parts) + self._end(cursor, count)

    def _check(self, cancel: threading.Event) -> None:
        if cancel.is_set() or self.gone.is_set():
            raise cancelled()

    def _given_back(self, cursor: Cursor, head: Execute, result: Result, values: list) -> bytes:
        """Return a block's OUT binds after one execution.

        Only the client's first run of a block receives them, and the client relies on them from then on.
        """
        if cursor.statement.kind != "plsql" or not cursor.binds:
            return b""
        out, back = result.out or {}, b""
        if head.options & Option.PLSQL_BIND:
            cursor.written = sorted(out)
            back = replies.directions(len(cursor.binds), cursor.written)
        if not cursor.written:
            return back
        return back + replies.out_values(cursor.binds, {i: out.get(i, values[i]) for i in cursor.written})

    def _query(
        self, cursor: Cursor, head: Execute, result: Result, cancel: threading.Event, send: Send, described: bool
    ) -> bytes:
        """Describe a query that has just run, and fetch if the client wants that at once."""
        header = b"" if described and result.columns == cursor.columns else replies.describe(self.caps, result.columns)
        cursor.columns, cursor.rows, cursor.fetched = result.columns, iter(result.rows or ()), 0
        if not head.options & Option.FETCH:
            return header + self._end(cursor, 0)
        return self._fetch(cursor, head.iterations, cancel, send, header)

    def _fetch(self, cursor: Cursor, count: int, cancel: threading.Event, send: Send, first: bytes = b"") -> bytes:
        """Send up to `count` rows, part by part, so that the client reads while the rest is made."""
        if cursor.rows is None:
            raise OracleError(1002, "fetch out of sequence")
        functions = [ENCODERS[column.type] for column in cursor.columns]
        reply, size, left = first + (replies.ROW_HEADER if count else b""), 0, count
        while left > 0 and size < MOST_REPLY_BYTES:
            self._check(cancel)
            values = list(islice(cursor.rows, min(left, ROWS_A_PART)))
            if not values:
                cursor.close_rows()
                cursor.rows = iter(())
                return reply + self._end(cursor, cursor.fetched, replies.NO_MORE_ROWS)
            reply += replies.rows(functions, values)
            left -= len(values)
            cursor.fetched += len(values)
            size += len(reply)
            if left and not send(reply):
                raise cancelled()
            reply = b"" if left else reply
        return reply + self._end(cursor, cursor.fetched)

    def _end(self, cursor: Cursor, rows: int, error: OracleError | None = None) -> bytes:
        return replies.end(self.caps, self.session.in_transaction, error, rows=rows, cursor=cursor.number)


def version_number(caps: Caps, version: str = VERSION) -> int:
    """Return a version of five parts as one number; its layout changed with field version 11."""
    shifts = (24, 16, 12, 4, 0) if caps.field_version >= 11 else (24, 20, 12, 8, 0)
    return sum(int(part) << shift for part, shift in zip(version.split("."), shifts, strict=True))
