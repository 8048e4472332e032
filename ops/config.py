"""Load and check env/NAME.env completely before a task changes anything."""

from __future__ import annotations

import difflib
import os
import re
import sys
import urllib.parse
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from dotenv.variables import Variable, parse_variables
from invoke.exceptions import Exit

from handler.settings import SETTINGS, Setting, conflicts, is_reference, one_of, optional, text
from ops import entry, env_file
from ops.ca_file import SHIPPED_AS

ROOT = Path(__file__).resolve().parents[1]
# The help of a task's --env.
ENV_HELP = {"env": "a file name in env/, such as local"}
# Lambda unpacks layers to /opt; layer/build.py puts sqlnet.ora there.
TNS_ADMIN = "/opt/network/admin"
# If the file has no value of such a key, as in CI, the function keeps its own.
KEPT = ("PG_", "ORACLE_")
# How much longer than the function itself Restate must wait for an invocation, in seconds.
ABORT_MARGIN_SECONDS = 30


def url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s]*[^\s/])?", value):
        raise ValueError(value)
    # Raises ValueError if the port is not a number.
    if not urllib.parse.urlsplit(value).hostname or urllib.parse.urlsplit(value).port == 0:
        raise ValueError(value)
    return value


def optional_url(value: str) -> str:
    return url(value) if value else value


