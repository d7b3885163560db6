"""The lazy index: from a trace, a run or a session to its events.

Trace ids are random. An index on them in the write path dirties a page of its own for each event, and made an insert
four times as dear at a million rows. So the index is filled behind the writer, in pieces, each sorted by itself:
it grows at its end only, at the same cost at any size, and a search looks once into each piece.
"""

from sqlite3 import Row

from ._lookup import FOUND, INDEXED, lookup_key, lookup_keys
from ._store import SQLiteStore

PIECE = 20_000
_COLUMNS = ", ".join(("offset", *INDEXED))


def extend_index(store: SQLiteStore, piece: int = PIECE) -> bool:
    """Index the next piece if there is a whole one; on the thread that writes. Raises LedgerUnavailable."""
    start, pruned = store.fact("indexed_up_to"), store.fact("pruned_ms")
    end = start + piece
    if store.latest_offset() < end:
        return False
    rows = store.query(f"SELECT {_COLUMNS} FROM event WHERE offset > ? AND offset <= ? ORDER BY offset", (start, end))
    keys = sorted((end, key, offset) for key, offset in lookup_keys(rows))
    runs = {row["run_id"]: row["offset"] for row in reversed(rows) if row["run_id"] is not None}
    with store.transaction() as connection:
        # Another process may have done it meanwhile, or pruned some of these.
        if (store.fact("indexed_up_to"), store.fact("pruned_ms")) == (start, pruned):
            connection.executemany("INSERT INTO lookup VALUES (?, ?, ?)", keys)
            connection.executemany("INSERT INTO run VALUES (?, ?, ?)", [(end, *run) for run in sorted(runs.items())])
            connection.execute("INSERT OR REPLACE INTO ledger_fact VALUES ('indexed_up_to', ?)", (end,))
    return True


def found(store: SQLiteStore, kind: str, value: bytes | str, after: int = 0) -> list[Row]:
    """The events after an offset whose `kind` (a column that is indexed) has a value, in order of offset.

    Raises LedgerUnavailable.
    """
    return store.query(FOUND.format(kind=kind), {"key": lookup_key(kind, value), "value": value, "after": after})


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
