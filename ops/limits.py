"""AWS's limits and reserved names, checked before AWS does: https://docs.aws.amazon.com/lambda/latest/dg/."""

from __future__ import annotations

import io
import json
import re
import urllib.request
import zipfile

from invoke import Exit

# Of the function and all of its layers together.
UNZIPPED_BYTES = 262_144_000
# AWS says 50 MB and not which; what passes under the smaller reading passes under both.
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


def check_bundle(size: int, unzipped: int, bucket: str, layers: dict[str, int]) -> None:
    """Refuse a bundle that AWS would refuse. layers: ARN -> bytes unzipped; raises Exit."""
    total = unzipped + sum(layers.values())
    if total > UNZIPPED_BYTES:
        parts = "".join(f", {arn} {layer:,}" for arn, layer in layers.items())
        raise Exit(
            f"the function unzipped is {total:,} bytes and Lambda takes {UNZIPPED_BYTES:,} with its layers:"
            f" the bundle {unzipped:,}{parts}; take packages out of handler/requirements.in or use a smaller layer"
        )
    if size > DIRECT_BYTES and not bucket:
        raise Exit(
            f"the bundle is {size:,} bytes and Lambda takes {DIRECT_BYTES:,} in a direct upload; name a bucket of"
            " the function's region as DEPLOY_BUCKET in the env file, and it goes through that"
        )


def check_environment(variables: dict[str, str]) -> None:
    """Refuse variables that AWS would refuse; never shows a value; raises Exit."""
    for name in sorted(variables):
        if name in RESERVED:
            raise Exit(f"Lambda reserves the variable {name} for itself; the function's setting needs another name")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]+", name):
            raise Exit(f"{name!r} is no name of a variable for Lambda: letters, digits and _, a letter first")
    size = len(json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode())
    if size > ENVIRONMENT_BYTES:
        longest = sorted(variables, key=lambda name: len(variables[name].encode()), reverse=True)[:3]
        raise Exit(
            f"the function's environment is {size:,} bytes and Lambda takes {ENVIRONMENT_BYTES:,}; the longest are"
            f" {', '.join(f'{name} ({len(variables[name].encode()):,})' for name in longest)}: shorten them"
        )


def unzipped_behind(url: str) -> int:
    """How large the zip at a URL is unzipped, from its directory alone, which lies at its end; raises OSError.

    AWS itself tells a layer's zipped size only.
    """
    try:
        with zipfile.ZipFile(io.BufferedReader(Remote(url), 1 << 16)) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise OSError(f"what AWS sent is no zip: {error}") from None


class Remote(io.RawIOBase):
    """A file behind a URL, read by ranges."""

    def __init__(self, url: str):
        self.url, self.place = url, 0
        self.size = self.ask("bytes=0-0")[1]

    def ask(self, wanted: str) -> tuple[bytes, int]:
        request = urllib.request.Request(self.url, headers={"range": wanted})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            if answer.status == 206:
                return content, int(answer.headers["content-range"].rpartition("/")[2])
        # A server without ranges sends all of it, once.
        self.ask = lambda wanted: (content[slice(*parse_range(wanted))], len(content))
        return self.ask(wanted)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer) -> int:
        if self.place >= self.size:
            return 0
        content = self.ask(f"bytes={self.place}-{min(self.place + len(buffer), self.size) - 1}")[0]
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def parse_range(wanted: str) -> tuple[int, int]:
    first, last = wanted.removeprefix("bytes=").split("-")
    return int(first), int(last) + 1
