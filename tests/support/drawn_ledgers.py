"""Ledgers drawn at random for the roll-up's tests, and the findings of their checks, computed a second way."""

from __future__ import annotations

from hypothesis import strategies as st
from support.rollup_helpers import balanced


@st.composite
def ledgers(draw):
    """Draw a chart and rows: any forest; postings to leaves, parents and accounts that are not in it.

    Some accounts of the forest are missing in the chart, with or without all that is below them, and so are some
    branches in the branch table. Some rows have an end that does not follow from the rest.
    """
    codes = [f"a{number}" for number in range(draw(st.integers(1, 12)))]
    chart: dict[str, str | None] = {"9": None}
    for place, code in enumerate(codes):
        chart[code] = draw(st.sampled_from([None, *codes[:place]]))
    places = draw(st.sets(st.tuples(st.sampled_from([*codes, "u1", "u2"]), st.sampled_from("αbc")), max_size=20))
    size = draw(st.sampled_from([0, 10**4, 10**38 - 1]))
    cents = st.one_of(st.just(0), st.integers(-size, size))
    rows = [(*place, *draw(st.tuples(*[cents] * 4)), 0, 0) for place in sorted(places)]
    broken = draw(st.sets(st.sampled_from(range(len(rows))), max_size=2)) if rows and draw(st.booleans()) else set()
    # The end of an account follows from its start and movement, as in any ledger.
    rows = [(*row[:6], row[2] + row[4] + (n in broken), row[3] + row[5]) for n, row in enumerate(rows)]
    missing = draw(st.sets(st.sampled_from([*codes, "9"]), max_size=4)) if draw(st.booleans()) else set()
    loaded = {code: parent for code, parent in chart.items() if code not in missing}
    branches = draw(st.sets(st.sampled_from(["000", "α", "b", "c"]), min_size=1))
    return loaded, balanced(rows), sorted(branches), draw(st.sampled_from([0, 1, 50, 100]))


def gross(rows) -> int:
    """Return the sum of |start| + |debit| + |credit| + |end| of rows, in cents."""
    return sum(abs(row[2] - row[3]) + abs(row[4]) + abs(row[5]) + abs(row[6] - row[7]) for row in rows)


def expected_findings(chart, rows, branches) -> dict[str, int]:
    """Return {kind: count}, computed a second way from the rows."""
    parents = set(chart.values())
    by_branch: dict[str, list[int]] = {}
    for _, branch, *six in rows:
        by_branch[branch] = [old + new for old, new in zip(by_branch.get(branch, [0] * 6), six)]
    counts = {
        "unknown-account": sum(account not in chart for account, *_ in rows),
        "parent-posting": sum(account in chart and account in parents for account, *_ in rows),
        "inconsistent-balance": sum(r[2] - r[3] + r[4] - r[5] != r[6] - r[7] for r in rows),
        "unknown-branch": sum(branch not in branches for branch in by_branch),
        "unbalanced-branch": sum(any(d != c for d, c in zip(six[::2], six[1::2])) for six in by_branch.values()),
        "chart-orphan": sum(parent is not None and parent not in chart for parent in chart.values()),
        "empty-chart": int(not chart),
    }
    return {kind: count for kind, count in counts.items() if count}
