"""`tollspan prices check`: what each model of the ledger costs by the prices of now, and how to price the rest."""

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from tollspan.ledger import BEHIND, PriceBook, PriceCatalog, RateCard, ReportRow, Unpriced, UnpricedCalls

from ._ledgers import existing_ledger, settings_for
from ._price_notes import notes_on
from ._prices import Shown, example_usd, look_up, prices_in
from ._render import Numbers, compact, exact, plain, print_json, print_table
from ._today import number

Status = Literal["priced", "free", "stated", "unbilled", "unpriced"]

_SAYS: dict[Status, str] = {
    "stated": "as stated with its calls",
    "unbilled": "nothing was billed",
    "unpriced": "PRICE MISSING",
}
_OPTIONS = {
    "input_mtok": "--input-mtok",
    "output_mtok": "--output-mtok",
    "cache_read_mtok": "--cache-read-mtok",
    "cache_write_mtok": "--cache-write-mtok",
}
_TEXT_KEYS = ("input_mtok", "output_mtok")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A model of the ledger: its calls, those without a price, what it resolves to now, and what is to be done."""

    row: ReportRow
    now: Shown
    status: Status
    reason: str | None = None
    command: str | None = None
    alias: str | None = None

    @property
    def name(self) -> str:
        return f"{plain(self.now.provider)}/{plain(self.row.group['model'])}"

    @property
    def resolves_to(self) -> str:
        card = self.now.found
        if not isinstance(card, RateCard) or self.status == "unpriced":
            return _SAYS.get(self.status, "")
        where = f" ({self.now.where})" if self.now.where else ""
        return f"{'free' if card.free else card.source}{where}"


def check(url: str | None, *, as_json: bool) -> int:
    """Print what every model of the ledger resolves to; the exit status is 1 where one is unpriced."""
    settings = settings_for(url)
    with existing_ledger(settings) as ledger:
        rows = ledger.report(("provider", "model"))
        missing = {(one.provider, one.model): one for one in ledger.unpriced()}
    book = PriceBook(overrides=settings.prices)
    catalog, now = PriceCatalog(book), time.time()
    found = [_checked(book, catalog, row, missing.get(_group(row)), now) for row in rows]
    notes = list(notes_on(book, catalog, {_group(row)[0] for row in rows}, now))
    if as_json:
        print_json(_as_dict(found, str(settings.prices) if settings.prices else None) | {"notes": notes})
    else:
        _print_text(found)
        for note in notes:
            click.echo(f"{plain(str(settings.prices))}, {plain(note)}")
    return int(any(one.status == "unpriced" for one in found))


def _group(row: ReportRow) -> tuple[str | None, str | None]:
    return row.group["provider"], row.group["model"]


def _checked(
    book: PriceBook, catalog: PriceCatalog, row: ReportRow, missing: UnpricedCalls | None, now: float
) -> _Checked:
    provider, model = _group(row)
    seen = look_up(book, model or "", provider, now)
    units = missing.units if missing else ()
    if isinstance(seen.found, RateCard):
        without = [unit for unit in units if isinstance(seen.found.cost({unit: 1}), Unpriced)]
        if not without:
            behind = _behind(book, catalog, row, units, now)
            return behind or _Checked(row, seen, "free" if seen.found.free else "priced")
        keys = catalog.price_keys(without)
        cost = seen.found.cost({without[0]: 1})
        assert isinstance(cost, Unpriced)
        return _Checked(row, seen, "unpriced", cost.reason, _command(seen, keys) if keys else None)
    if missing is None and not row.refused:
        return _Checked(row, seen, "stated" if row.cost_usd else "unbilled", seen.found.reason)
    if not model:
        return _Checked(row, seen, "unpriced", f"{seen.found.reason}; `tollspan adjust` gives each of them its cost")
    command = _command(seen, _keys(catalog, units))
    return _Checked(row, seen, "unpriced", seen.found.reason, command, _alias(catalog, seen))


def _behind(
    book: PriceBook, catalog: PriceCatalog, row: ReportRow, units: Sequence[str], now: float
) -> _Checked | None:
    """What another model that answered behind the same requests lacks."""
    provider, _ = _group(row)
    for model in sorted({other for _, mark, other in (unit.partition(BEHIND) for unit in units) if mark}):
        seen = look_up(book, model, provider, now)
        if isinstance(seen.found, Unpriced):
            return _Checked(row, seen, "unpriced", seen.found.reason, _command(seen, _TEXT_KEYS), _alias(catalog, seen))
    return None


def _keys(catalog: PriceCatalog, units: Sequence[str]) -> list[str]:
    """The prices that a model needs by what it has used; input and output of text belong together."""
    keys = catalog.price_keys(units)
    return keys if keys and not {*keys} & {*_TEXT_KEYS} else list(dict.fromkeys([*_TEXT_KEYS, *keys]))


def _command(seen: Shown, keys: Sequence[str]) -> str:
    """What sets the prices: beside the built-in ones, or with those of the user's entry that it takes the place of."""
    card = seen.found if isinstance(seen.found, RateCard) else None
    known = prices_in(card.rates()) if card and card.by_user else {}
    prices = known | {key: "USD" for key in keys if key not in known}
    words = [_set(seen), *(["--add"] if card and not card.by_user else [])]
    for key, price in prices.items():
        words += [_OPTIONS[key], price] if key in _OPTIONS else ["--price", f"{key}={price}"]
    return " ".join(words)


