"""The runbook as tasks: one task, one step. `inv --list` is its index."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke import Collection

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from layer import tasks as layer_tasks  # noqa: E402
from ops import (  # noqa: E402
    alarms,
    closings,
    deploy,
    destroy,
    develop,
    docs,
    doctor,
    env_tasks,
    genius_tasks,
    history,
    keep_warm,
    local_tasks,
    logs,
    ping,
    policies,
    repair,
    roles,
    schedule,
    status,
    upload,
    versions,
)

namespace = Collection(deploy.deploy, deploy.schema, closings.close, status.status)
namespace.add_task(develop.demo)
namespace.add_task(develop.dev)
namespace.add_task(develop.bench)
namespace.add_task(develop.chaos)
for step in (versions.versions, versions.rollback, versions.prune, destroy.destroy):
    namespace.add_task(step)
for step in (
    roles.roles,
    roles.oidc,
    policies.policies,
    upload.bundle,
    upload.lock,
    repair.rerun,
    repair.cancel,
    repair.resolve,
    repair.stop_job,
):
    namespace.add_task(step)
for step in (ping.ping, history.history, logs.logs, alarms.alarms, doctor.doctor, docs.readme):
    namespace.add_task(step)
COLLECTIONS = {
    "env": env_tasks,
    "local": local_tasks,
    "genius": genius_tasks,
    "layer": layer_tasks,
    "schedule": schedule,
    "warm": keep_warm,
}
for name, module in COLLECTIONS.items():
    namespace.add_collection(Collection.from_module(module), name)
