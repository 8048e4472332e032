"""The local cloud: start, stop and report all services together, or each one alone."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from pathlib import Path

from . import identity, postgres, processes, tools
from . import services as definitions
from . import state as states
from .errors import LocalError
from .service import Abandoned, Service, running, start, stop, tail, wait_ready
from .services import ENDING_ORDER, ENDINGS, NAMES, PROCEDURE_SECONDS, USUAL_ENDING

ANSWER_BOUND = 10
Held = dict[str, socket.socket]


class Cloud:
    """The cloud of one state folder; `report` takes one line of progress at a time."""

    def __init__(self, path: Path | None = None, report: Callable[[str], None] = states.print_line):
        self.state = states.State(path)
        self.report = report

    def up(self, procedure_seconds: float | None = None) -> None:
        """Start the services that are down, all at once, and wait until they are ready.

        procedure_seconds: how long Genius' closing procedure takes. Raises LocalError if a service does not start; the
        services that this call started are then stopped again.
        """
        self._start(NAMES, procedure_seconds)

    def start(self, service: str) -> None:
        """Start one service with its earlier ports and data."""
        self._known(service)
        self._start([service])

    def down(self) -> None:
        """Stop every process that was started for this state folder, also those of a command that was killed."""
        if not self.state.path.is_dir():
            self.report("nothing is up")
            return
        with self.state.lock(self.report):
            self._stop_all()

    def reset(self) -> None:
        """Stop everything and delete data, logs, ports and passwords; downloaded programs stay."""
        if not self.state.path.is_dir():
            return
        with self.state.lock(self.report):
            self._stop_all()
            self.state.remove()
        self.report(f"deleted the contents of {self.state.path}")

    def kill(self, service: str) -> None:
        """End one service as a crash does: SIGKILL to all its processes."""
        self._known(service)
        with self.state.lock(self.report):
            stop(self.state, service, signal.SIGKILL, 5)

    def stop(self, service: str) -> None:
        """Stop one service in an orderly way."""
        self._known(service)
        with self.state.lock(self.report):
            self._stop_service(service)

    def settings(self) -> dict[str, str]:
        """Return the settings of run.env; none before the first `up`."""
        return self.state.settings()

    def status(self) -> dict[str, dict]:
        """Return service -> up, pid, port, ports, url, memory (bytes), age (seconds), log; an unknown value is None.

        A service that is not up and has a pid is running, but does not answer.
        """
        settings = self.state.settings()
        known = {service.name: service for service in self._services(settings)} if states.complete(settings) else {}
        return {name: self._status(name, known.get(name)) for name in NAMES}

    def _status(self, name: str, service: Service | None) -> dict:
        process = running(self.state, name)
        answer = {"up": False, "pid": process and process.pid, "memory": None, "age": None}
        if service and process:
            with suppress(Exception):
                service.probe()
                answer["up"] = True
            everything = {process, *processes.belonging_to(self.state.path, name)}
            answer["memory"] = sum(processes.memory(one) for one in everything)
            answer["age"] = processes.age(process)
        answer["port"] = service and service.port
        answer["ports"] = service and dict(service.ports)
        answer["url"] = service and service.url
        answer["log"] = str(self.state.path / "logs" / f"{name}.log")
        return answer

    def _known(self, service: str) -> None:
        if service not in NAMES:
            raise LocalError(f"No service '{service}'. Known: {', '.join(NAMES)}.")

    def _services(self, settings: dict[str, str]) -> list[Service]:
        return definitions.build(self.state, settings, self.report)

    def _start(self, names: Iterable[str], procedure_seconds: float | None = None) -> None:
        with self.state.lock(self.report):
            settings, held = self._chosen_settings(procedure_seconds)
            try:
                wanted = [
                    service
                    for service in self._services(settings)
                    if service.name in names and not self._reuse(service)
                ]
                for service in wanted:
                    if not set(service.ports) <= set(held):
                        held.update(states.hold_kept_ports(settings, service.name))
                if settings != self.state.settings():
                    self.state.write_settings(settings)
                self._start_together(wanted, held)
            finally:
                for holder in held.values():
                    holder.close()

    def _chosen_settings(self, procedure_seconds: float | None) -> tuple[dict[str, str], Held]:
        settings, held = self.state.settings(), {}
        if not states.complete(settings):
            if postgres.data_folder(self.state).exists():
                raise LocalError(
                    f"{self.state.env_file} does not have every port and password, and the databases there "
                    "accept only the old ones. Restore it, or start anew with `inv local.reset`."
                )
            settings, held = states.new_settings()
        seconds = procedure_seconds if procedure_seconds is not None else os.environ.get("LOCAL_PROCEDURE_SECONDS")
        if seconds is not None:
            settings["LOCAL_PROCEDURE_SECONDS"] = f"{_seconds(seconds):g}"
        settings.setdefault("LOCAL_PROCEDURE_SECONDS", PROCEDURE_SECONDS)
        settings["LOCAL_LAMBDA_RUNTIME"] = tools.lambda_runtime()
        settings["LOCAL_RESTATE_IDENTITY_KEY"] = identity.public_key(self.state)
        return settings, held

    def _reuse(self, service: Service) -> bool:
        """Return whether a service already runs with these settings; stop the rest of it if not."""
        process = running(self.state, service.name)
        if process and self.state.record(service.name)["fingerprint"] == service.fingerprint:
            wait_ready(service, process, ANSWER_BOUND, threading.Event(), lambda: tail(self.state.log(service.name)))
            service.finish()
            return True
        if process:
            self.report(f"{service.name:<9} is restarted: its settings have changed")
        self._stop_service(service.name)
        return False

    def _start_together(self, wanted: list[Service], held: Held) -> None:
        if not wanted:
            self.report("everything is up")
            return
        abandon = threading.Event()
        futures: list[Future] = []
        with ThreadPoolExecutor(len(wanted)) as pool:
            try:
                # All programs first: if one cannot be downloaded, nothing is started.
                for step in (lambda one: one.install(abandon), lambda one: self._start_service(one, held, abandon)):
                    futures = [pool.submit(step, service) for service in wanted]
                    for future in as_completed(futures):
                        future.result()
            except BaseException:
                abandon.set()
                wait(futures)
                for service in wanted:
                    self._stop_service(service.name)
                raise

    def _start_service(self, service: Service, held: Held, abandon: threading.Event) -> None:
        begin = time.monotonic()
        service.prepare()
        if abandon.is_set():
            raise Abandoned(service.name)
        start(self.state, service, abandon)
        for name in service.ports:
            held[name].close()
        service.finish()
        self.report(f"{service.name:<9} up in {time.monotonic() - begin:4.1f} s   {service.url}")

    def _stop_all(self) -> None:
        stopped = sum(self._stop_service(name) for name in ENDING_ORDER)
        others = processes.belonging_to(self.state.path)
        stopped += len(others)
        left = processes.end(others)
        if left:
            raise LocalError(f"process {left[0].pid} does not end even after SIGKILL. Check it with `ps`.")
        self.report(f"stopped {stopped} processes" if stopped else "nothing is up")

    def _stop_service(self, name: str) -> int:
        first, bound = ENDINGS.get(name, USUAL_ENDING)
        return stop(self.state, name, first, bound)


def _seconds(text: float | str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86400:
        raise LocalError(f"'{text}' is not a duration of Genius' procedure. Give seconds from 0 to 86400, such as 8.")
    return seconds
