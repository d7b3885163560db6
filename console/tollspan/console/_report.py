"""`tollspan report`: calls, tokens and cost by any dimensions."""

import time
from collections.abc import Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from tollspan.ledger import ReportRow

from ._ledgers import existing_ledger, settings_for
from ._render import CURRENCY, Numbers, compact, console, exact, money, plain, print_csv, print_json, print_table
from ._when import instant, iso, shown

_FIGURES = (
    "calls",
    "errors",
    "refused",
    "tokens_in",
    "tokens_out",
    "tokens_cache_read",
    "cost",
    "cost_actual",
    "cost_estimated",
    "unpriced",
)


def show(
    url: str | None,
    *,
    by: str,
    since: str | None,
    until: str | None,
    tz: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print the report. Raises QueryError for an instant, a dimension or a zone that makes no sense."""
    settings = settings_for(url)
    zone, now = tz or settings.timezone, time.time()
    start = None if since is None else instant(since, tz=zone, now=now, option="--since")
    end = None if until is None else instant(until, tz=zone, now=now, option="--until")
    with existing_ledger(settings) as ledger:
        rows = ledger.report(by, since=start, until=end, tz=zone)
    names = list(rows[0].group) if rows else [name.strip() for name in by.split(",")]
    sums = total(rows)
    if as_csv:
        columns = [*names, *_FIGURES, "currency"]
        print_csv(columns, ([as_dict(row)[name] for name in columns] for row in rows))
    elif as_json:
        span = {"since": start and iso(start, zone), "until": end and iso(end, zone), "timezone": zone}
        data = {"by": names, "currency": CURRENCY, "rows": [as_dict(row) for row in rows], "total": as_dict(sums)}
        print_json(span | data)
    else:
        console().print(_title(names, start, end, zone), style="dim")
        if rows:
            _print_table(names, rows, sums)
        else:
            console().print("no calls")


def total(rows: Sequence[ReportRow]) -> ReportRow:
    """The sum of rows; not asked of the ledger, where calls may have ended since."""
    names = [field.name for field in fields(ReportRow) if field.name != "group"]
    return ReportRow(group={}, **{name: sum(getattr(row, name) for row in rows) for name in names})


def as_dict(row: ReportRow) -> dict[str, Any]:
    """A row for programs: the dimensions, then the figures."""
    return {
        **row.group,
        "calls": row.calls,
        "errors": row.errors,
        "refused": row.refused,
        "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out,
        "tokens_cache_read": row.tokens_cache_read,
        "cost": exact(row.cost_usd),
        "cost_actual": exact(row.cost_actual_usd),
        "cost_estimated": exact(row.cost_estimated_usd),
        "unpriced": row.unpriced,
        "currency": CURRENCY,
    }


def label_columns(names: Sequence[str], rows: Sequence[ReportRow]) -> dict[str, list[str]]:
    """The values of the dimensions, with one more row for the total where there are several."""
    columns = {name: [plain(row.group.get(name)) for row in rows] for name in names}
    if len(rows) > 1:
        for number, column in enumerate(columns.values()):
            column.append("" if number else "total")
    return columns


def cost(row: ReportRow, usd: Decimal, *, estimated: bool = False) -> str:
    """An amount of a row; none where nothing but calls without a price went into it."""
    return "-" if row.unpriced and not usd else money(usd, estimated=estimated)


def _print_table(names: Sequence[str], rows: Sequence[ReportRow], sums: ReportRow) -> None:
    """Columns that are 0 throughout are left out."""
    lines = [*rows, sums] if len(rows) > 1 else rows
    actual = [cost(row, row.cost_actual_usd) for row in lines]
    estimated = [cost(row, row.cost_estimated_usd, estimated=bool(row.cost_estimated_usd)) for row in lines]
    columns = (
        (1, Numbers("calls", "calls", [str(row.calls) for row in lines])),
        (sums.errors, Numbers("errors", "err", [str(row.errors) for row in lines])),
        (sums.refused, Numbers("refused", "ref", [str(row.refused) for row in lines])),
        (1, Numbers("in", "in", [compact(row.tokens_in) for row in lines])),
        (1, Numbers("out", "out", [compact(row.tokens_out) for row in lines])),
        (sums.tokens_cache_read, Numbers("cached", "cach", [compact(row.tokens_cache_read) for row in lines])),
        (1, Numbers("actual", "actual", actual)),
        (sums.cost_estimated_usd, Numbers("estimated", "estim", estimated)),
        (sums.unpriced, Numbers("unpriced", "unpr", [str(row.unpriced) for row in lines])),
    )
    print_table(label_columns(names, rows), [column for there, column in columns if there], total=len(rows) > 1)


def _title(names: Sequence[str], start: float | None, end: float | None, zone: str) -> str:
    begin = "the beginning" if start is None else shown(start, zone)
    finish = "now" if end is None else shown(end, zone)
    return f"{'by ' if names else 'all'}{', '.join(map(plain, names))}, from {begin} to {finish}, {zone}"
