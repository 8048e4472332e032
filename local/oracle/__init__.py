"""Genius on this machine: a stand-in for an old Oracle database, to which the unmodified python-oracledb connects.

It listens on 127.0.0.1, speaks Oracle Net, and understands the SQL and PL/SQL that a closing needs: queries on the
open balances and the journal, `Package_Rpt_Ac_Fi806.get_master_data`, DBMS_SCHEDULER and its views, NLS and version.
What it does not know it refuses with Oracle's own error. Its banner names it a stand-in.

Start it; it prints one line with its port when it listens, and SIGTERM ends it:

    python -m local.oracle --port 0 --data DIR --user-file FILE      FILE: lines of USER:password, never arguments
    python -m local.oracle --help                                    verifiers, durations, size of the books

Connect as to any Oracle: `oracledb.connect(user=..., password=..., dsn="127.0.0.1:PORT/GENIUS")`. Everything it
keeps lies in DIR. Faults are injected there at run time, one file each, whose content is its value; `faults.KNOWN`
lists them. With the local cloud up, and on a stand-in of one's own:

    inv genius.sql "select * from v$version"
    inv genius.inject procedure_seconds=5        inv genius.faults        inv genius.clear procedure_seconds
    echo 5 > DIR/faults/procedure_seconds

The wire (`server`, `connection`, `handshake`, `auth`, `packets`, `requests`, `replies`, `datatypes`, `wire`, `binds`)
and the engine (`database` and what it imports) meet in `calls`; `model` has the plain values that pass between them.

What it cannot prove: anything about Oracle's optimiser, locks, undo, privileges beyond the few it has, character
sets other than AL32UTF8, TLS, native encryption, redirects, LOBs, REF CURSORs or objects; that a thick client
works in all it does (its layout is served as far as it was tried with OCI 12.1); how fast the real Genius is.
"""
