"""The layer on the local cloud: published, attached by a deploy, seen by the function that closes a day, pruned."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from invoke import Context, Exit
from support import instantclient
from support.helpers import ROOT, environment_file, inv, output_of
from support.instantclient import AIO

from layer import build, publish
from ops import config, release, shell
from ops.target import Target

pytestmark = pytest.mark.skipif(not instantclient.COMPILER, reason="needs a C compiler, to make libraries from")


@pytest.fixture(scope="module")
def client_zip(zips) -> Path:
    return zips["19"]


def make_layer(zipped: Path) -> dict:
    """Build the layer by the operator's own command, for the runtime of the local cloud."""
    runtime = config.load("local")["RUNTIME"]
    libaio = zipped.parent / "system" / AIO
    inv("layer.build", "--runtime", runtime, INSTANT_CLIENT=str(zipped), LIBAIO=str(libaio))
    return build.about_layer()


@pytest.fixture(scope="module")
def published(cfg, client_zip) -> str:
    """Return the ARN of the layer's first version."""
    make_layer(client_zip)
    return inv("layer.publish", "--env", "local").stdout.splitlines()[-1]


def asked(cfg, command: str) -> dict:
    return json.loads(output_of(cfg, command))


def test_a_thick_function_without_a_layer_is_refused_before_anything_is_touched(deployed):
    with environment_file("testthick", ORACLE_CLIENT="thick", LAYER_NAME="never-published") as env:
        done = inv("deploy", "--env", env, check=False)
        shell = inv("env.shell", "--env", env)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "has no version of it; publish it with `make layer publish ENV=testthick`" in done.stderr
    assert "bundle" not in done.stdout
    # The manual commands still make the roles; those of a deploy then stop at the unknown layer.
    assert "export ROLE_NAME=" in shell.stdout and "LAYER_VERSION_ARN" not in shell.stdout
    assert "LAYER_VERSION_ARN is left out" in shell.stderr


def test_layer_version_has_content_and_runtimes(published, cfg):
    (version,) = asked(cfg, publish.list_layer_versions(cfg))["LayerVersions"]
    about = build.about_layer()
    assert published == version["LayerVersionArn"]
    assert version["CompatibleArchitectures"] == ["x86_64"]
    assert version["CompatibleRuntimes"] == about["runtimes"]
    assert about["zip"] in version["Description"]
    assert len(publish.description(about | {"client": "19.28.0.0.0.000"})) <= 256


def test_the_same_layer_is_not_published_twice(published):
    done = inv("layer.publish", "--env", "local")
    assert "already published" in done.stdout
    assert done.stdout.splitlines()[-1] == published
    assert "publish-layer-version" not in done.stdout


def test_dry_run_publishes_nothing(published, cfg):
    with environment_file("testlayer", LAYER_NAME="unpublished") as env:
        done = inv("--dry", "layer.publish", "--env", env)
        assert "publish-layer-version --layer-name unpublished" in done.stdout
        assert "dry run, nothing was published" in done.stdout
        assert "has no version of unpublished" in inv("layer.list", "--env", env).stdout


def test_a_layer_that_the_runtime_cannot_load_is_not_published(published, cfg, monkeypatch):
    monkeypatch.setattr(publish, "about_layer", lambda: {"runtimes": ["python3.14"], "glibc": "2.34"})
    with pytest.raises(Exit, match=r"build it again with `inv layer.build --runtime python3"):
        publish.publish(Target(Context(), cfg, "local"))


def test_a_large_layer_goes_through_the_bucket(published, cfg, monkeypatch, capsys):
    monkeypatch.setattr(publish, "DIRECT_LIMIT", 1000)
    large = {**cfg, "LAYER_NAME": "large", "DEPLOY_BUCKET": ""}
    with pytest.raises(Exit, match="name a bucket in DEPLOY_BUCKET"):
        publish.publish(Target(Context(), large, "local"))
    large["DEPLOY_BUCKET"] = "finance-closing-deploy"
    output_of(cfg, shell.aws(cfg, "s3 mb s3://finance-closing-deploy"))
    monkeypatch.chdir(ROOT)
    arn = publish.publish(Target(Context(), large, "local"))
    assert arn.endswith(":layer:large:1")
    output = capsys.readouterr().out
    assert "s3 cp --only-show-errors build/oracle-instantclient-layer.zip s3://finance-closing-deploy/large/" in output
    assert "s3 rm --only-show-errors s3://finance-closing-deploy/large/" in output


