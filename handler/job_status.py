"""The meaning of a poll of the closing job: plain values in, plain values out, no clock and no database."""

from __future__ import annotations

# Oracle numbers of the three ways in which the job's own block ends it.
PROCEDURE_FAILED = 20806
BACKED_OFF = 20807
STARTED_TWICE = 20808

WAITING = {"DISABLED", "SCHEDULED", "RETRY SCHEDULED"}
LIVE = WAITING | {"RUNNING", "CHAIN_STALLED", "REMOTE"}
NEVER_SURE = {"STOPPED", "BROKEN"}
GIVEN_UP = "given up"
# A run's row appears a moment after its job has left the list of running ones.
MISSES = 3


def evaluate(waited: dict, seen: dict, start_limit: float, deadline: float, ours: bool = True) -> dict:
    """Add one poll to the facts that are known of a job.

    waited: the last answer of this function, at first {"since": epoch seconds of the submission}, or {} if that is not
    known; seen: what genius.poll_job returned; ours: the job has our guard. Returns waited with "state", "misses",
    "unreachableSince" brought up to date, and "procedureStatus", the procedure's OUT status, if the job recorded it.
    Once the wait is over it has "outcome" and "message": succeeded | failed | backed-off | never-started | unobserved
    (Genius answers, and refuses the poll) | unknown (a person must decide). "overdue" means that a job of ours has not
    started in time and is to be given up.
    """
    known = {**waited, "at": seen["at"]}
    known.setdefault("since", seen["at"])
    known.pop("overdue", None)
    if not seen["reachable"]:
        known.setdefault("unreachableSince", seen["at"])
        return {**known, "error": seen["error"], **evaluate_silence(known, seen["error"], deadline)}
    known.pop("unreachableSince", None)
    known.pop("error", None)
    if "refused" in seen:
        return {**known, "outcome": "unobserved", "message": seen["refused"]}
    known["state"] = seen["state"]
    end = seen.get("end")
    if end:
        known["procedureStatus"] = end["status"]
    if seen["mark"] == GIVEN_UP:
        return {**known, "outcome": "never-started", "message": "the job was given up before it started"}
    if seen["runs"]:
        return {**known, **settle(evaluate_runs(seen["runs"]), end)}
    if seen["state"] in LIVE:
        return {**known, "misses": 0, **evaluate_limits(known, start_limit, deadline, ours, seen["mark"])}
    known["misses"] = waited.get("misses", 0) + 1
    if known["misses"] < MISSES:
        return known
    return {**known, **settle(evaluate_state(seen["state"], known, deadline), end)}


def settle(found: dict, end: dict | None) -> dict:
    """Replace an unknown outcome by the one that the job wrote about its own end, if it did.

    The job commits the procedure's work before it writes its end, so that end is true whatever became of the job.
    """
    if not end or found.get("outcome") != "unknown":
        return found
    ended = f"the job recorded {end['outcome']} with the status {end['status'] or 'NULL'}"
    return {**found, "outcome": end["outcome"], "message": f"{ended}; its run log has no such run: it may be purged"}


def evaluate_silence(known: dict, error: str, deadline: float) -> dict:
    waited = known["at"] - known["since"]
    return (
        unknown(f"Genius has not answered for {waited:.0f} s, past the deadline: {error}") if waited > deadline else {}
    )


def evaluate_runs(runs: list[dict]) -> dict:
    """Return the outcome by the run details; a start that refused itself is no sign of how the first one ended.

    Only an error that our own guard raised counts as such: the procedure may raise the same numbers.
    """
    first = next((run for run in runs if not (run["guard"] and run["error"] == STARTED_TWICE)), None)
    if first is None:
        return unknown("the database started the job a second time and there is no record of the first start")
    facts = {key: first[key] for key in ("startedAt", "endedAt", "seconds")}
    if first["status"] == "SUCCEEDED":
        return {"outcome": "succeeded", "message": "", **facts}
    if first["status"] == "FAILED":
        outcome = "backed-off" if first["guard"] and first["error"] == BACKED_OFF else "failed"
        return {"outcome": outcome, "message": first["message"], **facts}
    return {**unknown(f"the job's run ended as {first['status']}: {first['message']}"), **facts}


def evaluate_limits(known: dict, start_limit: float, deadline: float, ours: bool, mark: str | None) -> dict:
    waited = known["at"] - known["since"]
    not_started = known["state"] in WAITING and not mark
    if not_started and waited > start_limit:
        if ours:
            return {"overdue": True}
        return unknown(f"the job has not started within {waited:.0f} s; is JOB_QUEUE_PROCESSES 0?")
    if waited > deadline:
        return unknown(f"the job is {known['state']} after {waited:.0f} s, past its deadline")
    return {}


def evaluate_state(state: str | None, known: dict, deadline: float) -> dict:
    """Return the outcome of a job that has no run in several polls: its log was purged, or it is gone."""
    if state in ("SUCCEEDED", "COMPLETED"):
        return {"outcome": "succeeded", "message": "its run is not in the log; the job's state is the only source"}
    if state == "FAILED":
        return unknown("the job FAILED and its run is not in the log: the procedure may have failed or never started")
    if state is None:
        return unknown("neither the job nor a run of it is in Genius' dictionary")
    if state in NEVER_SURE:
        return unknown(f"the job is {state} and its run is not in the log")
    if known["at"] - known["since"] > deadline:
        return unknown(f"the job is in the state {state}, which this service does not know, past its deadline")
    return {}


def unknown(message: str) -> dict:
    return {"outcome": "unknown", "message": message}


def interval(polls: int, initial: float, factor: float, cap: float) -> float:
    """Return the seconds to wait after a number of polls: geometric up to a cap, so that the journal stays short."""
    # The power is bounded before it is taken, since factor ** polls overflows long before six hours are over.
    return min(cap, initial * factor ** min(polls, 64))
