"""inv --dry: every task is known here, and none that changes something does so in a rehearsal."""

from __future__ import annotations

import re

import pytest
from invoke import Config, Context, Exit
from support.fault_proxy import Edge
from support.helpers import ROOT, inv, like_local

import tasks

ENV = "testdry"
FILE = ROOT / "env" / f"{ENV}.env"
DATE = "2025-12-31"
# Task -> its words beside --env; each is rehearsed below.
CHANGES = {
    "alarms": ["--to", "ops@example.com"],
    "cancel": ["--date", DATE],
    "close": ["--date", DATE],
    "deploy": [],
    "destroy": [],
    "layer.prune": ["--keep", "1"],
    "layer.publish": [],
    "oidc": [],
    "prune": ["--keep", "1"],
    "rerun": ["--date", DATE],
    "resolve": ["--period", DATE[:7], "--as", "failed"],
    "roles": [],
    "rollback": [],
    "schedule.start": [],
    "schedule.stop": [],
    "schema": [],
    "stop-job": ["--date", DATE],
    "keep-warm.off": [],
    "keep-warm.on": [],
}
# Those of them that would change something on the fresh cloud of the tests, so that there is a plan to show.
PLANNED = {"alarms", "close", "deploy", "destroy", "roles", "schedule.start", "schedule.stop", "schema", "keep-warm.on"}
# They refuse to be rehearsed: what they do on this machine is not made of commands.
REFUSE = {
    "demo": {},
    "dev": {},
    "genius.inject": {"fault": "procedure_status=0"},
    "genius.clear": {"fault": "procedure_status"},
    "genius.sql": {"text": "select 1 from dual"},
    "local.down": {},
    "local.reset": {},
    "local.tools": {},
    "local.up": {},
}
# They look, or make files of build/ alone, or hand on to one of the above, or are all commands that --dry prints.
REST = {
    *(
        "bench",
        "bundle",
        "chaos",
        "doctor",
        "history",
        "lock",
        "logs",
        "ping",
        "policies",
        "readme",
        "status",
        "versions",
    ),
    *("env.check", "env.diff", "env.json", "env.shell", "genius.faults", "help", "layer.build", "layer.list"),
    *("local.logs", "local.status", "schedule.do", "schedule.status", "keep-warm.do", "keep-warm.status"),
}
# What a rehearsal may ask of Restate.
LOOKS = re.compile(r'GET |POST /query |POST /v3/deployments .*"dry_run": true|POST /ClosingPeriod/[\d-]+/inspect ')


def test_every_task_says_what_it_does_in_a_rehearsal():
    known = {*CHANGES, *REFUSE, *REST}
    assert set(tasks.namespace.task_names) - known == set(), "new tasks: name them in CHANGES, REFUSE or REST"
    assert known - set(tasks.namespace.task_names) == set(), "no such tasks any more"


@pytest.mark.parametrize("task", sorted(REFUSE))
def test_what_cannot_be_rehearsed_says_so(task, tmp_path, monkeypatch):
    monkeypatch.setenv("FINANCE_CLOSING_STATE", str(tmp_path))
    rehearsal = Context(Config(overrides={"run": {"dry": True}}))
    with pytest.raises(Exit, match=r"^This task has no dry run: .* Nothing was done.$"):
        tasks.namespace[task](rehearsal, **REFUSE[task])


@pytest.fixture(scope="module")
def edges(deployed):
    """env/testdry.env, which differs from what is deployed, with edges between the tasks and Restate."""
    admin, ingress = Edge(deployed["RESTATE_ADMIN_URL"]), Edge(deployed["RESTATE_INGRESS_URL"])
    given = {
        "RESTATE_ADMIN_URL": admin.url,
        "RESTATE_INGRESS_URL": ingress.url,
        "DEADLINE_SECONDS": "303",
        "GITHUB_REPOSITORY": "insurer/finance-closing",
        "LOG_RETENTION_DAYS": "30",
    }
    FILE.write_text(like_local(**given))
    yield admin, ingress
    FILE.unlink()
    admin.close()
    ingress.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(CHANGES))
def test_a_rehearsal_only_looks(edges, recorder, task):
    heard = len(recorder.calls())
    for edge in edges:
        edge.requests.clear()
    done = inv("--dry", task, *CHANGES[task], "--env", ENV, check=False)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == done.returncode
    if task in PLANNED:
        assert re.search(r"^(aws|curl) ", done.stdout, re.MULTILINE)
    assert [call.action for call in recorder.calls()[heard:] if not call.looks] == []
    assert [one for edge in edges for one in edge.requests if not LOOKS.match(one)] == []