def matching(pattern: str):
    """Return a parser of text that matches a whole pattern."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(value)
        return value

    return parse


REPOSITORY_PART = r"[A-Za-z0-9_.-]+"
# The value of a header: a space or the end of a line would be part of it.
token = matching(r"[!-~]*")
# A repository of GitHub as in the subject of its tokens, with its IDs or without them.
repository = matching(rf"({REPOSITORY_PART}/{REPOSITORY_PART}|{REPOSITORY_PART}@\d+/{REPOSITORY_PART}@\d+)?")
kms_key = matching(r"(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+)?")
role = matching(r"(?a:|arn:[a-z-]+:iam::[0-9]{12}:role/[\w+=,.@/-]+|[\w+=,.@-]{1,64})")


def runtime(value: str) -> str:
    if not value.startswith("python3.") or not value[8:].isdigit():
        raise ValueError(value)
    return value


def whole_number(low: int, high: int):
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise ValueError(value)
        return int(value)

    return parse


def ids(kind: str):
    """Return a parser of AWS IDs of a kind, with commas between them."""

    def parse(value: str) -> list[str]:
        if not re.fullmatch(rf"({kind}-[0-9a-f]+(,{kind}-[0-9a-f]+)*)?", value):
            raise ValueError(value)
        return value.split(",") if value else []

    return parse


# The retention periods that CloudWatch accepts.
RETENTIONS = [
    "1",
    "3",
    "5",
    "7",
    "14",
    "30",
    "60",
    "90",
    "120",
    "150",
    "180",
    "365",
    "400",
    "545",
    "731",
    "1096",
    "1827",
    "2192",
    "2557",
    "2922",
    "3288",
    "3653",
]
# How the function is deployed. The function itself only receives handler.settings.SETTINGS.
DEPLOY_SETTINGS = [
    Setting(
        "SECRETS_FILE", optional, "a file's path, or empty", "the file with the secrets that this one refers to", ""
    ),
    Setting("AWS_REGION", text, "a region such as ap-southeast-3", "the region of the function"),
    Setting("AWS_PROFILE", optional, "a profile's name, or empty", "the CLI profile every command runs as", ""),
    Setting(
        "AWS_ENDPOINT_URL",
        optional_url,
        "a URL without a closing slash, or empty",
        "another address of AWS, such as an emulator's",
        "",
    ),
    Setting("FUNCTION_NAME", text, "a name", "the function", "finance-closing"),
    Setting("ROLE_NAME", text, "a name", "the function's execution role", "finance-closing-lambda-role"),
    Setting(
        "SECRETS_KMS_KEY_ARN",
        kms_key,
        "the ARN of a KMS key, or empty",
        "the key of your own that encrypts the secrets that PG_ and ORACLE_ settings refer to; empty: AWS's key",
        "",
    ),
    Setting("LAYER_NAME", text, "a name", "the Instant Client layer", "oracle-instantclient"),
    Setting(
        "LAYER_VERSION_ARN",
        optional,
        "the ARN of a layer version, or empty",
        "the layer version to attach; empty: the newest of LAYER_NAME",
        "",
    ),
    Setting("RUNTIME", runtime, "a runtime such as python3.13", "the function's runtime", "python3.13"),
    Setting(
        "BUNDLE_PLATFORM",
        optional,
        "a platform as uv names it, or empty",
        "the platform whose wheels go into the bundle; empty: this machine's",
        "x86_64-manylinux_2_34",
    ),
    Setting("DEPLOY_BUCKET", optional, "a bucket's name, or empty", "the bucket for a bundle over 50 MB", ""),
    Setting("TIMEOUT", whole_number(1, 900), "seconds from 1 to 900", "the function's time-out in seconds", "900"),
    Setting("MEMORY", whole_number(128, 10240), "MB from 128 to 10240", "the function's memory in MB", "1024"),
    Setting(
        "VPC_SUBNET_IDS", ids("subnet"), "subnet-… with commas, or empty", "the function's subnets; empty: no VPC", ""
    ),
    Setting(
        "VPC_SECURITY_GROUP_IDS", ids("sg"), "sg-… with commas, or empty", "the function's security groups there", ""
    ),
    Setting(
        "LOG_RETENTION_DAYS",
        one_of("", *RETENTIONS),
        f"one of {', '.join(RETENTIONS)}, or empty",
        "how many days the function's log is kept; empty: unchanged",
        "90",
    ),
    Setting(
        "PROVISIONED_CONCURRENCY",
        whole_number(0, 1000),
        "a number from 0 to 1000",
        "how many instances of the live version AWS keeps ready, and bills; 0: none",
        "0",
    ),
    Setting(
        "GITHUB_REPOSITORY",
        repository,
        "OWNER/NAME or OWNER@ID/NAME@ID, or empty",
        "the repository whose main branch may deploy; with IDs if it was made or renamed since 2026-07-15",
        "",
    ),
    Setting("DEPLOY_ROLE_NAME", text, "a name", "the role of its deploys", "finance-closing-deploy"),
    Setting("RESTATE_ADMIN_URL", url, "a URL without a closing slash", "Restate's admin API"),
    Setting("RESTATE_INGRESS_URL", url, "a URL without a closing slash", "Restate's ingress"),
    Setting(
        "RESTATE_AUTH_TOKEN",
        token,
        "an API key without spaces, or empty",
        "Restate's API key",
        "",
        secret=True,
    ),
    Setting(
        "RESTATE_INGRESS_AUTH",
        one_of("on", "off"),
        "on or off",
        "on: the ingress, or a proxy before it, asks for the API key, too; Restate Cloud's always gets it",
        "off",
    ),
    Setting(
        "RESTATE_INVOKE_ROLE_ARN",
        role,
        "a role's name or ARN, or empty",
        "the role that Restate assumes to invoke the function; a name means a role of the function's account",
        "",
    ),
    Setting(
        "RESTATE_EXTERNAL_ID",
        optional,
        "such as env_…, or empty",
        "the external ID with which Restate assumes that role",
        "",
    ),
    Setting(
        "RESTATE_SERVER_ROLE_ARN",
        role,
        "a role's name or ARN, or empty",
        "the role of your own Restate server, a name for one of the function's account; empty: Restate Cloud",
        "",
    ),
]
ALL_SETTINGS = DEPLOY_SETTINGS + SETTINGS
NAMES = [setting.name for setting in ALL_SETTINGS]


def known_environments() -> list[str]:
    return sorted(path.stem for path in (ROOT / "env").glob("*.env") if path.stem != "example")


def check_known(name: str) -> None:
    """Raise Exit if an environment has no file."""
    known = known_environments()
    if name not in known:
        raise Exit(
            f"No environment {name!r}. Known: {', '.join(known)}. Add one as env/NAME.env after env/example.env."
        )


def load(name: str, shell: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return all settings of an environment as text, checked, and its name as ENVIRONMENT.

    Raises Exit with one line that names every fault. shell: the variables that the file can refer to besides those of
    SECRETS_FILE.
    """
    check_known(name)
    file = env_file.read(ROOT / "env" / f"{name}.env")
    if not file.values:
        raise Exit(f"env/{name}.env: {'; '.join(file.faults) or 'it is empty'}. Nothing was changed.")
    values, faults = fill_in(file.values, name, shell)
    given = (values.get(setting.name) for setting in ALL_SETTINGS if setting.secret)
    entry.secrets |= {value for value in given if value and not is_reference(value)}
    faults = file.faults + faults + unknown_keys(file.values)
    for setting in ALL_SETTINGS:
        if setting.name in no_value(values):
            values[setting.name] = setting.default or ""
            continue
        value = values.get(setting.name, setting.default)
        if value is not None:
            values[setting.name] = value
        if not any(f"{setting.name} " in fault for fault in faults):
            faults += value_faults(setting, value)
    faults += conflicts(values) + network_conflicts(values) + time_out_conflicts(values)
    if faults:
        located = dict.fromkeys(with_line(fault, file.lines) for fault in faults)
        raise Exit(f"env/{name}.env: {'; '.join(located)}. Nothing was changed.")
    return {**values, "ENVIRONMENT": name}


def name_environment(text: str, env: str) -> str:
    """Put the environment's name in the commands of a text of the function, which does not know it."""
    return re.sub(r"(--env |\bENV=)(ENV|E)\b", rf"\g<1>{env}", text)


def with_line(fault: str, lines: Mapping[str, int]) -> str:
    """Return a fault that begins with a key, with the key's line before it."""
    key = fault.removeprefix("unknown key ").partition(" ")[0].rstrip(":")
    return f"line {lines[key]}: {fault}" if key in lines else fault


