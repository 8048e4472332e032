"""The requests of a client: messages parsed without side effects.

There is no mark for the end of a message, so its bytes are parsed as they come: `Requests` keeps what it has
understood, the head and then row by row, and waits for more if they run out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from local.oracle.binds import Statement, scan
from local.oracle.datatypes import PARSERS, TYPE_NAMES
from local.oracle.model import OracleError
from local.oracle.wire import Malformed, Reader, Short

FUNCTION, ROW, PIGGYBACK = 3, 7, 17
REEXECUTE, FETCH, LOGOFF, COMMIT, ROLLBACK, OCI_VERSION, REEXECUTE_AND_FETCH, EXECUTE = 4, 5, 9, 14, 15, 59, 78, 94
SESSION_STATE, CLOSE_CURSORS, AUTH_TWO, AUTH_ONE, END_TO_END, PING, SET_SCHEMA = 176, 105, 115, 118, 135, 147, 152
OCI_PIGGYBACK, SET_KEY_VALUE = 107, 154
ARRAY, UTF16_FORM = 0x40, 2
LONGEST_VARCHAR = 32767
MOST_BINDS = 4096


class Option:
    """The bits of an execution."""

    PARSE, BIND, DEFINE, RUN, FETCH, COMMIT = 0x01, 0x08, 0x10, 0x20, 0x40, 0x100
    PLSQL_BIND, DESCRIBE, BATCH_ERRORS = 0x400, 0x20000, 0x80000


class Caps(NamedTuple):
    """The agreement of both sides. field_version: 12 for thin; raw_scale: a scale is one byte, always."""

    field_version: int
    raw_scale: bool


class Slot(NamedTuple):
    """How the client describes one bind or define. size: bytes set aside; form: 2 for UTF-16 text."""

    number: int
    type: str
    flags: int
    size: int
    form: int


class Execute(NamedTuple):
    """Parse, bind and run, or any part of it. cursor 0 asks for a new one; sql is None for one that has its text."""

    options: int
    cursor: int
    sql: str | None
    iterations: int
    executions: int
    row_counts: bool
    binds: list[Slot]
    defines: list[Slot]


class Reexecute(NamedTuple):
    """A request to run a cursor again. count: rows to fetch if `fetch`, else executions."""

    cursor: int
    count: int
    fetch: bool
    commit: bool


class Fetch(NamedTuple):
    cursor: int
    count: int


class Plain(NamedTuple):
    """A call of one number: commit, rollback, ping, log off."""

    function: int


class Login(NamedTuple):
    """One half of a login."""

    function: int
    user: str
    pairs: dict[str, str]


class Request(NamedTuple):
    """One call. closed: cursors to close before it; rows: the values of its binds, execution by execution."""

    head: Execute | Reexecute | Fetch | Plain | Login
    closed: list[int]
    rows: list[list[object]]


class Plan(NamedTuple):
    """The values that follow a head, in `rows` rows. order: the slots' indices as they come; width: values in a row."""

    rows: int
    slots: list[Slot]
    order: list[int]
    width: int


NOTHING = Plan(0, [], [], 0)


def order_of(statement: Statement, slots: list[Slot]) -> list[int]:
    """Return the order of a row's values: none for binds after INTO, and in SQL the long ones last."""
    sent = range(len(slots) - (statement.returned if statement.kind == "dml" else 0))
    if statement.kind == "plsql":
        return list(sent)
    return sorted(sent, key=lambda index: slots[index].size > LONGEST_VARCHAR)


def _slot(reader: Reader, caps: Caps) -> Slot:
    number, flags, _ = reader.u8(), reader.u8(), reader.u8()
    name = TYPE_NAMES.get(number)
    if caps.raw_scale or name not in ("NUMBER", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "INTERVAL DAY TO SECOND"):
        reader.u8()
    else:
        reader.ub()
    size = reader.ub()
    reader.skip("nn")
    reader.dalc()
    reader.skip("nn")
    form = reader.u8()
    reader.skip("nn" if caps.field_version >= 8 else "n")
    return Slot(number, name or "", flags, size, form)


