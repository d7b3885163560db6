"""What the writer does when nothing else is to be done: find what dead processes left, index, and prune.

Each step is small, because holds that come meanwhile wait for it.
"""

import time
from collections.abc import Callable

from ._index import extend_index
from ._prune import prune_piece
from ._store import SQLiteStore

_SWEEP_S = 30.0
_HURRY_S = 1.0
_PRUNE_S = 3600.0
_INDEX_S = 0.1
_DAY_S = 86_400


class Upkeep:
    """The upkeep of one ledger in one process; `keep_days` None keeps events for ever."""

    def __init__(self, store: SQLiteStore, *, recover: Callable[[], object], keep_days: int | None) -> None:
        self._store, self._recover, self._keep_days = store, recover, keep_days
        self._sweep_at = self._prune_at = self._index_at = 0.0

    def turn(self, *, hurry: bool = False) -> None:
        """One step, under the writer's store lock; in a `hurry` where somebody waits for what a dead process may hold.

        Raises LedgerUnavailable.
        """
        now = time.monotonic()
        early = _SWEEP_S - _HURRY_S if hurry else 0
        # Before the first pruning: what a dead process left may be older than what is kept.
        if now >= self._sweep_at - early:
            self._sweep_at = now + _SWEEP_S
            self._recover()
        if self._keep_days is not None and now >= self._prune_at and not self._prune(self._keep_days):
            self._prune_at = now + _PRUNE_S
        if now >= self._index_at and not extend_index(self._store):
            self._index_at = now + _INDEX_S

    def _prune(self, keep_days: int) -> bool:
        return prune_piece(self._store, time.time() - keep_days * _DAY_S).events > 0
