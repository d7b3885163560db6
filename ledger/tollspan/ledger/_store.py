"""The SQLite store: one file, one connection, one transaction per batch.

Everything here is synchronous and belongs to one thread at a time; the writer and the ledger bring the locks.
"""

import contextlib
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._errors import LedgerConflict, LedgerUnavailable
from ._events import Charge, LedgerEvent
from ._explain import explained
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
_NAMES, _MARKS = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
# OR IGNORE would pass over missing values too.
_INSERT = f"INSERT INTO event ({_NAMES}) VALUES ({_MARKS}) ON CONFLICT (event_id) DO NOTHING"
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
    granted when nobody waited for it any more. One that is `queued` does not overtake another of its batch that is.
    """

    hold_id: bytes
    demand: Demand
    limits: tuple[Limit, ...]
    describe: Callable[[Grant], LedgerEvent]
    withdraw: Callable[[], LedgerEvent]
    patient: bool = False
    queued: bool = False


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
        self._opened = 0
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

    def retire(self) -> None:
        """Close, and stop being an owner unless holds of this process are open; those are settled after its end."""
        with contextlib.suppress(LedgerUnavailable):
            if self.owner.known_name and self._connection is not None and not self.holds_of(self.owner.known_name):
                self.owner.leave()
        self.close()

    def copy_to(self, path: Path) -> None:
        """Copy the ledger as it is at one moment, while others write. Raises LedgerUnavailable."""
        with (
            self._copy_lock,
            contextlib.closing(self.open_reader()) as source,
            explained(path),
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)

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
            return {key: _balance(self.connection, key) for key in keys}

    def write(
        self, entries: Sequence[Entry] = (), holds: Sequence[HoldRequest] = (), definitions: Sequence[Definition] = ()
    ) -> Outcome:
        """Append events, settle and take holds, all in one transaction that is on disk when this returns.

        Holds are decided in order, after the entries, against balances that no other process can change meanwhile.
        Raises LedgerUnavailable, and then nothing of the batch is stored.
        """
        with self._transaction() as connection:
            batch = Batch(connection, self.owner.name if holds else "")
            duplicates, conflicts = batch.append(entries)
            answers = [batch.hold(request) for request in holds]
            connection.executemany(
                "INSERT OR REPLACE INTO budget VALUES (?, ?, ?)", [(d.name, d.text, d.seen) for d in definitions]
            )
            batch.save_balances()
        return Outcome(answers, batch.balances, duplicates, conflicts)

    @contextlib.contextmanager
    def looking(self) -> Iterator["Batch"]:
        """For a look at what `write` would answer, which only `write` can promise. Raises LedgerUnavailable."""
        with explained(self.path):
            yield Batch(self.connection, "")

    def hide_up_to(self, offset: int) -> None:
        """Note that events up to this offset are hidden. Raises LedgerUnavailable."""
        with self._transaction() as connection:
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
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self.connection
            with explained(self.path), self._file_lock:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        connection.rollback()
                    raise
        except LedgerUnavailable:
            if self.path is not None:
                self.close()  # somebody may repair, move or replace the file: the next use must find that one
            raise

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


class Batch:
    """The inside of one transaction; in `looking`, what it would be."""

    def __init__(self, connection: sqlite3.Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner
        self._in_line: set[Key] = set()
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

    def stands_behind(self, request: HoldRequest) -> bool:
        """Whether one before it waits for a balance that it needs as well; then the next ones stand behind it too."""
        behind = any(limit.key in self._in_line for limit in request.limits)
        if behind and len(request.limits) > 1:
            self._in_line.update(limit.key for limit in request.limits)
        return behind

    def answer(self, request: HoldRequest) -> Grant | Refusal:
        """Decide on a hold and count it, so that the next request meets what it left, or stands in line behind it."""
        answer = self._decide(request)
        if isinstance(answer, Grant):
            for charge in hold_charges(request.limits, answer):
                self._change(charge, held=charge.amount)
        elif answer.busy and request.queued:
            self._in_line.update(limit.key for limit in request.limits)
        return answer

    def hold(self, request: HoldRequest) -> Grant | Refusal:
        """Decide on a hold, and store it if granted. Raises LedgerConflict for the id of an earlier hold."""
        answer = self.answer(request)
        if isinstance(answer, Grant):
            fresh, _ = self._insert([to_row(request.describe(answer))])
            if not fresh[0]:
                raise LedgerConflict(f"hold {request.hold_id.hex()} was taken before; each attempt needs its own id")
            text = charges_json(hold_charges(request.limits, answer))
            self._connection.execute("INSERT INTO open_hold VALUES (?, ?, ?)", (request.hold_id, self._owner, text))
        return answer

    def _decide(self, request: HoldRequest) -> Grant | Refusal:
        demand = request.demand
        for limit in request.limits if request.queued else ():
            if limit.key in self._in_line:
                asked = demand.wanted_output if request.patient else demand.least_output
                needed = demand.amount(limit.unit, asked)
                return Refusal(limit, self._balance(limit.key), needed, busy=True)
        balances = [self._balance(limit.key) for limit in request.limits]
        return decide(demand, request.limits, balances, patient=request.patient)

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
        query = f"SELECT {_NAMES} FROM event WHERE event_id = ?"
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
    """The ledger's own balances that a spend counts in: the UTC day in which the call began, of all and its profile."""
    day = _DAY.start(int(event.call_id[:12], 16) / 1000)
    everyone = Charge(budget=LEDGER_BUDGET, scope="", window_start=day, amount=spend)
    if event.profile_id is None:
        return (everyone,)
    return (everyone, Charge(budget=LEDGER_BUDGET, scope=f"profile={event.profile_id}", window_start=day, amount=spend))


def _balance(connection: sqlite3.Connection, key: Key) -> Balance:
    query = "SELECT spent, held, estimated FROM balance WHERE budget = ? AND scope = ? AND window_start = ?"
    row = connection.execute(query, key).fetchone()
    return Balance(*row) if row else Balance()
