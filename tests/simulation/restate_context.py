"""A handler's side of the model of Restate: the journal of an invocation, and the context with its awaits."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from restate import TerminalError

if TYPE_CHECKING:
    from .restate_model import Restate

CANCELLED = 409


@dataclass
class Entry:
    """One entry of a journal. `error` is a TerminalError that the handler sees at each replay."""

    kind: str
    name: str
    done: bool = False
    value: Any = None
    error: TerminalError | None = None
    child: Invocation | None = None
    # Of a gather: the entry that it waits for.
    inner: Entry | None = None

    def take(self):
        if self.error:
            raise TerminalError(self.error.message, self.error.status_code)
        return self.value

    def finish(self, value=None, error: TerminalError | None = None) -> None:
        self.done, self.value, self.error = True, value, error


class Await:
    """The result of a context's operation. `begin` starts what it waits for, unless a cancellation comes first."""

    __slots__ = ("begin", "context", "entry")

    def __init__(self, entry: Entry, context: Context | None = None, begin=None):
        self.entry, self.context, self.begin = entry, context, begin

    def start(self) -> None:
        if self.begin:
            begin, self.begin = self.begin, None
            begin()

    def __await__(self):
        if not self.entry.done and not self.context.cancel_here(self.entry):
            self.start()
        while not self.entry.done:
            yield self.entry
        return self.entry.take()

    async def invocation_id(self) -> str:
        self.start()
        return self.entry.child.id


class Gather:
    """The SDK's gather of one future: it does not raise the future's error, and a cancellation ends only the wait."""

    __slots__ = ("entry", "future")

    def __init__(self, entry: Entry, future: Await):
        self.entry, self.future = entry, future

    def __await__(self):
        if not self.entry.done and not self.future.context.cancel_here(self.entry) and not self.future.entry.done:
            self.future.start()
        while not self.entry.done:
            if self.entry.inner.done:
                self.entry.finish()
                break
            yield self.entry
        return self.entry.take()


def gather(future: Await) -> Gather:
    """Wait for the future, in place of restate.gather of one future."""
    entry, _ = future.context.entry("gather")
    entry.inner = future.entry
    return Gather(entry, future)


@dataclass(eq=False)
class Invocation:
    id: str
    service: str
    key: str
    handler: str
    function: Any
    body: Any
    exclusive: bool
    parent: Invocation | None = None
    journal: list[Entry] = field(default_factory=list)
    # queued | running | waiting | backing-off | paused | scheduled | completed
    status: str = "queued"
    version: int = -1
    cancelled: bool = False
    attempts: int = 0
    waits_for: Entry | None = None
    coroutine: Any = None
    context: Any = None
    result: Any = None
    failure: TerminalError | None = None
    accepted: float = 0.0
    # Raised by a kill or a purge, so that events of an older attempt are ignored.
    epoch: int = 0

    @property
    def live(self) -> bool:
        return self.status != "completed"


class Request:
    __slots__ = ("attempt_finished_event", "body", "extra_contexts", "headers", "id")

    def __init__(self, identity: str, body):
        self.id, self.body, self.headers = identity, body, {}


class Context:
    """The `ctx` of a handler; one for each attempt."""

    def __init__(self, restate: Restate, invocation: Invocation):
        self.restate, self.invocation, self.place = restate, invocation, 0

    def entry(self, kind: str, name: str = "") -> tuple[Entry, bool]:
        """Return the next entry of the journal, and whether it is new; a replay must ask for the same, in order."""
        journal = self.invocation.journal
        if self.place < len(journal):
            found = journal[self.place]
            assert (found.kind, found.name) == (kind, name), f"replay asks for {kind} {name}, not {found}"
            self.place += 1
            return found, False
        journal.append(Entry(kind, name))
        self.place += 1
        return journal[-1], True

    def key(self) -> str:
        return self.invocation.key

    def request(self) -> Request:
        return Request(self.invocation.id, self.invocation.body)

    def time(self) -> Await:
        entry, new = self.entry("time")
        if new:
            entry.finish(self.restate.now)
        return Await(entry, self)

    def get(self, name: str, *_, **__) -> Await:
        entry, new = self.entry("get", name)
        if new:
            entry.finish(self.state.get(name))
        return Await(entry, self)

    def set(self, name: str, value, *_, **__) -> None:
        entry, new = self.entry("set", name)
        if new:
            self.state[name] = value
            entry.finish()

    def clear(self, name: str) -> None:
        entry, new = self.entry("clear", name)
        if new:
            self.state.pop(name, None)
            entry.finish()

    @property
    def state(self) -> dict:
        return self.restate.states[self.invocation.service, self.invocation.key]

    def sleep(self, delta: timedelta, *_, **__) -> Await:
        entry, new = self.entry("sleep")
        if not new:
            return Await(entry, self)
        seconds = delta.total_seconds()
        return Await(entry, self, lambda: self.restate.after(seconds, self.restate.wake, self.invocation, entry))

    def run_typed(self, name: str, function, options=None, **arguments) -> Await:
        entry, _ = self.entry("run", name)
        if entry.done:
            return Await(entry, self)
        begin = functools.partial(self.restate.run_step, self.invocation, entry, function, options, arguments)
        return Await(entry, self, begin)

    def object_call(self, function, key: str, arg=None, **_) -> Await:
        service, handler = self.restate.address(function)
        entry, new = self.entry("call", f"{service}/{key}/{handler}")

        def begin() -> None:
            entry.child = self.restate.submit(service, key, handler, arg, parent=self.invocation)
            entry.child.caller_entry = entry

        return Await(entry, self, begin if new else None)

    workflow_call = object_call

    def object_send(self, function, key: str, arg=None, send_delay: timedelta | None = None, **_):
        service, handler = self.restate.address(function)
        entry, new = self.entry("send", f"{service}/{key}/{handler}")
        if new:
            delay = send_delay.total_seconds() if send_delay else 0.0
            sent = self.restate.submit(service, key, handler, arg, delay=delay)
            entry.finish(sent.id)
        return Handle(entry)

    workflow_send = object_send

    def cancel_invocation(self, identity: str) -> None:
        entry, new = self.entry("cancel", identity)
        if new:
            self.restate.cancel(identity)
            entry.finish()

    def cancel_here(self, entry: Entry) -> bool:
        """Deliver a cancellation at this await: what it waits for is not started, or no longer waited for."""
        if entry.done or not self.invocation.cancelled:
            return False
        self.invocation.cancelled = False
        entry.finish(error=TerminalError("cancelled", CANCELLED))
        return True


class Handle:
    def __init__(self, entry: Entry):
        self.entry = entry

    async def invocation_id(self) -> str:
        return self.entry.value
