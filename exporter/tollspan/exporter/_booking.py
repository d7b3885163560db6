"""What usage costs, put into the record of its call: the same for calls of ours and of others."""

from collections.abc import Callable
from decimal import Decimal

from tollspan.ledger import RateCard, Unpriced, to_nano

from ._record import CallRecord


def book_usage(record: CallRecord, price_of: Callable[[str | None], RateCard | Unpriced]) -> None:
    """Price the record's usage, or say why that has no price.

    By the model that answered, or else by the one that was asked for: gateways answer with names of their own.
    """
    reason = None
    for model in dict.fromkeys((record.model, record.request_model)):
        card = price_of(model)
        cost = card.cost(record.usage or {}) if isinstance(card, RateCard) else card
        if isinstance(card, RateCard) and isinstance(cost, int):
            record.cost, record.cost_source, record.rate_card = cost, card.source, card
            return
        reason = reason or (cost.reason if isinstance(cost, Unpriced) else None)
    record.cost_source, record.reason = "unpriced", reason


def book_stated(
    record: CallRecord, stated_usd: str | Decimal, source: str, price_of: Callable[[str | None], RateCard | Unpriced]
) -> None:
    """Put a cost in USD that others have stated into the record; where the user's own price fits its usage, that one.

    A contract is known to the user alone: what a provider or a span states is by its list prices.
    """
    for model in dict.fromkeys((record.model, record.request_model)) if record.usage else ():
        card = price_of(model)
        cost = card.cost(record.usage or {}) if isinstance(card, RateCard) and card.by_user else None
        if isinstance(card, RateCard) and isinstance(cost, int):
            record.cost, record.cost_source, record.rate_card = cost, card.source, card
            return
    record.cost, record.cost_source = to_nano(stated_usd), source
