"""What a process last saw of its ledger: balances and overrides, kept up to date by the writer's thread."""

from collections.abc import Iterable
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
        self._data_version: tuple[int, int] | None = None
        self.balances: dict[Key, Balance] = {}
        self.rolling: dict[tuple[Line, int], tuple[int, Balance]] = {}
        """Sums of rolling windows, by line and span: since when (epoch seconds), and how much."""

    @property
    def overrides(self) -> Overrides:
        """The overrides, at most 200 ms old; none where the ledger cannot be read."""
        if self._overrides is None:
            self._overrides = self._first_overrides()
        return self._overrides

    def _first_overrides(self) -> Overrides:
        path = self._store.path
        if path is None or path.exists():  # whoever only asks need not make the file
            with suppress(LedgerUnavailable):
                return read_overrides(self._store)
        self._data_version = None  # the writer looks again as soon as there is something to see
        return Overrides()

    @property
    def is_watched(self) -> bool:
        """Whether anybody has looked."""
        return bool(self.balances or self.rolling) or self._overrides is not None

    def forget(self) -> None:
        """Look again from the start."""
        self.balances.clear()
        self.rolling.clear()
        self._overrides = None

    def sum_of(self, key: Key, span: int) -> Balance:
        """The sum of a rolling window whose current step is `key`. Raises LedgerUnavailable."""
        line, since = key[:2], key[2] - span
        known = self.rolling.get((line, span))
        if known is None or known[0] != since:
            if len(self.rolling) > _MOST:
                self.rolling.clear()
            known = self.rolling[line, span] = (since, self._store.sum_since(line, since))
        return known[1]

    def committed(self, balances: dict[Key, Balance]) -> None:
        """Take over what a commit of this process has changed; within its lock, or it could hide a newer one."""
        if len(self.balances) > _MOST:
            self.balances.clear()
        self.balances.update(balances)
        if self.rolling and balances:
            self._sum_again({key[:2] for key in balances})

    def follow(self) -> bool:
        """Take over what other processes have committed; True where the overrides have changed."""
        version = self._store.data_version()
        if version == self._data_version:
            return False
        self._data_version = version
        try:
            return self._take_over()
        except BaseException:
            self._data_version = None  # or it would be taken for seen until somebody writes again
            raise

    def _take_over(self) -> bool:
        self.balances.update(self._store.balances(list(self.balances)))
        self._sum_again({line for line, _ in list(self.rolling)})  # a copy: any thread may add to it
        if self._overrides is None:
            return False
        before, self._overrides = self._overrides, read_overrides(self._store)
        return before != self._overrides

    def _sum_again(self, lines: Iterable[Line]) -> None:
        with suppress(LedgerUnavailable):  # the next write reports it
            for (line, span), (since, _) in list(self.rolling.items()):
                if line in lines:
                    self.rolling[line, span] = (since, self._store.sum_since(line, since))
