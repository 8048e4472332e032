"""Tables and colours by rich; plain text for a pipe, with NO_COLOR, and on a terminal without colours.

rich is imported in the functions that use it, because most tasks do not.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Sequence

BOLD, FAINT, GOOD, BAD, WARNING = "bold", "dim", "green", "bold red", "yellow"
# A table for a pipe is not folded: another program reads its lines.
WIDEST = 10_000


def plain() -> bool:
    """Return whether the output gets no colours."""
    return not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"


def styled(text: str, style: str) -> str:
    """Return a text in a style of rich, or as it is."""
    if plain():
        return text
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), right: Sequence[int] = (), indent: int = 0) -> str:
    """Format rows as a table; right: the numbers of the columns that are aligned to the right.

    On a terminal a text that does not fit is folded within its column.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    made = Table(box=None, pad_edge=False, show_header=bool(head), padding=(0, 2, 0, 0), header_style="")
    for at in range(len(head) or len(rows[0])):
        made.add_column(Text(head[at]) if head else "", justify="right" if at in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    width = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else WIDEST
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(made)
    return "\n".join(f"{' ' * indent}{line}".rstrip() for line in console.file.getvalue().splitlines())
