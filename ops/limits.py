"""Check an environment's values, and Lambda's limits and reserved names, before anything is sent to AWS.

https://docs.aws.amazon.com/lambda/latest/dg/
"""

from __future__ import annotations

import json
import re

from invoke import Exit

from ops import ca_file, config, connect_string
from ops.target import Target

# Of the function and all of its layers together.
UNZIPPED_BYTES = 262_144_000
# AWS documents 50 MB, which can be two numbers of bytes. This is the smaller one.
DIRECT_BYTES = 50_000_000
# AWS measures the variables as one JSON text.
ENVIRONMENT_BYTES = 4096
RESERVED = {
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_METADATA_API",
    "AWS_LAMBDA_METADATA_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
}


def check_bundle(size: int, unzipped: int, bucket: str) -> None:
    """Raise Exit if a bundle of these bytes is too large for Lambda; AWS itself adds the layers and checks the sum."""
    if unzipped > UNZIPPED_BYTES:
        raise Exit(
            f"the bundle unzipped has {unzipped:,} bytes, and Lambda accepts {UNZIPPED_BYTES:,} with the layers;"
            " remove packages from handler/requirements.in"
        )
    if size > DIRECT_BYTES and not bucket:
        raise Exit(
            f"the bundle has {size:,} bytes, and Lambda accepts {DIRECT_BYTES:,} in a direct upload; name a bucket in"
            " the function's region as DEPLOY_BUCKET in the env file, and the upload goes through it"
        )


def check_environment(variables: dict[str, str]) -> None:
    """Raise Exit if AWS would refuse these variables; never prints a value."""
    for name in sorted(variables):
        if name in RESERVED:
            raise Exit(f"Lambda reserves the variable {name} for itself; the function's setting needs another name")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]+", name):
            raise Exit(
                f"{name!r} is not a valid Lambda variable name: use letters, digits and _, and begin with a letter"
            )
    size = len(json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode())
    if size > ENVIRONMENT_BYTES:
        longest = sorted(variables, key=lambda name: len(variables[name].encode()), reverse=True)[:3]
        raise Exit(
            f"the function's environment has {size:,} bytes, and Lambda accepts {ENVIRONMENT_BYTES:,}; the longest are"
            f" {', '.join(f'{name} ({len(variables[name].encode()):,})' for name in longest)}: shorten them"
        )


def check(target: Target) -> None:
    """Raise Exit if AWS, the driver or PostgreSQL's client would refuse a value of an environment's file."""
    check_environment(config.function_environment(target.cfg))
    connect_string.check(target)
    ca_file.find(target.cfg)
