"""A small model of Restate: invocations with a journal, object state, queues, timers, and virtual time.

It runs the real handlers. What it keeps of Restate: a step is run at least once and its result is journaled; a lost
attempt is replayed from the journal; an exclusive handler holds its key; a workflow key is used once; a cancellation
arrives at an await; a kill runs no code; a paused invocation keeps its key. Source: runs of restate-server 1.7.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import defaultdict, deque

from restate import TerminalError
from restate.exceptions import RetryableError

from .restate_context import CANCELLED, Context, Entry, Invocation

# Restate pauses an invocation after this many failed tries at one place. Real: RETRY_ATTEMPTS, 70 by default.
ATTEMPTS = 4
RETRY_SECONDS = 600.0
STEP_SECONDS = 0.5


class Died(BaseException):
    """The process that ran the attempt is gone; its effects up to here stay."""


class Failed(BaseException):
    """The attempt ended with an error that Restate retries."""


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
