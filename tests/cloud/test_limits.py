"""Lambda's limits on the local cloud: code that is too large for a direct upload goes through a bucket."""

from __future__ import annotations

import json
import zipfile

from support.helpers import ROOT, output_of

from ops import bundle, deploy, limits, shell


def test_code_in_the_bucket_reaches_lambda(cfg, monkeypatch, tmp_path):
    """Run the commands for a large bundle with a small one."""
    monkeypatch.setattr(limits, "DIRECT_BYTES", 10)
    (ROOT / "build").mkdir(exist_ok=True)
    zipped = ROOT / "build" / "test-bucket.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("handler/app.py", "def handler(event, context): return 1")
    made = bundle.Bundle(zipped, "d", "5" * 64, zipped.stat().st_size, 1, "made", "")
    cfg = {**cfg, "DEPLOY_BUCKET": "finance-code", "FUNCTION_NAME": "from-a-bucket"}
    create = (
        f"lambda create-function --function-name from-a-bucket {deploy.code_to_create(cfg, made)}"
        f" --runtime {cfg['RUNTIME']} --handler handler.app.handler --role arn:aws:iam::000000000000:role/from-a-bucket"
    )
    update = f"lambda update-function-code --function-name from-a-bucket {deploy.code_to_update(cfg, made)}"
    trust = "file://policies/lambda-trust.json"
    try:
        for command in (
            shell.aws(cfg, f"iam create-role --role-name from-a-bucket --assume-role-policy-document {trust}"),
            shell.aws(cfg, "s3 mb s3://finance-code"),
            deploy.copy_to_bucket(cfg, made),
            shell.aws(cfg, create),
            shell.aws(cfg, update),
        ):
            output = output_of(cfg, command)
        assert json.loads(output)["CodeSize"] == zipped.stat().st_size
    finally:
        zipped.unlink()
        output_of(cfg, shell.aws(cfg, "lambda delete-function --function-name from-a-bucket"))
        output_of(cfg, shell.aws(cfg, "s3 rb --force s3://finance-code"))
        output_of(cfg, shell.aws(cfg, "iam delete-role --role-name from-a-bucket"))
