"""inv genius.sql, inject, clear and faults, as an operator or a newcomer runs them."""

from __future__ import annotations

import pytest
from support.helpers import inv

from local.oracle.faults import KNOWN


def test_a_query_is_shown_as_a_table(local):
    query = "select 'a' as name, 10 as amount, null as none from dual union all select 'long', 7.25, 'x' from dual;"
    assert inv("genius.sql", query).stdout.splitlines() == [
        "NAME  AMOUNT  NONE",
        "a         10",
        "long    7.25  x",
        "2 rows",
    ]


def test_more_rows_than_wanted_are_counted(local):
    output = inv("genius.sql", "select branch from acpdb.ac_glopenbalance where glmonth = '01'", "--rows", "1").stdout
    assert output.splitlines()[-1].endswith("rows, the first 1 printed")
    assert int(output.splitlines()[-1].split()[0]) > 15_000


def test_blocks_and_changes_are_committed(local):
    assert inv("genius.sql", "create table remarks (remark varchar2(20))").stdout == "done\n"
    assert inv("genius.sql", "insert into remarks values ('hello')").stdout == "1 row\n"
    assert inv("genius.sql", "begin update remarks set remark = 'hello again'; end;").stdout == "done\n"
    assert "hello again" in inv("genius.sql", "select * from remarks").stdout
    inv("genius.sql", "drop table remarks")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("selec 1 from dual", "ORA-00900: invalid SQL statement"),
        ("select * from nowhere", "ORA-00942: table or view does not exist"),
        ("begin raise_application_error(-20001, 'as you wish'); end;", "ORA-20001: as you wish; ORA-06512: at line 1"),
    ],
)
def test_an_error_is_one_line(local, text, expected):
    refused = inv("genius.sql", text, check=False)
    assert (refused.returncode, refused.stderr) == (1, f"{expected}\n")


def test_faults_are_injected_listed_and_cleared(local):
    try:
        assert inv("genius.inject", "password=GENIUS:changed").stdout == "injected: password=GENIUS:changed\n"
        refused = inv("genius.sql", "select 1 from dual", check=False)
        assert refused.stderr == "ORA-01017: invalid username/password; logon denied\n"
        listed = inv("genius.faults").stdout.splitlines()
        assert [line[10:].split()[0] for line in listed] == list(KNOWN)
        assert [line.split()[1:] for line in listed if line[:8].strip()] == [["password", "GENIUS:changed"]]
    finally:
        assert inv("genius.clear", "password").stdout == "injected: nothing\n"
    assert "1 row\n" in inv("genius.sql", "select 1 from dual").stdout


def test_an_unknown_fault_lists_the_known_ones(local):
    refused = inv("genius.inject", "latency=5", check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert refused.stderr.startswith("No fault 'latency'. Known: ") and all(name in refused.stderr for name in KNOWN)


def test_without_a_cloud_the_next_command_is_named(tmp_path):
    refused = inv("genius.sql", "select 1 from dual", check=False, FINANCE_CLOSING_STATE=str(tmp_path))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "inv local.up" in refused.stderr
