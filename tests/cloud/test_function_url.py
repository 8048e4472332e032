"""Restate through a Function URL: who is answered, and how the URL comes and goes on the local cloud."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from invoke import Context
from support.helpers import ROOT, STATE, close, environment_file, inv, like_local

from handler import settings
from ops import function_url, release, restate
from ops.target import Target

OTHER = ROOT / "env" / "testurl.env"
C = Context()
DISCOVERY = "application/vnd.restate.endpointmanifest.v4+json"


def signed(path: str, key: Ed25519PrivateKey, key_id: str) -> dict[str, str]:
    """Return the headers by which restate-server signs a call: a JSON web token, EdDSA."""
    now = int(time.time())
    parts = (
        {"typ": "JWT", "alg": "EdDSA", "kid": key_id},
        {"aud": path, "nbf": now - 60, "iat": now, "exp": now + 60},
    )
    words = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    signature = base64.urlsafe_b64encode(key.sign(b".".join(words))).rstrip(b"=")
    token = b".".join([*words, signature]).decode()
    return {"x-restate-signature-scheme": "v1", "x-restate-jwt-v1": token}


def url_event(path: str, headers: dict[str, str], **more) -> dict:
    """Return the event that AWS makes of a call of a Function URL: payload format 2.0."""
    context = {"http": {"method": "GET", "path": path, "protocol": "HTTP/1.1"}, "accountId": "anonymous"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"accept": DISCOVERY, **headers},
        "requestContext": context,
        "isBase64Encoded": False,
        **more,
    }


def test_a_url_without_keys_is_refused_before_anything_is_touched():
    with environment_file("testurl", FUNCTION_URL="on", RESTATE_IDENTITY_KEYS="") as env:
        refused = inv("deploy", "--env", env, check=False)
    assert refused.returncode == 1 and refused.stdout == ""
    assert "FUNCTION_URL=on without RESTATE_IDENTITY_KEYS" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_url_without_keys_is_refused_at_the_functions_start(function_settings, monkeypatch):
    monkeypatch.setenv("FUNCTION_URL", "on")
    monkeypatch.setenv("RESTATE_IDENTITY_KEYS", "")
    settings.current.cache_clear()
    with pytest.raises(settings.SettingsError, match="FUNCTION_URL=on without RESTATE_IDENTITY_KEYS"):
        settings.current()


@pytest.mark.parametrize("keys", ["publickeyv1_0", "publickeyv2_9JFvpqGS3BYqAtoGKe4UT48kjfCQShvyFR9i9ftjVkd3", "x,"])
def test_a_malformed_key_is_refused(keys):
    with pytest.raises(ValueError):
        settings.identity_keys(keys)


def test_only_what_restate_has_signed_is_answered(deployed):
    ours = serialization.load_pem_private_key((STATE / "restate" / "identity.pem").read_bytes(), None)
    key_id = deployed["RESTATE_IDENTITY_KEYS"]

    def status(key: Ed25519PrivateKey | None) -> int:
        headers = signed("/discover", key, key_id) if key else {}
        return release.invoke_event(Target(C, deployed, "local"), url_event("/discover", headers))["statusCode"]

    assert [status(ours), status(Ed25519PrivateKey.generate()), status(None)] == [200, 401, 401]


def test_an_event_of_ours_is_no_event_behind_a_url(deployed):
    ours = {"ping": True, "schema": True, "report": {"period": "2025-01"}, "reconcile": {"period": "2025-01"}}
    headers = {"content-type": "application/json"}
    answer = release.invoke_event(Target(C, deployed, "local"), url_event("/", headers, body=json.dumps(ours), **ours))
    assert answer["statusCode"] == 401 and "ok" not in answer


def asked(url: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_the_url_comes_serves_a_closing_and_goes(deployed):
    OTHER.write_text(like_local(FUNCTION_URL="on", PROVISIONED_CONCURRENCY="2"))
    try:
        assert "create-function-url-config" in inv("--dry", "deploy", "--env", "testurl").stdout
        done = inv("deploy", "--env", "testurl").stdout
        assert "which always runs the live version" in done and "put-provisioned-concurrency-config" in done
        assert "nothing changed" in inv("deploy", "--env", "testurl").stdout
        # `inv dev` registers a URL, too, behind which there is no version.
        (registered,) = [one for one in restate.deployments(deployed) if "uri" in one and restate.arn_of(one)]
        assert registered["http_version"] == "HTTP/1.1"
        close("2025-07-31")
        url = registered["uri"].rstrip("/")
        assert [
            asked(f"{url}/discover"),
            asked(url, b'{"ping": true}'),
            asked(f"{url}/invoke/DailyClosing/run", b""),
        ] == [401] * 3
    finally:
        OTHER.unlink()
        gone = inv("deploy", "--env", "local").stdout
    assert "delete-function-url-config" in gone and "delete-provisioned-concurrency-config" in gone
    assert asked(f"{url}/discover") == 404
    assert not function_url.permissions(Target(C, deployed, "local")) & set(function_url.STATEMENTS)
    assert "nothing changed" in inv("deploy", "--env", "local").stdout
