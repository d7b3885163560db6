"""What a call has cost: what the wire states, else its usage at its price, else an estimate. Never a silent 0."""

from collections.abc import Callable

from tollspan.budget import largest_output
from tollspan.exporter import CallRecord, book_usage
from tollspan.ledger import BEHIND, CutStream, RateCard, Unpriced, to_nano

from ._readers import RequestFacts, ResponseFacts

PriceOf = Callable[[str | None, str | None], RateCard | Unpriced]
"""The price of a model at a service tier, for the call's provider and start."""

_CUT = "the stream was cut before its usage came"


def book(
    record: CallRecord, request: RequestFacts, answer: ResponseFacts, price_of: PriceOf, *, cut_stream: CutStream
) -> None:
    """Put the cost of an answer into the record of its call."""
    record.response_model, record.response_id = answer.model, answer.response_id
    record.usage = request.usage_of(answer) if answer.complete else answer.usage
    record.service_tier = answer.service_tier or request.service_tier
    if answer.cost_usd is not None:
        record.cost, record.cost_source = to_nano(answer.cost_usd), "provider"
    elif request.free and not record.usage:
        _book_free(record, None if answer.complete else _CUT)
    elif record.usage is not None:
        book_usage(record, lambda model: price_of(model, record.service_tier))
        _book_others(record, answer, price_of)
    else:
        estimate = _of_what_was_seen(record, request, answer, price_of, cut_stream)
        _book_estimate(record, estimate, "the answer carried no usage" if answer.complete else _CUT)


def _book_free(record: CallRecord, reason: str | None) -> None:
    record.cost, record.cost_source, record.usage, record.reason = 0, "free", {}, reason


def _book_others(record: CallRecord, answer: ResponseFacts, price_of: PriceOf) -> None:
    """Add what other models behind the same request have used, each at its own price and under its own name."""
    for model, usage in answer.others:
        card = price_of(model, None)
        cost = card.cost(usage) if isinstance(card, RateCard) else card
        if isinstance(cost, Unpriced):
            record.cost, record.cost_source, record.reason = None, "unpriced", cost.reason
        elif record.cost is not None:
            record.cost += cost
        record.usage = dict(record.usage or {})
        for key, count in usage.items():
            name = f"{key}{BEHIND}{model}"
            record.usage[name] = record.usage.get(name, 0) + count


def book_unknown(record: CallRecord, request: RequestFacts, price_of: PriceOf, reason: str) -> None:
    """Put the most that the attempt may have cost into the record: nobody can tell whether it was billed."""
    if request.free:
        _book_free(record, reason)
    else:
        _book_estimate(record, upper_bound(record, request, price_of), reason)


def book_unread(record: CallRecord) -> None:
    """Put the hold into the record of a call that an error of our own kept from being booked."""
    _book_estimate(record, record.held.nano if record.held else None, "tollspan could not read the answer")


def upper_bound(
    record: CallRecord, request: RequestFacts, price_of: PriceOf, *, request_bytes: int | None = None
) -> int | None:
    """Nano-USD that one attempt costs at the most: its hold, or else the bound of its request; None where unpriced.

    With `request_bytes`, the size of a small body on the wire, the request is not walked: no text has more tokens.
    """
    if record.held is not None and record.held.nano is not None:
        return record.held.nano
    if request.free:
        return 0
    if not request.priced:
        return None
    card = price_of(request.model, request.service_tier)
    if not isinstance(card, RateCard):
        return None
    output = largest_output(card) if request.max_output_tokens is None else request.max_output_tokens
    tokens = _input_tokens(request, card) if request_bytes is None else request_bytes
    return card.bound(tokens, choices=request.choices).nano(output)


def _book_estimate(record: CallRecord, estimate: int | None, reason: str) -> None:
    record.estimate, record.reason = estimate, reason
    record.cost_source = "unpriced" if estimate is None else "estimate"


def _of_what_was_seen(
    record: CallRecord, request: RequestFacts, answer: ResponseFacts, price_of: PriceOf, cut_stream: CutStream
) -> int | None:
    """The hold, or where there is none, or a setting says so, the most that the bytes seen can have cost.

    A byte-level tokenizer never makes more tokens than there are bytes. But hidden reasoning, and what a provider goes
    on to generate after a cut, nobody sees: only the hold is sure to cover them.
    """
    held = record.held.nano if record.held else None
    if held is not None and cut_stream != "estimate":
        return held
    if not request.stream:  # JSON that was cut, or never read, shows nothing of its output
        return upper_bound(record, request, price_of)
    card = price_of(request.model, request.service_tier)
    if not isinstance(card, RateCard):
        return held
    seen = card.bound(_input_tokens(request, card), choices=request.choices).nano(answer.visible_output_bytes)
    return seen if held is None else min(seen, held)


def _input_tokens(request: RequestFacts, card: RateCard) -> int:
    return card.most_input(request.input_tokens_bound)
