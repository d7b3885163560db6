"""Which budgets a call has to fit, and into which of their balances, at an instant."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tollspan.exporter import CallRecord, Pipeline, pipeline
from tollspan.ledger import BudgetDefinition, Key, Limit

from ._entry import BudgetEntry
from ._reach import reach


@dataclass(frozen=True, slots=True)
class Match:
    """A budget that a call counts in, and its balance in the window that is current."""

    definition: BudgetDefinition
    limit: Limit
    is_received: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """The budgets that match a call: `enforced` may refuse it, `warning` only warn. They change at `expires`."""

    matches: Sequence[Match]
    enforced: Sequence[Match]
    warning: Sequence[Match]
    expires: float

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The balances that the call counts in, each once."""
        return tuple(match.limit for match in _balances(self.matches))

    @property
    def is_strict(self) -> bool:
        """Whether a hold is needed: one strict budget makes the whole admission strict."""
        return any(m.definition.is_strict for m in self.matches if m.definition.on_limit != "warn")

    def max_wait_s(self) -> float | None:
        """How long the call may stand in line in all; None where no budget lets it wait."""
        waiting = [m.definition.max_wait_timeout_s for m in self.enforced if m.limit.waits]
        return min(waiting, default=None)

    def of(self, limit: Limit) -> BudgetDefinition:
        """The budget whose limit has refused the call."""
        return next(match.definition for match in self.enforced if match.limit.line == limit.line)


def terms_of(line: Pipeline, record: CallRecord, entries: Sequence[BudgetEntry], now: float) -> Terms:
    """The terms for a call inside of these entries, at an instant (epoch seconds)."""
    matches = list(_matching(line, _dimensions(line, record), entries, now))
    ends = [end for match in matches if (window := match.definition.window) and (end := window.end(now)) is not None]
    return Terms(
        matches,
        _balances([match for match in matches if match.definition.on_limit != "warn"]),
        _balances([match for match in matches if match.definition.on_limit == "warn"]),
        min([*ends, line.ledger.overrides.next_end(now)]),
    )


def charged(record: CallRecord) -> tuple[Limit, ...]:
    """The balances that a call counts in which nobody here has admitted: a span of others tells of it, or a fetch."""
    line, here = pipeline(), reach()
    if here.dimensions:
        record.dimensions = {**here.dimensions, **record.dimensions}
    return terms_of(line, record, here.entries, record.started).limits


def _dimensions(line: Pipeline, record: CallRecord) -> Mapping[str, str]:
    of_call = {
        "model": record.request_model or record.model or "",
        "provider": record.provider or "",
        "operation": record.operation,
    }
    return {**record.dimensions, **of_call, **({"service": line.service} if line.service else {})}


def _matching(
    line: Pipeline, dimensions: Mapping[str, str], entries: Sequence[BudgetEntry], now: float
) -> Iterator[Match]:
    overrides = line.ledger.overrides
    everywhere = list(line.settings.budgets)
    if overrides:
        named = {entry.definition.name for entry in entries if not entry.is_received}
        named |= {budget.name for budget in everywhere}
        everywhere += [budget for budget in overrides.budgets(now) if budget.name not in named]
    for entry in (*entries, *map(BudgetEntry, everywhere)):
        definition = entry.definition
        scope = definition.scope(dimensions) if entry.open else None
        if scope is not None:
            limit = _limit(entry, scope, overrides.limit_of(definition, now), now)
            yield Match(definition, limit, entry.is_received)


def _limit(entry: BudgetEntry, scope: str, most: int, now: float) -> Limit:
    definition, window = entry.definition, entry.definition.window
    _, balance, start = entry.key(scope, now)
    return Limit(
        definition.name,
        balance,
        start,
        definition.unit,
        most,
        window.end(now) if window and not window.rolling else None,
        window.span if window else 0,
        waits=definition.on_limit == "wait",
    )


def _balances(matches: Sequence[Match]) -> list[Match]:
    """One match for each balance, at its lowest limit: a budget that was entered twice counts a call once."""
    if len(matches) <= 1:
        return list(matches)
    lowest: dict[Key, Match] = {}
    for match in matches:
        balance = match.limit.key
        if match.limit.limit <= lowest.setdefault(balance, match).limit.limit:
            lowest[balance] = match
    return list(lowest.values())
