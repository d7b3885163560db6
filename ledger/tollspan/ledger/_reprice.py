"""What past calls cost by the prices known today, and the adjusts that make it so.

A call is repriced where we computed its cost from its usage: at its model's price at its start, as the tables or the
user's file have it now. What its provider stated stays, and so does what nobody can compute. The difference to what
it has cost so far is one adjust, which counts where the call does; a call that is right already gets none, so that a
run which is repeated or goes on writes nothing twice.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from sqlite3 import Row
from typing import Any, Literal

from ._batch import Key, key_of
from ._events import Charge, LedgerEvent, call_id_prefix
from ._fetched import FETCHED
from ._money import to_nano, to_usd
from ._prices import PriceBook, RateCard
from ._prices._names import provider_id_of
from ._recost import Recomputed, cost_of, rates_with_tier
from ._rows import from_row
from ._runs import OF_A_BILL, Progress, begin_run, end_run, live, next_adjust_id, of_run, write_adjusts
from ._selection import label, time_zone
from ._store import SQLiteStore
from ._units import unit_of
from ._windows import Window
from ._writer import Writer

_STATED = frozenset({"provider", "span", None})
_PAGE = 2_000
_AFTER_ALL = b"\xff" * 16
_CALLS = """
    SELECT * FROM recorded WHERE event_id >= ? AND event_id < ? AND event_type IN ('commit', 'adjust', 'retry')
    ORDER BY event_id LIMIT ?
"""
_COUNT = """
    SELECT count(*) FROM event WHERE event_id >= ? AND event_id < ? AND event_type IN ('commit', 'adjust', 'retry')
