"""What in a price file has no effect, or not the one that is meant: names that nobody has, entries that are hidden."""

import math
from collections.abc import Container, Iterator

from tollspan.ledger import PriceBook, PriceCatalog, PriceFile, RateCard

_GLOB = "*?["


def notes_on(book: PriceBook, catalog: PriceCatalog, used: Container[str | None], at: float) -> Iterator[str]:
    """One sentence for each thing to look at; `used` are the providers of the ledger."""
    own = book.own
    named = [(e.line, e.provider) for e in own.entries] + [(a.line, a.provider) for a in own.aliases]
    for line, provider in named:
        if provider is not None and provider not in used and not catalog.has_provider(provider):
            near = catalog.near_providers(provider)
            meant = f" (did you mean {near[0]}?)" if near else ""
            yield f"line {line}: provider {provider!r} is in no list, nor in this ledger{meant}"
    for alias in own.aliases:
        if not any(mark in alias.name for mark in _GLOB) and not _leads_on(book, alias.name, alias.provider, at):
            yield f"line {alias.line}: {alias.name!r} stands for {alias.target!r}, which has no price"
    yield from _hidden(own)


def _leads_on(book: PriceBook, name: str, provider: str | None, at: float) -> bool:
    return isinstance(book.resolve(provider=provider, model=name, at=at), RateCard)


def _hidden(own: PriceFile) -> Iterator[str]:
    """The entries whose models another one answers for, always and in all tiers."""
    for number, one in enumerate(own.entries):
        for before in own.entries[:number]:
            always = (before.since, before.until, before.service_tier) == (-math.inf, math.inf, None)
            same = (before.provider, before.model) == (one.provider, one.model)
            if always and not same and before.matches(one.provider, (one.model,)):
                yield f"line {one.line}: no model comes to it, because line {before.line} matches all: move it up"
                break
