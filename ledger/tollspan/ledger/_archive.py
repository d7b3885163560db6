"""The log as JSON Lines, out of one ledger and into another.

A line of JSON is one event with the fields of LedgerEvent; ids are hexadecimal, money is a text in USD with all nine
decimals. The first line says what the file is. Events are read and written page by page, in order of offset, so that
memory stays the same however long the log is; whatever is killed in the middle goes on where it stopped.
"""

import logging
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ._batch import Entry
from ._errors import LedgerError, LedgerUnavailable
from ._events import SCHEMA_VERSION, LedgerEvent, call_id_prefix
from ._filelock import FileLock
from ._lines import FORMAT, MARK, NewerEvent, read_line
from ._rows import COLUMNS, from_row
from ._store import SQLiteStore
from ._writer import BATCH, Writer

_log = logging.getLogger("tollspan.ledger")

_PAGE = 500
_LONGEST_LINE = 1 << 26
_WARNINGS = 20
_OTHER_FILES = {
    b"SQLite format 3\0": "is a ledger, not an export of one: name it in TOLLSPAN_LEDGER, or export it first",
    b"PAR1": "is a Parquet file, which cannot be imported: export as jsonl",
}

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much: offsets in an export, bytes in an import; of 0 where that is not known."""


# ---- export


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The events of the calls that began from `since` to before `until`, in epoch seconds; None is no bound."""

    since: float | None = None
    until: float | None = None

    @property
    def header(self) -> dict[str, Any]:
        """What an export says of itself: events are added to it only by an export of the same."""
        return {MARK: FORMAT, "schema_version": SCHEMA_VERSION, "since": self.since, "until": self.until}

    def pages(
        self, store: SQLiteStore, after: int, progress: Progress | None, *, size: int = _PAGE
    ) -> Iterator[list[LedgerEvent]]:
        """The events after an offset, up to the last one of now: others may go on writing. Raises LedgerUnavailable."""
        where, values = self._where()
        sql = f"SELECT * FROM recorded WHERE offset > ? AND offset <= ?{where} ORDER BY offset"
        bounds = "SELECT coalesce(min(offset), 1) - 1, coalesce(max(offset), 0) FROM event WHERE offset > ?"
        start, end = store.query(bounds, (after,))[0]
        for first in range(start, end, size):
            last = min(first + size, end)
            if rows := store.query(sql, (first, last, *values)):
                yield [from_row(row) for row in rows]
            if progress is not None:
                progress(last - start, end - start)

    def _where(self) -> tuple[str, list[bytes]]:
        bounds = ((">=", self.since), ("<", self.until))
        found = [(sign, at) for sign, at in bounds if at is not None]
        where = "".join(f" AND call_id {sign} ?" for sign, _ in found)
        return where, [call_id_prefix(int(at * 1000)) for _, at in found]


def export_jsonl(
    store: SQLiteStore,
    target: Path | BinaryIO,
    *,
    selected: Selected | None = None,
    after: int = 0,
    progress: Progress | None = None,
) -> int:
    """Write the events after an offset; gives how many. A file that is an export already gets those that it lacks.

    Raises OSError, LedgerUnavailable, and LedgerError for a file that is something else, which stays as it is.
    """
    selected = selected or Selected()
    if not isinstance(target, Path):
        return _write_lines(store, target, selected, after, progress, begun=False)
    if target.exists() and not target.is_file():  # a pipe or a device: there is nothing to be continued
        with target.open("wb") as stream:
            return _write_lines(store, stream, selected, after, progress, begun=False)
    with alone(target, target), target.open("r+b") as file:
        done = _continued(store, target, file, selected)
        count = _write_lines(store, file, selected, max(after, done or 0), progress, begun=done is not None)
        os.fsync(file.fileno())
    return count


def _write_lines(
    store: SQLiteStore,
    stream: BinaryIO,
    selected: Selected,
    after: int,
    progress: Progress | None,
    *,
    begun: bool,
) -> int:
    if not begun:
        stream.write(_line(selected.header))
    count = 0
    for page in selected.pages(store, after, progress):
        stream.write(b"".join(map(_line, page)))
        count += len(page)
    stream.flush()
    return count


