"""inv alarms: create or update the metric filters and alarms of alarms/ in CloudWatch."""

from __future__ import annotations

import json
import re
from shlex import quote as q

from invoke import Exit

from handler.settings import SETTINGS
from ops import config, logs
from ops.shell import ROOT, aws, save_json
from ops.target import Target
from ops.task import ENVIRONMENT, task

FOLDER = ROOT / "alarms"
TOPIC = re.compile(r"arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[\w-]+")
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def create_topic(cfg: dict) -> str:
    """Return the command that creates a topic, which is also the query: AWS returns an existing topic unchanged."""
    return aws(cfg, f"sns create-topic --name {q(cfg['FUNCTION_NAME'])}-alarms")


def list_subscriptions(cfg: dict, topic: str) -> str:
    return aws(cfg, f"sns list-subscriptions-by-topic --topic-arn {q(topic)}")


def subscribe(cfg: dict, topic: str, address: str) -> str:
    return aws(cfg, f"sns subscribe --topic-arn {q(topic)} --protocol email --notification-endpoint {q(address)}")


def describe_filters(cfg: dict) -> str:
    return aws(cfg, f"logs describe-metric-filters --log-group-name {q(logs.log_group(cfg))}")


def describe_alarms(cfg: dict) -> str:
    return aws(cfg, f"cloudwatch describe-alarms --alarm-name-prefix {q(cfg['FUNCTION_NAME'])}-")


def put_filter(cfg: dict, file: str) -> str:
    return aws(cfg, f"logs put-metric-filter --cli-input-json file://{q(file)}")


def put_alarm(cfg: dict, file: str) -> str:
    return aws(cfg, f"cloudwatch put-metric-alarm --cli-input-json file://{q(file)}")


def delete_alarms(cfg: dict, names: list[str]) -> str:
    return aws(cfg, f"cloudwatch delete-alarms --alarm-names {' '.join(map(q, names))}")


def delete_filter(cfg: dict, name: str) -> str:
    group = q(logs.log_group(cfg))
    return aws(cfg, f"logs delete-metric-filter --log-group-name {group} --filter-name {q(name)}")


def get_topic(cfg: dict, topic: str) -> str:
    return aws(cfg, f"sns get-topic-attributes --topic-arn {q(topic)}")


def delete_topic(cfg: dict, topic: str) -> str:
    return aws(cfg, f"sns delete-topic --topic-arn {q(topic)}")


@task(
    group="set up",
    changes=ENVIRONMENT,
    uses=("aws",),
    help={**config.ENV_HELP, "to": "an SNS topic's ARN, or an e-mail address"},
)
def alarms(c, env, to):
    """Create or update the alarms of alarms/, and notify a topic or an e-mail address."""
    target = Target.load(c, env)
    topic = topic_of(target, to)
    # A filter needs the log group, which a function creates only at its first event.
    if not logs.find_log_group(target):
        target.execute(logs.create_log_group(target.cfg))
    filters = {one["filterName"]: one for one in target.query_json(describe_filters(target.cfg))["metricFilters"]}
    known = {one["AlarmName"]: one for one in target.query_json(describe_alarms(target.cfg))["MetricAlarms"]}
    for name, wanted in wanted_alarms(target.cfg, topic, env).items():
        if "filter" in wanted and not same(filters.get(wanted["filter"]["filterName"]), wanted["filter"]):
            target.execute(put_filter(target.cfg, as_file(target, f"{name}.filter.json", wanted["filter"])))
        if not same(known.get(wanted["alarm"]["AlarmName"]), wanted["alarm"]):
            target.execute(put_alarm(target.cfg, as_file(target, f"{name}.alarm.json", wanted["alarm"])))
        print(f"{env}: {wanted['alarm']['AlarmName']}: {wanted['alarm']['AlarmDescription']}")


def topic_of(target: Target, to: str) -> str:
    """Return the topic's ARN; subscribes an e-mail address to the function's own topic and returns that one."""
    if TOPIC.fullmatch(to):
        return to
    if not ADDRESS.fullmatch(to):
        raise Exit(f"--to {to!r} is neither an SNS topic's ARN nor an e-mail address. Nothing was changed.")
    output = target.execute(create_topic(target.cfg))
    if not output:
        return own_topic(target.cfg, "000000000000")
    topic = json.loads(output)["TopicArn"]
    there = target.query_json(list_subscriptions(target.cfg, topic))["Subscriptions"]
    if not any(one["Endpoint"] == to for one in there):
        target.execute(subscribe(target.cfg, topic, to))
        print(f"{to} must confirm the subscription in AWS's e-mail before it receives alarms")
    return topic


def own_topic(cfg: dict, account: str) -> str:
    return f"arn:aws:sns:{cfg['AWS_REGION']}:{account}:{cfg['FUNCTION_NAME']}-alarms"


def remove(target: Target, account: str) -> None:
    """Delete the alarms, their filters and the function's own topic, if they exist."""
    topic = own_topic(target.cfg, account)
    wanted = wanted_alarms(target.cfg, topic).values()
    known = {one["AlarmName"] for one in target.query_json(describe_alarms(target.cfg))["MetricAlarms"]}
    names = [one["alarm"]["AlarmName"] for one in wanted if one["alarm"]["AlarmName"] in known]
    if names:
        target.execute(delete_alarms(target.cfg, names))
    found = target.query_json(describe_filters(target.cfg), missing="ResourceNotFoundException") or {
        "metricFilters": []
    }
    for one in found["metricFilters"]:
        target.execute(delete_filter(target.cfg, one["filterName"]))
    if target.query_json(get_topic(target.cfg, topic), missing="NotFound"):
        target.execute(delete_topic(target.cfg, topic))


def wanted_alarms(cfg: dict, topic: str, env: str = "ENV") -> dict[str, dict]:
    """Return {name: {"filter"?, "alarm", "after"?}} of alarms/: the first two in the AWS CLI's input format.

    after: the setting for how long the function waits until it logs the event.
    """
    values = {"FUNCTION_NAME": cfg["FUNCTION_NAME"], "TOPIC_ARN": topic, "ENVIRONMENT": env}
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        text = path.read_text()
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        found[path.stem] = json.loads(text)
    return found


def signals() -> list[tuple[str, str, str, str]]:
    """Return a row for each alarm: its name, after how many minutes it rings at most, its message, the next command."""
    rows = []
    for name, one in wanted_alarms({"FUNCTION_NAME": "FUNCTION"}, "TOPIC").items():
        alarm = one["alarm"]
        message, _, command = alarm["AlarmDescription"].partition(" Next: ")
        points = alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
        minutes = (waits(one.get("after")) + alarm["Period"] * points) / 60
        rows.append((name, f"{minutes:.0f}", message, f"`{command}`"))
    return rows


def waits(after: str | None) -> float:
    """Return the seconds until the function logs an event, with the default of the setting that decides it."""
    known = {one.name: one.default for one in SETTINGS}
    if after == "RETRY_ATTEMPTS":
        cap = float(known["RETRY_CAP_SECONDS"])
        return sum(min(cap, 0.5 * 2**retry) for retry in range(int(known[after]) - 1))
    return float(known[after]) if after else 0.0


def same(present: dict | None, wanted: dict) -> bool:
    """Return whether CloudWatch has the wanted values; it adds fields of its own."""
    return present is not None and all(present.get(key) == value for key, value in wanted.items())


def as_file(target: Target, name: str, value: dict) -> str:
    file = target.scratch(name)
    target.run_local(save_json(value, file))
    return file
