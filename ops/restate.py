"""Restate's HTTP API: the ingress, and the admin API with its deployments and introspection tables."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from shlex import quote as q

from invoke import Exit

from ops import config, shell
from ops.environment import LOOPBACK
from ops.progress import waiting_for
from ops.target import Target

ANSWER_SECONDS = 30
# Deployments that no service has as its latest and no unfinished invocation began on; paused ones are unfinished.
DRAINED = (
    "SELECT d.id FROM sys_deployment d WHERE d.id NOT IN (SELECT deployment_id FROM sys_service) AND d.id NOT IN"
    " (SELECT pinned_deployment_id FROM sys_invocation_status WHERE pinned_deployment_id IS NOT NULL"
    " AND status != 'completed')"
)


def request(cfg: dict[str, str], method: str, url: str, body: object = None) -> tuple[int, object]:
    """Call Restate's HTTP API; returns (status, JSON or text), raises Exit in one line if there is no answer."""
    headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
    if needs_token(cfg, url):
        headers["authorization"] = f"Bearer {cfg['RESTATE_AUTH_TOKEN']}"
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, headers, method=method)
    host = urllib.parse.urlsplit(url).hostname
    try:
        with waiting_for(f"Restate at {host}"), opener(host).open(call, timeout=ANSWER_SECONDS) as answer:
            return answer.status, decoded(answer.read(), cfg)
    except urllib.error.HTTPError as error:
        return error.code, decoded(error.read(), cfg)
    except OSError as error:
        reason = getattr(error, "reason", error)
        fix = shell.START if host in LOOPBACK else "is it up, and is the URL right?"
        raise Exit(f"Restate at {url.split('/', 3)[2]} does not answer: {reason}; {fix}") from None


def opener(host: str | None) -> urllib.request.OpenerDirector:
    """Return urllib's opener for a host: with the proxies of the shell, except for this machine."""
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if host in LOOPBACK else []))


def needs_token(cfg: dict[str, str], url: str) -> bool:
    """Return whether a call carries the token.

    Restate stores the headers of an ingress call and passes them to the function. So the ingress receives the token
    only if it requires it: that of Restate Cloud, or one behind a proxy, by RESTATE_INGRESS_AUTH.
    """
    bare = url.strip("\"'")
    host = urllib.parse.urlsplit(bare).hostname or ""
    required = cfg["RESTATE_INGRESS_AUTH"] == "on" or host.endswith(".restate.cloud")
    return bool(cfg["RESTATE_AUTH_TOKEN"]) and (bare.startswith(cfg["RESTATE_ADMIN_URL"]) or required)


def decoded(answer: bytes, cfg: dict[str, str]) -> object:
    text = config.name_environment(answer.decode(errors="replace"), cfg.get("ENVIRONMENT", "ENV"))
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def curl(cfg: dict[str, str], method: str, url: str, body: object = None) -> str:
    """Return one call of Restate's HTTP API as a command; an argument would show the token to other users."""
    data = "" if body is None else f" -H 'content-type: application/json' -d {q(json.dumps(body))}"
    if not needs_token(cfg, url):
        return f"curl -X {method} {url}{data}"
    return f"""printf 'authorization: Bearer %s' "$RESTATE_AUTH_TOKEN" | curl -X {method} {url} -H @-{data}"""


def execute(target: Target, method: str, url: str, body: object = None) -> tuple[int, object]:
    """Change something through Restate's HTTP API, echoed as a command; under --dry nothing is sent: (200, {})."""
    shell.changes += 1
    shell.announce(curl(target.cfg, method, q(url), body))
    return (200, {}) if target.dry else request(target.cfg, method, url, body)


def message(answer: object) -> str:
    """Return the message of an answer of Restate, or the answer itself as text."""
    return str(answer.get("message", answer)) if isinstance(answer, dict) else str(answer)


def one_line(text: str) -> str:
    """Return a message of several lines, such as Oracle's, in one line."""
    return " ".join(text.split())


def first_line(text: str) -> str:
    """Return an error that Restate stores in one line of at most 300 characters.

    Without a traceback, and without the inner form of an error of restate-server itself.
    """
    line = one_line(re.split(r"Traceback \(most recent call last\)| \(\w+\(\w+ \{", text)[0])
    return line if len(line) <= 300 else f"{line[:299]}…"


def literal(value: str) -> str:
    """Return a value as SQL text; raises Exit unless it is a name, key or id, because this API takes no parameters."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", value):
        raise Exit(f"{value!r:.80} is not a name, key or id; nothing was sent to Restate")
    return f"'{value}'"


def sql(cfg: dict[str, str], query: str, *values: str) -> list[dict]:
    """Return rows of Restate's introspection tables; a column without a value is left out of its row.

    Each ? of the query is replaced by one of the values: a name, key or id.
    """
    first, *rest = query.split("?")
    query = first + "".join(f"{literal(value)}{text}" for value, text in zip(values, rest, strict=True))
    status, answer = request(cfg, "POST", f"{cfg['RESTATE_ADMIN_URL']}/query", {"query": query})
    if status != 200 or not isinstance(answer, dict):
        raise Exit(f"Restate's query API answered {status}: {answer}")
    return answer["rows"]


def admin(cfg: dict[str, str], path: str) -> dict:
    """Return what the admin API answers to GET; raises Exit in one line on any other status than 200."""
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/{path}")
    if status != 200:
        fix = "; check RESTATE_AUTH_TOKEN" if status in (401, 403) else ""
        raise Exit(
            f"Restate's admin API at {cfg['RESTATE_ADMIN_URL']} answered {status}: {one_line(message(answer))}{fix}"
        )
    return answer


def deployments(cfg: dict[str, str]) -> list[dict]:
    """Return all registered deployments as the admin API lists them."""
    return admin(cfg, "deployments")["deployments"]


def newest(cfg: dict[str, str]) -> str:
    """Return the id of the deployment on which Restate starts closings, "" before the first registration."""
    status, answer = request(cfg, "GET", f"{cfg['RESTATE_ADMIN_URL']}/services/DailyClosing")
    return answer["deployment_id"] if status == 200 else ""


def arn_of(deployment: dict) -> str:
    """Return a deployment's version ARN; for a URL the version behind it at its registration; "" for others."""
    return deployment.get("arn") or (deployment.get("metadata") or {}).get("arn", "")


def function_of(arn: str) -> str:
    """Return the ARN of a version or an alias without its number or name."""
    return arn.rpartition(":")[0]


def delete_deployment(target: Target, identity: str) -> None:
    """Delete a deployment. Restate only deletes with force and then checks nothing, so the caller must check."""
    url = f"{target.cfg['RESTATE_ADMIN_URL']}/deployments/{identity}?force=true"
    status, answer = execute(target, "DELETE", url)
    if status not in (200, 202, 204, 404):
        raise Exit(f"Restate did not delete {identity}: {status}: {one_line(message(answer))}; run the command again")
