"""The index of the tasks: `inv` shows the ten that matter, `inv --list` all of them by group."""

from __future__ import annotations

from invoke import Collection, Exit, ParseError
from invoke.program import Program

from ops import terminal
from ops.config import known_environments
from ops.task import GROUPS, NOTHING, closed_pipe_ends_quietly, task

# The tasks that `inv` without arguments shows, in the order of an operator's first day.
FIRST = ("demo", "env.check", "deploy", "close", "status", "logs", "doctor", "rerun", "resolve", "rollback")


def install(namespace: Collection) -> None:
    """Let `inv --list` print the tasks of a collection by group.

    Invoke has no option for this, nor for its line on a missing argument. Its own list remains for `--list NAME` and
    `--list-format`.
    """
    original = Program.list_flat

    def list_flat(program: Program) -> None:
        if program.list_root or program.list_depth:
            original(program)
        else:
            with closed_pipe_ends_quietly():
                print("\n".join(by_group(namespace)))

    Program.list_flat = list_flat
    parse_tasks = Program.parse_tasks

    def parse(program: Program) -> None:
        """Parse the tasks of a command line; a missing --env is one line with the environments that there are."""
        try:
            parse_tasks(program)
        except ParseError as error:
            task = error.context and error.context.name
            if not (task and any(one.name == "env" for one in error.context.missing_positional_args)):
                raise
            known = ", ".join(known_environments())
            raise Exit(f"{task} needs an environment: inv {task} --env NAME. Known: {known}.") from None

    Program.parse_tasks = parse


@task(group="watch", changes=NOTHING, name="help")
def overview(c):
    """Show the ten tasks that matter; the same as `inv` alone."""
    from tasks import namespace

    known = {name: line for names in grouped(namespace).values() for name, line in names}
    print("The tasks that matter most:", "", columns([(name, known[name]) for name in FIRST]), "", sep="\n")
    print("All tasks: inv --list. One task and its options: inv --help TASK.")
    print("To see the commands of a task without a change: inv --dry TASK.")


def by_group(namespace: Collection) -> list[str]:
    """Return the lines of `inv --list`."""
    groups = grouped(namespace)
    width = max(len(name) for rows in groups.values() for name, _ in rows)
    lines = []
    for group, rows in groups.items():
        lines += [group, columns(rows, width), ""]
    return lines[:-1]


def grouped(namespace: Collection) -> dict[str, list[tuple[str, str]]]:
    """Return (name, first line of the docstring) of each task by group, in the order of names_in.

    The default task of a collection is left out: it only lets `inv schedule start` run schedule.start.
    """
    groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
    for name in names_in(namespace):
        made = namespace[name]
        groups[made.group].append((name, first_line(made)))
    return {group: rows for group, rows in groups.items() if rows}


def names_in(namespace: Collection) -> list[str]:
    """Return the tasks' names in the order of the registration, those of collections first."""
    names = []
    for prefix, collection in namespace.collections.items():
        names += [f"{prefix}.{name}" for name in collection.tasks if name != collection.default]
    return names + list(namespace.tasks)


def first_line(made) -> str:
    return (made.__doc__ or "").strip().partition("\n")[0]


def columns(rows: list[tuple[str, str]], width: int = 0) -> str:
    """Return rows of a name, filled up to a width, and a text."""
    return terminal.table([(name.ljust(width), text) for name, text in rows], indent=2)
