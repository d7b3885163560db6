"""The SQLite store: one file, one connection, one transaction per batch.

Everything here is synchronous and belongs to one thread at a time; the writer and the ledger bring the locks.
"""

import contextlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._errors import LedgerUnavailable
from ._events import Charge, LedgerEvent
from ._filelock import FileLock
from ._holds import Balance, Demand, Grant, Limit, Refusal, decide
from ._migrations import migrate
from ._owners import Owner
from ._rows import COLUMNS, Row, charges_from, charges_json, to_row
from ._windows import Window

Key = tuple[str, str, int]

LEDGER_BUDGET = ""
"""The balance that the ledger keeps of itself: USD per UTC day, for all calls and for each profile."""

_DAY = Window("day", "UTC")
_INSERT = f"INSERT OR IGNORE INTO event ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_SPEND = COLUMNS.index("spend_nusd")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to append, or what will make it on the writer's thread; and the hold (its event id) that it settles."""

    event: LedgerEvent | Callable[[], LedgerEvent]
    release: bytes | None = None

    def made(self) -> LedgerEvent:
        """The event."""
        return self.event if isinstance(self.event, LedgerEvent) else self.event()


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """A hold to take if all its limits admit it.

    `describe` makes the precheck_hold event once the amounts are known, `withdraw` the cancel event of a hold that was
    granted when nobody waited for it any more.
    """

    hold_id: bytes
    demand: Demand
    limits: tuple[Limit, ...]
    describe: Callable[[Grant], LedgerEvent]
    withdraw: Callable[[], LedgerEvent]
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """A budget's definition (JSON), kept so that other processes can show its limit."""

    name: str
    text: str
    seen: float


@dataclass(slots=True)
class Outcome:
    """What a committed batch did: an answer for each hold request, the balances it changed, the replays it ignored, and
    what was wrong with entries (by their index) whose id is stored with different content.
    """

    answers: list[Grant | Refusal]
    balances: dict[Key, Balance]
    duplicates: int
    conflicts: dict[int, str]


class SQLiteStore:
    """A ledger file. `path` None is a ledger in memory, gone when closed."""

    def __init__(self, path: Path | None, *, busy_timeout_ms: int = 5000) -> None:
        self.path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._name = str(path) if path else f"file:tollspan-{uuid.uuid4().hex}?mode=memory&cache=shared"
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()
        self._file_lock = FileLock(path.with_name(path.name + "-lock")) if path else contextlib.nullcontext()
        self.owner = Owner(path)

    @property
    def connection(self) -> sqlite3.Connection:
        """The write connection, opened (and the schema made) on first use. Raises LedgerUnavailable."""
        if self._connection is None:
            with _explained(self.path):
                self._connection = self._open()
        return self._connection

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """Rows of a reading statement, by column name; any thread may call it. Raises LedgerUnavailable."""
        with self._read_lock, _explained(self.path):
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
        if self._reader is not None:
            self._reader.close()
        if self._connection is not None:
            self._connection.close()
        self._connection = self._reader = None

    def before_fork(self) -> None:
        """Wait for readers and close: a child that inherits an open WAL connection loses committed rows in silence."""
        self._read_lock.acquire()
        if self.path is not None:
            self.close()

    def after_fork(self, *, in_child: bool) -> None:
        """Open for use again; a child also stops being the owner that its parent is."""
        if in_child:
            self._read_lock = threading.Lock()
            self.owner.forget()
        else:
            self._read_lock.release()

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def balances(self, keys: Iterable[Key]) -> dict[Key, Balance]:
        """The balances of these keys as last committed."""
        return {key: _balance(self.connection, key) for key in keys}

    def write(
        self, entries: Sequence[Entry] = (), holds: Sequence[HoldRequest] = (), definitions: Sequence[Definition] = ()
    ) -> Outcome:
        """Append events, settle and take holds, all in one transaction that is on disk when this returns.

        Holds are decided in order, after the entries, against balances that no other process can change meanwhile.
        Raises LedgerUnavailable, and then nothing of the batch is stored.
        """
        connection = self.connection
        with _explained(self.path), self._file_lock:
            owner = self.owner.name if holds else ""
            connection.execute("BEGIN IMMEDIATE")
            try:
                batch = _Batch(connection, owner)
                duplicates, conflicts = batch.append(entries)
                answers = [batch.hold(request) for request in holds]
                connection.executemany(
                    "INSERT OR REPLACE INTO budget VALUES (?, ?, ?)", [(d.name, d.text, d.seen) for d in definitions]
                )
                batch.save_balances()
                connection.execute("COMMIT")
            except BaseException:
                _rollback(connection)
                raise
        return Outcome(answers, batch.balances, duplicates, conflicts)

    def open_hold_owners(self) -> list[str]:
        """The owners of holds that are not settled yet."""
        return [row[0] for row in self.connection.execute("SELECT DISTINCT owner FROM open_hold")]

    def holds_of(self, owner: str) -> list[bytes]:
        """The open holds of an owner."""
        return [row[0] for row in self.connection.execute("SELECT hold_id FROM open_hold WHERE owner = ?", (owner,))]

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect()
        try:
            # The first connections to a new file would otherwise race for WAL mode and for the migration.
            with self._file_lock:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                migrate(connection, where=str(self.path or "the ledger"))
        except BaseException:
            connection.close()
            raise
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


