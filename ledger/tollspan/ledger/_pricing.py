"""The ids of cost texts: what calls of one price share is stored once, and named in each row."""

import sqlite3
from collections.abc import Iterable, Mapping

_KEPT = 4096


class PricingIds:
    """The ids that one write connection has met. What a transaction adds is believed when it is committed."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def of(self, connection: sqlite3.Connection, texts: Iterable[str]) -> Mapping[str, int]:
        """The ids of cost texts; one that was never stored gets its row in the running transaction."""
        found: dict[str, int] = {}
        for text in texts:
            known = self._known.get(text) or self._new.get(text)
            found[text] = known or self._store(connection, text)
        return found

    def committed(self) -> None:
        """The transaction is on disk."""
        if self._new:
            if len(self._known) > _KEPT:
                self._known.clear()
            self._known.update(self._new)
            self._new.clear()

    def rolled_back(self) -> None:
        """The transaction is undone, and with it the rows it added."""
        self._new.clear()

    def forget(self) -> None:
        """The connection is closed: the file may be another one next time."""
        self._known.clear()
        self._new.clear()

    def _store(self, connection: sqlite3.Connection, text: str) -> int:
        connection.execute("INSERT INTO pricing (cost) VALUES (?) ON CONFLICT (cost) DO NOTHING", (text,))
        row = connection.execute("SELECT pricing_id FROM pricing WHERE cost = ?", (text,)).fetchone()
        self._new[text] = row[0]
        return int(row[0])
