"""Closings under faults on the real restate-server, PostgreSQL, workers and the stand-in for Genius: `make chaos`.

First short scripts of commands and faults, which are also played on the models of tests/simulation: both must agree in
starts of the procedure, outcomes of the steps and next commands. Then `N=100` closings, with all durations divided by
one factor: four periods are closed at once while faults are injected at random moments, and the promise is checked
after each closing; if it is broken, the run prints its seed and the reason. A few of both run in `make test`.
"""
