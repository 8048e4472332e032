"""Users and passwords by reference: read from AWS when they are first needed, and again after a refused login.

No account may be locked: a process uses each stored version of a value for at most one refused login. botocore, the
part of boto3 that calls AWS, is in AWS's Python runtimes: it is not in the bundle, and only a reference imports it.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from . import settings
from .errors import LoginRefused, Unavailable
from .settings import source_of

# Two attempts of a call stay within the bound of a deep ping if the network drops them.
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 2, 4, 2
# How many seconds after a value was stored the database may still have the value before it.
ROTATION_SECONDS = 86400
# The services' error codes -> the kind of a SecretError. Other errors can pass.
KINDS = {
    "ResourceNotFoundException": "missing",
    "ParameterNotFound": "missing",
    "AccessDeniedException": "denied",
    "DecryptionFailure": "denied",
    "KMSAccessDeniedException": "denied",
    "InvalidKeyId": "denied",
    "InvalidRequestException": "deleted",
    "ValidationException": "missing",
    "InvalidParameterException": "missing",
}
MEANINGS = {
    "missing": "does not exist; create it, or correct the reference",
    "denied": "must not be read by the function's role, or does not exist; run `inv roles --env ENV`, which permits it",
    "deleted": "is marked for deletion; have its owner restore it",
    "key": "has no text under this JSON key; correct the key, or store a JSON object that has it",
    "empty": "holds no text; store the value",
    "runtime": "cannot be read: botocore is missing here; use one of AWS's Python runtimes, or a plain value",
}
Opened = TypeVar("Opened")


class SecretError(LoginRefused):
    """A reference cannot be resolved. kind: a key of MEANINGS."""

    def __init__(self, reference: str, kind: str):
        super().__init__(f"{reference} {MEANINGS[kind]}")
        self.kind = kind


class SecretUnavailable(Unavailable):
    """No login now; kind: "refused" until another value is stored, or "unreachable" if AWS's store does not answer."""

    def __init__(self, message: str, kind: str):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Stored:
    """A stored version of a secret or parameter. made: when it was stored, in seconds since 1970."""

    text: str = field(repr=False)
    version: str
    made: float


