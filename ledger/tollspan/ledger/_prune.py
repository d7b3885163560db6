"""Old events go, and what they counted stays: in opening balances, from which the counters can still be verified.

Whole calls are pruned, by the instant in their id. A watermark remembers how far, and no event of an older call is ever
taken again: it would be counted twice.
"""

import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import Connection, Row

from ._batch import Key, key_of, ledger_keys
from ._events import SPENDING, call_id_prefix
from ._lookup import lookup_key, lookup_keys
from ._rows import charges_from
from ._store import SQLiteStore

PIECE = 2_000
_ENDS = """
    SELECT DISTINCT piece FROM lookup
    WHERE piece <= (SELECT coalesce(min(piece), 0) FROM lookup WHERE piece >= :last)
       OR NOT EXISTS (SELECT 1 FROM lookup WHERE piece >= :last)
    ORDER BY piece
"""
_RUN_FIRST = """
    SELECT min(event.offset) FROM lookup JOIN event USING (offset)
    WHERE lookup.piece = :piece AND lookup.key = :key AND event.run_id = :run
"""
_RUN_GONE = "DELETE FROM run WHERE piece = :piece AND run_id = :run"
_RUN_BEGINS = "UPDATE run SET first_offset = :first WHERE piece = :piece AND run_id = :run"
_ADD_OPENING = """
    INSERT INTO opening (budget, scope, window_start, spent, estimated) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (budget, scope, window_start)
    DO UPDATE SET spent = spent + excluded.spent, estimated = estimated + excluded.estimated
"""
_SELECT = """
    SELECT offset, event_type, call_id, profile_id, spend_nusd, estimated, charges, trace_id, run_id, session_id,
           response_id
    FROM event
"""


@dataclass(slots=True)
class Pruned:
    """How many events went."""

    events: int = 0


def prune_piece(store: SQLiteStore, before: float) -> Pruned:
    """Prune the oldest of the calls that began before an instant (epoch seconds), in one transaction; 0: none is left.

    Calls in flight, and those that began after them, stay. Raises LedgerUnavailable.
    """
    with store.transaction() as connection:
        end = min(int(before * 1000), _oldest_open_call(connection))
        rows = _select(connection, "event_id < ?", call_id_prefix(end))
        if not rows:
            return Pruned()
        if len(rows) == PIECE:  # the last call may be cut: it stays for the next piece
            last = _started_ms(rows[-1])
            whole = [row for row in rows if _started_ms(row) < last]
            rows, end = (whole, last) if whole else (_all_at(connection, last), last + 1)
        _write_openings(connection, rows)
        connection.executemany("DELETE FROM event WHERE offset = ?", [(row["offset"],) for row in rows])
        _correct_index(connection, rows)
        connection.execute("INSERT OR REPLACE INTO ledger_fact VALUES ('pruned_ms', ?)", (end,))
    return Pruned(len(rows))


def count_before(store: SQLiteStore, before: float) -> int:
    """How many events `prune` would delete. Raises LedgerUnavailable."""
    sql = """
        SELECT count(*) FROM event
        WHERE event_id < min(:end, coalesce((SELECT substr(min(hold_id), 1, 6) FROM open_hold), :end))
    """
    return int(store.query(sql, {"end": call_id_prefix(int(before * 1000))})[0][0])


def _select(connection: Connection, where: str, *values: bytes, limit: int = PIECE) -> list[Row]:
    cursor = connection.cursor()
    cursor.row_factory = Row
    return cursor.execute(f"{_SELECT} WHERE {where} ORDER BY event_id LIMIT {limit}", values).fetchall()


def _all_at(connection: Connection, started_ms: int) -> list[Row]:
    """All events of the calls of one millisecond: more of them than fit into a piece."""
    return _select(
        connection,
        "event_id >= ? AND event_id < ?",
        call_id_prefix(started_ms),
        call_id_prefix(started_ms + 1),
        limit=-1,
    )


def _correct_index(connection: Connection, rows: Sequence[Row]) -> None:
    """Take the rows out of the index. A run begins with the first event that is left of it, or is no run any more."""
    ends = [end for (end,) in connection.execute(_ENDS, {"last": max(row["offset"] for row in rows)})]
    pieces = {row["offset"]: ends[i] for row in rows if (i := bisect_left(ends, row["offset"])) < len(ends)}
    indexed = [row for row in rows if row["offset"] in pieces]
    gone = [(pieces[offset], key, offset) for key, offset in lookup_keys(indexed)]
    connection.executemany("DELETE FROM lookup WHERE piece = ? AND key = ? AND offset = ?", gone)
    for piece, run in {(pieces[row["offset"]], row["run_id"]) for row in indexed if row["run_id"] is not None}:
        found = {"piece": piece, "run": run, "key": lookup_key("run_id", run)}
        (found["first"],) = connection.execute(_RUN_FIRST, found).fetchone()
        connection.execute(_RUN_GONE if found["first"] is None else _RUN_BEGINS, found)


def _write_openings(connection: Connection, rows: Sequence[Row]) -> None:
    spent: defaultdict[Key, int] = defaultdict(int)
    estimated: defaultdict[Key, int] = defaultdict(int)
    for row in rows:
        for key, amount in counted(row):
            spent[key] += amount
            estimated[key] += amount if row["estimated"] else 0
    connection.executemany(_ADD_OPENING, [(*key, spent[key], estimated[key]) for key in spent])


def counted(row: Row) -> Iterator[tuple[Key, int]]:
    """What a stored event counts in: the balances of its charges, and the ledger's own."""
    if row["event_type"] not in SPENDING:
        return
    for charge in charges_from(row["charges"]):
        yield key_of(charge), charge.amount
    if row["spend_nusd"] is not None:
        for key in ledger_keys(_started_ms(row), row["profile_id"]):
            yield key, row["spend_nusd"]


def _oldest_open_call(connection: Connection) -> int:
    (oldest,) = connection.execute("SELECT min(hold_id) FROM open_hold").fetchone()
    return int.from_bytes(oldest[:6], "big") if oldest else sys.maxsize


def _started_ms(row: Row) -> int:
    return int.from_bytes(row["call_id"][:6], "big")