"""

Verdict = Literal[
    "changed",
    "first",
    "unchanged",
    "unpriced",
    "no_price",
    "stated",
    "corrected",
    "unknown_usage",
    "reconciled",
    "conflict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepriceSelection:
    """Which calls are repriced: those that began from `since` to before `until`, in epoch seconds.

    `model` is a glob and `provider` a name as OpenTelemetry or genai-prices spells it; None is any. With `stated`,
    costs that a provider or another instrumentation has stated are replaced too, and with `corrected` those that
    somebody has corrected by hand or by a bill.
    """

    since: float | None = None
    until: float | None = None
    model: str | None = None
    provider: str | None = None
    stated: bool = False
    corrected: bool = False

    def matches(self, event: LedgerEvent) -> bool:
        """Whether an event is of a model and a provider that are meant."""
        if self.model is not None and not fnmatchcase((event.model or "").lower(), self.model.lower()):
            return False
        return self.provider is None or provider_id_of(self.provider) == provider_id_of(event.provider)

    @property
    def bounds(self) -> tuple[bytes, bytes]:
        """What the ids of its events are at least, and less than."""
        first = b"" if self.since is None else call_id_prefix(int(self.since * 1000))
        return first, _AFTER_ALL if self.until is None else call_id_prefix(int(self.until * 1000))


@dataclass(slots=True, kw_only=True)
class RepricedRow:
    """The calls of one model on one day (`YYYY-MM-DD`): how many, and how many of them cost something else now.

    Money is Decimal USD: all that the calls had cost before, and all that they cost now.
    """

    day: str
    provider: str | None
    model: str | None
    calls: int = 0
    changed: int = 0
    old_usd: Decimal = Decimal(0)
    new_usd: Decimal = Decimal(0)
    unpriced_before: int = 0
    unpriced_after: int = 0

    @property
    def difference_usd(self) -> Decimal:
        """What the calls cost more now."""
        return self.new_usd - self.old_usd


@dataclass(slots=True, kw_only=True)
class Repriced:
    """What a run found, by day and model, and how many calls by what became of them.

    `changed` cost something else now and `first` have a cost for the first time; `unchanged` cost the same. These stay
    as they are: `unpriced` still have no price, `no_price` had one that is not found any more, `stated` have a cost
    that was stated, `corrected` one that was corrected, and of `unknown_usage` nobody knows what was used. `conflict`
    were corrected by somebody else at the same moment. `reconciled` are no calls, but days of a model that `reconcile`
    brought to a bill: what is changed in them here, it has to bring there again. `run` is None where nothing was
    written.
    """

    run: str | None = None
    resumed: bool = False
    rows: list[RepricedRow] = field(default_factory=list)
    calls: Counter[Verdict] = field(default_factory=Counter)


@dataclass(slots=True)
class _Call:
    """A call by its events that change spend, in order of id."""

    events: list[LedgerEvent]

    @property
    def call_id(self) -> bytes:
        return bytes.fromhex(self.events[0].call_id)

    @property
    def began(self) -> float:
        return int.from_bytes(self.call_id[:6], "big") / 1000

    @property
    def adjusts(self) -> list[LedgerEvent]:
        return [event for event in self.events if event.event_type == "adjust"]

    @property
    def used(self) -> list[LedgerEvent]:
        """The events that tell what the call has used: its commit, or the adjust of an answer that was fetched."""
        return [event for event in self.events if event.usage]

    @property
    def shown(self) -> LedgerEvent:
        """The event by whose model and provider the call is shown."""
        return (self.used or self.events)[-1]

    @property
    def corrections(self) -> list[LedgerEvent]:
        """The adjusts that stand, but for those of an answer that was fetched."""
        return [adjust for adjust in live(self.adjusts) if adjust.reason != FETCHED]

    @property
    def is_of_a_bill(self) -> bool:
        """Whether this is no call, but the difference of a day to a bill."""
        return self.events[0].operation == OF_A_BILL

    @property
    def nano(self) -> int:
        """All that the call has cost."""
        return sum(map(_nano, self.events))

    @property
    def is_unpriced(self) -> bool:
        """Whether nothing has given the call a price, as in the reports."""
        commits = [event for event in self.events if event.event_type == "commit"]
        given = [adjust for adjust in live(self.adjusts) if adjust.spend_usd is not None]
        return any(commit.spend_usd is None for commit in commits) and not given


def reprice(
    store: SQLiteStore,
    writer: Writer,
    selection: RepriceSelection,
    *,
    prices: Path | None,
    timezone: str,
    dry_run: bool,
    command: str | None,
    progress: Progress | None = None,
) -> Repriced:
    """Reprice calls page by page, while others write; see Ledger.reprice.

    Raises PriceFileError, QueryError, LedgerUnavailable.
    """
    found, table, book = Repriced(), _Table(timezone), PriceBook(overrides=prices)
    digest = None if prices is None else hashlib.sha256(prices.read_bytes()).hexdigest()
    terms = {"reprice": command or repr(selection), "prices": digest}
    for page in _pages(store, selection, progress):
        decided = [(call, *_decide(call, book, selection)) for call in page if selection.matches(call.shown)]
        lost = set() if dry_run else _write(store, writer, found, terms, [each for _, _, each in decided if each])
        for call, verdict, adjust in decided:
            if call.is_of_a_bill:
                found.calls["reconciled"] += verdict == "reconciled"
            elif adjust is not None and adjust.event_id in lost:
                found.calls["conflict"] += 1
                table.add(call, None)
            else:
                found.calls[verdict] += 1
                table.add(call, adjust)
    ended = None if dry_run else end_run(store, writer, terms)
    if ended is not None and found.run is None:  # it was interrupted when all was written
        found.run, found.resumed = ended, True
    found.rows = table.rows
    return found


def _write(
    store: SQLiteStore, writer: Writer, found: Repriced, terms: Mapping[str, Any], adjusts: Sequence[LedgerEvent]
) -> set[str]:
    """Store the adjusts of a page as ones of the run; gives the ids of those that somebody was quicker with."""
    if not adjusts:
        return set()
    if found.run is None:
        found.run, found.resumed = begin_run(store, writer, terms)
    marked = [of_run(_with_reason(adjust, found.run), "reprice", found.run) for adjust in adjusts]
    return {marked[index].event_id for index in write_adjusts(store, writer, marked)}


# ---- one call


def _decide(call: _Call, book: PriceBook, selection: RepriceSelection) -> tuple[Verdict, LedgerEvent | None]:
    """What becomes of a call, and the adjust that it needs."""
    used = call.used
    if call.is_of_a_bill:
        return ("reconciled" if call.corrections else "unchanged"), None
    if not used:
        free = all(event.cost_source == "free" for event in call.events)
        return "unchanged" if free else "unknown_usage", None
    if not selection.stated and any(event.cost_source in _STATED and event.spend_usd is not None for event in used):
        return "stated", None
    if not selection.corrected and any(adjust.category != "reprice" for adjust in call.corrections):
        return "corrected", None
    costs = [cost_of(event, book, call.began) for event in used]
    priced = [cost for cost in costs if isinstance(cost, Recomputed)]
    if len(priced) < len(costs):
        return "unpriced" if call.is_unpriced else "no_price", None
    return _difference(call, used, sum(cost.nano for cost in priced), priced[-1].card)


def _difference(
    call: _Call, used: Sequence[LedgerEvent], nano: int, card: RateCard
) -> tuple[Verdict, LedgerEvent | None]:
    counted = [*used, *call.corrections]
    difference = nano - sum(map(_nano, counted))
    was_unpriced = call.is_unpriced
    if not difference and not was_unpriced:
        return "unchanged", None
    event_id = next_adjust_id(call.call_id, call.adjusts)
    if event_id is None:
        return "conflict", None
    like, amount = used[-1], to_usd(difference)
    adjust = replace(
        like,
        event_type="adjust",
        event_id=event_id,
        offset=None,
        usage={},
        timing={},
        cost_est_usd=amount if like.estimated else None,
        cost_actual_usd=None if like.estimated else amount,
        cost_source=card.source,
        cost_rates=rates_with_tier(card, like),
        charges=_charges(counted, nano),
        response_id=None,
    )
    return "first" if was_unpriced else "changed", adjust


def _charges(counted: Sequence[LedgerEvent], nano: int) -> tuple[Charge, ...]:
    """What brings each account in USD to the cost: where a call had no price, it was charged with what it held."""
    charged: Counter[Key] = Counter()
    for event in counted:
        for charge in event.charges:
            if unit_of(charge.budget) == "USD":
                charged[key_of(charge)] += charge.amount
    return tuple(
        Charge(budget=account, scope=scope, window_start=start, amount=nano - amount)
        for (account, scope, start), amount in charged.items()
        if nano != amount
    )


def _with_reason(adjust: LedgerEvent, run: str) -> LedgerEvent:
    return replace(adjust, reason=f"repriced by {adjust.cost_source}, run {run}")


def _nano(event: LedgerEvent) -> int:
    return 0 if event.spend_usd is None else to_nano(event.spend_usd)


# ---- reading


def _pages(store: SQLiteStore, selection: RepriceSelection, progress: Progress | None) -> Iterator[list[_Call]]:
    """The calls in order of their start; so many at once that memory stays the same however many there are."""
    first, end = selection.bounds
    total = int(store.query(_COUNT, (first, end))[0][0]) if progress is not None else 0
    done = 0
    while rows := store.query(_CALLS, (first, end, _PAGE)):
        whole = _whole(rows)
        yield [_Call([from_row(row) for row in of_call]) for _, of_call in groupby(whole, key=_call_id)]
        done += len(whole)
        if progress is not None:
            progress(min(done, total), total)
        if len(rows) < _PAGE:
            break
        first = _call_id(whole[-1]) + b"\xff\xff"


def _whole(rows: list[Row]) -> list[Row]:
    """The rows without those of the last call, which the page may have cut."""
    last = _call_id(rows[-1])
    return [row for row in rows if _call_id(row) != last] if len(rows) == _PAGE else rows


def _call_id(row: Row) -> bytes:
    return bytes(row["call_id"])


class _Table:
    """The figures by day, provider and model."""

    def __init__(self, timezone: str) -> None:
        self._timezone = timezone
        time_zone(timezone)
        self._days = Window("day", timezone)
        self._rows: dict[tuple[int, str | None, str | None], RepricedRow] = {}

    def add(self, call: _Call, adjust: LedgerEvent | None) -> None:
        """Count a call, and what it costs now."""
        shown, start = call.shown, self._days.start(call.began)
        key = (start, shown.provider, shown.model)
        row = self._rows.get(key)
        if row is None:
            day = label("day", start, self._timezone) or ""
            row = self._rows[key] = RepricedRow(day=day, provider=shown.provider, model=shown.model)
        row.calls += 1
        row.changed += adjust is not None
        row.old_usd += to_usd(call.nano)
        row.new_usd += to_usd(call.nano + (_nano(adjust) if adjust else 0))
        row.unpriced_before += call.is_unpriced
        row.unpriced_after += call.is_unpriced and adjust is None

    @property
    def rows(self) -> list[RepricedRow]:
        """In order of days, the dearest model first."""
        found = sorted(self._rows.items(), key=lambda item: (item[0][0], -item[1].new_usd, str(item[0][1:])))
        return [row for _, row in found]
