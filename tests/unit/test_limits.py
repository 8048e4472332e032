"""AWS's limits, which this repository checks before AWS does."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import threading
import zipfile

import pytest
from invoke import Exit
from support.helpers import ROOT

from ops import bundle, limits, shell, upload
from ops.config import SETTINGS
from ops.target import Target

CFG = {"AWS_REGION": "ap-southeast-3", "AWS_PROFILE": "", "FUNCTION_NAME": "closing", "DEPLOY_BUCKET": "b"}


def of_size(size: int) -> bundle.Bundle:
    return bundle.Bundle(ROOT / "build" / "x.zip", "d" * 64, "5" * 64, size, size, "made", "")


def test_function_and_layers_together_fill_the_limit_to_the_byte():
    limits.check_bundle(1, 200_000_000, "", {"arn:l:1": 62_144_000})
    with pytest.raises(Exit, match=r"262,144,001 bytes .* takes 262,144,000 .*bundle 200,000,000, arn:l:1 62,144,001"):
        limits.check_bundle(1, 200_000_000, "", {"arn:l:1": 62_144_001})


def test_a_large_bundle_asks_for_a_bucket_and_takes_it():
    limits.check_bundle(50_000_000, 1, "", {})
    with pytest.raises(Exit, match=r"50,000,001 bytes .*DEPLOY_BUCKET"):
        limits.check_bundle(50_000_001, 1, "", {})
    limits.check_bundle(50_000_001, 1, "bucket", {})
    assert upload.code_to_update(CFG, of_size(50_000_001)) == f"--s3-bucket b --s3-key closing/{'5' * 64}.zip"
    assert upload.code_to_create(CFG, of_size(50_000_001)) == f"--code S3Bucket=b,S3Key=closing/{'5' * 64}.zip"
    assert upload.code_to_update(CFG, of_size(50_000_000)) == "--zip-file fileb://build/x.zip"


def test_the_bucket_is_a_way_to_lambda(cfg, monkeypatch, tmp_path):
    """The commands themselves, with a small bundle that counts as large."""
    monkeypatch.setattr(limits, "DIRECT_BYTES", 10)
    (ROOT / "build").mkdir(exist_ok=True)
    zipped = ROOT / "build" / "test-bucket.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("handler/app.py", "def handler(event, context): return 1")
    made = bundle.Bundle(zipped, "d", "5" * 64, zipped.stat().st_size, 1, "made", "")
    cfg = {**cfg, "DEPLOY_BUCKET": "finance-code", "FUNCTION_NAME": "from-a-bucket"}
    create = (
        f"lambda create-function --function-name from-a-bucket {upload.code_to_create(cfg, made)}"
        f" --runtime {cfg['RUNTIME']} --handler handler.app.handler --role arn:aws:iam::000000000000:role/any"
    )
    update = f"lambda update-function-code --function-name from-a-bucket {upload.code_to_update(cfg, made)}"
    try:
        for command in (
            shell.aws(cfg, "s3 mb s3://finance-code"),
            upload.copy_to_bucket(cfg, made),
            shell.aws(cfg, create),
            shell.aws(cfg, update),
        ):
            said = run(cfg, command)
        assert json.loads(said)["CodeSize"] == zipped.stat().st_size
    finally:
        zipped.unlink()
        run(cfg, shell.aws(cfg, "lambda delete-function --function-name from-a-bucket"))
        run(cfg, shell.aws(cfg, "s3 rb --force s3://finance-code"))


def run(cfg: dict, command: str) -> str:
    environ = {**os.environ, **shell.command_environment(cfg)}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def test_four_kilobytes_of_environment_are_measured_as_aws_measures_them():
    full = {"A1": "x" * (4096 - len('{"A1":""}'))}
    limits.check_environment(full)
    with pytest.raises(Exit, match=r"4,097 bytes and Lambda takes 4,096; the longest are A1") as caught:
        limits.check_environment({"A1": full["A1"] + "x"})
    assert "xx" not in str(caught.value)
    with pytest.raises(Exit, match="4,09"):
        limits.check_environment({"A1": full["A1"][:-1] + "é"})


@pytest.mark.parametrize("name", ["AWS_REGION", "_HANDLER", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "1X", "A-B"])
def test_reserved_and_impossible_names_are_refused_by_name(name):
    with pytest.raises(Exit, match=name):
        limits.check_environment({"GOOD": "1", name: "secret value"})


def test_no_setting_has_a_name_that_lambda_refuses():
    limits.check_environment({setting.name: "" for setting in SETTINGS})


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def layer(request):
    """(URL, bytes sent so far) of a zip of 300,000 bytes on a server that knows ranges, as S3, or does not."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("lib/libclntsh.so", os.urandom(300_000))
    content, sent = file.getvalue(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            first, last = 0, len(content) - 1
            if request.param:
                first, last = (int(number) for number in self.headers["range"].removeprefix("bytes=").split("-"))
            self.send_response(206 if request.param else 200)
            self.send_header("content-range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[first : last + 1])
            sent.append(last + 1 - first)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/layer", sent, request.param
    server.shutdown()
    server.server_close()


def test_a_layer_is_measured_from_its_directory(layer):
    url, sent, ranges = layer
    assert limits.unzipped_behind(url) == 300_000
    assert sum(sent) < 150_000 if ranges else len(sent) == 1


def test_a_layer_of_the_local_cloud_is_measured(cfg, tmp_path):
    zipped = tmp_path / "layer.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lib/large", bytes(123_456))
    publish = f"lambda publish-layer-version --layer-name measured --zip-file fileb://{zipped}"
    arn = json.loads(run(cfg, shell.aws(cfg, publish)))["LayerVersionArn"]
    found = json.loads(run(cfg, upload.get_layer_version(cfg, arn)))
    assert limits.unzipped_behind(found["Content"]["Location"]) == 123_456


def test_a_layer_that_cannot_be_measured_is_no_obstacle(cfg, capsys):
    from invoke import Context

    arn = f"arn:aws:lambda:{cfg['AWS_REGION']}:000000000000:layer:nowhere:1"
    assert upload.layer_sizes(Target(Context(), cfg, "local"), [arn]) == {}
    assert f"the size of {arn} cannot be read" in capsys.readouterr().out