def _line(what: Any) -> bytes:
    return orjson.dumps(what, default=_exact, option=orjson.OPT_APPEND_NEWLINE)


def _exact(amount: object) -> str:
    if isinstance(amount, Decimal):
        return f"{amount:.9f}"
    raise TypeError(f"a {type(amount).__name__} cannot be exported")


def _continued(store: SQLiteStore, path: Path, file: BinaryIO, selected: Selected) -> int | None:
    """The offset after which a file goes on, with a torn last line cut off; None for a new file."""
    header = _line(selected.header)
    first = file.readline(4096)
    if not first.endswith(b"\n") and header.startswith(first):  # empty, or killed in its first line
        file.seek(0)
        file.truncate()
        return None
    check_header(path, first, selected)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n") + 1
        last = text[text.rfind(b"\n", 0, end - 1) + 1 : end]
    offset = 0
    if end > len(first):
        try:
            found = orjson.loads(last)
            offset, event_id = int(found["offset"]), bytes.fromhex(found["event_id"])
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(f"{path} has a damaged last line: move the file away, and export again") from error
        check_origin(store, path, offset, event_id)
    file.truncate(end)
    file.seek(end)
    return offset


def check_header(path: Path, header: bytes, selected: Selected) -> None:
    """Raise LedgerError where a file is no export, or one of other events."""
    try:
        found = orjson.loads(header)
    except ValueError:
        found = None
    if not isinstance(found, dict) or MARK not in found:
        raise LedgerError(f"{path} exists and is no export of a ledger; it was left as it is: name another file")
    if found[MARK] != FORMAT or found.get("schema_version") != SCHEMA_VERSION:
        raise LedgerError(f"{path} was exported by another version of tollspan: export to another file")
    if any(found.get(name) != getattr(selected, name) for name in ("since", "until")):
        raise LedgerError(f"{path} was exported with other bounds (since, until): export to another file")


def check_origin(store: SQLiteStore, path: Path, offset: int, event_id: bytes) -> None:
    """Raise LedgerError where the last event of an export is not one of this ledger: offsets are each ledger's own."""
    rows = store.query("SELECT event_id FROM event WHERE offset = ?", (offset,))
    known = rows[0]["event_id"] == event_id if rows else event_id < _pruned(store)
    if not known:
        raise LedgerError(f"{path} was exported from another ledger: export to another file")


def _pruned(store: SQLiteStore) -> bytes:
    """What the ids of pruned events are less than."""
    rows = store.query("SELECT value FROM ledger_fact WHERE name = 'pruned_ms'")
    return call_id_prefix(int(rows[0]["value"]) if rows else 0)


@contextmanager
def alone(lock_path: Path, target: Path) -> Iterator[None]:
    """Keep other exports to the same target away. Raises LedgerError where there is one."""
    lock = FileLock(lock_path)
    if not lock.try_acquire():
        raise LedgerError(f"another process exports to {target} now: wait for it, or name another file")
    try:
        yield
    finally:
        if lock_path != target:
            lock_path.unlink(missing_ok=True)
        lock.release()


# ---- import


@dataclass(slots=True)
class Imported:
    """What an import found: events that are `stored` now, and those that were `known` before.

    Left out are `malformed` lines, `conflicts` (an id that is stored with different content), and events `refused`:
    those of a newer tollspan, and those of calls as old as the ones that were pruned from this ledger.
    """

    stored: int = 0
    known: int = 0
    malformed: int = 0
    conflicts: int = 0
    refused: int = 0

    @property
    def problems(self) -> int:
        """How many lines were left out."""
        return self.malformed + self.conflicts + self.refused


