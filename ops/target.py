"""The environment that a task works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from invoke import Context

from ops import config, scratch, shell

# The environments whose account this process has printed.
accounts: set[str] = set()


@dataclass(frozen=True)
class Target:
    """Invoke's context, the checked settings and the environment's name: what nearly every step of a task needs."""

    c: Context
    cfg: dict[str, str]
    env: str

    @classmethod
    def load(cls, c: Context, env: str) -> Target:
        """Read env/NAME.env; raises Exit in one line that names every fault."""
        return cls(c, config.load(env), env)

    @property
    def dry(self) -> bool:
        """Return whether the task runs under --dry."""
        return self.c.config.run.dry

    @property
    def headline(self) -> str:
        """Return the line that a task prints before it touches anything."""
        cfg = self.cfg
        return (
            f"{self.env}: function {cfg['FUNCTION_NAME']} in {cfg['AWS_REGION']}, Restate at {cfg['RESTATE_ADMIN_URL']}"
        )

    def having(self, **settings: str) -> Target:
        """Return the same target with other settings."""
        return replace(self, cfg={**self.cfg, **settings})

    def query(self, command: str, missing: str | None = None) -> str | None:
        """Look something up, also under --dry; returns None if the service's error is the one named by `missing`."""
        return shell.query(self.c, self.cfg, command, missing)

    def query_json(self, command: str, missing: str | None = None) -> dict | None:
        return shell.query_json(self.c, self.cfg, command, missing)

    def execute(self, command: str) -> str:
        """Change something: echoed in full, skipped under --dry. Returns the command's output, "" under --dry."""
        self.print_account(command)
        return shell.execute(self.c, self.cfg, command)

    def print_account(self, command: str) -> None:
        """Print, before the first change in AWS, the account, the identity and the endpoint if it is not AWS's."""
        if shell.is_aws(command) and self.env not in accounts:
            accounts.add(self.env)
            found = self.query_json(shell.get_account(self.cfg))
            endpoint = f", endpoint {self.cfg['AWS_ENDPOINT_URL']}" if self.cfg["AWS_ENDPOINT_URL"] else ""
            region = self.cfg["AWS_REGION"]
            print(f"{self.env}: AWS account {found['Account']} in {region} as {found['Arn']}{endpoint}", flush=True)

    def run_local(self, command: str) -> str:
        """Run a command that only writes or removes a file on this machine, for the next command."""
        self.print_account(command)
        return shell.run_local(self.c, self.cfg, command)

    def scratch(self, name: str) -> str:
        """Return the path of a file for the commands of this process alone, removed when it ends."""
        return scratch.path(self.env, name)