@pytest.fixture(scope="module")
def pinned(deployed, published, cfg):
    """Return the function with the layer pinned by its ARN, and its deep ping; detached again at the end.

    In thin mode: the emulator turns the layer's links to text, so that no client could be loaded there.
    """
    with environment_file("testpinned", LAYER_VERSION_ARN=published) as env:
        done = inv("deploy", "--env", env)
        assert "differs in Layers" in done.stdout
        yield release.invoke_event(Target(Context(), cfg, "local"), {"ping": "deep"})["client"]
    assert "differs in Layers" in inv("deploy", "--env", "local").stdout
    assert release.invoke_event(Target(Context(), cfg, "local"), {"ping": "deep"})["client"]["libraries"] == []


def test_a_thick_deploy_attaches_the_newest_version_and_tns_admin(deployed, published, cfg, monkeypatch):
    with environment_file("testthick", ORACLE_CLIENT="thick") as env:
        printed = inv("--dry", "deploy", "--env", env).stdout
    assert "differs in Layers, ORACLE_CLIENT, TNS_ADMIN" in printed
    assert f"--layers {published}" in printed
    monkeypatch.setattr(publish, "versions", lambda target: [{"LayerVersionArn": "x", "CompatibleRuntimes": ["y"]}])
    with pytest.raises(Exit, match=r"x was made for y; publish one for it with `make layer publish"):
        publish.attached(Target(Context(), {**cfg, "ORACLE_CLIENT": "thick"}, "local"))
    assert config.function_environment({**cfg, "ORACLE_CLIENT": "thick"})["TNS_ADMIN"] == "/opt/network/admin"
    assert "TNS_ADMIN" not in config.function_environment(cfg)


def test_a_closing_runs_in_a_function_that_sees_the_layers_files(pinned):
    assert "2025-12-30 accepted" in inv("close", "--env", "local", "--date", "2025-12-30", "--watch").stdout
    assert pinned["libraries"] == sorted(build.about_layer()["files"])
    assert (pinned["mode"], pinned["version"], pinned["error"]) == ("thin", None, None)


def test_prune_keeps_the_newest_and_those_in_use(pinned, published, cfg, monkeypatch):
    """Version 1 is used by a version of the function; 2 and 3 are not."""
    about = build.about_layer()
    monkeypatch.chdir(ROOT)
    for number in (2, 3):
        monkeypatch.setattr(publish, "about_layer", lambda number=number: about | {"content": f"{number}" * 64})
        assert publish.publish(Target(Context(), cfg, "local")).endswith(f":{number}")
    assert "1 would be deleted" in inv("--dry", "layer.prune", "--keep", "1", "--env", "local").stdout
    done = inv("layer.prune", "--keep", "1", "--env", "local").stdout
    assert f"{published} stays: a function version uses it" in done
    assert "1 deleted" in done
    listed = [line.split() for line in inv("layer.list", "--env", "local").stdout.splitlines()]
    assert [(words[0][-2:], words[2]) for words in listed] == [(":3", "unused"), (":1", "used")]


def test_prune_always_keeps_one():
    refused = inv("layer.prune", "--keep", "0", "--env", "local", check=False)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (1, 1)


def test_make_publish_publishes_what_make_layer_made(cfg, client_zip):
    runtime = config.load("local")["RUNTIME"]
    words = [f"INSTANT_CLIENT={client_zip}", f"LIBAIO={client_zip.parent / 'system' / AIO}", f"RUNTIME={runtime}"]
    done = subprocess.run(["make", "layer", "publish", "ENV=local", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert next(at for at, line in enumerate(lines) if "Instant Client 19.28" in line) < len(lines) - 2
    assert sum("Instant Client 19.28.0" in line and "from" in line for line in lines) == 1
    assert ":layer:oracle-instantclient:" in lines[-1]
    words = ["make", "-n", "publish", "ENV=local", "INSTANT_CLIENT="]
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert again.stdout.split() == [".venv/bin/inv", "layer.publish", "--env", '"local"']


def test_no_layer_at_build_is_one_line(cfg):
    build.LAYER.unlink(missing_ok=True)
    done = inv("layer.publish", "--env", "local", check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "No layer at build/oracle-instantclient-layer.zip; make it with `inv layer.build`."
