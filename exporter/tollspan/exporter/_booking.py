"""What usage costs, put into the record of its call: the same for calls of ours and of others."""

from collections.abc import Callable
from decimal import Decimal

from tollspan.ledger import RateCard, Unpriced, to_nano

from ._record import CallRecord

PriceOf = Callable[[str | None], RateCard | Unpriced]
"""The price of a model, for the rest of what is known of the call."""


def book_usage(record: CallRecord, price_of: PriceOf) -> None:
    """Price the record's usage, or say why that has no price.

    By the model that answered, or else by the one that was asked for: gateways answer with names of their own.
    """
    reason = None
    for card in _cards(record, price_of):
        cost = card.cost(record.usage or {}) if isinstance(card, RateCard) else card
        if isinstance(card, RateCard) and isinstance(cost, int):
            record.cost, record.cost_source, record.rate_card = cost, card.source, card
            record.doubts = card.doubts(record.usage or {})
            return
        reason = reason or (cost.reason if isinstance(cost, Unpriced) else None)
    record.cost_source, record.reason = "unpriced", reason


def book_stated(record: CallRecord, stated_usd: str | Decimal, source: str, price_of: PriceOf) -> None:
    """Put a cost in USD that others have stated into the record; where the user's own price fits its usage, that one.

    A contract is known to the user alone: what a provider or a span states is by its list prices.
    """
    card = next((card for card in _cards(record, price_of) if isinstance(card, RateCard)), None)
    if record.usage and card is not None and card.by_user and isinstance(cost := card.cost(record.usage), int):
        record.cost, record.cost_source, record.rate_card = cost, card.source, card
        record.doubts = card.doubts(record.usage)
        return
    record.cost, record.cost_source = to_nano(stated_usd), source


def _cards(record: CallRecord, price_of: PriceOf) -> list[RateCard | Unpriced]:
    """The prices to try: of the model that answered, then of the one that was asked for.

    A price of the user's own for the name that was asked for goes first where nobody else knows that name, as of a
    deployment, and where the lists have both names for one model, as of a snapshot. Where another model has answered,
    it says nothing.
    """
    answered = price_of(record.model)
    if record.request_model in (None, record.model):
        return [answered]
    asked = price_of(record.request_model)
    if isinstance(asked, RateCard) and isinstance(answered, RateCard) and asked.by_user:
        one_model = asked.listed_as == answered.model and not answered.by_user
        return [asked, answered] if asked.listed_as is None or one_model else [answered, asked]
    return [answered, asked]
