"""What the usage of a stored event costs by the prices known today."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._events import SERVICE_TIER, LedgerEvent
from ._prices import PriceBook, RateCard, Unpriced
from ._units import BEHIND

_TIERS = ("batch", "flex", "priority", "fast")
_BESIDE_PRICES = frozenset({SERVICE_TIER, "region", "flags"})


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What a usage costs today: nano-USD, and by which card."""

    nano: int
    card: RateCard


def cost_of(event: LedgerEvent, book: PriceBook, began: float) -> Recomputed | Unpriced:
    """What the usage of an event costs; of other models behind the same request each at its own price."""
    own: dict[str, float] = {}
    others: dict[str, dict[str, float]] = {}
    for key, count in event.usage.items():
        unit, mark, model = key.partition(BEHIND)
        (others.setdefault(model, {}) if mark else own)[unit] = count
    region, tier = (event.cost_rates or {}).get("region"), _tier_of(event, book, began)
    card = book.resolve(provider=event.provider, model=event.model, at=began, service_tier=tier, region=region)
    if isinstance(card, Unpriced):
        return card
    total = card.cost(own)
    if isinstance(total, Unpriced):
        return total
    for model, usage in others.items():
        other = book.resolve(provider=event.provider, model=model, at=began, region=region)
        cost = other.cost(usage) if isinstance(other, RateCard) else other
        if isinstance(cost, Unpriced):
            return cost
        total += cost
    return Recomputed(total, card)


def _tier_of(event: LedgerEvent, book: PriceBook, began: float) -> str | None:
    """The service tier of a call: the one recorded, else the one whose rates of today are those it was priced by.

    A call of which neither tells anything is one of the standard tier.
    """
    rates = dict(event.cost_rates or {})
    recorded = rates.get(SERVICE_TIER)
    if recorded is not None:
        return str(recorded)
    for tier in (None, *_TIERS) if rates else ():
        card = book.resolve(
            provider=event.provider, model=event.model, at=began, service_tier=tier, region=rates.get("region")
        )
        if isinstance(card, RateCard) and _prices_in(card.rates()) == _prices_in(rates):
            return tier
    return None


def _prices_in(rates: Mapping[str, Any]) -> dict[str, Any]:
    """The prices alone, without what else is told of them."""
    return {name: price for name, price in rates.items() if name not in _BESIDE_PRICES}


def rates_with_tier(card: RateCard, event: LedgerEvent) -> dict[str, Any]:
    """The prices of a card for the record, with the tier that was recorded of the call."""
    tier = (event.cost_rates or {}).get(SERVICE_TIER)
    return card.rates() if tier is None else {**card.rates(), SERVICE_TIER: tier}
