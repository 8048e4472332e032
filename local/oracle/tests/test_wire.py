"""The encodings in both directions, without a socket."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local.oracle.binds import scan
from local.oracle.datatypes import ENCODERS, PARSERS, number, parse_number
from local.oracle.handshake import COMPILE_CAPS, choose
from local.oracle.model import Column, OracleError
from local.oracle.packets import parse_connect, refusal
from local.oracle.replies import describe, directions, end
from local.oracle.requests import Caps, Slot, order_of
from local.oracle.wire import Malformed, Reader, Short, clr, dalc, ub

quick = settings(max_examples=150, deadline=None)
exact = st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=38).map(tuple),
    st.integers(-128, 86),
)


def back(kind: str, value: object) -> object:
    """Return a value encoded as a column and parsed as a bind."""
    reader = Reader(ENCODERS[kind](value))
    data = reader.clr()
    assert reader.pos == len(reader.data)
    return None if data is None else PARSERS[kind](data)


@quick
@given(exact)
@example(Decimal("1E-130"))
@example(Decimal("9.9E+125"))
@example(Decimal("-1"))
@example(Decimal("-0.00"))
@example(Decimal("12345678901234567890123456789012345678"))
def test_a_number_survives_to_the_last_digit(value: Decimal):
    assert back("NUMBER", value) == value


@quick
@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_a_whole_number_comes_back_as_int(value: int):
    again = back("NUMBER", value)
    assert again == value and isinstance(again, int)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "80"),
        (1, "c102"),
        (-1, "3e6466"),
        (100, "c202"),
        (Decimal("12.34"), "c10d23"),
        (Decimal("-12.34"), "3e594366"),
        (Decimal("0.01"), "c002"),
        (Decimal("0.001"), "bf0b"),
        (Decimal("12345.60"), "c302182e3d"),
        (1.5, "c10233"),
        (1e-7, "bd0b"),
        (10**38 - 1, "d3" + "64" * 19),
        (-(10**40 - 1), "2b" + "02" * 20),
    ],
)
def test_a_number_is_written_as_oracle_writes_it(value: object, data: str):
    assert number(value) == bytes((len(data) // 2,)) + bytes.fromhex(data)


def test_a_number_beyond_forty_digits_is_rounded_and_beyond_its_range_refused():
    assert back("NUMBER", Decimal("1" * 40 + ".6")) == Decimal("1" * 39 + "2")
    assert back("NUMBER", Decimal("9" * 45)) == Decimal("1E45")
    assert back("NUMBER", Decimal("1E-140")) == 0
    for too_large in (Decimal("1E126"), -(10**130)):
        with pytest.raises(OracleError, match="ORA-01426"):
            number(too_large)
    for nothing in (Decimal("NaN"), Decimal("Infinity"), float("nan"), "xyz", "abc", "12", object()):
        with pytest.raises(ValueError, match="not a number"):
            number(nothing)


@pytest.mark.parametrize("data", [b"\xc1", b"\xc1\x00", b"\xc1\x65", b"\x3e\x01\x66", b"\xff\x65", b"\x00"])
def test_bytes_that_are_no_number_are_refused(data: bytes):
    with pytest.raises(Malformed):
        parse_number(data)


moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))


@quick
@given(moments)
def test_dates_and_timestamps_survive(value: datetime):
    assert back("DATE", value.replace(microsecond=0)) == value.replace(microsecond=0)
    assert back("TIMESTAMP", value) == value


@quick
@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), st.integers(-720, 840))
def test_a_moment_keeps_its_zone(value: datetime, minutes: int):
    aware = value.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    again = back("TIMESTAMP WITH TIME ZONE", aware)
    assert again == aware and again.utcoffset() == aware.utcoffset()


@quick
@given(st.timedeltas(timedelta(days=-999999), timedelta(days=999999)))
def test_an_interval_survives(value: timedelta):
    assert back("INTERVAL DAY TO SECOND", value) == value


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300), st.binary(max_size=300), st.sampled_from([0, 1, 251, 252, 253, 32767, 32768, 70000]))
def test_text_and_bytes_of_any_length_survive(text: str, data: bytes, size: int):
    for value in (text, "x" * size, "é" * (size // 2)):
        assert back("VARCHAR2", value) == (value or None)
    for value in (data, b"\0" * size):
        assert back("RAW", value) == (value or None)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "LONG"])
def test_null_is_null_in_every_type(kind: str):
    assert back(kind, None) is None


@quick
@given(st.integers(-(2**63), 2**63))
def test_integers_bring_their_length(value: int):
    assert Reader(ub(value)).ub() == value


@quick
@given(st.binary(min_size=1, max_size=600), st.data())
def test_whatever_is_cut_short_is_waited_for(data: bytes, draw: st.DataObject):
    message = ub(70000) + clr(data) + dalc(data)
    cut = draw.draw(st.integers(0, len(message) - 1))
    reader = Reader(message[:cut])
    with pytest.raises(Short):
        (reader.ub(), reader.clr(), reader.dalc())


@pytest.mark.parametrize(
    ("sql", "kind", "names", "returned"),
    [
        ("select :a, :B, :a from dual", "query", ["A", "B", "A"], 0),
        ("begin p(:a, :b, :A); end;", "plsql", ["A", "B"], 0),
        ("call p(:x)", "plsql", ["X"], 0),
        ('select :"Quoted name", :1 from dual', "query", ["Quoted name", "1"], 0),
        ("select ':no', q'[it's :no]', \":no\" from dual where x = :yes", "query", ["YES"], 0),
        ("select nq'{a':b}', :c -- :d\n, :e /* :f */ from dual", "query", ["C", "E"], 0),
        ("select json_object('k' :no), 'it''s :no' || :yes from dual", "query", ["YES"], 0),
        ("/* note */ -- another\n with x as (select 1 from dual) select :a from x", "query", ["A"], 0),
        ("begin x := 1; y:=:a; end;", "plsql", ["A"], 0),
        ("update t set a = :a where b = :b returning c, d into :c, :d", "dml", ["A", "B", "C", "D"], 2),
        ("create table t (a number default :no)", "ddl", [], 0),
        ("select 'never closed :a", "query", [], 0),
        ("", "other", [], 0),
    ],
)
def test_binds_are_found_where_the_driver_finds_them(sql: str, kind: str, names: list[str], returned: int):
    assert scan(sql) == (kind, names, returned)


def test_long_binds_come_last_in_sql_and_in_place_in_plsql():
    slots = [Slot(1, "VARCHAR2", 0, size, 1) for size in (40000, 4, 32767, 32768)]
    assert order_of(scan("insert into t values (:1, :2, :3, :4)"), slots) == [1, 2, 0, 3]
    assert order_of(scan("begin p(:1, :2, :3, :4); end;"), slots) == [0, 1, 2, 3]
    assert order_of(scan("update t set a = :1, b = :2 returning c, d into :3, :4"), slots) == [1, 0]


def test_a_scale_is_one_byte_or_an_integer_with_a_sign():
    column = [Column("N", "NUMBER")]
    assert b"\x02\x00\x00\x81\x01\x16" in describe(Caps(12, True), column)
    assert b"\x02\x00\x00\x81\x7f\x01\x16" in describe(Caps(7, False), column)


def test_end_of_a_call_has_number_text_and_position():
    reader = Reader(end(Caps(12, True), True, OracleError(942, "no table", 14), cursor=5, rows=2))
    assert reader.u8() == 4
    fields = [reader.ub() for _ in range(8)]
    assert fields == [2, 0, 2, 942, 0, 0, 5, 14]
    assert reader.data.endswith(clr(b"ORA-00942: no table\n"))


def test_directions_count_in_two_parts():
    assert directions(300, [299]).startswith(bytes.fromhex("0b04 012c 0101 0101 000000"))
    assert directions(2, [1]).endswith(bytes((32, 48)))


def test_an_offer_is_taken_by_its_first_universal_form():
    assert choose([(612, 1), (290, 1)]) == (612, 1)
    assert choose([(27, 10), (5, 1)]) == (5, 1)
    assert choose([(3, 10), (4, 10)]) == (3, 10)
    assert choose([(3, 0)]) is None
    assert len(COMPILE_CAPS) == 41


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("(CONNECT_DATA=(SERVICE_NAME=genius))", None),
        ("(connect_data=(service_name = GENIUS )(CID=(PROGRAM=x)))", None),
        ("(CONNECT_DATA=(SERVICE_NAME=other))", 12514),
        ("(CONNECT_DATA=(SID=GENIUS))", None),
        ("(CONNECT_DATA=(SID=other))", 12505),
        ("(CONNECT_DATA=(COMMAND=ping))", 12504),
    ],
)
def test_the_listener_knows_one_service(address: str, code: int | None):
    assert refusal(address, "GENIUS") == code


def test_a_connect_packet_that_ends_early_is_refused():
    with pytest.raises(Malformed):
        parse_connect(b"\x01\x3f\x01\x2c")
