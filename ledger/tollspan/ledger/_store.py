"""The SQLite store: one file, one connection, one transaction per batch.

Everything here is synchronous and belongs to one thread at a time; the writer and the ledger bring the locks.
"""

import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._batch import Batch, Entry, HoldRequest, Key, Line, balance_of
from ._errors import LedgerUnavailable
from ._explain import explained
from ._filelock import FileLock
from ._holds import Balance, Grant, Refusal
from ._migrations import migrate
from ._owners import Owner
from ._postings import Posting
from ._pricing import PricingIds

_ADD_FACT = """
    INSERT INTO ledger_fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value
"""
_SUM = """
    SELECT coalesce(sum(spent), 0), coalesce(sum(held), 0), coalesce(sum(estimated), 0) FROM balance
    WHERE budget = ? AND scope = ? AND window_start >= ?
"""
_STEPS = """
    SELECT window_start, spent + held FROM balance WHERE budget = ? AND scope = ? AND window_start >= ?
    ORDER BY window_start
"""
_LATEST = "SELECT seq FROM sqlite_sequence WHERE name = 'event'"


@dataclass(frozen=True, slots=True)
class Definition:
    """A budget's definition (JSON), kept so that other processes can show its limit."""

    name: str
    text: str
    seen: float


@dataclass(slots=True)
class Outcome:
    """What a committed batch did.

    `conflicts` says, by the index of its entry, what was wrong with an id that is stored with different content.
    `stored` are the events that were new; the last of them has the offset `latest`.
    """

    answers: list[Grant | Refusal] = field(default_factory=list)
    balances: dict[Key, Balance] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: dict[int, str] = field(default_factory=dict)
    stored: list[Posting] = field(default_factory=list)
    latest: int = 0


