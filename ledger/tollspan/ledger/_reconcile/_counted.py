"""What the ledger has of a provider, by day and model."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta

from tollspan.ledger._prices._names import provider_id_of
from tollspan.ledger._selection import Selection
from tollspan.ledger._store import SQLiteStore

DAY_S = 86_400


@dataclass(slots=True, kw_only=True)
class Counted:
    """The calls of a day and model: counts of calls and tokens, money in nano-USD.

    `spent` is all that they cost, of which `estimated` is an estimate and `settled` the difference to earlier bills.
    Of `unknown` calls nobody knows the usage, behind `behind` requests other models have answered too, and `overnight`
    calls began on this day and ended on the next.
    """

    calls: int = 0
    spent: int = 0
    estimated: int = 0
    settled: int = 0
    tokens: int = 0
    cached: int = 0
    unpriced: int = 0
    uncovered: int = 0
    foreign_: int = 0
    unbilled: int = 0
    unknown: int = 0
    behind: int = 0
    overnight: int = 0
    overnight_spent: int = 0
    names: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)

    def add(self, other: "Counted") -> None:
        """Count others."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.names += other.names

    @property
    def spelled(self) -> tuple[tuple[str | None, str | None], ...]:
        """The provider and model as the calls spell them, the most frequent first."""
        return tuple(sorted(self.names, key=lambda name: (-self.names[name], str(name))))


_NUMBERS = tuple(each.name for each in fields(Counted) if each.name != "names")


@dataclass(frozen=True, slots=True)
class Log:
    """What the log has: from when on, and up to when its calls were pruned, in epoch seconds; None: no call at all."""

    begins: float | None
    pruned: float

    def has_all_of(self, day: date) -> bool:
        """Whether it reaches back to the beginning of a day."""
        begins = self.pruned or self.begins
        return begins is not None and begins <= start_of(day)


def start_of(day: date) -> int:
    """When a day begins (UTC), in epoch seconds."""
    return int(datetime.combine(day, time(), UTC).timestamp())


def day_of(instant: float) -> date:
    """The day (UTC) of an instant in epoch seconds."""
    return datetime.fromtimestamp(instant, UTC).date()


def days_between(first: date, last: date) -> list[date]:
    """Each day from the first to the last one."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def counted_by_model(store: SQLiteStore, provider: str, days: Iterable[date]) -> dict[tuple[date, str], Counted]:
    """The calls of a provider (its id in genai-prices) on days from the first to the last; "" is no model."""
    chosen = sorted(days)
    selection = Selection(since=start_of(chosen[0]), until=start_of(chosen[-1]) + DAY_S)
    found: defaultdict[tuple[date, str], Counted] = defaultdict(Counted)
    for row in selection.rows(store, "reconciled"):
        if provider_id_of(row["provider"]) != provider or row["day"] is None:
            continue
        numbers = {name: row[name] for name in _NUMBERS}
        names = Counter({(row["provider"], row["model"]): row["calls"]})
        found[day_of(row["day"]), row["model"] or ""].add(Counted(**numbers, names=names))
    return dict(found)


def log_of(store: SQLiteStore) -> Log:
    """From when on the log can be compared."""
    oldest = store.query("SELECT min(event_id) AS oldest FROM event")[0]["oldest"]
    pruned = store.query("SELECT value FROM ledger_fact WHERE name = 'pruned_ms'")
    begins = None if oldest is None else int.from_bytes(oldest[:6], "big") / 1000
    return Log(begins, pruned[0]["value"] / 1000 if pruned else 0)
