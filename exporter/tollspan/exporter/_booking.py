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
    for model in dict.fromkeys((record.model, record.request_model)):
        card = price_of(model)
        cost = card.cost(record.usage or {}) if isinstance(card, RateCard) else card
        if isinstance(card, RateCard) and isinstance(cost, int):
            record.cost, record.cost_source, record.rate_card = cost, card.source, card
            record.doubts = card.doubts(record.usage or {})
            return
        reason = reason or (cost.reason if isinstance(cost, Unpriced) else None)
    record.cost_source, record.reason = "unpriced", reason


def book_stated(record: CallRecord, usd: Decimal | str, source: str, price_of: PriceOf) -> None:
    """Book a cost that somebody states: unless the user has given prices of their own, which go before it."""
    cards = (price_of(model) for model in dict.fromkeys((record.model, record.request_model)))
    if record.usage and any(isinstance(card, RateCard) and card.by_user for card in cards):
        book_usage(record, lambda model: _by_user(price_of(model)))
        if record.cost is not None:
            return
    record.cost, record.cost_source, record.reason = to_nano(usd), source, None


def _by_user(card: RateCard | Unpriced) -> RateCard | Unpriced:
    listed = isinstance(card, RateCard) and not card.by_user
    return Unpriced("no price of the user's own") if listed else card