class SQLiteStore:
    """A ledger file. `path` None is a ledger in memory, gone when closed."""

    def __init__(self, path: Path | None, *, busy_timeout_ms: int = 5000) -> None:
        self.path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._name = str(path) if path else f"file:tollspan-{uuid.uuid4().hex}?mode=memory&cache=shared"
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._opened = 0
        self._pricing = PricingIds()
        self._file: tuple[int, int] | None = None
        self.owner = Owner(path)
        self._make_locks()

    def _make_locks(self) -> None:
        self._read_lock = threading.RLock()
        # Connections to a ledger in memory share one cache, where a reader and a writer fail instead of waiting.
        self._copy_lock = threading.RLock() if self.path else self._read_lock
        self._file_lock = FileLock(self.path.with_name(self.path.name + "-lock")) if self.path else self._read_lock

    @property
    def connection(self) -> sqlite3.Connection:
        """The write connection, opened (and the schema made) on first use. Raises LedgerUnavailable."""
        if self._connection is None:
            with self._read_lock, explained(self.path):
                if self._connection is None:
                    self._connection = self._open()
        return self._connection

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """Rows of a reading statement, by column name; any thread may call it. Raises LedgerUnavailable."""
        with self._read_lock, explained(self.path):
            if self._reader is None:
                self._reader = self.open_reader()
            return self._reader.execute(sql, parameters).fetchall()

    def open_reader(self) -> sqlite3.Connection:
        """A new connection that can only read, with rows by column name."""
        self.connection  # noqa: B018 - makes the file and its schema
        reader = self._connect()
        reader.row_factory = sqlite3.Row
        reader.execute("PRAGMA query_only = ON")
        return reader

    def close(self) -> None:
        """Close the connections; the next use opens them again. A ledger in memory is gone with its last connection."""
        with self._read_lock:
            for connection in (self._reader, self._connection):
                if connection is not None:
                    connection.close()
            self._connection = self._reader = None
            self._pricing.forget()

    def leave(self) -> None:
        """Stop being an owner, unless holds of this process are open."""
        with contextlib.suppress(LedgerUnavailable):
            gone = self.path is not None and not self.path.exists()  # to ask it would make a new one
            if self.owner.known_name and (gone or not self.holds_of(self.owner.known_name)):
                self.owner.leave()

    def copy_to(self, path: Path) -> None:
        """Copy the ledger as it is at one moment, while others write. Raises LedgerUnavailable.

        A copy that fails or is killed leaves nothing under that name.
        """
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with (
                self._copy_lock,
                contextlib.closing(self.open_reader()) as source,
                explained(path),
                contextlib.closing(sqlite3.connect(partial)) as target,
            ):
                source.backup(target)
            with explained(path):
                partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    def before_fork(self) -> None:
        """Wait for readers and close: a child that inherits an open WAL connection loses committed rows in silence."""
        self._copy_lock.acquire()
        self._read_lock.acquire()
        if self.path is not None:
            self.close()

    def after_fork(self, *, in_child: bool) -> None:
        """Open for use again; a child also stops being the owner that its parent is."""
        if in_child:
            self._make_locks()
            self.owner.forget()
        else:
            self._read_lock.release()
            self._copy_lock.release()

    def data_version(self) -> tuple[int, int]:
        """Something that changes when another connection has committed, or when this one is a new one."""
        (version,) = self._column("PRAGMA data_version")
        return self._opened, version

    def balances(self, keys: Iterable[Key]) -> dict[Key, Balance]:
        """The balances of these keys as last committed. Raises LedgerUnavailable."""
        with explained(self.path):
            return {key: Balance(*balance_of(self.connection, key)) for key in keys}

    def sum_since(self, line: Line, since: int) -> Balance:
        """The sum of the balances that start at `since` (epoch seconds) or later. Raises LedgerUnavailable."""
        return Balance(*self.query(_SUM, (*line, since))[0])

    def steps_since(self, line: Line, since: int) -> list[tuple[int, int]]:
        """The steps of a rolling window: where each starts, and what is spent or held. Raises LedgerUnavailable."""
        return [(start, amount) for start, amount in self.query(_STEPS, (*line, since))]

    def write(
        self,
        entries: Sequence[Entry] = (),
        holds: Sequence[HoldRequest] = (),
        definitions: Sequence[Definition] = (),
        facts: Mapping[str, int] | None = None,
    ) -> Outcome:
        """Append events, settle and take holds, all in one transaction that is on disk when this returns.

        Holds are decided in order, after the entries, against balances that no other process can change meanwhile.
        `facts` are added to those of the ledger. Raises LedgerUnavailable; nothing of the batch is stored then, unless
        that error is `uncertain`.
        """
        with self.transaction() as connection:
            batch = Batch(connection, self.owner.name if holds else "", self._pricing, self.fact("pruned_ms"))
            duplicates, conflicts = batch.append(entries)
            answers = [batch.hold(request) for request in holds]
            batch.save_holds()
            if definitions:
                rows = [(d.name, d.text, d.seen) for d in definitions]
                connection.executemany("INSERT OR REPLACE INTO budget VALUES (?, ?, ?)", rows)
            if facts:
                connection.executemany(_ADD_FACT, facts.items())
            batch.save_balances()
            latest = connection.execute(_LATEST).fetchone()
        return Outcome(answers, batch.balances, duplicates, conflicts, batch.stored, latest[0] if latest else 0)

    def fact(self, name: str) -> int:
        """A fact about the ledger, 0 where there is none; on the thread that writes. Raises LedgerUnavailable."""
        with explained(self.path):
            row = self.connection.execute("SELECT value FROM ledger_fact WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def latest_offset(self) -> int:
        """The offset of the last event; on the thread that writes. Raises LedgerUnavailable."""
        with explained(self.path):
            row = self.connection.execute(_LATEST).fetchone()
        return int(row[0]) if row else 0

    @contextlib.contextmanager
    def looking(self) -> Iterator["Batch"]:
        """For a look at what `write` would answer, which only `write` can promise. Raises LedgerUnavailable."""
        with explained(self.path):
            yield Batch(self.connection, "", self._pricing)

    def hide_up_to(self, offset: int) -> None:
        """Note that events up to this offset are hidden. Raises LedgerUnavailable."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO ledger_fact VALUES ('hidden_up_to', ?)", (offset,))

    def open_hold_owners(self) -> list[str]:
        """The owners of holds that are not settled yet. Raises LedgerUnavailable."""
        return self._column("SELECT DISTINCT owner FROM open_hold")

    def holds_of(self, owner: str) -> list[bytes]:
        """The open holds of an owner. Raises LedgerUnavailable."""
        return self._column("SELECT hold_id FROM open_hold WHERE owner = ?", (owner,))

    def _column(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with explained(self.path):
            return [row[0] for row in self.connection.execute(sql, parameters)]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: nobody else writes meanwhile; on disk at the end of the block. Raises LedgerUnavailable."""
        committing = False
        try:
            if self._connection is not None and self._is_gone():
                self.close()  # what is written into a deleted file is lost
            connection = self.connection
            with explained(self.path), self._file_lock:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    committing = True
                    connection.execute("COMMIT")
                except BaseException:
                    self._pricing.rolled_back()
                    with contextlib.suppress(sqlite3.Error):
                        connection.rollback()
                    raise
                self._pricing.committed()
        except LedgerUnavailable as error:
            error.uncertain = committing  # where only the sync failed, the next to open the file takes it as committed
            if self.path is not None:
                self.close()  # somebody may repair, move or replace the file: the next use must find that one
            raise

    def _is_gone(self) -> bool:
        """Whether the file that is open is not the one at the ledger's path any more."""
        return self.path is not None and _identity(self.path) != self._file

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect()
        try:
            # The first connections to a new file would otherwise race for WAL mode and for the migration.
            with self._file_lock:
                migrate(connection, where=str(self.path or "the ledger"))
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        self._opened += 1
        self._file = _identity(self.path) if self.path else None
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._name,
            timeout=self._busy_timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
            uri=self.path is None,
        )
        connection.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        return connection


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