def _slots(reader: Reader, caps: Caps, count: int) -> list[Slot]:
    if not 0 <= count <= MOST_BINDS:
        raise Malformed(f"{count} binds")
    return [_slot(reader, caps) for _ in range(count)]


def _value(reader: Reader, slot: Slot) -> object:
    data = reader.clr()
    if data is None:
        return None
    if slot.form == UTF16_FORM:
        return data.decode("utf-16-be", "replace")
    return PARSERS[slot.type](data)


def _row(reader: Reader, plan: Plan) -> list[object]:
    if (kind := reader.u8()) != ROW:
        raise Malformed(f"message {kind}, expected a row")
    values: list[object] = [None] * plan.width
    for index in plan.order:
        values[index] = _value(reader, plan.slots[index])
    return values


def _pairs(reader: Reader, count: int) -> dict[str, str]:
    found = {}
    for _ in range(count):
        key = reader.dalc().decode("utf-8", "replace")
        found[key] = reader.dalc().decode("utf-8", "replace")
        reader.ub()
    return found


def _login(reader: Reader, function: int) -> Login:
    reader.skip("1nn1")
    count = reader.ub()
    reader.skip("11")
    user = (reader.clr() or b"").decode("utf-8", "replace")
    return Login(function, user, _pairs(reader, count))


def _execute(reader: Reader, caps: Caps) -> Execute:
    options, cursor = reader.ub(), reader.ub()
    has_sql = reader.u8()
    reader.skip("n1n11n")
    iterations = reader.ub()
    reader.skip("n1")
    bind_count = reader.ub()
    reader.skip("111111")
    define_count = reader.ub()
    reader.skip("n111n1nn1n1")
    if caps.field_version >= 8:
        reader.skip("1n1n1")
    if caps.field_version >= 9:
        reader.skip("1n")
    sql = (reader.clr() or b"").decode("utf-8", "replace") if has_sql else None
    vector = [reader.ub() for _ in range(13)]
    slots = _slots(reader, caps, define_count or bind_count)
    binds, defines = ([], slots) if define_count else (slots, [])
    return Execute(options, cursor, sql, iterations, vector[1], bool(vector[9] & 0x4000), binds, defines)


def _end_to_end(reader: Reader) -> None:
    """Skip module, action and the like, which the stand-in does not use."""
    reader.skip("11n")
    lengths = []
    for form in ("1", "1", "1", "1n1n1", "1n1n1"):
        reader.skip(form)
        lengths.append(reader.ub())
    for length in lengths:
        if length:
            reader.clr()


def _key_values(reader: Reader) -> None:
    reader.skip("1n1")
    count = reader.ub()
    reader.skip("n1")
    reader.clr()
    _pairs(reader, count)


def _closed(reader: Reader) -> list[int]:
    reader.u8()
    return [reader.ub() for _ in range(reader.ub())]


def _piggyback(reader: Reader, function: int) -> list[int]:
    """Skip a message that comes before its call; return the cursors to close, if it has them."""
    if function == CLOSE_CURSORS:
        return _closed(reader)
    if function == END_TO_END:
        _end_to_end(reader)
    elif function == SET_SCHEMA:
        reader.u8()
        reader.dalc()
    elif function == SESSION_STATE:
        reader.ub()
    elif function == SET_KEY_VALUE:
        _key_values(reader)
    elif function == OCI_PIGGYBACK:
        reader.skip("nnn")
    else:
        raise OracleError(3001, f"unimplemented feature: the stand-in has no piggyback {function}")
    return []


