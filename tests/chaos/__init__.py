"""Closings under faults: `make chaos N=100 SEED=1`, and eight of them in `make test`.

Against the real restate-server, PostgreSQL, Lambda workers and the stand-in for Genius; all durations are divided by
one factor. Four periods are closed at once while faults strike at random moments. After each closing the promise is
checked, or the run prints its seed and what broke.
"""
