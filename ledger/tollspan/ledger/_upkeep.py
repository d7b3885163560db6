"""What the writer does when nothing else is to be done: find what dead processes left, index, and prune.

Each step is small, because holds that come meanwhile wait for it.
"""

import logging
import time
from typing import TYPE_CHECKING

from ._index import extend_index
from ._prune import prune_piece
from ._store import SQLiteStore
from ._sweep import Recovered, recover

if TYPE_CHECKING:
    from ._writer import Writer

_log = logging.getLogger("tollspan.ledger")
_SWEEP_S = 30.0
_PRUNE_S = 3600.0
_DAY_S = 86_400


class Upkeep:
    """The upkeep of one ledger in one process; `keep_days` None keeps events for ever."""

    def __init__(self, store: SQLiteStore, *, keep_days: int | None) -> None:
        self._store, self._keep_days = store, keep_days
        self._sweep_at = self._prune_at = 0.0

    def turn(self, writer: "Writer") -> None:
        """One step, under the writer's store lock. Raises LedgerUnavailable."""
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_S
            note_recovered(writer, self._store)
        if self._keep_days is not None and now >= self._prune_at and not self._prune(self._keep_days):
            self._prune_at = now + _PRUNE_S
        extend_index(self._store)

    def _prune(self, keep_days: int) -> bool:
        return prune_piece(self._store, time.time() - keep_days * _DAY_S).events > 0


def note_recovered(writer: "Writer", store: SQLiteStore) -> Recovered:
    """Make good what dead processes left, and say what was found. Raises LedgerUnavailable."""
    found = recover(store, writer.store_lock)
    if found.events or found.estimated:
        writer.balances.clear()
        writer.counts.recovered += found.events
        writer.counts.orphans += found.estimated
        writer.counts.note("journal_replays", found.events)
        writer.counts.note("orphan_holds", found.estimated)
        _log.warning(
            "processes that are gone left %d events, now stored, and %d calls, counted at what they may have cost",
            found.events,
            found.estimated,
        )
    return found
