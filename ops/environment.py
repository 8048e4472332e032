"""The environment of each command that a task starts: the user's, without variables that change a target or an output.

Credentials, config files, SSO, proxies and certificates stay. Needs the standard library alone: local/ uses it, too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# They change an output that a task parses, the code that a program runs, or the folder or server that it works on.
DROPPED = {
    *("BASH_ENV", "BASHOPTS", "SHELLOPTS", "CDPATH", "POSIXLY_CORRECT", "CLICOLOR_FORCE", "FORCE_COLOR"),
    *("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_DATA_PATH", "AWS_CLI_FILE_ENCODING"),
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"),
    *("RESTATE_ENVIRONMENT", "RESTATE_CLI_CONFIG", "RESTATE_CLI_CONFIG_HOME", "RESTATE_HOST", "RESTATE_HOST_SCHEME"),
}
DROPPED_PREFIXES = ("PYTHON", "INVOKE_", "BASH_FUNC_", "AWS_ENDPOINT_URL")
SET = {"AWS_DEFAULT_OUTPUT": "json", "AWS_PAGER": "", "AWS_CLI_AUTO_PROMPT": "off"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# For another endpoint than AWS, which never receives the user's own credentials or config.
OTHER_ENDPOINT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
# If a connection is refused, the emulator does not run, and five tries in ten seconds would not help.
MAX_ATTEMPTS = {"AWS_MAX_ATTEMPTS": "2"}
# The user's AWS_ variables for another endpoint, too: certificates, retries, and the reports of calls to a monitor.
KEPT_FOR_OTHER = ("AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_CSM_", *SET)


def clean(environ: Mapping[str, str] | None = None, **extra: str) -> dict[str, str]:
    """Return the environment of a command that works on no environment of env/; extra: more variables."""
    given = os.environ if environ is None else environ
    # A shell can still have what `inv env.shell` has exported for another endpoint.
    stale = OTHER_ENDPOINT if OTHER_ENDPOINT.items() <= given.items() else {}
    kept = {
        name: value
        for name, value in given.items()
        if not (name in DROPPED or name in stale or name.startswith(DROPPED_PREFIXES))
    }
    return kept | SET | without_proxy_for_loopback(given) | extra


def of_target(cfg: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command on an environment of env/, whose file decides endpoint, profile and token."""
    given = clean(environ)
    if cfg["AWS_ENDPOINT_URL"]:
        given = {
            name: value
            for name, value in given.items()
            if not name.startswith("AWS_") or name.startswith(KEPT_FOR_OTHER)
        }
        given = MAX_ATTEMPTS | given | {"AWS_ENDPOINT_URL": cfg["AWS_ENDPOINT_URL"], **OTHER_ENDPOINT}
    else:
        # Also an endpoint_url in the CLI's config: an empty AWS_ENDPOINT_URL means AWS itself.
        given["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    decided = {
        "AWS_REGION": cfg["AWS_REGION"],
        "AWS_DEFAULT_REGION": cfg["AWS_REGION"],
        "RESTATE_ADMIN_URL": cfg["RESTATE_ADMIN_URL"],
        "RESTATE_AUTH_TOKEN": cfg["RESTATE_AUTH_TOKEN"],
    }
    # Without a profile in the file the shell's credentials are used, which can be those of a profile.
    decided |= {"AWS_PROFILE": cfg["AWS_PROFILE"]} if cfg["AWS_PROFILE"] else {}
    given |= decided
    return {name: value for name, value in given.items() if value or name not in decided}


def without_proxy_for_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """Return NO_PROXY and no_proxy with this machine's addresses; programs differ in which of the two they read."""
    listed = f"{environ.get('no_proxy', '')},{environ.get('NO_PROXY', '')}".split(",")
    names = ",".join(dict.fromkeys(name.strip() for name in (*listed, *LOOPBACK) if name.strip()))
    return {"NO_PROXY": names, "no_proxy": names}


def difference(environ: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return the names whose values differ, or that one of the two environments does not have."""
    return sorted(name for name in {*environ, *wanted} if environ.get(name) != wanted.get(name))
