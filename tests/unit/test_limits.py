"""AWS's limits, which this repository checks before AWS does."""

from __future__ import annotations

import http.server
import io
import os
import threading
import zipfile

import pytest
from invoke import Exit
from support.helpers import ROOT

from ops import bundle, limits, upload
from ops.config import SETTINGS

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
