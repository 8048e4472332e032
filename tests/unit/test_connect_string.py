"""ORACLE_CONNECT_STRING: read by the driver before a deploy, and sent to it with the function's own time limits."""

from __future__ import annotations

import re

import oracledb
import pytest
from support.helpers import ROOT, inv

from handler import oracle, settings
from handler.errors import Refused, Unavailable
from ops import connect_string

LIST = (
    "(DESCRIPTION_LIST=(LOAD_BALANCE=OFF)(FAILOVER=ON)"
    "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=a)(PORT=1521))(CONNECT_DATA=(SERVICE_NAME=x)))"
    "( description = (transport_connect_timeout=99)(ADDRESS=(PROTOCOL=TCP)(HOST=b)(PORT=1522))"
    "(CONNECT_DATA=(SERVICE_NAME=x))))"
)
BY_SID = "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=genius)(PORT=1521))(CONNECT_DATA=(SID=GNS)))"
ADDRESS_LIST = BY_SID.replace("(ADDRESS", "(ADDRESS_LIST=(LOAD_BALANCE=OFF)(ADDRESS").replace("1521))", "1521)))")


@pytest.mark.parametrize(
    "value",
    [
        "genius:1521/GNS",
        "genius/GNS",
        "//genius:1521/GNS",
        "[::1]:1521/GNS",
        "one,two:1521/GNS",
        "genius:1521/GNS:dedicated",
        "tcp://genius:1521/GNS?connect_timeout=5",
        BY_SID,
        ADDRESS_LIST,
        LIST,
        "",
    ],
)
def test_forms_that_the_driver_reads_are_accepted(value):
    assert connect_string.find_fault(value) == ""


@pytest.mark.parametrize(
    ("value", "fault", "form"),
    [
        ("genius:1521:GNS", "host:port:SID", BY_SID),
        ("jdbc:oracle:thin:@genius:1521:GNS", "JDBC URL", BY_SID),
        ("jdbc:oracle:thin:@//genius:1521/GNS", "JDBC URL", "write genius:1521/GNS"),
        ("//genius:1521:GNS", "host:port:SID", BY_SID),
        (f"jdbc:oracle:thin:@{BY_SID}", "JDBC URL", f"write {BY_SID}"),
        ("jdbc:oracle:thin:scott/tiger@genius", "JDBC URL", connect_string.FORMS),
        ("jdbc:oracle:thin:@", "JDBC URL", connect_string.FORMS),
        ("GNS.WORLD", "a TNS alias", connect_string.FORMS),
        ("genius:1521", "neither a service nor a SID", connect_string.FORMS),
        ("ldap://directory/GNS,cn=OracleContext", "does not search", connect_string.FORMS),
        ("config-file:///etc/hosts", "does not search", connect_string.FORMS),
        ("genius:x/GNS", "is no address", connect_string.FORMS),
        ("scott/tiger@genius:1521/GNS", "ORACLE_USER and ORACLE_PASSWORD", connect_string.FORMS),
        ("genius:1521/", "neither a service nor a SID", connect_string.FORMS),
        ("genius:70000/GNS", "not from 1 to 65535", ""),
        ("(DESCRIPTION=(ADDRESS=", "DPY-2049", connect_string.FORMS),
        ("(nonsense)", "DPY-4017", connect_string.FORMS),
    ],
)
def test_other_forms_are_refused_with_the_right_one(value, fault, form):
    message = connect_string.find_fault(value)
    assert fault in message and form in message
    assert "\n" not in message and "tiger" not in message


def test_checks_of_an_environment_refuse_it_in_one_line():
    text = re.sub("<[A-Z]+>", "x", (ROOT / "env" / "example.env").read_text())
    text = re.sub("^SECRETS_FILE=.*", "SECRETS_FILE=", text, flags=re.M)
    text = re.sub("^ORACLE_CONNECT_STRING=.*", "ORACLE_CONNECT_STRING=genius:1521:GNS", text, flags=re.M)
    other = ROOT / "env" / "testsid.env"
    other.write_text(text)
    secrets = dict.fromkeys(("PG_PASSWORD", "ORACLE_PASSWORD", "RESTATE_AUTH_TOKEN"), "x")
    try:
        done = inv("env.check", "--env", "testsid", check=False, **secrets)
    finally:
        other.unlink()
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert BY_SID in done.stderr and "Nothing was changed" in done.stderr


def test_operators_driver_is_the_functions():
    names = ("requirements.txt", "handler/requirements.in", "handler/requirements.txt")
    pins = [re.findall(r"^oracledb==(\S+)", (ROOT / name).read_text(), re.M) for name in names]
    assert pins == [[oracledb.__version__]] * 3


@pytest.fixture
def connecting(monkeypatch):
    """Return a function that sets the function's connect string."""
    environ = {name: "x" for name in ("PG_HOST", "PG_DATABASE", "PG_USER", "PG_PASSWORD")}
    environ |= {"ORACLE_USER": "u", "ORACLE_PASSWORD": "p", "ORACLE_CLIENT": "thin"}

    def connect_to(value: str) -> None:
        parsed = settings.parse({**environ, "ORACLE_CONNECT_STRING": value})
        monkeypatch.setattr(settings, "current", lambda: parsed)

    return connect_to


def test_descriptor_keeps_what_it_has_and_gets_the_time_limits_of_the_function(connecting):
    connecting(LIST)
    sent = oracle.connect_descriptor(7)
    assert sent.startswith("(DESCRIPTION_LIST=(LOAD_BALANCE=OFF)(FAILOVER=ON)")
    assert sent.count("(TRANSPORT_CONNECT_TIMEOUT=7)(EXPIRE_TIME=2)") == 2 and "=99" not in sent
    read = oracledb.ConnectParams()
    read.parse_connect_string(sent)
    assert (read.host, read.port, read.tcp_connect_timeout) == (["a", "b"], [1521, 1522], [7, 7])
    assert read.expire_time == [2, 2]


def test_ez_connect_string_gets_the_time_limits_of_the_function(connecting):
    connecting("genius:1521/GNS")
    read = oracledb.ConnectParams()
    read.parse_connect_string(oracle.connect_descriptor(7))
    assert (read.host, read.service_name, read.tcp_connect_timeout, read.expire_time) == ("genius", "GNS", 7, 2)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ("genius.invalid:1521/GNS", Unavailable, "Name or service not known|Temporary failure in name resolution"),
        ("127.0.0.1:1/GNS", Unavailable, "DPY-6005: cannot connect to database; .*Connection refused"),
        ("GENIUS", Refused, "DPY-4027: .* TNS alias .*; write host:port/service"),
    ],
)
def test_failed_connect_names_its_cause(connecting, value, kind, words):
    connecting(value)
    with pytest.raises(kind, match=words) as caught, oracle.connected(2, connect_seconds=2):
        pass
    assert "\n" not in str(caught.value)
