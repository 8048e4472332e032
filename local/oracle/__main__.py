"""Start the stand-in: `python -m local.oracle --port 0 --data DIR --user-file FILE`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import signal
import sys
from pathlib import Path

from local.oracle.calls import BANNER
from local.oracle.connection import Limits
from local.oracle.ledger import PERIODS, SEED
from local.oracle.server import HOST, Server


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="genius", description=BANNER)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder of the stand-in's state and faults")
    parser.add_argument("--service", default="GENIUS")
    parser.add_argument("--user-file", type=Path, help="lines of USER:password; else GENIUS_USERS, one USER:password")
    parser.add_argument("--verifier", choices=("12c", "11g"), default="12c", help="how passwords are checked")
    parser.add_argument("--login-seconds", type=float, default=Limits().login_seconds)
    parser.add_argument("--procedure-seconds", type=float, default=5.0, help="how long the closing procedure takes")
    parser.add_argument("--periods", default="", help="what the books cover, as 2025-01,2025-02; else all of 2025")
    parser.add_argument("--seed", type=int, default=SEED, help="of the books; the same seed makes the same books")
    parser.add_argument("--branch-count", type=int, default=40, help="size of the books; 500 make 200,000 balances")
    parser.add_argument("--restart-on-recovery", action="store_true", help="as 12c: jobs run again after a restart")
    return parser.parse_args(words)


def users(text: str) -> dict[str, str]:
    """Parse lines of USER:password; users in upper case. Raises ValueError without any."""
    pairs = (line.partition(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))
    found = {user.strip().upper(): password for user, _, password in pairs if password}
    if not found:
        raise ValueError("no users; give lines of USER:password in --user-file or in GENIUS_USERS")
    return found


def periods(text: str) -> tuple[str, ...]:
    """Parse months with commas between them; ValueError names one that is not a month."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for period in found:
        if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", period):
            raise ValueError(f"{period!r} is not a period; give --periods as 2025-01,2025-02")
    return found or PERIODS


def open_files_up() -> None:
    """Raise the limit of open files: a thousand peers need more than many shells allow at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(server: Server, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await server.start(port)
    print(f"{BANNER}: listening on {HOST}:{server.port}/{server.database.service}", flush=True)
    await stopped.wait()
    await server.stop()


def main() -> int:
    options = arguments()
    try:
        known = users(options.user_file.read_text() if options.user_file else os.environ.get("GENIUS_USERS", ""))
        covered = periods(options.periods)
        open_files_up()
        # Only now: the parser of SQL takes half a second to import.
        from local.oracle.database import Database

        database = Database(
            options.data,
            service=options.service,
            users=known,
            procedure_seconds=options.procedure_seconds,
            periods=covered,
            seed=options.seed,
            restart_on_recovery=options.restart_on_recovery,
            branch_count=options.branch_count,
        )
        limits = Limits(login_seconds=options.login_seconds)
        asyncio.run(serve(Server(database, verifier=options.verifier, limits=limits), options.port))
    except (OSError, ValueError) as error:
        print(f"genius: {error}", file=sys.stderr)
        return 1
    database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
