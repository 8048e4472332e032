"""The runbook as tasks: one task, one step. `inv --list` is its index."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Collection

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from ops import entry  # noqa: E402

# Before the other imports: a package that is missing or broken is one line, too.
entry.install()

from layer import tasks as layer_tasks  # noqa: E402
from ops import (  # noqa: E402
    alarms,
    bundle,
    closings,
    deploy,
    develop,
    docs,
    doctor,
    env_tasks,
    genius_tasks,
    history,
    hold,
    keep_warm,
    listing,
    local_tasks,
    logs,
    next_command,
    ping,
    policies,
    repair,
    report,
    roles,
    schedule,
    secret_tasks,
    status,
    versions,
)

# Within each group of `inv --list` the tasks have this order.
TASKS = (
    *(roles.oidc, roles.roles, deploy.schema, alarms.alarms),
    *(
        deploy.deploy,
        versions.versions,
        versions.rollback,
        versions.prune,
        bundle.bundle,
        bundle.lock,
        versions.destroy,
    ),
    *(closings.close, status.status, history.history, report.report, report.reconcile),
    *(next_command.next_, repair.rerun, repair.cancel, repair.resolve, repair.resume, repair.stop_job),
    *(ping.ping, doctor.doctor, logs.logs),
    *(hold.hold, hold.release),
    *(develop.demo, develop.dev, develop.bench, develop.chaos, policies.policies, docs.docs),
)
COLLECTIONS = {
    "env": env_tasks,
    "layer": layer_tasks,
    "secrets": secret_tasks,
    "schedule": schedule,
    "keep-warm": keep_warm,
    "local": local_tasks,
    "genius": genius_tasks,
}

namespace = Collection(*TASKS)
namespace.add_task(listing.overview, default=True)
for name, module in COLLECTIONS.items():
    namespace.add_collection(Collection.from_module(module), name)
listing.install(namespace)
