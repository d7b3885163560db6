"""What a process last saw of its ledger: balances and overrides, kept up to date by the writer's thread."""

from contextlib import suppress

from ._batch import Key, Line
from ._errors import LedgerUnavailable
from ._holds import Balance
from ._overrides import Overrides, read_overrides
from ._store import SQLiteStore

_MOST = 4096


class View:
    """Any thread may look; only the writer's brings it up to date. Nothing is watched before somebody has looked."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._overrides: Overrides | None = None
        self._forgotten = False
        self._data_version: tuple[int, int] | None = None
        self.balances: dict[Key, Balance] = {}
        self.rolling: dict[Line, dict[int, tuple[int, Balance]]] = {}
        """Sums of rolling windows, by line and span: since when (epoch seconds), and how much."""
        self.changes = 0
        """How often something was committed here, or seen to be elsewhere."""

    @property
    def overrides(self) -> Overrides:
        """The overrides, at most 200 ms old; none where the ledger cannot be read."""
        known = self._overrides
        if known is None:
            known = self._overrides = self._first_overrides()
            self._data_version = None  # the writer looks again: something may have been committed meanwhile
        return known

    def _first_overrides(self) -> Overrides:
        path = self._store.path
        if path is None or path.exists():  # whoever only asks need not make the file
            with suppress(LedgerUnavailable):
                return read_overrides(self._store)
        return Overrides()

    @property
    def is_watched(self) -> bool:
        """Whether anybody has looked."""
        return bool(self.balances or self.rolling or self._forgotten) or self._overrides is not None

    def forget(self) -> None:
        """Look again from the start."""
        self.balances.clear()
        self.rolling.clear()
        self._overrides = None
        self._forgotten = True

    def sum_of(self, key: Key, span: int) -> Balance:
        """The sum of a rolling window whose current step is `key`. Raises LedgerUnavailable."""
        line, since = key[:2], key[2] - span
        known = self.rolling.get(line, {}).get(span)
        if known is not None and known[0] == since:
            return known[1]
        changes, total = self.changes, self._store.sum_since(line, since)
        if len(self.rolling) > _MOST:
            self.rolling.clear()
        self.rolling.setdefault(line, {})[span] = (since, total)
        if changes != self.changes:  # it may be of before a commit: whoever looks next sums again
            self.rolling.pop(line, None)
        return total

    def committed(self, balances: dict[Key, Balance]) -> None:
        """Take over what a commit of this process has changed; within its lock, or it could hide a newer one."""
        if len(self.balances) > _MOST:
            self.balances.clear()
        self.balances.update(balances)
        self.changes += 1
        for key in balances if self.rolling else ():
            self.rolling.pop(key[:2], None)

    def follow(self) -> bool:
        """Take over what other processes have committed; True where the overrides have, or may have, changed."""
        changed, self._forgotten = self._forgotten, False
        version = self._store.data_version()
        if version == self._data_version:
            return changed
        self._data_version, before = version, self._overrides
        try:
            if before is not None:
                self._overrides = read_overrides(self._store)
            self.balances.update(self._store.balances(list(self.balances)))
            self.changes += 1
            self.rolling.clear()
        except BaseException:
            self._data_version = None  # what could not be read is read at the next turn
            raise
        return changed or before != self._overrides
