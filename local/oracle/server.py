"""The listener: takes connections, bounds what strangers may cost, and ends them all."""

from __future__ import annotations

import asyncio
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

from local.oracle import packets
from local.oracle.connection import Connection, Limits
from local.oracle.wire import Malformed

HOST = "127.0.0.1"
MOST_SESSIONS = 500
MOST_STRANGERS = 250
BACKLOG = 1024
FAREWELL_SECONDS = 5.0


class Server:
    """Listens on 127.0.0.1 and serves `database` until `stop`."""

    def __init__(self, database: object, *, verifier: str = "12c", limits: Limits | None = None):
        self.database = database
        self.verifier = verifier
        self.limits = limits or Limits()
        self.port = 0
        # For the salts of users: a real database stores them, so that a user always gets the same one.
        self._salt_key = secrets.token_bytes(16)
        self._workers = ThreadPoolExecutor(MOST_SESSIONS + MOST_STRANGERS, "genius-call")
        self._tasks: set[asyncio.Task] = set()
        self._strangers: dict[Connection, None] = {}
        self._sessions: set[Connection] = set()
        self._listener: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen, at 0 on a free port. Returns the port. Raises OSError if it is taken."""
        self._listener = await asyncio.start_server(self._serve, HOST, port, backlog=BACKLOG)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Stop listening, cancel what runs, and drop everyone."""
        self._listener.close()
        for connection in [*self._sessions, *self._strangers]:
            connection.stop()
            connection.cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL_SECONDS)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        connection = self._connection(reader, writer)
        self._strangers[connection] = None
        peer = writer.get_extra_info("peername")
        try:
            if self._welcome(connection):
                await connection.serve(lambda: self._admit(connection))
        except Malformed as error:
            self._print(peer, str(error))
        except asyncio.TimeoutError:
            self._print(peer, f"no login within {self.limits.login_seconds:g} s")
        except (asyncio.IncompleteReadError, OSError):
            pass
        except Exception as error:  # one peer's trouble, such as a fault file that makes no sense
            self._print(peer, f"{type(error).__name__}: {error}")
        finally:
            self._strangers.pop(connection, None)
            self._sessions.discard(connection)
            self._tasks.discard(task)
            await self._hang_up(writer)

    def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection:
        return Connection(self.database, reader, writer, self._workers, self.limits, self.verifier, self._salt_key)

    def _welcome(self, connection: Connection) -> bool:
        """Return whether a peer may begin. The stranger that has waited longest makes room for the newest."""
        if self.database.faults.value("listener_down") is not None:
            connection.cut()
            return False
        if len(self._sessions) >= MOST_SESSIONS:
            connection.writer.write(packets.refuse(packets.NO_HANDLER))
            return False
        if len(self._strangers) > MOST_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.cut()
        return True

    def _admit(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        self._sessions.add(connection)

    @staticmethod
    async def _hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), FAREWELL_SECONDS)
        except asyncio.TimeoutError:
            writer.transport.abort()
        except OSError:
            pass

    @staticmethod
    def _print(peer: tuple | None, text: str) -> None:
        where = f"{peer[0]}:{peer[1]}" if peer else "a peer"
        print(f"genius: dropped {where}: {text}", file=sys.stderr, flush=True)