def value_faults(setting: Setting, value: str | None) -> list[str]:
    """Return the faults of one value; they do not contain that of a secret."""
    if value is None:
        return [f"{setting.name} is missing: expected {setting.expected}"]
    printed = "" if setting.secret else f" {value!r}"
    if not value.isprintable():
        return [f"{setting.name}{printed} has a control character, such as the end of a line"]
    placeholder = None if setting.secret else re.search(r"<[A-Z_]+>", value)
    if placeholder:
        return [f"{setting.name} still has the placeholder {placeholder[0]} of env/example.env"]
    try:
        setting.parse(value)
    except ValueError:
        return [f"{setting.name}{printed} is malformed: expected {setting.expected}"]
    return []


def network_conflicts(values: Mapping[str, str]) -> list[str]:
    """Return the faults of settings of AWS that need or exclude each other."""
    subnets, groups = bool(values.get("VPC_SUBNET_IDS")), bool(values.get("VPC_SECURITY_GROUP_IDS"))
    faults = []
    if subnets != groups:
        faults.append(
            "VPC_SUBNET_IDS and VPC_SECURITY_GROUP_IDS need each other: a function in a VPC has both, another has none"
        )
    if values.get("AWS_PROFILE") and values.get("AWS_ENDPOINT_URL"):
        faults.append("AWS_PROFILE and AWS_ENDPOINT_URL exclude each other: only AWS itself gets a profile")
    return faults


def time_out_conflicts(values: Mapping[str, str]) -> list[str]:
    """Return the fault of time-outs with which Restate would start a step again while its first attempt still runs."""
    try:
        limit, abort = int(values["TIMEOUT"]), float(values["ABORT_TIMEOUT_SECONDS"])
    except (KeyError, ValueError):
        return []
    if abort >= limit + ABORT_MARGIN_SECONDS:
        return []
    return [
        f"ABORT_TIMEOUT_SECONDS {abort:g} is less than TIMEOUT {limit} plus {ABORT_MARGIN_SECONDS} seconds:"
        " a slow step would run twice at once"
    ]


def left_out(name: str, shell: Mapping[str, str] = os.environ) -> list[str]:
    """Return the keys whose values an environment's file leaves to the deployed function."""
    return no_value(fill_in(env_file.read(ROOT / "env" / f"{name}.env").values, name, shell)[0])


def required(names: list[str]) -> list[Setting]:
    return [setting for setting in SETTINGS if setting.name in names and setting.default is None]


def no_value(values: Mapping[str, str]) -> list[str]:
    """Return the keys of KEPT that are missing, or that are empty and must not be."""
    return [
        setting.name
        for setting in SETTINGS
        if setting.name.startswith(KEPT)
        and not values.get(setting.name)
        and not (setting.name in values and setting.default == "")
    ]


def fill_in(given: dict[str, str | None], name: str, shell: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the values with each ${NAME} replaced from SECRETS_FILE or the shell, and the faults."""
    faults: list[str] = []
    known = dict(shell)
    secrets = resolve(given.get("SECRETS_FILE") or "", known, faults, "SECRETS_FILE")
    secrets_file = ROOT / Path(secrets).expanduser()
    if secrets and secrets_file.is_file():
        found = env_file.read(secrets_file)
        known |= found.values
        faults += [f"{secrets}: {fault}" for fault in found.faults]
    elif secrets:
        hint = "run `inv local.up`" if name == "local" else "write it with mode 0600"
        raise Exit(f"env/{name}.env: SECRETS_FILE {secrets} does not exist; {hint}. Nothing was changed.")
    values = {key: resolve(value or "", known, faults, key) for key, value in given.items()}
    return {**values, "SECRETS_FILE": secrets}, faults


def resolve(value: str, known: dict[str, str], faults: list[str], key: str) -> str:
    for atom in parse_variables(value):
        if isinstance(atom, Variable) and atom.default is None and atom.name not in known:
            faults.append(f"{key} refers to ${{{atom.name}}}, which neither SECRETS_FILE nor the shell has")
            known = {**known, atom.name: f"${{{atom.name}}}"}
    return "".join(atom.resolve(known) for atom in parse_variables(value))


def unknown_keys(given: Iterable[str], known: Collection[str] = NAMES) -> list[str]:
    faults = []
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            faults.append(f"unknown key {key}" + (f": {near[0]}?" if near else ""))
    return faults


def function_environment(cfg: dict[str, str]) -> dict[str, str]:
    """Return the function's variables: the keys that the handler reads, without the empty ones, which have defaults.

    In thick mode also TNS_ADMIN, the folder of the layer's sqlnet.ora. A CA file has its name in the bundle.
    """
    tns_admin = {"TNS_ADMIN": TNS_ADMIN} if cfg["ORACLE_CLIENT"] == "thick" else {}
    ca = {"PG_SSLROOTCERT": SHIPPED_AS} if cfg["PG_SSLROOTCERT"] else {}
    return {setting.name: cfg[setting.name] for setting in SETTINGS if cfg[setting.name] != ""} | tns_admin | ca


if __name__ == "__main__":
    # The deploy workflow: `python -m ops.config NAME KEY` prints KEY=value as the tasks read it, whatever its quotes.
    try:
        print(f"{sys.argv[2]}={load(sys.argv[1])[sys.argv[2]]}")
    except Exit as error:
        sys.exit(error.message)
