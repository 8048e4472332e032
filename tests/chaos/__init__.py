"""Closings under faults: `make chaos N=100 SEED=1`, and eight of them in `make test`.

They run on the real restate-server, PostgreSQL, Lambda workers and the stand-in for Genius, with all durations divided
by one factor. Four periods are closed at once while faults are injected at random moments. After each closing the
promise is checked; if it is broken, the run prints its seed and the reason.
"""
