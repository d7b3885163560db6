"""The keys of the lazy index, and the statement that finds events by them and among those that it does not have yet."""

import hashlib
from collections.abc import Iterable
from sqlite3 import Row

INDEXED = ("trace_id", "run_id", "session_id", "response_id")
"""The columns that are indexed behind the writer."""

FOUND = """
    WITH RECURSIVE indexed (piece) AS (
        SELECT min(piece) FROM lookup
        UNION ALL
        SELECT (SELECT min(lookup.piece) FROM lookup WHERE lookup.piece > indexed.piece)
        FROM indexed WHERE indexed.piece IS NOT NULL
    )
    SELECT recorded.* FROM indexed
    CROSS JOIN lookup ON lookup.piece = indexed.piece AND lookup.key = :key
    CROSS JOIN recorded ON recorded.offset = lookup.offset
    WHERE recorded.{kind} = :value AND recorded.offset > :after
    UNION ALL
    SELECT * FROM recorded
    WHERE offset > (SELECT coalesce(max(value), 0) FROM ledger_fact WHERE name = 'indexed_up_to')
      AND {kind} = :value AND offset > :after
    ORDER BY offset
"""
"""The events of which a column has a value: by one look into each piece of the index, and a scan of what has none."""


def lookup_keys(rows: Iterable[Row]) -> list[tuple[int, int]]:
    """What the index has of these rows, which have an offset and the columns that are indexed."""
    return [(lookup_key(kind, row[kind]), row["offset"]) for row in rows for kind in INDEXED if row[kind] is not None]


def lookup_key(kind: str, value: bytes | str) -> int:
    """The key of a value: 64 bits of itself where it is random, or else of its digest."""
    if isinstance(value, str):
        value = hashlib.blake2b(value.encode(), digest_size=8, person=kind.encode()[:16]).digest()
    return int.from_bytes(value[:8], "big", signed=True)
