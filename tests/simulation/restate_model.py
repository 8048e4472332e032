"""A small model of Restate: invocations with a journal, object state, queues, timers, and virtual time.

It runs the real handlers. What it keeps of Restate: a step is run at least once and its result is journaled; a lost
attempt is replayed from the journal; an exclusive handler holds its key; a workflow key is used once; a cancellation
arrives at an await; a kill runs no code; a paused invocation keeps its key. Source: runs of restate-server 1.7.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from restate import TerminalError
from restate.exceptions import RetryableError

# Restate pauses an invocation after this many failed tries at one place. Real: RETRY_ATTEMPTS, 70 by default.
ATTEMPTS = 4
RETRY_SECONDS = 600.0
STEP_SECONDS = 0.5
CANCELLED = 409


class Died(BaseException):
    """The process that ran the attempt is gone; its effects up to here stay."""


class Failed(BaseException):
    """The attempt ended with an error that Restate retries."""


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


class Restate:
    """The server. services: {name: {handler: (function, kind, takes a body)}}; kind: exclusive | shared | workflow."""

    def __init__(self, services: dict[str, dict[str, tuple]], now: float):
        self.services, self.now = services, now
        self.addresses = {id(f): (s, h) for s, handlers in services.items() for h, (f, *_) in handlers.items()}
        self.states: dict[tuple[str, str], dict] = defaultdict(dict)
        self.queues: dict[tuple[str, str], deque[Invocation]] = defaultdict(deque)
        self.invocations: dict[str, Invocation] = {}
        self.workflows: dict[tuple[str, str], Invocation] = {}
        self.events: list = []
        self.numbers = itertools.count(1)
        self.version = 0
        # Called at each step boundary; returns the fault there, or "".
        self.fault = lambda invocation, name: ""
        # Called when a workflow run is accepted, with its key and its body.
        self.accepted = lambda key, body: None
        self.current: Invocation | None = None
        self.zombies: list = []
        self.finished: list[Invocation] = []

    # Time

    def after(self, seconds: float, function, *arguments) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.numbers), function, arguments))

    def run(self, until: float, most: int = 5000) -> None:
        """Let time pass up to a moment."""
        for _ in range(most):
            if not self.events or self.events[0][0] > until:
                self.now = max(self.now, until)
                return
            self.now, _, function, arguments = heapq.heappop(self.events)
            function(*arguments)
        raise AssertionError(f"more than {most} events: a loop that never ends")

    # Invocations

    def address(self, function) -> tuple[str, str]:
        return self.addresses[id(function)]

    def submit(self, service, key, handler, body, parent=None, delay: float = 0.0) -> Invocation:
        """Accept a call. A workflow's key that was used before attaches to the first call."""
        function, kind, takes_body = self.services[service][handler]
        body = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        if not takes_body:
            body = NO_BODY
        if kind == "workflow":
            earlier = self.workflows.get((service, key))
            if earlier:
                return earlier
        made = Invocation(
            f"inv_{next(self.numbers)}", service, key, handler, function, body, kind == "exclusive", parent
        )
        made.accepted = self.now
        self.invocations[made.id] = made
        if kind == "workflow":
            self.accepted(key, body)
            # A workflow's id comes from its key: the same again after a purge.
            made.id = f"inv_{service}_{key}"
            self.invocations[made.id] = self.workflows[service, key] = made
        if delay:
            made.status = "scheduled"
            self.after(delay, self.arrive, made, made.epoch)
        else:
            self.arrive(made, made.epoch)
        return made

    def arrive(self, invocation: Invocation, epoch: int) -> None:
        if invocation.epoch != epoch or not invocation.live:
            return
        invocation.status = "queued"
        if not invocation.exclusive:
            self.after(0.01, self.attempt, invocation, invocation.epoch)
            return
        queue = self.queues[invocation.service, invocation.key]
        queue.append(invocation)
        if queue[0] is invocation:
            self.after(0.01, self.attempt, invocation, invocation.epoch)

    def attempt(self, invocation: Invocation, epoch: int) -> None:
        """Start the handler from its beginning, over the journal."""
        if invocation.epoch != epoch or not invocation.live or invocation.status == "paused":
            return
        if invocation.version < 0:
            invocation.version = self.version
        if invocation.coroutine:
            invocation.coroutine.close()
        invocation.context = Context(self, invocation)
        arguments = [] if invocation.body is NO_BODY else [invocation.body]
        invocation.coroutine = invocation.function(invocation.context, *arguments)
        self.resume(invocation)

    def resume(self, invocation: Invocation) -> None:
        """Let the handler go on up to its next wait or its end."""
        invocation.status, self.current = "running", invocation
        try:
            invocation.waits_for = invocation.coroutine.send(None)
        except StopIteration as end:
            self.complete(invocation, end.value, None)
        except TerminalError as error:
            self.complete(invocation, None, error)
        except Died:
            self.again(invocation, 2.5)
        except Failed:
            self.again(invocation, RETRY_SECONDS)
        except Exception:
            # A RetryableError, or an error in the handler's own code, outside of a step.
            self.retry(invocation)
        else:
            invocation.status = "waiting"
            if invocation.cancelled:
                self.deliver_cancel(invocation)
        finally:
            self.current = None

    def again(self, invocation: Invocation, seconds: float) -> None:
        invocation.epoch += 1
        invocation.status = "backing-off"
        self.after(seconds, self.attempt, invocation, invocation.epoch)

    def retry(self, invocation: Invocation) -> None:
        invocation.attempts += 1
        invocation.epoch += 1
        if invocation.attempts >= ATTEMPTS:
            invocation.status = "paused"
        else:
            self.again(invocation, RETRY_SECONDS)

    def wake(self, invocation: Invocation, entry: Entry) -> None:
        """Continue an invocation whose timer or call is done."""
        if entry.done or not invocation.live:
            return
        entry.finish()
        self.proceed(invocation, entry)

    def proceed(self, invocation: Invocation, entry: Entry) -> None:
        if invocation.status == "waiting" and entry in (invocation.waits_for, invocation.waits_for.inner):
            self.resume(invocation)

    def complete(self, invocation: Invocation, value, error: TerminalError | None) -> None:
        invocation.status, invocation.result, invocation.failure = "completed", value, error
        invocation.coroutine = invocation.context = None
        self.finished.append(invocation)
        self.release(invocation)
        entry = getattr(invocation, "caller_entry", None)
        if entry and not entry.done:
            entry.finish(value, error)
            if invocation.parent.live:
                self.after(0.01, self.proceed, invocation.parent, entry)

    def release(self, invocation: Invocation) -> None:
        queue = self.queues[invocation.service, invocation.key]
        if invocation in queue:
            first = queue[0] is invocation
            queue.remove(invocation)
            if first and queue:
                self.after(0.01, self.attempt, queue[0], queue[0].epoch)

    # Steps

    def run_step(self, invocation: Invocation, entry: Entry, function, options, arguments) -> None:
        """Run a step's function; a fault may lose the process before or after the effect, or delay the effect."""
        fault = self.fault(invocation, entry.name)
        if fault == "die-before":
            raise Died
        if fault == "zombie":
            # Restate gives up the process, but the effect of its step still comes, later.
            self.zombies.append((function, arguments, invocation))
            raise Died
        if fault == "stall":
            # The service that the step calls does not answer. The step is repeated until it does.
            raise Failed(f"{entry.name} stalls")
        value = failure = None
        try:
            value = function(**arguments)
        except TerminalError as error:
            failure = error
        except RetryableError:
            # The SDK passes it on to Restate, which counts it by the retry policy of the invocation.
            raise
        except Exception as error:
            failure = self.count_failure(entry, options, error)
        if fault == "die-after":
            raise Died
        # The acknowledgement takes a moment. Meanwhile others act, and a cancellation can arrive.
        self.after(STEP_SECONDS, self.acknowledge, invocation, invocation.epoch, entry, value, failure)

    def acknowledge(self, invocation, epoch, entry, value, failure) -> None:
        if entry.done or invocation.epoch != epoch:
            return
        entry.finish(value, failure)
        invocation.attempts = 0
        self.proceed(invocation, entry)

    def count_failure(self, entry: Entry, options, error: Exception) -> TerminalError:
        """Return the end of a step whose tries are used up; raises Failed before that."""
        tries = entry.value = (entry.value or 0) + 1
        most = getattr(options, "max_attempts", None)
        if most and tries >= most:
            return TerminalError(str(error))
        raise Failed(str(error))

    def run_zombie(self, invocation, function, arguments) -> None:
        self.current = invocation
        try:
            function(**arguments)
        except Exception:
            # The process was given up, so nobody gets this error.
            pass
        finally:
            self.current = None

    # Operator

    def cancel(self, identity: str) -> None:
        """Cancel an invocation and the calls that it waits for."""
        invocation = self.invocations.get(identity)
        if not invocation or not invocation.live:
            return
        if invocation.status in ("scheduled", "queued"):
            invocation.epoch += 1
            queued = invocation.status == "queued"
            invocation.status = "queued" if queued else "completed"
            if queued:
                self.complete(invocation, None, TerminalError("cancelled", CANCELLED))
            return
        invocation.cancelled = True
        if invocation.status == "waiting":
            self.deliver_cancel(invocation)

    def deliver_cancel(self, invocation: Invocation) -> None:
        entry = invocation.waits_for
        invocation.cancelled = False
        child = (entry.inner or entry).child
        if child and child.live:
            self.cancel(child.id)
        entry.finish(error=TerminalError("cancelled", CANCELLED))
        self.after(0.01, self.proceed, invocation, entry)

    def kill(self, identity: str) -> None:
        """End an invocation and its calls at once; no code of theirs runs any more."""
        invocation = self.invocations.get(identity)
        if not invocation or not invocation.live:
            return
        invocation.epoch += 1
        if invocation.coroutine:
            invocation.coroutine.close()
        for entry in invocation.journal:
            if entry.child and entry.child.live:
                self.kill(entry.child.id)
        self.complete(invocation, None, TerminalError("killed", CANCELLED))

    def purge(self, service: str, key: str) -> bool:
        """Forget a completed workflow run and its state."""
        run = self.workflows.get((service, key))
        if not run or run.live:
            return False
        del self.workflows[service, key], self.invocations[run.id]
        self.states.pop((service, key), None)
        return True

    def lose_data(self) -> None:
        """Start again from nothing: invocations, state and used keys are gone; what runs in Genius goes on."""
        for one in self.invocations.values():
            one.epoch += 1
            if one.coroutine:
                one.coroutine.close()
        for table in (self.invocations, self.workflows, self.states, self.queues):
            table.clear()
        self.events = [one for one in self.events if one[2].__name__ not in ("wake", "proceed", "acknowledge")]
        heapq.heapify(self.events)

    def resume_paused(self, identity: str, latest: bool = False) -> None:
        invocation = self.invocations[identity]
        if invocation.status != "paused":
            return
        invocation.attempts = 0
        if latest:
            invocation.version = self.version
        self.again(invocation, 0.01)


NO_BODY = object()
