"""`tollspan reprice`: what past calls cost by today's prices, and the adjusts that make it so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import orjson

from tollspan.ledger import Repriced, RepricedRow, RepriceSelection, Undone

from ._ledgers import existing_ledger, settings_for
from ._progress import bar
from ._render import CURRENCY, Numbers, console, exact, money, plain, print_json, print_table
from ._today import number
from ._when import instant, iso, shown

_INTERRUPTED = 130
_KEPT = {
    "stated": "whose cost was stated to us (--stated reprices them too)",
    "corrected": "corrected by hand (--corrected reprices them too)",
    "unknown_usage": "whose usage nobody knows",
    "no_price": "that had a price which is not found any more",
    "unpriced": "that still have no price",
    "conflict": "corrected by somebody else at this moment, or as often as a call can be",
}


def reprice(
    url: str | None,
    *,
    since: str | None,
    until: str | None,
    model: str | None,
    provider: str | None,
    prices: str | None,
    stated: bool,
    corrected: bool,
    tz: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Reprice calls, or say what would change; gives the exit status."""
    settings, now = settings_for(url), time.time()
    zone = tz or settings.timezone
    selection = RepriceSelection(
        since=None if since is None else instant(since, tz=zone, now=now, option="--since"),
        until=None if until is None else instant(until, tz=zone, now=now, option="--until"),
        model=model,
        provider=provider,
        stated=stated,
        corrected=corrected,
    )
    file = Path(prices) if prices is not None else settings.prices
    asked = orjson.dumps([since, until, model, provider, stated, corrected]).decode()  # as written: it may be resumed
    with existing_ledger(settings) as ledger, bar("repricing") as progress, interruptible("reprice"):
        found = ledger.reprice(selection, prices=file, tz=zone, dry_run=dry_run, command=asked, progress=progress)
    if as_json:
        print_json(_as_dict(found, selection, zone, dry_run=dry_run))
    else:
        console().print(_title(selection, file, zone), style="dim")
        _print_text(found, dry_run=dry_run)
    return 1 if found.calls["conflict"] else 0


def undo(url: str | None, kind: Any, run: str, *, as_json: bool) -> int:
    """Take back a run of `reprice` or `reconcile`; gives the exit status."""
    with existing_ledger(settings_for(url)) as ledger, bar("taking back") as progress, interruptible(kind):
        found = ledger.undo(kind, run.strip(), progress=progress)
    if as_json:
        print_json(
            {
                "run": found.run,
                "taken_back": found.now,
                "taken_back_before": found.before,
                "blocked": found.blocked,
                "conflicts": found.conflicts,
            }
        )
    else:
        click.echo(_undone(found))
    return 1 if found.blocked or found.conflicts else 0


@contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Say what Ctrl-C leaves behind: pages that are whole."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"interrupted; what is written stays, and the same `tollspan {command}` goes on from there", err=True
        )
        raise SystemExit(_INTERRUPTED) from None


def signed(usd: Decimal) -> str:
    """A difference for people: +$0.01, -$0.01, $0.00."""
    return f"{'+' if usd > 0 else '-' if usd < 0 else ''}{money(abs(usd))}"


def _undone(found: Undone) -> str:
    said = f"run {found.run}: {number(found.now, 'adjust')} taken back"
    more = (
        (found.before, "before"),
        (found.blocked, "left, because those calls were corrected since: take that back first"),
        (found.conflicts, "left, because somebody else corrected those calls at this moment: run it again"),
    )
    return "; ".join([said, *(f"{count} {what}" for count, what in more if count)])


def _title(selection: RepriceSelection, file: Path | None, zone: str) -> str:
    begin = "the beginning" if selection.since is None else shown(selection.since, zone)
    finish = "now" if selection.until is None else shown(selection.until, zone)
    named = "" if file is None else f"{plain(str(file))}, then "
    return f"calls from {begin} to {finish}, {zone}; prices of {named}genai-prices {version('genai-prices')}"


