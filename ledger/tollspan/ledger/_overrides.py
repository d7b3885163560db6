"""Limits and budgets that were set from outside, over those of code and configuration, while processes run."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from sqlite3 import Row

from ._definitions import BudgetDefinition, BudgetSyntaxError, format_limit
from ._registry import dump_definition, load_definition
from ._store import SQLiteStore
from ._units import Unit

_log = logging.getLogger("tollspan.ledger")

_SET = "INSERT OR REPLACE INTO budget_override VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOverride:
    """A limit for the budget of a name, wherever it is defined, or with `definition` a budget of its own.

    `limit` is in `unit`: nano-USD, tokens, requests or calls at once. It holds until the instant `until` (epoch
    seconds), or for good. `at` is when it was set.
    """

    name: str
    limit: int
    unit: Unit
    definition: BudgetDefinition | None = None
    until: float | None = None
    at: float = 0.0

    @property
    def text(self) -> str:
        """The limit as it is written: `5 USD / day`, or without a window `5 USD`."""
        return format_limit(self.limit, self.unit, self.definition.window if self.definition else None)

    def holds(self, now: float) -> bool:
        """Whether it is in force at an instant."""
        return self.until is None or now < self.until


class Overrides:
    """The overrides of a ledger as they were read; empty at first."""

    def __init__(self, overrides: Iterable[BudgetOverride] = ()) -> None:
        self._named: Mapping[str, BudgetOverride] = {override.name: override for override in overrides}
        self._own = [override for override in self._named.values() if override.definition is not None]

    def __bool__(self) -> bool:
        return bool(self._named)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overrides) and self._named == other._named

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[BudgetOverride]:
        return iter(self._named.values())

    def limit_of(self, definition: BudgetDefinition, now: float) -> int:
        """The limit of a budget at an instant: that of its override, where there is one in the same unit."""
        override = self._named.get(definition.name)
        if override is None or override.unit != definition.unit or not override.holds(now):
            return definition.limit
        return override.limit

    def next_end(self, now: float) -> float:
        """When the next of them ends (epoch seconds); infinity where none does."""
        ends = [override.until for override in self if override.until is not None and override.holds(now)]
        return min(ends, default=inf)

    def budgets(self, now: float) -> tuple[BudgetDefinition, ...]:
        """The budgets that were set as such, and hold in every process."""
        return tuple(own.definition for own in self._own if own.definition is not None and own.holds(now))


def read_overrides(store: SQLiteStore) -> Overrides:
    """All overrides of a ledger, expired ones too. Raises LedgerUnavailable."""
    return Overrides(map(_from_row, store.query("SELECT * FROM budget_override ORDER BY name")))


def save_override(store: SQLiteStore, override: BudgetOverride) -> None:
    """Set an override; it replaces the one of the same name. Raises LedgerUnavailable."""
    definition = None if override.definition is None else dump_definition(override.definition)
    values = (override.name, override.limit, override.unit, definition, override.until, override.at or time.time())
    with store.transaction() as connection:
        connection.execute(_SET, values)


def remove_override(store: SQLiteStore, name: str) -> bool:
    """Remove an override; False where there is none. Raises LedgerUnavailable."""
    with store.transaction() as connection:
        return connection.execute("DELETE FROM budget_override WHERE name = ?", (name,)).rowcount > 0


def _from_row(row: Row) -> BudgetOverride:
    return BudgetOverride(
        name=row["name"],
        limit=row["limit_"],
        unit=row["unit"],
        definition=_definition(row["name"], row["definition"]),
        until=row["until"],
        at=row["at"],
    )


@lru_cache(maxsize=256)  # it is read again whenever anybody has written: to log it once is enough
def _definition(name: str, text: str | None) -> BudgetDefinition | None:
    """What a newer version wrote may not be understood: then only its limit holds, where code knows the name."""
    if text is None:
        return None
    try:
        return load_definition(text)
    except BudgetSyntaxError as error:
        _log.warning("budget %r was set from outside in a way that this version cannot read: %s", name, error)
        return None
