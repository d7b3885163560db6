"""What the queries give back. Money is Decimal USD, times are in milliseconds, instants in epoch seconds.

Everywhere: `requests` and `calls` count the calls that have ended, each once, whatever its attempts. `refused` of them
were never sent (most often because a budget had no room), so they are in no rate and in no latency. `errors` are those
that were sent and failed. `cost_usd` is spend: actual, and estimated where the actual cost will never be known; calls
that have no price are counted in `unpriced`, and in no sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from ._definitions import BudgetDefinition
from ._holds import Balance

_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long calls took, in milliseconds; None where none was timed.

    Percentiles are exact and interpolate linearly between the two nearest calls (Hyndman and Fan's type 7, which is
    PostgreSQL's `percentile_cont`).
    """

    average_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview(Latency):
    """The calls that began within an interval up to now. Rates are fractions, 0 to 1, of the calls that were sent."""

    interval: str
    since: float
    until: float
    requests: int
    refused: int
    errors: int
    error_rate: float
    rate_limited: int
    rate_limited_rate: float
    tokens_in: int
    tokens_out: int
    cost_usd: Decimal
    estimated_usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePoint(Latency):
    """The calls that began in one step of a time series, from `start` on for `seconds`."""

    start: int
    seconds: int
    requests: int = 0
    errors: int = 0
    error_rate: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = _NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLatency(Latency):
    """How long the calls of one model at one provider took; `requests` are those that were timed."""

    provider: str | None
    model: str | None
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyModelCost:
    """What one model cost on one day (`YYYY-MM-DD` in the zone asked for); `estimated_usd` is a part of `cost_usd`."""

    day: str
    provider: str | None
    model: str | None
    requests: int
    tokens_in: int
    tokens_out: int
    cost_usd: Decimal
    estimated_usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRate:
    """How often the calls of one model failed, and how often with HTTP status 429; rates are fractions from 0 to 1."""

    provider: str | None
    model: str | None
    requests: int
    errors: int
    error_rate: float
    rate_limited: int
    rate_limited_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One group of a report: its value of each dimension asked for (None: not known), and its figures.

    `tokens_cache_read` is a part of `tokens_in`. Actual and estimated cost do not overlap; `cost_usd` is their sum.
    """

    group: Mapping[str, str | None]
    calls: int
    errors: int
    refused: int
    tokens_in: int
    tokens_out: int
    tokens_cache_read: int
    cost_actual_usd: Decimal
    cost_estimated_usd: Decimal
    unpriced: int

    @property
    def cost_usd(self) -> Decimal:
        """Actual and estimated cost together."""
        return self.cost_actual_usd + self.cost_estimated_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpricedCalls:
    """The calls of one model that have no price, one of the reasons, and the keys of all that they have used."""

    provider: str | None
    model: str | None
    calls: int
    reason: str | None
    units: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredCalls:
    """Calls of one provider that no row of the table of call sites covers, such as raw HTTP; recorded all the same."""

    provider: str | None
    operation: str | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderheldCalls:
    """The calls of one model that cost more than was held for them, and by how much in all."""

    provider: str | None
    model: str | None
    calls: int
    excess_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHolds:
    """The calls in flight that hold something, and what they may cost at the most; None where none has a price."""

    calls: int
    usd: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBudget:
    """A budget that some process used with this ledger, as last seen at `seen`."""

    definition: BudgetDefinition
    seen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong with a ledger so far, in any process.

    `write_failures` are transactions that were rolled back and tried again, `conflicts` ids that came with different
    content, `rejected_events` could not be stored, `lost_events` had neither memory nor journal to wait in.
    `journal_replays` are events, and `orphan_holds` calls, of processes that were killed. `aside` are journal files
    that hold what could not be read or stored.
    """

    write_failures: int
    conflicts: int
    rejected_events: int
    lost_events: int
    journal_replays: int
    orphan_holds: int
    aside: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A balance that is not what the log says, in the unit of its budget; that of budget "" is nano-USD."""

    budget: str
    scope: str
    window_start: int
    kept: Balance
    counted: Balance
