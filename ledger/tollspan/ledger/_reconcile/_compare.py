"""A bill beside the ledger, by day and model: how much of it the ledger has, and what may explain the difference."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal

from tollspan.ledger._money import format_usd, to_nano, to_usd
from tollspan.ledger._reconcile._bill import Bill, BillError, Cell, Measure
from tollspan.ledger._reconcile._counted import Counted, Log, counted_by_model, day_of, days_between, log_of, start_of
from tollspan.ledger._reconcile._models import Pairing, paired
from tollspan.ledger._selection import QueryError
from tollspan.ledger._store import SQLiteStore

Sides = Literal["both", "bill", "ledger", "other"]
"""Where a model is named: by `both`, or by one of them on no day at all by the other; `other` lines name no model."""

ALL_MODELS = "(all models)"
OTHER_LINES = "(no model)"
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_AMOUNT = re.compile(r"\$?\s*([0-9]+(?:\.[0-9]+)?)\s*(?:usd)?")
_MOST_DAYS = 3_700
_NAMES_SHOWN = 8
_ITEMS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a row and the total may be off: a fraction of what is billed, or an amount in USD, whichever is more."""

    share: Decimal = Decimal("0.01")
    usd: Decimal = Decimal("0.01")

    @classmethod
    def read(cls, text: str) -> "Tolerance":
        """Read `1%`, `0.05 USD`, or both: `1%, 0.05`; what is left out is 0. Raises QueryError."""
        share, usd = Decimal(0), Decimal(0)
        for part in text.lower().replace(" or ", ",").split(","):
            if found := _PERCENT.fullmatch(part.strip()):
                share = Decimal(found[1]) / 100
            elif found := _AMOUNT.fullmatch(part.strip()):
                usd = Decimal(found[1])
            else:
                raise QueryError(f"{text!r} is no tolerance; write it like 1%, 0.05 USD, or both with a comma")
        return cls(share, usd)

    def holds(self, billed: Decimal, counted: Decimal, measure: Measure) -> bool:
        """Whether two figures are near enough."""
        least = self.usd if measure == "usd" else Decimal(0)
        return abs(billed - counted) <= max(abs(billed) * self.share, least)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Something that may explain a difference, found in the bill or the ledger: how many calls, how many USD."""

    code: str
    text: str
    calls: int | None = None
    usd: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledRow:
    """One day (`YYYY-MM-DD`, UTC) of one model: what is billed and what the ledger has, in USD or tokens.

    `is_whole` is False for a day that the bill or the ledger has only a part of. `names` are provider and model as the
    ledger's calls spell them, the most frequent first.
    """

    day: str
    model: str
    sides: Sides
    billed: Decimal
    counted: Decimal
    is_within: bool
    is_whole: bool
    reasons: tuple[Explanation, ...] = ()
    names: tuple[tuple[str | None, str | None], ...] = ()

    @property
    def difference(self) -> Decimal:
        """What the bill has more than the ledger."""
        return self.billed - self.counted

    @property
    def capture_rate(self) -> Decimal | None:
        """What the ledger has of what is billed, as a fraction; None where nothing is billed."""
        return self.counted / self.billed if self.billed else None


@dataclass(slots=True, kw_only=True)
class Reconciled:
    """A bill beside the ledger. `total` is of all rows; `reasons` are those that are of no single row.

    `only_billed` and `only_counted` are the models that just one side names. After `adjust`, `run` is its name,
    `adjusted` how many rows were adjusted, `left` those that were not and why, and `after` how it compares then.
    """

    format: str
    provider: str
    measure: Measure
    rows: list[ReconciledRow]
    total: ReconciledRow
    reasons: tuple[Explanation, ...]
    only_billed: list[str]
    only_counted: list[str]
    run: str | None = None
    adjusted: int = 0
    left: dict[str, int] = field(default_factory=dict)
    after: "Reconciled | None" = None

    @property
    def is_within(self) -> bool:
        """Whether the total and each row of a model are near enough."""
        return self.total.is_within and all(row.is_within for row in self.rows)


def compare(
    store: SQLiteStore,
    bill: Bill,
    *,
    since: float | None,
    until: float | None,
    same: Mapping[str, str],
    tolerance: Tolerance,
) -> Reconciled:
    """Compare a bill with the ledger on the days of both. Raises BillError, QueryError, LedgerUnavailable."""
    days = _days(bill, since, until)
    cells = {key: cell for key, cell in bill.cells.items() if key[0] in days}
    counted = counted_by_model(store, bill.provider, days)
    by_model = not cells or any(model is not None for _, model in cells)
    names = {model for _, model in cells if model is not None}
    known = {model for _, model in counted}
    _check_same(same, names, known)
    pairing = paired(names, known, bill.provider, same) if by_model else None
    made = _Rows(bill, log_of(store), tolerance, pairing)
    made.add(cells, counted)
    rows = made.rows()
    return Reconciled(
        format=bill.format,
        provider=bill.provider,
        measure=bill.measure,
        rows=rows,
        total=_total(rows, bill.measure, tolerance),
        reasons=tuple(_of_all(bill, cells)),
        only_billed=sorted({row.model for row in rows if row.sides == "bill"}),
        only_counted=sorted({row.model for row in rows if row.sides == "ledger"}),
    )


def _days(bill: Bill, since: float | None, until: float | None) -> list[date]:
    if not bill.days:
        raise BillError("the export has no days; export a range with usage")
    first, last = min(bill.days), max(bill.days)
    if (last - first).days > _MOST_DAYS:
        raise BillError(f"the export goes from {first} to {last}; export fewer days")
    days = [
        day
        for day in days_between(first, last)
        if (since is None or start_of(day) >= since) and (until is None or start_of(day) < until)
    ]
    if not days:
        raise QueryError(
            f"the export goes from {first} to {last}, and no whole day (UTC) of it is between the instants"
        )
    return days


def _check_same(same: Mapping[str, str], names: set[str], known: set[str]) -> None:
    for exported, own in same.items():
        for name, where, there in ((exported, "export", names), (own, "ledger", known)):
            if name not in there:
                known_names = ", ".join(sorted(there)[:_NAMES_SHOWN]) or "none"
                raise QueryError(f"the {where} names no model {name!r} in those days; it names {known_names}")


class _Rows:
    """The rows as they come together."""

    def __init__(self, bill: Bill, log: Log, tolerance: Tolerance, pairing: Pairing | None) -> None:
        self._bill, self._log, self._tolerance, self._pairing = bill, log, tolerance, pairing
        self._cells: defaultdict[tuple[date, str], Cell] = defaultdict(Cell)
        self._counted: defaultdict[tuple[date, str], Counted] = defaultdict(Counted)
        self._today = day_of(time.time())

    def add(self, cells: Mapping[tuple[date, str | None], Cell], counted: Mapping[tuple[date, str], Counted]) -> None:
        """Bring lines and calls to their rows."""
        for (day, model), cell in cells.items():
            self._cells[day, self._row_of(model)].merge(cell)
        for (day, name), calls in counted.items():
            self._counted[day, self._row_of(name)].add(calls)

    def _row_of(self, model: str | None) -> str:
        if self._pairing is None:
            return ALL_MODELS
        return OTHER_LINES if model is None else self._pairing.row_of(model)

    def rows(self) -> list[ReconciledRow]:
        """In order of days, the dearest first; rows of nothing at all are left out."""
        keys = {*self._cells, *self._counted}
        rows = [self._row(day, model) for day, model in keys]
        return sorted(
            (row for row in rows if row.billed or row.counted or row.reasons),
            key=lambda row: (row.day, -max(row.billed, row.counted), row.model),
        )

    def _row(self, day: date, model: str) -> ReconciledRow:
        cell, calls = self._cells.get((day, model), Cell()), self._counted.get((day, model), Counted())
        measure = self._bill.measure
        if measure == "usd":
            billed, counted = to_usd(to_nano(cell.usd)), to_usd(calls.spent)
        else:
            billed, counted = Decimal(cell.tokens), Decimal(calls.tokens)
        sides = self._sides(model)
        cut = tuple(self._cut(day))
        differs = billed != counted
        return ReconciledRow(
            day=day.isoformat(),
            model=model,
            sides=sides,
            billed=billed,
            counted=counted,
            is_within=sides == "other" or self._tolerance.holds(billed, counted, measure),
            is_whole=not cut,
            reasons=(*cut, *_explained(cell, calls, sides, billed - counted, measure)) if differs else (),
            names=calls.spelled,
        )

    def _sides(self, model: str) -> Sides:
        if model == OTHER_LINES:
            return "other"
        if self._pairing is None or model in self._pairing.both:
            return "both"
        return "bill" if any(row == model for _, row in self._cells) else "ledger"

    def _cut(self, day: date) -> Iterator[Explanation]:
        """Why a day is not there as a whole."""
        if day >= self._today:
            yield Explanation(code="unfinished", text="the day is not over")
        elif day in self._bill.cut_days:
            yield Explanation(code="cut_bill", text="the export begins or ends inside this day")
        if not self._log.has_all_of(day):
            pruned = self._log.pruned > start_of(day)
            text = "calls of this day were pruned from the ledger" if pruned else "the ledger begins inside or after it"
            yield Explanation(code="cut_ledger", text=text)


def _explained(
    cell: Cell, calls: Counted, sides: Sides, difference: Decimal, measure: Measure
) -> Iterator[Explanation]:
    """What may explain the difference of a row; each of these is counted, none is guessed."""
    if sides == "other":
        yield Explanation(code="fees", text=_items(cell), usd=cell.usd)
        return
    if sides == "bill":
        yield Explanation(code="only_billed", text="the ledger knows no such model on these days")
    elif sides == "ledger":
        yield Explanation(code="only_counted", text="the export has no such model on these days", calls=calls.calls)
    elif not calls.calls:
        yield Explanation(code="no_calls", text="the ledger has no call of it on this day", calls=0)
    counts = (
        ("uncovered", calls.uncovered, "that no call site covers: more of that kind may not be seen at all"),
        ("foreign", calls.foreign_, "that only spans of others tell of"),
        ("unbilled", calls.unbilled if difference > 0 else 0, "that failed or were cancelled, counted as not billed"),
        ("unknown", calls.unknown, "of which nobody knows what they used"),
        ("other_models", calls.behind, "with other models behind them, which may be billed under their own names"),
        ("overnight", calls.overnight, "that ended after midnight UTC, and may be billed on the next day"),
    )
    for code, count, what in counts:
        if count:
            usd = to_usd(calls.overnight_spent) if code == "overnight" else None
            yield Explanation(code=code, text=f"{_calls(count)} {what}", calls=count, usd=usd)
    if measure == "usd":
        yield from _of_money(cell, calls, difference)


def _of_money(cell: Cell, calls: Counted, difference: Decimal) -> Iterator[Explanation]:
    if calls.unpriced and difference > 0:
        text = f"{_calls(calls.unpriced)} without a price in the ledger: see `tollspan reprice`"
        yield Explanation(code="unpriced", text=text, calls=calls.unpriced)
    if calls.estimated:
        usd = to_usd(calls.estimated)
        yield Explanation(code="estimated", text=f"{format_usd(calls.estimated)} of the ledger's is estimated", usd=usd)
    for tier, usd in sorted(cell.tiers.items()):
        text = f"{format_usd(to_nano(usd))} is billed at the prices of the tier {tier}"
        yield Explanation(code="tier", text=text, usd=usd)
    if cell.cached_usd and not calls.cached:
        text = f"{format_usd(to_nano(cell.cached_usd))} is billed for cached input, of which the ledger saw none"
        yield Explanation(code="cached", text=text, usd=cell.cached_usd)
    if calls.settled:
        usd = to_usd(calls.settled)
        text = f"{format_usd(calls.settled)} of the ledger's was added by earlier reconciliations"
        yield Explanation(code="settled", text=text, usd=usd)
    if abs(difference) <= cell.rounding:
        text = (
            f"the export is rounded: its {cell.lines} lines may be off by {format_usd(to_nano(cell.rounding))} in all"
        )
        yield Explanation(code="rounding", text=text, usd=cell.rounding)


def _of_all(bill: Bill, cells: Mapping[tuple[date, str | None], Cell]) -> Iterator[Explanation]:
    if bill.more:
        yield Explanation(
            code="more_pages", text="the export says that it has more pages: name them as well, by --file"
        )
    if cells and bill.measure == "usd" and all(model is None for _, model in cells):
        yield Explanation(code="no_models", text=f"no line names a model; {_GROUPING[bill.format]}")
    if bill.elsewhere_usd:
        text = f"{format_usd(to_nano(bill.elsewhere_usd))} was paid to other providers, with keys of your own"
        yield Explanation(code="own_keys", text=text, usd=bill.elsewhere_usd)
    if bill.others:
        yield Explanation(code="other_services", text=f"{bill.others} rows of other services were left out")


_GROUPING = {
    "openai-costs": "ask the API with group_by=line_item",
    "anthropic-cost": "ask the API with group_by[]=description",
    "openrouter": "export it by model",
    "aws-cur": "they are of what is not billed by tokens",
}


def _total(rows: Iterable[ReconciledRow], measure: Measure, tolerance: Tolerance) -> ReconciledRow:
    known = list(rows)
    billed = sum((row.billed for row in known), Decimal(0))
    counted = sum((row.counted for row in known), Decimal(0))
    return ReconciledRow(
        day="",
        model="",
        sides="both",
        billed=billed,
        counted=counted,
        is_within=tolerance.holds(billed, counted, measure),
        is_whole=all(row.is_whole for row in known),
    )


def _items(cell: Cell) -> str:
    dearest = sorted(cell.items.items(), key=lambda item: -abs(item[1]))
    named = [f"{name or 'unnamed'} {format_usd(to_nano(usd))}" for name, usd in dearest[:_ITEMS_SHOWN]]
    return f"lines that name no model: {', '.join(named)}{', ...' if len(dearest) > _ITEMS_SHOWN else ''}"


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