@dataclass(frozen=True)
class Credentials:
    """A user, a password, and the stored versions that they come from."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    versions: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, str]:
        return self.user, self.password


class Login:
    """The credentials of one database in this process: those in use, and the refused ones with the time of refusal."""

    def __init__(self, database: str, user: str, password: str):
        self.database, self.user, self.password = database, user, password
        self.references = [one for one in (user, password) if settings.is_reference(one)]
        self.stored: dict[str, Stored] = {}
        self.used: Credentials | None = None
        self.accepted = self.was_accepted = False
        self.refused: dict[Credentials, float] = {}
        # A ping whose time is over can still log in: a second thread must know what the first one was refused.
        self.lock = threading.Lock()

    def open(self, connect: Callable[[str, str], Opened]) -> Opened:
        """Log in with the credentials in use; if the database refuses them, with the stored ones if they differ.

        Raises LoginRefused if none is accepted, but Unavailable for the first LOGIN_RETRY_SECONDS: a rotation can
        change the database before the secret.
        """
        with self.lock:
            # An accepted value that is refused now is older than the database's; the version before it is older still.
            before = () if self.was_accepted else (self.before,)
            return self.try_each((self.known, self.read, *before), connect, settings.current().login_retry_seconds)

    def check(self, connect: Callable[[str, str], Opened]) -> Opened:
        """Log in with what is stored now; raises LoginRefused if it is not accepted."""
        with self.lock:
            return self.try_each((self.read,), connect, 0)

    def try_each(self, sources, connect, patience: float):
        tried, cause = [], None
        for source in sources:
            found = source()
            if found in self.refused or found.pair in tried:
                continue
            tried.append(found.pair)
            try:
                opened = connect(*found.pair)
            except LoginRefused as error:
                cause = error
                self.note_refusal(found)
            else:
                self.used = found
                self.accepted = self.was_accepted = True
                return opened
        raise self.error(cause, patience)

    def known(self) -> Credentials:
        self.used = self.used or self.read()
        return self.used

    def read(self) -> Credentials:
        self.stored = {source: fetch(source) for source in dict.fromkeys(map(source_of, self.references))}
        return self.credentials(self.stored)

    def before(self) -> Credentials:
        """Return the credentials before the last rotation: the database still has them if the secret changed first."""
        return self.credentials({source: version_before(source, one) for source, one in self.stored.items()})

    def credentials(self, stored: dict[str, Stored]) -> Credentials:
        user, password = (
            extract(one, stored[source_of(one)]) if one in self.references else one
            for one in (self.user, self.password)
        )
        return Credentials(user, password, tuple(one.version for one in stored.values()))

    def note_refusal(self, found: Credentials) -> None:
        if found == self.used and self.accepted:
            # The database has changed, so what it refused earlier it can accept now.
            self.refused.clear()
            self.accepted = False
        self.refused[found] = time.monotonic()

    def error(self, cause: LoginRefused | None, patience: float) -> Exception:
        refused_at = self.refused.get(self.credentials(self.stored), time.monotonic())
        message = (
            f"{cause or f'{self.database} refused the login earlier'}; {' and '.join(self.references)} resolved, but no"
            " stored value is accepted and none is tried twice; change the database, or store the value again, then"
            " `inv secrets.check --env ENV`"
        )
        if time.monotonic() - refused_at < patience:
            return SecretUnavailable(message, LoginRefused.kind)
        return LoginRefused(message)


LOGINS: dict[tuple[str, str, str], Login] = {}
LOCK = threading.Lock()


def login_of(database: str, user: str, password: str) -> Login:
    return LOGINS.setdefault((database, user, password), Login(database, user, password))


def log_in(database: str, user: str, password: str, connect: Callable[[str, str], Opened]) -> Opened:
    """Return connect(user, password) with references resolved; see Login.open. connect raises LoginRefused."""
    if not (settings.is_reference(user) or settings.is_reference(password)):
        return connect(user, password)
    return login_of(database, user, password).open(connect)


def check(database: str, user: str, password: str, connect: Callable[[str, str], Opened]) -> Opened:
    """Return connect(user, password) with the references as they are stored now; see Login.check."""
    return login_of(database, user, password).check(connect)


def extract(reference: str, stored: Stored) -> str:
    """Return the text that a reference names: the whole value, or that of its JSON key."""
    key = reference.partition("#")[2]
    # Text that was typed into a file or a pipe ends with its line.
    value = stored.text.rstrip("\r\n")
    if key:
        try:
            value = json.loads(stored.text)[key]
        except (ValueError, KeyError, TypeError, IndexError):
            # Without the cause, which holds the text.
            raise SecretError(reference, "key") from None
        if not isinstance(value, str):
            raise SecretError(reference, "key")
    if not value:
        raise SecretError(reference, "empty")
    return value


def version_before(source: str, stored: Stored) -> Stored:
    """Return the version before a stored one that is recent, else the stored one itself."""
    if time.time() - stored.made > ROTATION_SECONDS:
        return stored
    try:
        return fetch(source, stored.version)
    except SecretError:
        return stored


def fetch(source: str, before: str = "") -> Stored:
    """Read the current version of a source, or the one before the version named; raises SecretError, Unavailable."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise SecretError(source, "runtime") from None
    service, _, name = source.partition(":")
    try:
        with LOCK:
            there = client(service, name.split(":")[3] if name.startswith("arn:") else "")
        return read_secret(there, name, before) if service == "secretsmanager" else read_parameter(there, name, before)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in KINDS:
            raise SecretError(source, KINDS[code]) from None
        if code == "ParameterVersionNotFound":
            raise SecretError(source, "missing") from None
        raise SecretUnavailable(f"{source} cannot be read now: {code}", "unreachable") from None
    except BotoCoreError as error:
        raise SecretUnavailable(
            f"{source} cannot be read: {type(error).__name__}; a VPC without NAT needs the interface endpoint of"
            f" {service}, and 443 open to it",
            "unreachable",
        ) from None


def read_secret(there, name: str, before: str) -> Stored:
    found = there.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS" if before else "AWSCURRENT")
    return Stored(found.get("SecretString", ""), found["VersionId"], found["CreatedDate"].timestamp())


def read_parameter(there, name: str, before: str) -> Stored:
    selected = f"{name}:{int(before) - 1}" if before else name
    found = there.get_parameter(Name=selected, WithDecryption=True)["Parameter"]
    return Stored(found["Value"], str(found["Version"]), found["LastModifiedDate"].timestamp())


@functools.cache
def client(service: str, region: str):
    """Return botocore's client of a service. region "": the function's own."""
    from botocore.config import Config
    from botocore.session import Session

    limits = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    return Session().create_client(service, region_name=region or os.environ.get("AWS_REGION"), config=limits)