def _print_text(found: Repriced, *, dry_run: bool) -> None:
    changed = [row for row in found.rows if row.changed]
    if changed:
        _print_table(changed)
    before, after = (sum(getattr(row, name) for row in found.rows) for name in ("unpriced_before", "unpriced_after"))
    costs, priced = ("would cost", "would have") if dry_run else ("cost", "have")
    click.echo(
        f"{number(found.calls['changed'], 'call')} {costs} something else now, {found.calls['unchanged']} the same"
    )
    if before:
        click.echo(
            f"{found.calls['first']} {priced} a price for the first time; unpriced: {before} before, {after} after"
        )
    for verdict, what in _KEPT.items():
        if count := found.calls[verdict]:  # type: ignore[index]
            click.echo(f"as before: {number(count, 'call')} {what}")
    if count := found.calls["reconciled"]:
        click.echo(f"{number(count, 'day')} of a model had been brought to a bill: run `tollspan reconcile` again")
    if found.run is not None:
        goes_on = " (gone on with)" if found.resumed else ""
        click.echo(f"run {found.run}{goes_on}: `tollspan reprice --undo {found.run}` takes it back")
    elif dry_run:
        click.echo("nothing was written; without --dry-run it is")


def _print_table(rows: list[RepricedRow]) -> None:
    sums = total(rows)
    lines = [*rows, sums] if len(rows) > 1 else rows
    labels = {"day": [row.day for row in rows], "model": [_name(row) for row in rows]}
    if len(rows) > 1:
        labels["day"].append("total")
        labels["model"].append("")
    print_table(
        labels,
        [
            Numbers("calls", "calls", [str(row.calls) for row in lines]),
            Numbers("changed", "chg", [str(row.changed) for row in lines]),
            Numbers("old", "old", [_cost(row, row.old_usd, row.unpriced_before) for row in lines]),
            Numbers("new", "new", [_cost(row, row.new_usd, row.unpriced_after) for row in lines]),
            Numbers("difference", "diff", [signed(row.difference_usd) for row in lines]),
        ],
        total=len(rows) > 1,
    )


def total(rows: list[RepricedRow]) -> RepricedRow:
    """The sum of rows."""
    names = ("calls", "changed", "unpriced_before", "unpriced_after")
    return RepricedRow(
        day="",
        provider=None,
        model=None,
        **{name: sum(getattr(row, name) for row in rows) for name in names},
        old_usd=sum((row.old_usd for row in rows), Decimal(0)),
        new_usd=sum((row.new_usd for row in rows), Decimal(0)),
    )


def _name(row: RepricedRow) -> str:
    return f"{plain(row.provider)}/{plain(row.model)}"


def _cost(row: RepricedRow, usd: Decimal, unpriced: int) -> str:
    return "-" if unpriced == row.calls and not usd else money(usd)


def _as_dict(found: Repriced, selection: RepriceSelection, zone: str, *, dry_run: bool) -> dict[str, Any]:
    since, until = selection.since, selection.until
    return {
        "run": found.run,
        "resumed": found.resumed,
        "dry_run": dry_run,
        "since": None if since is None else iso(since, zone),
        "until": None if until is None else iso(until, zone),
        "timezone": zone,
        "currency": CURRENCY,
        "calls": {name: found.calls[name] for name in ("changed", "first", "unchanged", *_KEPT, "reconciled")},  # type: ignore[index]
        "rows": [{"day": row.day, "provider": row.provider, "model": row.model, **_figures(row)} for row in found.rows],
        "total": _figures(total(found.rows)),
    }


def _figures(row: RepricedRow) -> dict[str, Any]:
    return {
        "calls": row.calls,
        "changed": row.changed,
        "old": exact(row.old_usd),
        "new": exact(row.new_usd),
        "difference": exact(row.difference_usd),
        "unpriced_before": row.unpriced_before,
        "unpriced_after": row.unpriced_after,
    }
