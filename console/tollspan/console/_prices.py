"""`tollspan prices show`: what a model costs, by which list or line, and what is near where nobody knows it."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click

from tollspan.ledger import PriceBook, PriceCatalog, RateCard, Unpriced, to_usd

from ._ledgers import settings_for
from ._render import exact, plain, print_json
from ._when import instant, iso, shown

EXAMPLE = {"tokens_in": 1000, "tokens_out": 1000}
_SERVICE_TIERS = ("batch", "flex", "priority", "fast")
_DENOMINATORS = {
    "mtok": "USD per million tokens",
    "mchars": "USD per million characters",
    "kcount": "USD per thousand",
    "kpages": "USD per thousand pages",
    "hours": "USD per hour",
}
_LIKELIER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A model at a provider, its card or why it has none, and the lines of the user's file that speak of it."""

    model: str
    provider: str | None
    at: float
    tier: str | None
    found: RateCard | Unpriced
    file: str | None
    lines: tuple[int, ...]

    @property
    def where(self) -> str:
        """The file and its lines, for people; empty where the file has nothing to do with it."""
        lines = " and ".join(map(str, self.lines))
        return f"{plain(self.file)}, line{'s' if len(self.lines) > 1 else ''} {lines}" if self.lines else ""


def look_up(book: PriceBook, model: str, provider: str | None, at: float, tier: str | None = None) -> Shown:
    """What the prices say of a model at an instant."""
    lines = book.own_lines(provider=provider, model=model, at=at, service_tier=tier)
    return Shown(
        model=model,
        provider=provider,
        at=at,
        tier=tier,
        found=book.resolve(provider=provider, model=model, at=at, service_tier=tier),
        file=str(book.own.path) if lines else None,
        lines=lines,
    )


def show(
    url: str | None,
    model: str,
    *,
    provider: str | None,
    at: str | None,
    tier: str | None,
    tz: str | None,
    as_json: bool,
) -> int:
    """Print the prices of a model; the exit status is 1 where it has none."""
    settings = settings_for(url)
    zone, now = tz or settings.timezone, time.time()
    when = now if at is None else instant(at, tz=zone, now=now, option="--at")
    book = PriceBook(overrides=settings.prices)
    catalog = PriceCatalog(book)
    model, provider, others = _located(book, catalog, model, provider, when)
    found = look_up(book, model, provider, when, tier)
    near = _near(catalog, found)
    if as_json:
        print_json(_as_dict(found, zone) | {"also_at": others, "near": near})
    else:
        for line in _lines(book, found, zone, others, near):
            click.echo(line)
    return int(not isinstance(found.found, RateCard))


def _located(
    book: PriceBook, catalog: PriceCatalog, model: str, provider: str | None, at: float
) -> tuple[str, str | None, list[str]]:
    """The model, its provider, and the others who sell it, where no provider was named: first its maker."""
    before, slash, rest = model.partition("/")
    if provider is None and slash and catalog.has_provider(before):
        provider, model = before, rest
    if provider is not None or isinstance(book.resolve(provider=None, model=model, at=at), RateCard):
        return model, provider, []
    sellers = catalog.providers_of(model, at)
    return model, (sellers[0] if sellers else None), sellers[1:]


def _near(catalog: PriceCatalog, shown_: Shown) -> list[str]:
    if isinstance(shown_.found, RateCard):
        return []
    if shown_.provider is not None and not catalog.has_provider(shown_.provider):
        return [f"{name}/{shown_.model}" for name in catalog.near_providers(shown_.provider)]
    return catalog.near_models(shown_.model, shown_.provider)


# ---- for programs


