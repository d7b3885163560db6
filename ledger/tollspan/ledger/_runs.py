"""Runs that correct many calls at once: each of their adjusts names its run, by which all of it can be taken back.

The id of a run is the instant at which it began, and that is the time of its adjusts too: what is written twice is the
same event. A run that did not come to its end is remembered by its command, and goes on under its id.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from sqlite3 import Row
from typing import Any, Literal

import orjson

from ._batch import Entry
from ._errors import LedgerError
from ._events import Charge, LedgerEvent, event_id_for
from ._rows import from_row
from ._store import SQLiteStore
from ._writer import Writer

RunKind = Literal["reprice", "reconcile"]
OF_A_BILL = "reconcile"
"""The operation of the adjusts that are of no call, but of the difference of a day and a model to a bill."""

UNDO = "undo"
"""The category of the adjusts that take back others; those of a run have its kind as their category."""

MOST_ADJUSTS = 256
_UNFINISHED = "run:"
_FORM = "%Y%m%d-%H%M%S-%f"
_EPOCH = datetime.fromtimestamp(0, UTC)
_PAGE = 500
_LATEST_SHOWN = 5
_OF_RUN = """
    SELECT offset, call_id FROM event
    WHERE offset > ? AND offset <= ? AND event_type = 'adjust' AND category = ? AND records ->> '$[0].run' = ?
    ORDER BY offset LIMIT ?
"""
_ADJUSTS = "SELECT * FROM recorded WHERE event_id BETWEEN ? AND ? ORDER BY event_id"
_LATEST = """
    SELECT records ->> '$[0].run' AS run FROM event WHERE event_type = 'adjust' AND category = ?
    GROUP BY run ORDER BY max(offset) DESC LIMIT ?
