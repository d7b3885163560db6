"""How things look: tables and lines for people, JSON and CSV for programs.

Colours appear on terminals only, and not with NO_COLOR (no-color.org). Amounts are exact for programs, in USD.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click
import orjson
from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollspan.ledger import format_usd, to_nano

CURRENCY = "USD"
_LEAST_LABEL = 10
_COMPACT = ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k"))


def console(width: int | None = None) -> Console:
    """Where tables and lines go: stdout, as wide as the terminal, or 80 columns where there is none."""
    colours: Any = None if os.environ.get("NO_COLOR") else "auto"
    return Console(width=width, color_system=colours, highlight=False, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def print_json_line(data: Any) -> None:
    """Print one line of JSON Lines."""
    click.echo(orjson.dumps(data).decode())


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print CSV (RFC 4180, but with plain line feeds)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    click.echo(text.getvalue(), nl=False)


def exact(usd: Decimal | None) -> str | None:
    """An amount for programs: all nine decimals, no exponent."""
    return None if usd is None else f"{usd:.9f}"


def money(usd: Decimal | None, *, estimated: bool = False) -> str:
    """An amount for people, with ~ where it is, or contains, an estimate."""
    return ("~" if estimated else "") + format_usd(None if usd is None else to_nano(usd))


def compact(count: int) -> str:
    """A count for people in at most 6 characters: 9876, 12.3k, 4.56M."""
    for size, letter in _COMPACT:
        if count >= size:
            value = count / (1_000 if letter == "k" else size)
            digits = 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004 - three digits in all
            return f"{value:.{digits}f}{letter}"
    return str(count)


def plain(text: str | None) -> str:
    """A text from elsewhere, fit for a terminal: what could move the cursor is replaced; `-` where there is none."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) if text else "-"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of numbers: its heading, a shorter one for where room is scarce, and its cells."""

    heading: str
    short: str
    cells: Sequence[str]


def print_table(labels: Mapping[str, Sequence[str]], numbers: Sequence[Numbers], *, total: bool = False) -> None:
    """Print columns of labels, which fold where they must, and columns of numbers, which never do.

    Where room is scarce, columns first get shorter headings and then move closer together; where that is not enough,
    the table is wider than the screen. `total` sets the last row apart.
    """
    screen = console()
    layout = _layout(labels, numbers, screen.width)
    made = Table(box=_box(screen.encoding), show_edge=False, pad_edge=False, padding=0, header_style="bold")
    more = layout.gap - 1  # the box itself keeps columns one apart
    for i, (name, width) in enumerate(zip(labels, layout.labels, strict=True), start=1):
        made.add_column(Text(plain(name)), width=width + (more if i < len(labels) else 0), overflow="fold")
    for column, width in zip(numbers, layout.numbers, strict=True):
        heading = Text(column.short if layout.is_short else column.heading)
        made.add_column(heading, width=width + more, justify="right", no_wrap=True)
    rows = list(zip(*labels.values(), *(column.cells for column in numbers), strict=True))
    for number, row in enumerate(rows, start=1):
        made.add_row(*map(Text, row), end_section=total and number == len(rows) - 1)
    console(max(screen.width, layout.width)).print(made)


@dataclass(frozen=True, slots=True)
class _Layout:
    labels: list[int]
    numbers: list[int]
    gap: int
    is_short: bool

    @property
    def width(self) -> int:
        return sum(self.labels) + sum(self.numbers) + self.gap * (len(self.labels) + len(self.numbers) - 1)


def _layout(labels: Mapping[str, Sequence[str]], numbers: Sequence[Numbers], width: int) -> _Layout:
    wanted = [max(map(cell_len, (plain(name), *cells))) for name, cells in labels.items()]
    for is_short, gap in ((False, 2), (True, 2), (True, 1)):
        sizes = [max(map(len, (c.short if is_short else c.heading, *c.cells))) for c in numbers]
        room = width - sum(sizes) - gap * (len(sizes) + len(wanted) - 1)
        if sum(wanted) <= room:
            break
    return _Layout(_shrunk(wanted, room), sizes, gap, is_short)


def _shrunk(widths: list[int], room: int) -> list[int]:
    """Widths that fit into the room, taken from the widest; none below what can still be read."""
    widths = list(widths)
    while sum(widths) > room and max(widths) > _LEAST_LABEL:
        widths[widths.index(max(widths))] -= 1
    return widths


def _box(encoding: str) -> Box:
    """A rule below the heading, and one above the total."""
    rule = " \u2500\u2500 " if "utf" in encoding.lower() else " -- "
    none = "    "
    return Box(f"{none}\n{none}\n{rule}\n{none}\n{rule}\n{rule}\n{none}\n{none}\n", ascii=True)
