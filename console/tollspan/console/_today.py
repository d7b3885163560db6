"""`tollspan today`: what was spent today, on what, and what is not known."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tollspan.ledger import OpenHolds, ReportRow, UnpricedCalls, Window, time_zone

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, Numbers, compact, console, exact, money, plain, print_json, print_table
from ._report import as_dict, cost, label_columns, total
from ._when import shown

_MODEL = ("provider", "model")


@dataclass(frozen=True, slots=True)
class _Day:
    """What is shown: the date in its zone, the figures by model and in all, and what is open."""

    date: str
    zone: str
    rows: Sequence[ReportRow]
    sums: ReportRow
    missing: Sequence[UnpricedCalls]
    holds: OpenHolds


def show(url: str | None, tz: str | None, *, as_json: bool) -> None:
    """Print the day so far, of the zone `tz`. Raises QueryError for a zone that does not exist."""
    settings = settings_for(url)
    zone = tz or settings.timezone
    time_zone(zone)
    start = Window("day", zone).start(time.time())
    with existing_ledger(settings) as ledger:
        rows = ledger.report(_MODEL, since=start, tz=zone)
        day = _Day(
            date=shown(start, zone, form="%Y-%m-%d"),
            zone=zone,
            rows=rows,
            sums=total(rows),
            missing=ledger.unpriced(start),
            holds=ledger.open_holds(),
        )
    if as_json:
        print_json(_as_dict(day))
    else:
        _print_text(console(), day)


def _as_dict(day: _Day) -> dict[str, Any]:
    return {
        "date": day.date,
        "timezone": day.zone,
        **as_dict(day.sums),
        "models": [as_dict(row) for row in day.rows],
        "unpriced_models": [
            {"provider": m.provider, "model": m.model, "calls": m.calls, "reason": m.reason} for m in day.missing
        ],
        "open_holds": {"calls": day.holds.calls, "cost": exact(day.holds.usd), "currency": CURRENCY},
    }


def _print_text(screen: Console, day: _Day) -> None:
    screen.print(f"{day.date} ({day.zone}): {_spend(day.sums)}", style="bold")
    screen.print(_counts(day.sums))
    if day.rows:
        screen.print()
        _print_table(day)
    if day.missing or day.holds.calls:
        screen.print()
    if day.missing:
        screen.print(_unpriced(day.missing), style="yellow")
    if day.holds.calls:
        amount = "" if day.holds.usd is None else f", holding {money(day.holds.usd)}"
        screen.print(f"{number(day.holds.calls, 'call')} in flight{amount}")


def _print_table(day: _Day) -> None:
    lines = [*day.rows, day.sums] if len(day.rows) > 1 else day.rows
    costs = [cost(row, row.cost_usd, estimated=bool(row.cost_estimated_usd)) for row in lines]
    columns = [
        Numbers("calls", "calls", [str(row.calls) for row in lines]),
        Numbers("in", "in", [compact(row.tokens_in) for row in lines]),
        Numbers("out", "out", [compact(row.tokens_out) for row in lines]),
        Numbers("cost", "cost", costs),
    ]
    if day.missing:
        columns.append(Numbers("unpriced", "unpr", [str(row.unpriced) for row in lines]))
    print_table(label_columns(_MODEL, day.rows), columns, total=len(day.rows) > 1)


def _spend(sums: ReportRow) -> str:
    if not sums.cost_estimated_usd:
        return f"{money(sums.cost_usd)} spent"
    parts = f"{money(sums.cost_actual_usd)} actual, {money(sums.cost_estimated_usd, estimated=True)} estimated"
    return f"{money(sums.cost_usd, estimated=True)} spent ({parts})"


def _counts(sums: ReportRow) -> str:
    parts = [number(sums.calls, "call")]
    if sums.errors:
        parts.append(number(sums.errors, "error"))
    if sums.refused:
        parts.append(f"{sums.refused} refused before they were sent")
    parts.append(f"{compact(sums.tokens_in)} tokens in, {compact(sums.tokens_out)} out")
    return ", ".join(parts)


def _unpriced(missing: Sequence[UnpricedCalls]) -> str:
    """Which calls have no price, and what to do about it."""
    names = ", ".join(f"{plain(m.provider)}/{plain(m.model)} ({m.calls})" for m in missing)
    calls = number(sum(m.calls for m in missing), "call")
    return f"{calls} unpriced: {names}. Their cost is in no sum; `tollspan doctor` tells why and what to do."


def number(count: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun; `plural` where that is not the noun with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"