def _as_dict(one: Shown, zone: str) -> dict[str, Any]:
    found = one.found
    card = found if isinstance(found, RateCard) else None
    return {
        "model": one.model,
        "provider": one.provider,
        "at": iso(one.at, zone),
        "service_tier": one.tier,
        "priced": card is not None,
        "reason": found.reason if isinstance(found, Unpriced) else None,
        "source": card.source if card else None,
        "listed_as": f"{card.provider}/{card.model}" if card else None,
        "prices": card.rates() if card else None,
        "free": bool(card and card.free),
        "context_window": card.context_window if card else None,
        "max_output_tokens": card.max_output_tokens if card else None,
        "hold_usd": exact(found.hold_usd),
        "file": one.file,
        "lines": list(one.lines),
        "example": {**EXAMPLE, "cost_usd": exact(example_usd(found))},
    }


def example_usd(found: RateCard | Unpriced) -> Decimal | None:
    """What a call of 1000 tokens in and 1000 out costs, in USD; None where one of them has no price."""
    cost = found.cost(EXAMPLE) if isinstance(found, RateCard) else found
    return to_usd(cost) if isinstance(cost, int) else None


def prices_in(listed: Mapping[str, Any]) -> dict[str, str]:
    """The prices among what a card lists, by price key."""
    return {key: price for key, price in listed.items() if isinstance(price, str) and _ending(key) in _DENOMINATORS}


def _ending(key: str) -> str:
    return key.partition(":")[0].rpartition("_")[2]


# ---- for people


def _lines(book: PriceBook, one: Shown, zone: str, others: list[str], near: list[str]) -> Iterator[str]:
    tier = f", service tier {plain(one.tier)}" if one.tier else ""
    nowhere = "at any provider" if isinstance(one.found, RateCard) else "at no provider that is known"
    where = f"at {plain(one.provider)}" if one.provider else nowhere
    yield f"{plain(one.model)} {where}{tier}, {shown(one.at, zone)} {zone}"
    if isinstance(one.found, RateCard):
        yield from _card_lines(one.found, one)
        yield from _tier_lines(book, one)
    else:
        yield f"  {plain(one.found.reason)}"
    if one.found.hold_usd is not None:
        yield f"  a call whose cost has no bound holds ${one.found.hold_usd:f}"
    if others:
        more = ", ..." if len(others) > _LIKELIER else ""
        yield f"also at {', '.join(others[:_LIKELIER])}{more} (--provider NAME shows those prices)"
    if near:
        yield f"near names: {', '.join(map(plain, near))}"
    if isinstance(one.found, Unpriced):
        yield "`tollspan prices set` gives it a price"


def _card_lines(card: RateCard, one: Shown) -> Iterator[str]:
    alias = "" if card.model.lower() == one.model.lower() else f", as {plain(card.provider)}/{plain(card.model)}"
    yield f"  source: {card.source}{alias}{f' ({one.where})' if one.where else ''}"
    if card.free:
        yield "  free: it costs nothing, whatever it uses"
        return
    listed = card.rates()
    if "multiplier" in listed:
        yield f"  {listed['multiplier']} times the prices of {listed['of']}:"
    yield from _price_lines(listed)
    for tier in listed.get("tiers", ()):
        yield f"  with more than {tier['above']:,} tokens in:"
        yield from _price_lines(tier)
    for what, tokens in (("context window", card.context_window), ("most output", card.max_output_tokens)):
        yield f"  {what}: {'not known' if tokens is None else f'{tokens:,} tokens'}"
    example = example_usd(card)
    if example is not None:
        yield f"  1000 tokens in and 1000 out cost ${example.normalize():f}"


def _price_lines(listed: Mapping[str, Any]) -> Iterator[str]:
    for key, price in prices_in(listed).items():
        yield f"    {plain(key):32} {price:>12} {_DENOMINATORS[_ending(key)]}"


def _tier_lines(book: PriceBook, one: Shown) -> Iterator[str]:
    """The service tiers that have other prices, by what the example costs there."""
    if one.tier:
        return
    usual = example_usd(one.found)
    for tier in _SERVICE_TIERS:
        found = book.resolve(provider=one.provider, model=one.model, at=one.at, service_tier=tier)
        cost = example_usd(found)
        if cost is not None and cost != usual:
            yield f"  at the service tier {tier}: ${cost.normalize():f} (--tier {tier} shows its prices)"
