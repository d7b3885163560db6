"""Many rows in few statements.

Python's sqlite3 lets go of the interpreter for each step of a statement, and then waits to get it back from a program
that computes, or makes that program wait. `executemany` would do so for every row.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

_AT_ONCE = (128, 32, 8, 1)  # few sizes: each is a statement of its own, which is compiled once


def write_rows(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]], end: str = "") -> None:
    """Run `into` (as in `INSERT INTO t`) for rows of one length, and `end` after their values."""
    for part in _parts(rows):
        marks = ", ".join([_marks(len(part[0]))] * len(part))
        connection.execute(f"{into} VALUES {marks} {end}", list(chain.from_iterable(part)))


def take_texts(connection: sqlite3.Connection, column: str, table: str, key: str, values: Sequence[Any]) -> list[str]:
    """Delete the rows of a table whose key is one of these values; what of them stood in a column of JSON lists."""
    found: list[str] = []
    for part in _parts(values):
        where = f"FROM {table} WHERE {key} IN {_marks(len(part))}"
        (texts,) = connection.execute(f"SELECT group_concat({column}, char(10)) {where}", part).fetchone()
        connection.execute(f"DELETE {where}", part)
        found += texts.split("\n") if texts else []
    return found


@cache
def _marks(width: int) -> str:
    return f"({', '.join('?' * width)})"


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    at = 0
    for size in _AT_ONCE:
        while len(values) - at >= size:
            yield values[at : at + size]
            at += size