def import_jsonl(
    store: SQLiteStore,
    writer: Writer,
    source: Path | BinaryIO,
    *,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Imported:
    """Store the events of an export, each with its own id and time and a new offset; see Ledger.import_jsonl.

    Raises OSError, LedgerUnavailable, and LedgerError for a file that is no export.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return import_jsonl(store, writer, file, progress=progress, warn=warn)
    importer, done, size = _Importer(store, writer, warn), 0, _size(source)
    for number, line in enumerate(_lines(source), 1):
        importer.take(number, line)
        done += len(line)
        if number % BATCH == 0:
            importer.store_waiting()
            if progress is not None:
                progress(done, size)
    importer.store_waiting()
    if progress is not None:
        progress(done, size)
    return importer.found


class _Importer:
    """Collects events, and stores them in batches."""

    def __init__(self, store: SQLiteStore, writer: Writer, warn: Callable[[str], None] | None) -> None:
        self._store, self._writer = store, writer
        self._warn = warn or _log.warning
        self._warned = 0
        self._waiting: list[tuple[int, Entry]] = []
        self.found = Imported()

    def take(self, number: int, line: bytes) -> None:
        """Take a line, to be stored with the next batch. Raises LedgerError for a file of another kind."""
        if number == 1:
            _check_kind(line)
        try:
            event = read_line(line)
            entry = Entry.of(event) if event is not None else None
        except NewerEvent as error:
            self.found.refused += 1
            self._tell(number, str(error))
        except (ValueError, TypeError) as error:  # what is nested too deep can be read, but not written
            self._is_malformed(number, error)
        else:
            if entry is not None:
                self._waiting.append((number, entry))

    def store_waiting(self) -> None:
        """Store what is waiting. Raises LedgerUnavailable."""
        waiting, self._waiting = self._waiting, []
        new = self._new(waiting) if waiting else []
        self.found.known += len(waiting) - len(new)
        if new:
            self._store_entries(new)

    def _new(self, numbered: list[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
        """All but those that are stored as they are: a look costs less than a write, and nobody has to wait for it."""
        marks = ", ".join("?" * len(numbered))
        sql = f"SELECT {', '.join(COLUMNS)} FROM recorded WHERE event_id IN ({marks})"
        stored = {tuple(row) for row in self._store.query(sql, [entry.row[0] for _, entry in numbered])}
        return [one for one in numbered if one[1].row not in stored]

    def _store_entries(self, numbered: list[tuple[int, Entry]]) -> None:
        """One that cannot be stored must not keep back the others."""
        try:
            self._write(numbered)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - reported for the one that it concerns
            if len(numbered) == 1:
                self._is_malformed(numbered[0][0], error)
            else:
                half = len(numbered) // 2
                self._store_entries(numbered[:half])
                self._store_entries(numbered[half:])

    def _write(self, numbered: list[tuple[int, Entry]]) -> None:
        with self._writer.store_lock:
            outcome = self._store.write([entry for _, entry in numbered])
            if outcome.stored:
                self._writer.view.forget()  # they are read again when somebody asks
            pruned = _pruned(self._store) if outcome.conflicts else b""
        self.found.stored += len(outcome.stored)
        self.found.known += outcome.duplicates - len(outcome.conflicts)
        for index, conflict in outcome.conflicts.items():
            number, entry = numbered[index]
            if entry.posting.event_id < pruned:
                self.found.refused += 1
            else:
                self.found.conflicts += 1
            self._tell(number, f"{conflict}; it was not stored")

    def _is_malformed(self, number: int, error: Exception) -> None:
        self.found.malformed += 1
        self._tell(number, f"{error}; the line was skipped")

    def _tell(self, number: int, what: str) -> None:
        self._warned += 1
        if self._warned <= _WARNINGS:
            self._warn(f"line {number}: {what}")
        elif self._warned == _WARNINGS + 1:
            self._warn(f"line {number}: there is a problem too; from here on they are only counted")


def _size(file: BinaryIO) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:  # it is in memory
        return 0


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long to be an event only the beginning, which is malformed."""
    while line := file.readline(_LONGEST_LINE):
        rest = line
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(_LONGEST_LINE)
        yield line


def _check_kind(line: bytes) -> None:
    for beginning, what in _OTHER_FILES.items():
        if line.startswith(beginning):
            raise LedgerError(f"this {what}")
