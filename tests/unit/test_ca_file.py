"""PG_SSLROOTCERT: the bundle ships the file that an environment names, and nothing that is secret."""

from __future__ import annotations

import re
import ssl
import zipfile

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from invoke import Exit
from support.bundle_helpers import HOST
from support.certificates import certificate, pem
from support.helpers import ROOT

from handler import postgres
from ops import bundle, ca_file, config

CFG = {"RUNTIME": HOST, "BUNDLE_PLATFORM": "", "ORACLE_CLIENT": "thick"}


@pytest.fixture
def made(tmp_path):
    """Return a folder with a CA file, its key, and files that are neither."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca = pem(certificate("our CA", key, "our CA", key))
    (tmp_path / "ca.pem").write_bytes(ca)
    (tmp_path / "with-key.pem").write_bytes(ca + pem(key))
    (tmp_path / "text.pem").write_text("none")
    return tmp_path


def test_bundle_ships_the_file_under_the_name_that_the_function_reads(made, monkeypatch):
    plain, with_ca = bundle.build(CFG), bundle.build({**CFG, "PG_SSLROOTCERT": str(made / "ca.pem")})
    assert with_ca.digest != plain.digest
    assert ca_file.SHIPPED_AS not in zipfile.ZipFile(plain.path).namelist()
    with zipfile.ZipFile(with_ca.path) as archive:
        assert archive.read(ca_file.SHIPPED_AS) == (made / "ca.pem").read_bytes()
        archive.extract(ca_file.SHIPPED_AS, made / "task")
    monkeypatch.setattr(postgres, "BUNDLE", made / "task")
    context = postgres.verifying(ca_file.SHIPPED_AS)
    assert context.verify_mode == ssl.CERT_REQUIRED and len(context.get_ca_certs()) == 1


def test_function_gets_the_name_in_the_bundle_and_a_changed_file_is_another_bundle(made):
    cfg = {setting.name: "x" for setting in config.ALL_SETTINGS} | {"PG_SSLROOTCERT": str(made / "ca.pem")}
    assert config.function_environment(cfg)["PG_SSLROOTCERT"] == ca_file.SHIPPED_AS
    assert "PG_SSLROOTCERT" not in config.function_environment({**cfg, "PG_SSLROOTCERT": ""})
    first = bundle.build({**CFG, "PG_SSLROOTCERT": str(made / "ca.pem")}).digest
    key = ec.generate_private_key(ec.SECP256R1())
    (made / "ca.pem").write_bytes(pem(certificate("new CA", key, "new CA", key)))
    assert bundle.build({**CFG, "PG_SSLROOTCERT": str(made / "ca.pem")}).digest != first


@pytest.mark.parametrize(
    ("name", "reason"),
    [("with-key.pem", "has a private key"), ("text.pem", "holds no certificate"), ("none.pem", "No such file")],
)
def test_other_files_are_refused_in_one_line(made, name, reason):
    with pytest.raises(Exit, match=f"^PG_SSLROOTCERT .*{name}.*{re.escape(reason)}.*Nothing was changed") as caught:
        ca_file.find({"PG_SSLROOTCERT": str(made / name)})
    assert "\n" not in str(caught.value) and "global-bundle.pem" in str(caught.value)


def test_relative_path_starts_at_env(made):
    place = ROOT / "env" / "testca.pem"
    place.write_bytes((made / "ca.pem").read_bytes())
    try:
        assert ca_file.find({"PG_SSLROOTCERT": "testca.pem"}) == place
    finally:
        place.unlink()
