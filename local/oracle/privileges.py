"""The privileges that the stand-in checks: those of the scheduler, and those that GRANT has recorded."""

from __future__ import annotations

from typing import NamedTuple

OWNER, PACKAGE = "ACPDB", "PACKAGE_RPT_AC_FI806"
SYSTEM_USERS = ("SYS", "SYSTEM")


class Grant(NamedTuple):
    """One privilege of one user; target is an object such as ACPDB.AC_GLJOURNAL, '' for a system privilege."""

    grantee: str
    privilege: str
    target: str
    grantor: str


class Privileges:
    """The grants of a database; every user begins with what the closing needs."""

    def __init__(self, users: list[str]):
        self.grants = [
            grant
            for user in users
            for grant in (
                Grant(user, "CREATE SESSION", "", "SYS"),
                Grant(user, "CREATE JOB", "", "SYS"),
                Grant(user, "CREATE TABLE", "", "SYS"),
                Grant(user, "EXECUTE", f"{OWNER}.{PACKAGE}", OWNER),
                Grant(user, "SELECT", "ACPDB.AC_GLOPENBALANCE", "ACPDB"),
                Grant(user, "SELECT", "ACPDB.AC_GLJOURNAL", "ACPDB"),
            )
        ]

    def grant(self, privileges: list[str], target: str, grantees: list[str], grantor: str) -> None:
        """Record privileges; one that is there already is no error."""
        new = [Grant(user, privilege, target, grantor) for user in grantees for privilege in privileges]
        self.grants = list(dict.fromkeys([*self.grants, *new]))

    def revoke(self, privileges: list[str], target: str, grantees: list[str]) -> bool:
        """Revoke privileges; returns False if none of them was granted."""
        left = [
            one
            for one in self.grants
            if not (one.grantee in grantees and one.privilege in privileges and one.target == target)
        ]
        found, self.grants = len(left) < len(self.grants), left
        return found

    def of(self, user: str) -> list[Grant]:
        """Return the grants of a user."""
        return [grant for grant in self.grants if grant.grantee == user]

    def may_call(self, user: str, procedure: str) -> bool:
        """Return whether a user may call a procedure: all may, but the closing needs a grant of EXECUTE."""
        package = procedure.rpartition(".")[0]
        if package != PACKAGE or user in (OWNER, *SYSTEM_USERS) or self.has(user, "EXECUTE ANY PROCEDURE"):
            return True
        return any(g.privilege == "EXECUTE" and g.target in (PACKAGE, f"{OWNER}.{PACKAGE}") for g in self.of(user))

    def has(self, user: str, privilege: str) -> bool:
        """Return whether a user has a system privilege."""
        return user in SYSTEM_USERS or any(g.privilege == privilege and not g.target for g in self.of(user))
