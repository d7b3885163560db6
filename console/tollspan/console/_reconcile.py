"""`tollspan reconcile`: a provider's export of costs or usage beside the ledger, and the adjusts that settle it."""

import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tollspan.ledger import (
    BillError,
    BillFormat,
    Explanation,
    QueryError,
    Reconciled,
    ReconciledRow,
    Tolerance,
)

from ._ledgers import existing_ledger, settings_for
from ._progress import bar
from ._render import CURRENCY, Numbers, console, exact, money, plain, print_csv, print_json, print_table
from ._reprice import interruptible, signed
from ._today import number
from ._when import instant

_COLUMNS = ("day", "model", "sides", "billed", "ledger", "difference", "capture_rate", "within", "unit", "reasons")
_MOST_NAMES = 10


def show(
    url: str | None,
    *,
    files: Sequence[str],
    form: BillFormat | None,
    since: str | None,
    until: str | None,
    same: Sequence[str],
    tolerance: str,
    adjust: bool,
    one_sided: bool,
    as_json: bool,
    as_csv: bool,
) -> int:
    """Compare, adjust where that is asked for, and print; gives the exit status."""
    bounds, allowed, pairs = _bounds(since, until), Tolerance.read(tolerance), _pairs(same)
    with existing_ledger(settings_for(url)) as ledger, bar("reading") as progress, interruptible("reconcile"):
        try:
            found = ledger.reconcile(
                [Path(file) for file in files],
                form=form,
                same=pairs,
                tolerance=allowed,
                adjust=adjust,
                one_sided=one_sided,
                progress=progress,
                **bounds,
            )
        except OSError as error:
            raise BillError(f"{plain(str(error.filename))} cannot be read: {error.strerror}") from error
    if as_json:
        print_json(_as_dict(found))
    elif as_csv:
        print_csv(_COLUMNS, ([record[name] for name in _COLUMNS] for record in map(_flat, _all(found), _units(found))))
    else:
        _print_text(found, tolerance)
    return 0 if (found.after or found).is_within else 1


def _bounds(since: str | None, until: str | None) -> dict[str, float | None]:
    now, asked = time.time(), {"since": since, "until": until}
    return {
        name: None if text is None else instant(text, tz="UTC", now=now, option=f"--{name}")
        for name, text in asked.items()
    }


def _pairs(same: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in same:
        exported, equals, own = (part.strip() for part in text.partition("="))
        if not (exported and equals and own):
            raise QueryError(f"--map: {text!r} is no pair; write the export's name and the ledger's, like 'A=B'")
        pairs[exported] = own
    return pairs


# ---- for people


def _print_text(found: Reconciled, tolerance: str) -> None:
    days = [row.day for row in found.rows]
    span = f"{days[0]} to {days[-1]}" if days else "no day"
    console().print(f"{found.format} beside the ledger's calls of {found.provider}, {span}, UTC", style="dim")
    if found.rows:
        _print_table(found)
    for row in found.rows:
        if row.reasons and (not row.is_within or row.sides == "other"):
            _say(f"{row.day} {plain(row.model)}", row.reasons)
    for reason in found.reasons:
        click.echo(f"note: {plain(reason.text)}")
    _print_names("the export", found.only_billed)
    _print_names("the ledger", found.only_counted)
    _print_adjusted(found)
    off = [row for row in (found.after or found).rows if not row.is_within]
    if (found.after or found).is_within:
        click.echo(f"within {tolerance}")
    else:
        click.echo(f"out of {tolerance}: {number(len(off), 'row')}{'' if found.total.is_within else ', and the total'}")


def _say(what: str, reasons: Iterable[Explanation]) -> None:
    click.echo(f"{what}: {'; '.join(plain(reason.text) for reason in reasons)}")


def _print_names(side: str, names: Sequence[str]) -> None:
    if names:
        more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        shown = ", ".join(map(plain, names[:_MOST_NAMES]))
        click.echo(f"only {side} names: {shown}{more} (the same model under two names? --map EXPORT=LEDGER)")


def _print_adjusted(found: Reconciled) -> None:
    if found.run is not None:
        undo = f"`tollspan reconcile --undo {found.run}` takes them back"
        click.echo(f"run {found.run}: {number(found.adjusted, 'row')} adjusted; {undo}")
    for why, count in found.left.items():
        click.echo(f"not adjusted, {number(count, 'row')}: {why}")


def _print_table(found: Reconciled) -> None:
    lines = _all(found)
    amount = money if found.measure == "usd" else _whole
    difference = signed if found.measure == "usd" else _signed_whole
    print_table(
        {
            "day": [*(row.day for row in found.rows), "total"],
            "model": [*(row.model for row in found.rows), ""],
        },
        [
            Numbers("billed", "bill", [amount(row.billed) for row in lines]),
            Numbers("ledger", "ledger", [amount(row.counted) for row in lines]),
            Numbers("difference", "diff", [difference(row.difference) for row in lines]),
            Numbers("captured", "capt", [_percent(row) for row in lines]),
            Numbers("", "", ["" if row.is_within else "!" for row in lines]),
        ],
        total=True,
    )


def _percent(row: ReconciledRow) -> str:
    return "-" if row.capture_rate is None else f"{row.capture_rate * 100:.1f}%"


def _whole(count: Decimal) -> str:
    return f"{count:,.0f}"


def _signed_whole(count: Decimal) -> str:
    return f"{count:+,.0f}" if count else "0"


# ---- for programs


def _all(found: Reconciled) -> list[ReconciledRow]:
    return [*found.rows, found.total]


def _units(found: Reconciled) -> list[str]:
    return [CURRENCY if found.measure == "usd" else "tokens"] * len(_all(found))


def _flat(row: ReconciledRow, unit: str) -> dict[str, Any]:
    return {
        **_figures(row, usd=unit == CURRENCY),
        "day": row.day or "total",
        "unit": unit,
        "within": str(row.is_within).lower(),
        "reasons": "; ".join(reason.text for reason in row.reasons),
    }


def _figures(row: ReconciledRow, *, usd: bool) -> dict[str, Any]:
    write = exact if usd else int
    rate = row.capture_rate
    return {
        "day": row.day,
        "model": row.model,
        "sides": row.sides,
        "billed": write(row.billed),
        "ledger": write(row.counted),
        "difference": write(row.difference),
        "capture_rate": None if rate is None else f"{rate:.6f}",
        "within": row.is_within,
        "whole_day": row.is_whole,
    }


def _as_dict(found: Reconciled) -> dict[str, Any]:
    usd = found.measure == "usd"
    total = _figures(found.total, usd=usd)
    return {
        "format": found.format,
        "provider": found.provider,
        "unit": CURRENCY if usd else "tokens",
        "rows": [_figures(row, usd=usd) | {"reasons": _reasons(row.reasons)} for row in found.rows],
        "total": {name: total[name] for name in ("billed", "ledger", "difference", "capture_rate", "within")},
        "reasons": _reasons(found.reasons),
        "only_billed": found.only_billed,
        "only_counted": found.only_counted,
        "within": (found.after or found).is_within,
        "run": found.run,
        "adjusted": found.adjusted,
        "left": found.left,
    }


def _reasons(reasons: Iterable[Explanation]) -> list[dict[str, Any]]:
    return [{"code": each.code, "text": each.text, "calls": each.calls, "usd": exact(each.usd)} for each in reasons]
