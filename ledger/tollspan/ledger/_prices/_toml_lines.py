"""Where things stand in a TOML text, which `tomllib` does not tell: the line of each table and of each of its fields.

The text must be valid TOML: what `tomllib` has read. Offsets and lengths are in characters, lines count from 1.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# What a statement is made of; texts and comments are met whole, so that what is in them stands for nothing.
_TOKEN = re.compile(
    r'(?P<text>"""(?:\\.|[^\\])*?"""+'
    r"|'''.*?'''+"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*')"
    r"|(?P<comment>#[^\n]*)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<equal>=)|(?P<end>\n)",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Statement:
    """A header, or a field with its value: its keys, its line, and where its text begins and ends (line end included).

    `value` is where the value of a field begins, None for a header; `stop` is where it ends, before any comment.
    """

    keys: tuple[str, ...]
    line: int
    start: int
    end: int
    stop: int
    value: int | None

    @property
    def is_header(self) -> bool:
        """Whether it opens a table."""
        return self.value is None


@dataclass(slots=True)
class Table:
    """A table: its statements, header first, and the fields that its own headers open below it (`[price.tiers]`)."""

    header: Statement
    fields: dict[str, Statement] = field(default_factory=dict)
    end: int = 0


class Places:
    """Where the tables of a text stand."""

    def __init__(self, text: str) -> None:
        self.top: dict[str, Statement] = {}
        self.tables: dict[str, list[Table]] = {}
        self._inner: dict[tuple[str, ...], int] = {}
        current: Table | None = None
        for found in statements(text):
            current = self._take(found, current)

    def line(self, name: str, number: int = 0, key: str | None = None) -> int | None:
        """Where a field of the n-th table of a name stands (from 0), or else the table itself, or else its name."""
        tables = self.tables.get(name, ())
        if number < len(tables):
            table = tables[number]
            return table.fields.get(key or "", table.header).line
        return self.top[name].line if name in self.top else None

    def inner_line(self, *keys: str) -> int | None:
        """Where a key stands below tables that have a header, or a dotted key, each of its own."""
        while keys and keys not in self._inner:
            keys = keys[:-1]
        return self._inner.get(keys)

    def _take(self, found: Statement, current: Table | None) -> Table | None:
        name = found.keys[0]
        if not found.is_header:
            path = (*(current.header.keys if current else ()), *found.keys)
            self._inner.setdefault(path, found.line)
            fields = current.fields if current else self.top
            fields.setdefault(name, found)
            if current:
                current.end = found.end
            return current
        self._inner.setdefault(found.keys, found.line)
        self.top.setdefault(name, found)
        if len(found.keys) == 1:
            self.tables.setdefault(name, []).append(Table(found, end=found.end))
            return self.tables[name][-1]
        if outer := self.tables.get(name):
            outer[-1].fields.setdefault(found.keys[1], found)
        return Table(found, end=found.end)


def statements(text: str) -> Iterator[Statement]:
    """The headers and fields of a TOML text, in order."""
    depth, start, line, first = 0, 0, 1, 1
    equal = closed = comment = None
    for token in _TOKEN.finditer(text + "\n"):
        kind = token.lastgroup
        if kind in ("open", "close"):
            depth += 1 if kind == "open" else -1
            closed = token.end()
        elif kind == "equal" and depth == 0 and equal is None:
            equal = token
        elif kind == "comment" and depth == 0:
            comment = token.start()
        elif kind == "end" and depth == 0:
            key_end = equal.start() if equal else closed
            if key_end is not None:
                keys = _keys(text[start:key_end].strip().strip("[]" if equal is None else ""))
                stop = start + len(text[start : token.start() if comment is None else comment].rstrip())
                end = min(token.end(), len(text))
                yield Statement(keys, first, start, end, stop, equal.end() if equal else None)
            start, first = token.end(), line + 1
            equal = closed = comment = None
        line += token.group().count("\n")


def _keys(dotted: str) -> tuple[str, ...]:
    """The parts of a key that may be dotted and quoted."""
    if _BARE.fullmatch(dotted):
        return (dotted,)
    import tomllib  # noqa: PLC0415 - loaded by now: it has read the text

    found: Mapping[str, object] | int = tomllib.loads(f"{dotted} = 0")
    keys: list[str] = []
    while isinstance(found, Mapping):
        ((key, found),) = found.items()  # type: ignore[assignment]
        keys.append(key)
    return tuple(keys)
