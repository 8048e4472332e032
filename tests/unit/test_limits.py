"""AWS's limits, which this repository checks before AWS does."""

from __future__ import annotations

import pytest
from invoke import Exit
from support.helpers import ROOT

from ops import bundle, deploy, limits
from ops.config import SETTINGS

CFG = {"AWS_REGION": "ap-southeast-3", "AWS_PROFILE": "", "FUNCTION_NAME": "closing", "DEPLOY_BUCKET": "b"}


def of_size(size: int) -> bundle.Bundle:
    return bundle.Bundle(ROOT / "build" / "x.zip", "d" * 64, "5" * 64, size, size, "made", "")


def test_bundle_fills_the_unzipped_limit_to_the_byte():
    limits.check_bundle(1, 262_144_000, "")
    with pytest.raises(Exit, match=r"262,144,001 bytes, .* accepts 262,144,000 with the layers"):
        limits.check_bundle(1, 262_144_001, "")


def test_a_large_bundle_asks_for_a_bucket_and_takes_it():
    limits.check_bundle(50_000_000, 1, "")
    with pytest.raises(Exit, match=r"50,000,001 bytes, .*DEPLOY_BUCKET"):
        limits.check_bundle(50_000_001, 1, "")
    limits.check_bundle(50_000_001, 1, "bucket")
    assert deploy.code_to_update(CFG, of_size(50_000_001)) == f"--s3-bucket b --s3-key closing/{'5' * 64}.zip"
    assert deploy.code_to_create(CFG, of_size(50_000_001)) == f"--code S3Bucket=b,S3Key=closing/{'5' * 64}.zip"
    assert deploy.code_to_update(CFG, of_size(50_000_000)) == "--zip-file fileb://build/x.zip"


def test_four_kilobytes_of_environment_are_measured_as_aws_measures_them():
    full = {"A1": "x" * (4096 - len('{"A1":""}'))}
    limits.check_environment(full)
    with pytest.raises(Exit, match=r"4,097 bytes, and Lambda accepts 4,096; the longest are A1") as caught:
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
