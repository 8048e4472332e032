"""The picture of the architecture, docs/architecture.svg; `inv docs` writes it."""

from __future__ import annotations

from html import escape

WIDTH, HEIGHT = 860, 250
TEXT, LINE, FILL, ARROW = "#24292f", "#57606a", "#f6f8fa", "#0969da"
# Each box: left, top, width and height in pixels, and its lines, of which the first is the title.
BOXES = (
    (10, 85, 150, 80, ("caller", "inv close, the schedule,", "any HTTP client")),
    (240, 75, 170, 100, ("Restate", "journal, timers;", "one closing of a period", "at a time")),
    (490, 75, 130, 100, ("AWS Lambda", "handler/", "15 minutes at most", "for one call")),
    (700, 20, 150, 90, ("Genius", "Oracle 11.2:", "the closing procedure,", "up to six hours")),
    (700, 140, 150, 90, ("PostgreSQL", "trial balance, metrics,", "closing_runs")),
)
# Each arrow: from x, y to x, y, and its label.
ARROWS = (
    (160, 125, 238, 125, "a date"),
    (410, 125, 488, 125, "calls"),
    (620, 110, 698, 80, "job"),
    (620, 140, 698, 170, "results"),
)


def svg() -> str:
    """Return the picture as the text of an SVG file."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Architecture">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *(line for box in BOXES for line in box_shapes(*box)),
        *(line for arrow in ARROWS for line in arrow_shapes(*arrow)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def box_shapes(left: int, top: int, width: int, height: int, lines: tuple[str, ...]) -> list[str]:
    """Return the elements of a box with its lines of text."""
    first = top + (height - 18 * len(lines)) // 2 + 14
    frame = f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" fill="{FILL}" stroke="{LINE}"/>'
    texts = [text(left + width // 2, first + 18 * number, line, bold=not number) for number, line in enumerate(lines)]
    return [frame, *texts]


def arrow_shapes(x1: int, y1: int, x2: int, y2: int, label: str) -> list[str]:
    """Return the elements of an arrow to the right with its label."""
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2 - 8}" y2="{y2}" stroke="{ARROW}" stroke-width="2"/>'
    head = f'<path d="M{x2 - 9},{y2 - 5} L{x2},{y2} L{x2 - 9},{y2 + 5} z" fill="{ARROW}"/>'
    return [line, head, text((x1 + x2) // 2, min(y1, y2) - 8 + abs(y2 - y1) // 4, label)]


def text(x: int, y: int, words: str, bold: bool = False) -> str:
    """Return a line of text, centred on x."""
    size = 'font-size="15" font-weight="bold"' if bold else 'font-size="12"'
    style = f'font-family="sans-serif" {size} text-anchor="middle" fill="{TEXT}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'