def _call(reader: Reader, function: int, caps: Caps) -> Execute | Reexecute | Fetch | Plain | Login:
    if function == EXECUTE:
        return _execute(reader, caps)
    if function in (REEXECUTE, REEXECUTE_AND_FETCH):
        cursor, count, _, commit = (reader.ub() for _ in range(4))
        return Reexecute(cursor, count, function == REEXECUTE_AND_FETCH, bool(commit & 1))
    if function == FETCH:
        return Fetch(reader.ub(), reader.ub())
    if function in (AUTH_ONE, AUTH_TWO):
        return _login(reader, function)
    if function == OCI_VERSION:
        reader.skip("1n11")
    elif function not in (COMMIT, ROLLBACK, PING, LOGOFF):
        raise OracleError(3001, f"unimplemented feature: the stand-in has no function {function}")
    return Plain(function)


class Requests:
    """The bytes of one session, turned into requests as soon as they are complete.

    plan: what follows a re-execution, by cursor; known: a cursor's statement, if it has one.
    """

    def __init__(self, caps: Caps, plan: Callable[[int], Plan | None], known: Callable[[int], Statement | None]):
        self.caps = caps
        self.plan = plan
        self.known = known
        self.bytes = 0
        self._data = bytearray()
        self._needed = 1
        self._memo: dict[int, tuple[bytearray, int]] = {}
        self._head: tuple | None = None
        self._rows: list[list[object]] = []

    def feed(self, data: bytes) -> None:
        self._data += data
        self.bytes += len(data)

    def clear(self) -> None:
        """Forget everything that is not yet a whole request."""
        self._data.clear()
        self._memo = {}
        self._needed = 1
        self._head, self._rows, self.bytes = None, [], 0

    def poll(self) -> Request | None:
        """Return the next whole request. Raises OracleError for what can be answered, Malformed for what cannot.

        bytes: how much the unfinished request has cost so far.
        """
        try:
            if self._head is None:
                self._head = self._step(self._head_and_plan)
            head, closed, plan = self._head
            while len(self._rows) < plan.rows:
                self._rows.append(self._step(lambda reader: _row(reader, plan)))
        except Short as short:
            self._needed = short.needed
            return None
        request = Request(head, closed, self._rows)
        self._head, self._rows, self.bytes = None, [], len(self._data)
        return request

    def _step(self, parse: Callable[[Reader], object]) -> object:
        """Parse one part and drop its bytes, or raise Short and leave all as it was."""
        if len(self._data) < self._needed:
            raise Short(self._needed)
        reader = Reader(self._data, self._memo)
        part = parse(reader)
        del self._data[: reader.pos]
        self._needed = 1
        if self._memo:
            self._memo = {}
        return part

    def _head_and_plan(self, reader: Reader) -> tuple:
        closed: list[int] = []
        while (kind := reader.u8()) == PIGGYBACK:
            function, _ = reader.u8(), reader.u8()
            closed += _piggyback(reader, function)
        if kind != FUNCTION:
            raise Malformed(f"message {kind}, expected a call")
        function, _ = reader.u8(), reader.u8()
        head = _call(reader, function, self.caps)
        return head, closed, self._plan_for(head)

    def _plan_for(self, head: object) -> Plan:
        if isinstance(head, Reexecute):
            plan = self.plan(head.cursor)
            if plan is None:
                raise OracleError(1001, "invalid cursor")
            return plan._replace(rows=(1 if head.fetch else head.count) if plan.order else 0)
        if not isinstance(head, Execute) or not head.binds:
            return NOTHING
        statement = scan(head.sql) if head.sql is not None else self.known(head.cursor)
        if statement is None:
            raise OracleError(1001, "invalid cursor")
        unknown = [slot.number for slot in head.binds if not slot.type]
        if unknown:
            raise OracleError(3115, f"unsupported network datatype or representation (type {unknown[0]})")
        if any(slot.flags & ARRAY for slot in head.binds):
            raise OracleError(3115, "unsupported network datatype or representation (an array of PL/SQL)")
        return plan_for(statement, head.binds, head.executions)


def plan_for(statement: Statement, slots: list[Slot], executions: int) -> Plan:
    """Return the values that a run of a statement sends. A query runs once, whatever its count of executions."""
    order = order_of(statement, slots)
    rows = (1 if statement.kind == "query" else executions) if order else 0
    return Plan(rows, slots, order, len(slots))
