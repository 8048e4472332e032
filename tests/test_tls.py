"""TLS to PostgreSQL that verifies: a server of our own with a CA of our own."""

from __future__ import annotations

import datetime
import os
import time

import pytest
from cloud import database, processes
from cloud.state import HOST, State, new_settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handler import ledger
from handler.errors import Refused, Unavailable

DAY = datetime.timedelta(days=1)


def certificate(name: str, key, issuer: str, issuer_key, days: int = 1, **alternative) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
    )
    if alternative:
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(alternative["host"])]), critical=False)
    return built.sign(issuer_key, hashes.SHA256())


def pem(made) -> bytes:
    if isinstance(made, x509.Certificate):
        return made.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that takes TLS alone; yields its port, its password and the folder with ca.pem and other.pem."""
    folder = tmp_path_factory.mktemp("tls")
    state = State(folder / "state")
    given, held = new_settings()
    for holder in held.values():
        holder.close()
    database.make_cluster(state, given)
    data = database.data_folder(state)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(pem(certificate("our CA", ca_key, "our CA", ca_key)))
    (folder / "other.pem").write_bytes(pem(certificate("our CA", key, "our CA", key)))
    (data / "server.crt").write_bytes(pem(certificate("pg", key, "our CA", ca_key, host="localhost")))
    (data / "server.key").write_bytes(pem(key))
    (data / "server.key").chmod(0o600)
    (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
    for name in ("server.crt", "server.key", "pg_hba.conf"):
        os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
    command, options = database.server_command(state, int(given["LOCAL_PG_PORT"]))
    process = processes.spawn([*command, "-c", "ssl=on"], database.marked(state), state.log("postgres"), **options)
    yield int(given["LOCAL_PG_PORT"]), given["LOCAL_PG_ADMIN_PASSWORD"], folder
    processes.end([process], *database_ending())


def database_ending():
    from cloud.parts import ENDINGS

    return ENDINGS["postgres"]


@pytest.fixture
def reach(server, function_settings, monkeypatch):
    """ping() of the TLS server under other settings."""
    port, password, folder = server

    def ping(**changed):
        usual = {"pg_host": "localhost", "pg_port": port, "pg_user": "postgres", "pg_password": password}
        usual |= {"pg_database": "postgres", "pg_sslmode": "verify-full", "pg_sslrootcert": str(folder / "ca.pem")}
        for name, value in {**usual, **changed}.items():
            monkeypatch.setattr(ledger.settings.current(), name, value)
        return ledger.ping()

    deadline = time.monotonic() + 20
    while True:
        try:
            ping()
            return ping
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_certificate_of_the_given_ca_is_trusted(reach, monkeypatch):
    assert reach()["version"].startswith("18")
    with ledger.connected() as session:
        assert session.run("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [[True]]


def test_another_ca_of_the_same_name_is_refused(reach, server):
    with pytest.raises(Refused, match="its certificate is not trusted: .*; PG_SSLROOTCERT must name the CA"):
        reach(pg_sslrootcert=str(server[2] / "other.pem"))


def test_the_systems_cas_do_not_know_it(reach):
    with pytest.raises(Refused, match="its certificate is not trusted"):
        reach(pg_sslrootcert=None)


def test_another_host_is_refused(reach):
    with pytest.raises(Refused, match=f"not trusted: .*{HOST}.*PG_HOST a name that is in it"):
        reach(pg_host=HOST)


def test_a_server_without_tls_is_refused(reach, local):
    with pytest.raises(Refused, match="refuses TLS and PG_SSLMODE is verify-full; turn ssl on there, or"):
        reach(pg_port=int(local.settings()["LOCAL_PG_PORT"]))


def test_plain_text_is_spoken_only_where_the_settings_say_so(reach):
    with pytest.raises(Refused, match="no pg_hba.conf entry .*no encryption"):
        reach(pg_sslmode="disable")


def test_a_ca_file_that_is_not_there_is_named(reach):
    with pytest.raises(Refused, match=r"PG_SSLROOTCERT /no/ca.pem cannot be used as a CA file: .*; deploy it"):
        reach(pg_sslrootcert="/no/ca.pem")
