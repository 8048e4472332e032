"""The runbook as tasks: one task, one step. `inv --list` is its index."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from shlex import quote as q

from invoke import Collection, Exit, task

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT)]

from env import (  # noqa: E402
    alarms,
    closings,
    destroy,
    doctor,
    doors,
    environment,
    history,
    logs,
    ping,
    policies,
    readme,
    repair,
    roles,
    schedule,
    shipping,
    versions,
    warm,
)
from env import status as status_page  # noqa: E402
from env.deploy import deploy  # noqa: E402
from env.environment import ENV_HELP  # noqa: E402
from env.live import invoke_event  # noqa: E402
from handler.request import real_date  # noqa: E402

PYTHONPATH = ":".join(str(ROOT / folder) for folder in (".", "tests", "env/local"))


@task(help=ENV_HELP)
def schema(c, env):
    """Create what is missing of the service's own tables, through the function."""
    answer = invoke_event(c, environment.load(env), {"schema": True})
    print(f"{env}: closing_runs is in schema {answer['schema']}" if answer else f"{env}: a rehearsal")


@task(
    help={
        **ENV_HELP,
        "date": "the date to close, as YYYY-MM-DD",
        "user": "the user the procedure is run for",
        "skip-genius": "do not run the procedure",
        "skip-sync": "leave the trial balance as it is",
        "skip-metrics": "do not compute the metrics",
        "watch": "follow it to its end",
    }
)
def close(c, env, date, user="adm", skip_genius=False, skip_sync=False, skip_metrics=False, watch=False):
    """Start the closing of a date; exit 1 where it was accepted before."""
    cfg = environment.load(env)
    flags = {"skipGeniusClosing": skip_genius, "skipSyncTrialBalance": skip_sync, "skipFinancialMetrics": skip_metrics}
    body = closings.body_of(cfg, date, user, flags)
    doors.announce(closings.submit_command(cfg, date, body))
    if c.config.run.dry:
        return
    invocation = closings.submit(cfg, date, body)
    print(f"{env}: {date} accepted as {invocation}\n{closings.page(cfg, invocation)}")
    if watch:
        closings.watch(cfg, date)


@task(help={**ENV_HELP, "date": "a date, as YYYY-MM-DD; without it: the function", "watch": "follow it to its end"})
def status(c, env, date="", watch=False):
    """Show function, version, Restate, schedule and last closings of an environment, or how a date's closing stands."""
    cfg = environment.load(env)
    if watch:
        history.follow(c, cfg, env, checked_date(date))
        return
    if date:
        print(closings.standing(cfg, checked_date(date)))
        return
    status_page.show(c, cfg, env)


@task
def demo(c):
    """Close the next business date on this machine: the cloud, the deploy, the closing and what came of it."""
    doors.no_rehearsal(c, "demo")
    cloud = load_module("env/local/tasks.py")
    cloud.up(c)
    cfg = environment.load("local")
    with cloud.one_line_on_failure():
        load_module("env/local/demo.py").run(c, cfg, lambda: deploy(c, "local"), lambda: schema(c, "local"))


@task
def dev(c):
    """Serve the handler over HTTP on this machine, to the local cloud, started again on each save."""
    doors.no_rehearsal(c, "dev")
    cloud = load_module("env/local/tasks.py")
    cloud.up(c)
    with cloud.one_line_on_failure():
        load_module("env/local/dev.py").run(c, environment.load("local"))


@task(help={"only": "the name of one benchmark, such as ledger"})
def bench(c, only=""):
    """Run the benchmarks of tests/: ratios of ways measured side by side in one run."""
    scripts = sorted((ROOT / "tests").glob(f"bench_{only or '*'}.py"))
    if not scripts:
        known = ", ".join(sorted(path.stem[6:] for path in (ROOT / "tests").glob("bench_*.py")))
        raise Exit(f"No benchmark {only!r}. Known: {known}.")
    for script in scripts:
        c.run(f"{q(sys.executable)} {q(str(script))}", env={"PYTHONPATH": PYTHONPATH})


@task(
    help={
        "n": "how many closings",
        "seed": "what everything random is drawn from",
        "strikes": "the faults that may strike, comma-separated; default all",
        "scenarios": "what is done with a closing, comma-separated; default all",
        "plant": "a break of the service that the run must report",
    }
)
def chaos(c, n=20, seed=1, strikes="", scenarios="", plant=""):
    """Close days under faults on this machine and check the promise after each; exit 1 names what broke."""
    given = {"n": str(n), "seed": str(seed), "strikes": strikes, "scenarios": scenarios, "plant": plant}
    words = " ".join(f"--{name} {q(value)}" for name, value in given.items() if value)
    if not c.run(f"{q(sys.executable)} -m chaos {words}", env={"PYTHONPATH": PYTHONPATH}, warn=True).ok:
        raise Exit(code=1)


def checked_date(date: str) -> str:
    try:
        return real_date(date).isoformat()
    except ValueError as error:
        raise Exit(str(error)) from None


def load_module(path: str):
    """A task module that lives beside what it acts on."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


namespace = Collection(deploy, schema, close, status, demo, dev, bench, chaos)
for step in (versions.versions, versions.rollback, versions.prune, destroy.destroy):
    namespace.add_task(step)
for step in (
    roles.roles,
    roles.oidc,
    policies.policies,
    shipping.bundle,
    shipping.lock,
    repair.rerun,
    repair.cancel,
    repair.resolve,
    repair.stop_job,
):
    namespace.add_task(step)
for step in (ping.ping, history.history, logs.logs, alarms.alarms, doctor.doctor, readme.readme):
    namespace.add_task(step)
FOLDERS = {
    "env": "env/tasks.py",
    "local": "env/local/tasks.py",
    "genius": "env/local/genius/tasks.py",
    "layer": "layer/tasks.py",
}
for name, path in FOLDERS.items():
    namespace.add_collection(Collection.from_module(load_module(path)), name)
namespace.add_collection(Collection.from_module(schedule), "schedule")
namespace.add_collection(Collection.from_module(warm), "warm")