"""
_TAKEN = f"SELECT 1 FROM ledger_fact WHERE name LIKE '{_UNFINISHED}%' AND value = ?"

Progress = Callable[[int, int], None]


@dataclass(slots=True, kw_only=True)
class Undone:
    """What taking back a run came to: adjusts taken back `now` and those that were `before`.

    `blocked` calls were corrected by somebody else since: that has to be taken back first. `conflicts` are calls that
    somebody corrected at the same moment.
    """

    run: str
    now: int = 0
    before: int = 0
    blocked: int = 0
    conflicts: int = 0


def begin_run(store: SQLiteStore, writer: Writer, command: Mapping[str, Any]) -> tuple[str, bool]:
    """The id of a run, and whether it goes on with one that the same command began and did not end.

    Raises LedgerUnavailable.
    """
    with writer.store_lock, store.transaction() as connection:
        name = _fact_of(command)
        row = connection.execute("SELECT value FROM ledger_fact WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return _run_id(row[0]), True
        began = int(time.time() * 1000)
        while connection.execute(_TAKEN, (began,)).fetchone():
            began += 1
        connection.execute("INSERT INTO ledger_fact VALUES (?, ?)", (name, began))
    return _run_id(began), False


def end_run(store: SQLiteStore, writer: Writer, command: Mapping[str, Any]) -> str | None:
    """The command has come to its end: the next one like it is a run of its own. Gives the id of the run that ends.

    Raises LedgerUnavailable.
    """
    sql = "DELETE FROM ledger_fact WHERE name = ? RETURNING value"
    with writer.store_lock, store.transaction() as connection:
        row = connection.execute(sql, (_fact_of(command),)).fetchone()
    return None if row is None else _run_id(row[0])


def of_run(adjust: LedgerEvent, kind: RunKind, run: str) -> LedgerEvent:
    """An adjust as one of a run."""
    return replace(adjust, category=kind, records=({"run": run},), timestamp=_began_ms(run) / 1000)


def live(adjusts: Iterable[LedgerEvent]) -> list[LedgerEvent]:
    """The adjusts of a call, in order, without those that were taken back; only the last one of them can be."""
    standing: list[LedgerEvent] = []
    for adjust in adjusts:
        if adjust.category == UNDO and standing:
            standing.pop()
        else:
            standing.append(adjust)
    return standing


def next_adjust_id(call_id: bytes, adjusts: Iterable[LedgerEvent]) -> str | None:
    """The id of the next adjust of a call; None where it has had as many as there are ids for."""
    sequence = next_sequence(adjusts)
    return event_id_for(call_id, "adjust", sequence).hex() if sequence < MOST_ADJUSTS else None


def next_sequence(adjusts: Iterable[LedgerEvent]) -> int:
    """The number of the next adjust of a call; not their count, because that of a fetched answer may be 1 alone."""
    return 1 + max((int(adjust.event_id[-2:], 16) for adjust in adjusts), default=-1)


def write_adjusts(store: SQLiteStore, writer: Writer, adjusts: Sequence[LedgerEvent]) -> set[int]:
    """Store adjusts in one transaction; gives the indices of those that somebody was quicker with.

    Raises LedgerUnavailable.
    """
    if not adjusts:
        return set()
    with writer.store_lock:
        outcome = store.write([Entry.of(adjust) for adjust in adjusts])
        writer.view.forget()  # balances are read again when somebody asks
    return {*outcome.conflicts}


def undo_run(
    store: SQLiteStore, writer: Writer, kind: RunKind, run: str, *, progress: Progress | None = None
) -> Undone:
    """Take back the adjusts of a run, by adjusts that are their opposites; again, it does nothing.

    Raises LedgerError for a run that the ledger does not have, and LedgerUnavailable.
    """
    found = Undone(run=run)
    seen = False
    for page in _calls_of_run(store, kind, run, progress):
        seen = True
        undoing = []
        for call_id in page:
            adjusts = [from_row(row) for row in adjust_rows(store, call_id)]
            undoing += _opposites(call_id, adjusts, kind, found)
        conflicts = write_adjusts(store, writer, undoing)
        found.now += len(undoing) - len(conflicts)
        found.conflicts += len(conflicts)
    if not seen:
        raise LedgerError(_unknown(store, kind, run))
    return found


def adjust_rows(store: SQLiteStore, call_id: bytes) -> list[Row]:
    """The adjusts of a call, in their order."""
    return store.query(
        _ADJUSTS, (event_id_for(call_id, "adjust", 0), event_id_for(call_id, "adjust", MOST_ADJUSTS - 1))
    )


def _opposites(call_id: bytes, adjusts: list[LedgerEvent], kind: RunKind, found: Undone) -> list[LedgerEvent]:
    """The adjust that takes back the one of the run, where that is the last one that stands."""
    standing = live(adjusts)
    its = [adjust for adjust in standing if _is_of(adjust, kind, found.run)]
    if not its:
        found.before += 1
        return []
    undo_id = next_adjust_id(call_id, adjusts)
    if its[-1] is not standing[-1] or undo_id is None:
        found.blocked += 1
        return []
    return [_opposite(its[-1], undo_id)]


def _opposite(adjust: LedgerEvent, undo_id: str) -> LedgerEvent:
    run = str(adjust.records[0]["run"])
    return replace(
        adjust,
        offset=None,
        event_id=undo_id,
        cost_est_usd=None if adjust.cost_est_usd is None else -adjust.cost_est_usd,
        cost_actual_usd=None if adjust.cost_actual_usd is None else -adjust.cost_actual_usd,
        charges=tuple(_negated(charge) for charge in adjust.charges),
        category=UNDO,
        records=({"run": run, "undoes": adjust.event_id},),
        reason=f"run {run} taken back",
        timestamp=time.time(),
    )


def _negated(charge: Charge) -> Charge:
    return replace(charge, amount=-charge.amount)


def _is_of(adjust: LedgerEvent, kind: RunKind, run: str) -> bool:
    return adjust.category == kind and any(record.get("run") == run for record in adjust.records)


def _calls_of_run(store: SQLiteStore, kind: RunKind, run: str, progress: Progress | None) -> Iterator[list[bytes]]:
    """The calls that a run has adjusted, page by page. They are found by time: its adjusts have its own."""
    if not _is_run(run):
        return
    began = _began_ms(run) / 1000
    bounds = "SELECT coalesce(min(offset), 1) - 1 AS first, (SELECT coalesce(max(offset), 0) FROM event) AS last"
    first, last = store.query(f"{bounds} FROM event WHERE timestamp >= ?", (began - 1,))[0]
    at = first
    while rows := store.query(_OF_RUN, (at, last, kind, run, _PAGE)):
        yield list(dict.fromkeys(row["call_id"] for row in rows))
        at = rows[-1]["offset"]
        if progress is not None:
            progress(at - first, last - first)


def _unknown(store: SQLiteStore, kind: RunKind, run: str) -> str:
    runs = [row["run"] for row in store.query(_LATEST, (kind, _LATEST_SHOWN))]
    known = f"the last ones are {', '.join(runs)}" if runs else f"it has had no run of `tollspan {kind}`"
    return f"the ledger knows no run {run!r} of `tollspan {kind}`: {known}"


def _fact_of(command: Mapping[str, Any]) -> str:
    text = orjson.dumps(dict(command), option=orjson.OPT_SORT_KEYS)
    return _UNFINISHED + hashlib.blake2b(text, digest_size=12).hexdigest()


def _run_id(began_ms: int) -> str:
    return f"{_EPOCH + timedelta(milliseconds=began_ms):{_FORM}}"[:-3]


def _is_run(run: str) -> bool:
    try:
        return _run_id(_began_ms(run)) == run
    except (ValueError, OverflowError):
        return False


def _began_ms(run: str) -> int:
    began = datetime.strptime(f"{run}000", _FORM).replace(tzinfo=UTC)
    return (began - _EPOCH) // timedelta(milliseconds=1)