class _Batch:
    """The inside of one transaction."""

    def __init__(self, connection: sqlite3.Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner
        self.balances: dict[Key, Balance] = {}

    def append(self, entries: Sequence[Entry]) -> tuple[int, dict[int, str]]:
        """Store the events that are new and count them; replays and conflicts count nothing."""
        events = [entry.made() for entry in entries]
        rows = [to_row(event) for event in events]
        fresh, conflicts = self._insert(rows)
        for entry, event, row, new in zip(entries, events, rows, fresh, strict=True):
            if new:
                self._count(event, row[_SPEND])
            if entry.release is not None:
                self._release(entry.release)
        return fresh.count(False), conflicts

    def hold(self, request: HoldRequest) -> Grant | Refusal:
        balances = [self._balance(limit.key) for limit in request.limits]
        answer = decide(request.demand, request.limits, balances, patient=request.patient)
        if isinstance(answer, Grant):
            charges = hold_charges(request.limits, answer)
            fresh, _ = self._insert([to_row(request.describe(answer))])
            if fresh[0]:
                text = charges_json(charges)
                self._connection.execute("INSERT INTO open_hold VALUES (?, ?, ?)", (request.hold_id, self._owner, text))
                for charge in charges:
                    self._change(charge, held=charge.amount)
        return answer

    def save_balances(self) -> None:
        rows = [(*key, b.spent, b.estimated, b.held) for key, b in self.balances.items()]
        self._connection.executemany("INSERT OR REPLACE INTO balance VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _insert(self, rows: Sequence[Row]) -> tuple[list[bool], dict[int, str]]:
        """Insert rows; tells for each whether it was new, and describes the ids that came with different content."""
        before = self._connection.total_changes
        self._connection.execute("SAVEPOINT rows")
        self._connection.executemany(_INSERT, rows)
        if self._connection.total_changes - before == len(rows):
            self._connection.execute("RELEASE rows")
            return [True] * len(rows), {}
        # A replay is rare: only then is it worth a statement for each row to see which ones were there.
        self._connection.execute("ROLLBACK TO rows")
        self._connection.execute("RELEASE rows")
        fresh = [self._connection.execute(_INSERT, row).rowcount == 1 for row in rows]
        conflicts = {i: self._conflict(row) for i, (row, new) in enumerate(zip(rows, fresh, strict=True)) if not new}
        return fresh, {i: text for i, text in conflicts.items() if text}

    def _conflict(self, row: Row) -> str | None:
        query = f"SELECT {', '.join(COLUMNS)} FROM event WHERE event_id = ?"
        stored = self._connection.execute(query, (row[0],)).fetchone()
        changed = [name for name, old, new in zip(COLUMNS, stored, row, strict=True) if old != new]
        return f"event {row[0].hex()} is stored with another {', '.join(changed)}" if changed else None

    def _count(self, event: LedgerEvent, spend: int | None) -> None:
        if event.event_type not in ("commit", "adjust", "retry"):
            return
        for charge in event.charges:
            self._change(charge, spent=charge.amount, estimated=charge.amount if event.estimated else 0)
        if spend is not None:
            for charge in ledger_charges(event, spend):
                self._change(charge, spent=spend, estimated=spend if event.estimated else 0)

    def _release(self, hold_id: bytes) -> None:
        found = self._connection.execute(
            "DELETE FROM open_hold WHERE hold_id = ? RETURNING charges", (hold_id,)
        ).fetchone()
        for charge in charges_from(found[0]) if found else ():
            self._change(charge, held=-charge.amount)

    def _change(self, charge: Charge, *, spent: int = 0, estimated: int = 0, held: int = 0) -> None:
        key = (charge.budget, charge.scope, charge.window_start)
        old = self._balance(key)
        self.balances[key] = Balance(old.spent + spent, old.held + held, old.estimated + estimated)

    def _balance(self, key: Key) -> Balance:
        known = self.balances.get(key)
        return _balance(self._connection, key) if known is None else known


def hold_charges(limits: Sequence[Limit], grant: Grant) -> tuple[Charge, ...]:
    """The amounts held by a grant, as charges."""
    return tuple(
        Charge(budget=limit.budget, scope=limit.scope, window_start=limit.window_start, amount=amount)
        for limit, amount in zip(limits, grant.amounts, strict=True)
    )


def ledger_charges(event: LedgerEvent, spend: int) -> tuple[Charge, ...]:
    """The ledger's own balances that a spend counts in: the UTC day in which the call began, for all and its profile."""
    day = _DAY.start(int(event.call_id[:12], 16) / 1000)
    everyone = Charge(budget=LEDGER_BUDGET, scope="", window_start=day, amount=spend)
    if event.profile_id is None:
        return (everyone,)
    return (everyone, Charge(budget=LEDGER_BUDGET, scope=f"profile={event.profile_id}", window_start=day, amount=spend))


def _balance(connection: sqlite3.Connection, key: Key) -> Balance:
    query = "SELECT spent, held, estimated FROM balance WHERE budget = ? AND scope = ? AND window_start = ?"
    row = connection.execute(query, key).fetchone()
    return Balance(*row) if row else Balance()


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Turn what SQLite and the file system raise into an error that says what to do."""
    where = path or "the ledger in memory"
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(f"{where}: {error}; {_advice(error, path)}") from error
    except sqlite3.DatabaseError as error:
        advice = (
            "it is damaged or no ledger: move it away or restore a snapshot, or set TOLLSPAN_LEDGER to another file"
        )
        raise LedgerUnavailable(f"{where}: {error}; {advice}") from error
    except OSError as error:
        raise LedgerUnavailable(f"{where}: {error}; {_advice(error, path)}") from error


def _advice(error: Exception, path: Path | None) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return "another program keeps it locked: close that program, or raise TOLLSPAN_BUSY_TIMEOUT_MS"
    if "full" in text:
        return "free some disk space"
    if path is not None and "no such" in text:
        return "it is not a tollspan ledger: set TOLLSPAN_LEDGER to another file"
    folder = path.parent if path is not None else os.getcwd()
    return f"make {folder} and the file writable, or set TOLLSPAN_LEDGER to a file that you may write"
