"""A Genius stand-in in this process: its server, on a real socket, with an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

from local.oracle.server import Server


class InProcessServer:
    """Serves a database until `stop`; port 0 takes a free one."""

    def __init__(self, database: object, port: int = 0, **options: object):
        self.database = database
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self.do(self._make(options))
        self.port = self.do(self.server.start(port))

    async def _make(self, options: dict) -> Server:
        return Server(self.database, **options)

    def do(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    def dsn(self, service: str = "GENIUS") -> str:
        return f"127.0.0.1:{self.port}/{service}"
