"""TLS to PostgreSQL that verifies: a CA of our own, and PostgreSQL behind it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.certificates import certificate, pem
from support.helpers import ROOT, inv, like_local

from handler import postgres, schema
from handler.errors import Refused, Unavailable
from local.state import HOST


@pytest.fixture(scope="module")
def server(local, tmp_path_factory):
    """Start PostgreSQL behind TLS; yields its port and the folder with ca.pem and other.pem.

    The PostgreSQL of the pip package has no TLS, so this server ends TLS before it, as a pooler does. A client sees the
    bytes of a server with ssl on, from the first one and the check of the certificate on.
    """
    folder = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(pem(certificate("our CA", ca_key, "our CA", ca_key)))
    (folder / "other.pem").write_bytes(pem(certificate("our CA", key, "our CA", key)))
    (folder / "server.pem").write_bytes(pem(certificate("pg", key, "our CA", ca_key, host="localhost")) + pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    behind = (HOST, int(local.settings()["LOCAL_PG_PORT"]))
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=accept, args=(listener, context, behind), daemon=True).start()
        yield listener.getsockname()[1], folder
        listener.shutdown(socket.SHUT_RDWR)


def accept(listener: socket.socket, context: ssl.SSLContext, behind: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], context, behind), daemon=True).start()


def serve(client: socket.socket, context: ssl.SSLContext, behind: tuple[str, int]) -> None:
    """Serve one connection: reject what is not TLS, and pass on to PostgreSQL what is."""
    with contextlib.suppress(OSError), client:
        if client.recv(8) != postgres.SSL_REQUEST:
            return
        client.sendall(b"S")
        with context.wrap_socket(client, server_side=True) as secure, socket.create_connection(behind) as plain:
            threading.Thread(target=pass_on, args=(plain, secure), daemon=True).start()
            pass_on(secure, plain)


def pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def reach(server, function_settings, monkeypatch):
    """Call ping() of the TLS server under other settings."""
    port, folder = server

    def ping(**changed):
        usual = {"pg_host": "localhost", "pg_port": port, "pg_sslmode": "verify-full"}
        usual |= {"pg_sslrootcert": str(folder / "ca.pem")}
        for name, value in {**usual, **changed}.items():
            monkeypatch.setattr(postgres.settings.current(), name, value)
        return schema.ping()

    return ping


def test_a_certificate_of_the_given_ca_is_trusted(reach):
    assert reach()["version"].startswith("18")
    with postgres.connected() as session:
        assert isinstance(session.line, ssl.SSLSocket)
        assert session.run("SELECT repeat('x', 200000)") == [["x" * 200000]]


def test_another_ca_of_the_same_name_is_refused(reach, server):
    with pytest.raises(Refused, match=r"its certificate is not trusted: .*; PG_SSLROOTCERT must name the CA"):
        reach(pg_sslrootcert=str(server[1] / "other.pem"))


def test_the_systems_cas_do_not_know_it(reach):
    with pytest.raises(Refused, match="its certificate is not trusted"):
        reach(pg_sslrootcert=None)


def test_another_host_is_refused(reach):
    with pytest.raises(Refused, match=f"not trusted: .*{HOST}.*PG_HOST a name that is in it"):
        reach(pg_host=HOST)


def test_a_server_without_tls_is_refused(reach, local):
    with pytest.raises(Refused, match="refuses TLS and PG_SSLMODE is verify-full; turn ssl on there, or"):
        reach(pg_port=int(local.settings()["LOCAL_PG_PORT"]))


def test_plain_text_needs_the_setting(reach):
    with pytest.raises(Unavailable):
        reach(pg_sslmode="disable")


def test_a_ca_file_that_is_not_there_is_named(reach):
    with pytest.raises(Refused, match=r"PG_SSLROOTCERT /no/ca.pem cannot be used as a CA file: .*; name the file"):
        reach(pg_sslrootcert="/no/ca.pem")


@pytest.mark.slow
def test_deployed_function_verifies_with_the_ca_file_of_its_environment(deployed, server):
    port, folder = server
    other = ROOT / "env" / "testca.env"
    (ROOT / "env" / "testca.pem").write_bytes((folder / "ca.pem").read_bytes())
    usual = {"PG_HOST": "localhost", "PG_PORT": str(port), "PG_SSLMODE": "verify-full"}
    answers = []
    try:
        for ca in ("testca.pem", str(folder / "other.pem")):
            other.write_text(like_local(**usual, PG_SSLROOTCERT=ca))
            inv("deploy", "--env", "testca")
            answers.append(inv("ping", "--deep", "--env", "testca", check=False))
    finally:
        other.unlink()
        (ROOT / "env" / "testca.pem").unlink()
        inv("deploy", "--env", "local")
    assert answers[0].returncode == 0 and "PostgreSQL 18" in answers[0].stdout
    assert answers[1].returncode == 1 and "its certificate is not trusted" in answers[1].stderr
