"""All parts together: up, down, and each part by itself."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from pathlib import Path

from . import identity, postgres, processes, tools
from . import services as definitions
from . import state as states
from .errors import LocalError
from .service import Abandoned, Part, end, running, start, tail, wait_ready
from .services import ENDING_ORDER, ENDINGS, NAMES, PROCEDURE_SECONDS, USUAL_ENDING

ANSWER_BOUND = 10
Held = dict[str, socket.socket]


class Cloud:
    """The cloud of one state folder; `say` takes one line of progress at a time."""

    def __init__(self, path: Path | None = None, say: Callable[[str], None] = states.say_line):
        self.state = states.State(path)
        self.say = say

    def up(self, procedure_seconds: float | None = None) -> None:
        """Start what is not up, all at once, and wait for it; LocalError if a part does not come up.

        What this call started is ended again then. procedure_seconds: how long Genius' closing procedure takes.
        """
        self._start(NAMES, procedure_seconds)

    def start(self, part: str) -> None:
        """Start one part on its port and data of before."""
        self._known(part)
        self._start([part])

    def down(self) -> None:
        """End all that was ever started for this state folder, whatever started it and however that ended."""
        if not self.state.path.is_dir():
            self.say("nothing is up")
            return
        with self.state.lock(self.say):
            self._end_all()

    def reset(self) -> None:
        """End everything and remove data, logs, ports and passwords; downloaded programs stay."""
        if not self.state.path.is_dir():
            return
        with self.state.lock(self.say):
            self._end_all()
            self.state.remove()
        self.say(f"removed what was in {self.state.path}")

    def kill(self, part: str) -> None:
        """End one part as a crash would: SIGKILL to all its processes."""
        self._known(part)
        with self.state.lock(self.say):
            end(self.state, part, signal.SIGKILL, 5)

    def stop(self, part: str) -> None:
        """End one part in an orderly way."""
        self._known(part)
        with self.state.lock(self.say):
            self._end_part(part)

    def settings(self) -> dict[str, str]:
        """What run.env says; empty before the first `up`."""
        return self.state.settings()

    def status(self) -> dict[str, dict]:
        """Part -> up, pid, port, ports, url, memory (bytes), age (seconds), log.

        A pid without up is a part that runs and does not answer. What is not known is None.
        """
        settings = self.state.settings()
        known = {part.name: part for part in self._parts(settings)} if states.complete(settings) else {}
        return {name: self._status(name, known.get(name)) for name in NAMES}

    def _status(self, name: str, part: Part | None) -> dict:
        process = running(self.state, name)
        answer = {"up": False, "pid": process and process.pid, "memory": None, "age": None}
        if part and process:
            with suppress(Exception):
                part.probe()
                answer["up"] = True
            everything = {process, *processes.belonging_to(self.state.path, name)}
            answer["memory"] = sum(processes.memory(one) for one in everything)
            answer["age"] = processes.age(process)
        answer["port"] = part and part.port
        answer["ports"] = part and dict(part.ports)
        answer["url"] = part and part.url
        answer["log"] = str(self.state.path / "logs" / f"{name}.log")
        return answer

    def _known(self, part: str) -> None:
        if part not in NAMES:
            raise LocalError(f"No part '{part}'. Known: {', '.join(NAMES)}.")

    def _parts(self, settings: dict[str, str]) -> list[Part]:
        return definitions.build(self.state, settings, self.say)

    def _start(self, names: Iterable[str], procedure_seconds: float | None = None) -> None:
        with self.state.lock(self.say):
            settings, held = self._chosen_settings(procedure_seconds)
            try:
                wanted = [part for part in self._parts(settings) if part.name in names and not self._reuse(part)]
                for part in wanted:
                    if not set(part.ports) <= set(held):
                        held.update(states.hold_kept_ports(settings, part.name))
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
                    f"{self.state.env_file} does not name every port and password any more, and the databases there "
                    "know only the old ones. Put it back, or start anew with `inv local.reset`."
                )
            settings, held = states.new_settings()
        seconds = procedure_seconds if procedure_seconds is not None else os.environ.get("LOCAL_PROCEDURE_SECONDS")
        if seconds is not None:
            settings["LOCAL_PROCEDURE_SECONDS"] = f"{_seconds(seconds):g}"
        settings.setdefault("LOCAL_PROCEDURE_SECONDS", PROCEDURE_SECONDS)
        settings["LOCAL_LAMBDA_RUNTIME"] = tools.lambda_runtime()
        settings["LOCAL_RESTATE_IDENTITY_KEY"] = identity.public_key(self.state)
        return settings, held

    def _reuse(self, part: Part) -> bool:
        """Whether a part is up as wanted; what is left of it otherwise is ended."""
        process = running(self.state, part.name)
        if process and self.state.record(part.name)["fingerprint"] == part.fingerprint:
            wait_ready(part, process, ANSWER_BOUND, threading.Event(), lambda: tail(self.state.log(part.name)))
            part.finish()
            return True
        if process:
            self.say(f"{part.name:<9} is started again: its settings have changed")
        self._end_part(part.name)
        return False

    def _start_together(self, wanted: list[Part], held: Held) -> None:
        if not wanted:
            self.say("everything is up")
            return
        abandon = threading.Event()
        with ThreadPoolExecutor(len(wanted)) as pool:
            futures = [pool.submit(self._start_part, part, held, abandon) for part in wanted]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                abandon.set()
                wait(futures)
                for part in wanted:
                    self._end_part(part.name)
                raise

    def _start_part(self, part: Part, held: Held, abandon: threading.Event) -> None:
        begin = time.monotonic()
        part.install(abandon)
        part.prepare()
        if abandon.is_set():
            raise Abandoned(part.name)
        start(self.state, part, abandon)
        for name in part.ports:
            held[name].close()
        part.finish()
        self.say(f"{part.name:<9} up in {time.monotonic() - begin:4.1f} s   {part.url}")

    def _end_all(self) -> None:
        ended = sum(self._end_part(name) for name in ENDING_ORDER)
        strays = processes.belonging_to(self.state.path)
        ended += len(strays)
        left = processes.end(strays)
        if left:
            raise LocalError(f"process {left[0].pid} does not end even when killed. Look at it with `ps`.")
        self.say(f"ended {ended} processes" if ended else "nothing is up")

    def _end_part(self, name: str) -> int:
        first, bound = ENDINGS.get(name, USUAL_ENDING)
        return end(self.state, name, first, bound)


def _seconds(text: float | str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86400:
        raise LocalError(f"'{text}' is no duration of Genius' procedure. Give seconds from 0 to 86400, such as 8.")
    return seconds