def _alias(catalog: PriceCatalog, seen: Shown) -> str | None:
    """What makes it stand for another model: only where its provider has prices, as for a deployment of Azure's."""
    if seen.provider is None or not catalog.has_provider(seen.provider):
        return None
    near = catalog.near_models(seen.model, seen.provider)
    return f"{_set(seen)} --as {shlex.quote(near[0]) if near else 'MODEL'}"


def _set(seen: Shown) -> str:
    at = ["--provider", shlex.quote(seen.provider)] if seen.provider else []
    return " ".join(["tollspan", "prices", "set", shlex.quote(seen.model), *at])


def _as_dict(found: Sequence[_Checked], file: str | None) -> dict[str, Any]:
    unpriced = sum(one.status == "unpriced" for one in found)
    return {"ok": not unpriced, "unpriced": unpriced, "file": file, "models": [_model_dict(one) for one in found]}


def _model_dict(one: _Checked) -> dict[str, Any]:
    card = one.now.found if isinstance(one.now.found, RateCard) else None
    provider, model = _group(one.row)
    return {
        "provider": provider,
        "model": model,
        "calls": one.row.calls,
        "unpriced_calls": one.row.unpriced,
        "cost_usd": exact(one.row.cost_usd),
        "status": one.status,
        "source": card.source if card else None,
        "listed_as": f"{card.provider}/{card.model}" if card else None,
        "prices": card.rates() if card else None,
        "file": one.now.file,
        "lines": list(one.now.lines),
        "reason": one.reason,
        "fix": {"command": one.command, "alias": one.alias} if one.status == "unpriced" else None,
    }


def _print_text(found: Sequence[_Checked]) -> None:
    if found:
        labels = {"model": [one.name for one in found], "price of now": [one.resolves_to for one in found]}
        costs = [example_usd(one.now.found) for one in found]
        columns = [
            Numbers("calls", "calls", [compact(one.row.calls) for one in found]),
            Numbers("unpriced", "unpr.", [compact(one.row.unpriced) if one.row.unpriced else "-" for one in found]),
            Numbers("1k in + 1k out", "1k+1k", ["-" if cost is None else f"${cost.normalize():f}" for cost in costs]),
        ]
        print_table(labels, columns)
    for one in found:
        for line in _fix_lines(one):
            click.echo(line)
    unpriced = sum(one.status == "unpriced" for one in found)
    click.echo(f"\n{number(unpriced, 'model')} of {len(found)} without a price" if unpriced else _all_well(found))


def _fix_lines(one: _Checked) -> Iterator[str]:
    if one.status != "unpriced":
        return
    yield f"\n{one.name}: {plain(one.reason)}"
    if one.command:
        yield f"  give it a price (replace each USD):  {plain(one.command)}"
    if one.command and not isinstance(one.now.found, RateCard):
        yield f"  or, if it costs nothing:             {plain(_set(one.now))} --free"
    if one.alias:
        yield f"  or, if it stands for another model:  {plain(one.alias)}"


def _all_well(found: Sequence[_Checked]) -> str:
    if not found:
        return "no call is in the ledger yet"
    past = sum(one.row.unpriced for one in found)
    if past:
        return f"\nevery model has a price now; {number(past, 'call')} from before that, or without usage, have no cost"
    return "\nevery model has a price"
