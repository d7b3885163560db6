"""The lazy index: from a trace, a run or a session to its events.

Trace ids are random. An index on them in the write path dirties a page of its own for each event, and made an insert
four times as dear at a million rows. So this one is filled behind the writer, in sorted pieces, and the events that it
does not have yet are looked through.
"""

import hashlib
from collections.abc import Iterable, Iterator
from sqlite3 import Row

from ._store import SQLiteStore

PIECE = 20_000
_KINDS = ("trace_id", "run_id", "session_id")


def extend_index(store: SQLiteStore, piece: int = PIECE) -> bool:
    """Index the next piece if there is a whole one; on the thread that writes. Raises LedgerUnavailable."""
    start = store.fact("indexed_up_to")
    end = start + piece
    if store.latest_offset() < end:
        return False
    rows = store.query(
        "SELECT offset, trace_id, run_id, session_id FROM event WHERE offset > ? AND offset <= ? ORDER BY offset",
        (start, end),
    )
    keys = sorted((key, row["offset"]) for row in rows for key in _keys(row))
    runs = [(row["run_id"], row["offset"]) for row in rows if row["run_id"] is not None]
    with store.transaction() as connection:
        if store.fact("indexed_up_to") == start:  # another process may have done it meanwhile
            connection.executemany("INSERT OR IGNORE INTO lookup VALUES (?, ?)", keys)
            connection.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", runs)
            connection.execute("INSERT OR REPLACE INTO ledger_fact VALUES ('indexed_up_to', ?)", (end,))
    return True


def found(store: SQLiteStore, kind: str, value: bytes | str, after: int = 0) -> list[Row]:
    """The events after an offset whose `kind` (trace_id, run_id, session_id) has a value, in order of offset.

    Raises LedgerUnavailable.
    """
    sql = f"""
        SELECT * FROM recorded
        WHERE offset IN (SELECT offset FROM lookup WHERE key = :key) AND {kind} = :value AND offset > :after
        UNION ALL
        SELECT * FROM recorded
        WHERE offset > (SELECT coalesce(max(value), 0) FROM ledger_fact WHERE name = 'indexed_up_to')
          AND {kind} = :value AND offset > :after
        ORDER BY offset
    """
    return store.query(sql, {"key": _key(kind, value), "value": value, "after": after})


def run_ids(store: SQLiteStore, after: int = 0) -> list[str]:
    """The runs with events after an offset, in the order in which they were first seen. Raises LedgerUnavailable."""
    sql = """
        SELECT run_id, min(first_offset) AS first FROM (
            SELECT run_id, first_offset FROM run
            UNION ALL
            SELECT run_id, min(offset) FROM event
            WHERE offset > (SELECT coalesce(max(value), 0) FROM ledger_fact WHERE name = 'indexed_up_to')
              AND run_id IS NOT NULL
            GROUP BY run_id
        )
        GROUP BY run_id ORDER BY first
    """
    if after:
        sql = """
            SELECT run_id FROM event WHERE run_id IS NOT NULL AND offset > :after GROUP BY run_id ORDER BY min(offset)
        """
    return [row["run_id"] for row in store.query(sql, {"after": after})]


def lookup_keys(rows: Iterable[Row]) -> list[tuple[int, int]]:
    """What the index has of these rows (offset, trace_id, run_id, session_id)."""
    return [(key, row["offset"]) for row in rows for key in _keys(row)]


def _keys(row: Row) -> Iterator[int]:
    for kind in _KINDS:
        if row[kind] is not None:
            yield _key(kind, row[kind])


def _key(kind: str, value: bytes | str) -> int:
    if isinstance(value, str):
        value = hashlib.blake2b(value.encode(), digest_size=8, person=kind.encode()[:16]).digest()
    return int.from_bytes(value[:8], "big", signed=True)
