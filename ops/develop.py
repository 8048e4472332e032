"""Tasks for the developers of this repository: inv demo | dev | bench | chaos."""

from __future__ import annotations

import sys
from shlex import quote as q

from invoke import Exit

from ops import environment, local_tasks
from ops.deploy import deploy, schema
from ops.shell import PLAIN, ROOT
from ops.target import Target
from ops.task import MACHINE, NOTHING, task

# Seconds that a second demo waits for the first one, which can install the programs first.
DEMO_BOUND = 900
PYTHONPATH = f"{ROOT}:{ROOT / 'tests'}"


@task(group="develop", changes=MACHINE)
def demo(c):
    """Close the next business date on this machine: start the cloud, deploy, close, and print the result."""
    from local import demo, preflight, state

    here = state.State()
    with local_tasks.one_line_on_failure():
        if not any(one["pid"] for one in local_tasks.cloud().status().values()):
            preflight.check(here)
        # Two at once would close the same date.
        with state.locked(here.make() / "demo.lock", state.print_line, DEMO_BOUND, "make demo"):
            preflight.fetch_packages()
            local_tasks.up(c)
            demo.run(Target.load(c, "local"), lambda: deploy(c, "local"), lambda: schema(c, "local"))


@task(group="develop", changes=MACHINE, uses=("restate",))
def dev(c):
    """Serve the handler over HTTP on this machine, to the local cloud, restarted on each save."""
    from local import dev

    local_tasks.up(c)
    with local_tasks.one_line_on_failure():
        dev.run(Target.load(c, "local"))


@task(group="develop", changes=NOTHING, help={"only": "the name of one benchmark, such as ledger"})
def bench(c, only=""):
    """Run the benchmarks of tests/bench: ways measured side by side in one run, as ratios."""
    scripts = sorted((ROOT / "tests" / "bench").glob(f"bench_{only or '*'}.py"))
    if not scripts:
        known = ", ".join(sorted(path.stem[6:] for path in (ROOT / "tests" / "bench").glob("bench_*.py")))
        raise Exit(f"No benchmark {only!r}. Known: {known}.")
    for script in scripts:
        run(c, q(str(script)))


@task(
    group="develop",
    changes=NOTHING,
    help={
        "n": "how many closings under faults at random moments",
        "scripts": "how many scripts the models and the cloud play; default: as many as each command and fault needs",
        "seed": "the seed of all random choices",
        "faults": "the faults to inject, comma-separated; default all",
        "scenarios": "what happens to a closing, comma-separated; default all",
        "mutant": "a change of the service that breaks the promise, which the run must report",
    },
)
def chaos(c, n=20, seed=1, scripts="", faults="", scenarios="", mutant=""):
    """Close days under faults on this machine, by scripts and at random; exit 1 if a model or a promise is wrong."""
    given = {"n": str(n), "seed": str(seed), "scripts": scripts}
    given |= {"faults": faults, "scenarios": scenarios, "mutant": mutant}
    words = " ".join(f"--{name} {q(value)}" for name, value in given.items() if value)
    if not run(c, f"-m chaos {words}", warn=True).ok:
        raise Exit(code=1)


def run(c, words: str, warn: bool = False):
    """Run this Python with the folders of the tests, its output on the screen."""
    environ = environment.clean(PYTHONPATH=PYTHONPATH)
    return c.run(f"{q(sys.executable)} {words}", env=environ, warn=warn, **PLAIN)
