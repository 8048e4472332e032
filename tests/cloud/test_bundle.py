"""The bundle against the Genius of the local cloud."""

from __future__ import annotations

from support.bundle_helpers import bare, unzip_to

from ops.config import function_environment


def test_thin_connection_works_from_thin_bundle(cfg, tmp_path):
    script = """
import oracledb
with oracledb.connect(user=os.environ["ORACLE_USER"], password=os.environ["ORACLE_PASSWORD"],
                      dsn=os.environ["ORACLE_CONNECT_STRING"]) as connection:
    print(connection.thin, connection.cursor().execute("SELECT 42 FROM dual").fetchone()[0])"""
    assert bare(unzip_to(tmp_path / "bundle", "thin"), script, tmp_path, **function_environment(cfg)) == "True 42"
