"""From a record to its events: what is booked for each way a call can end."""

from decimal import Decimal

import pytest
from records import LIMITS, TOKENS, USD, a_record, held_by

from tollspan.exporter import hold_event, retry, settlement, wait_event, withdrawal
from tollspan.ledger import PriceBook, event_id_for, event_of

NANO = Decimal(1).scaleb(-9)

# What is known at the end -> (event, estimated, spend in nano-USD, charges in USD, tokens and requests)
ENDS = {
    "billed, priced": ({}, "commit", False, 3000, (3000, 120, 1)),
    "billed, free": ({"cost": 0}, "commit", False, 0, (0, 120, 1)),
    "billed, without usage": (
        {"usage": None, "cost": None, "estimate": 9000}, "commit", True, 9000, (9000, 5000, 1),
    ),
    "billed, unpriced": ({"cost": None}, "commit", False, None, (9000, 120, 1)),
    "a cut stream, estimated below its hold": (
        {"usage": None, "cost": None, "estimate": 700}, "commit", True, 700, (700, 5000, 1),
    ),
    "unknown": (
        {"outcome": "unknown", "usage": None, "cost": None, "estimate": 9000}, "commit", True, 9000, (9000, 5000, 1),
    ),
    "unknown and unpriced": (
        {"outcome": "unknown", "usage": None, "cost": None}, "commit", True, None, (9000, 5000, 1),
    ),
    "unbilled": ({"outcome": "unbilled", "usage": None, "cost": None}, "cancel", False, None, ()),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_event_that_ends_a_call(end):
    """A call ends with one event that says what was spent, charges each limit in its unit, and releases the hold."""
    fields, event_type, estimated, spend, charges = end
    record = a_record(limits=LIMITS, **fields)
    record.held = held_by(record)
    entry = settlement(record)
    event = entry.event
    assert (event.event_type, event.estimated) == (event_type, estimated)
    assert event.spend_usd == (None if spend is None else spend * NANO)
    assert tuple(charge.amount for charge in event.charges) == charges
    assert [(c.budget, c.scope, c.window_start) for c in event.charges] == [x.key for x in LIMITS][: len(charges)]
    assert entry.release == event_id_for(record.call_id, "precheck_hold")


def test_a_call_without_a_hold_is_charged_what_it_used():
    """In best_effort nothing is held: an answer is charged by its usage, and an unknown end by its estimate."""
    entry = settlement(a_record(limits=LIMITS))
    assert entry.release is None
    assert [charge.amount for charge in entry.event.charges] == [3000, 120, 1]
    unknown = a_record(limits=LIMITS, outcome="unknown", usage=None, cost=None, estimate=700)
    assert [charge.amount for charge in settlement(unknown).event.charges] == [700, 0, 1]


def test_a_settlement_is_the_same_event_whenever_it_is_made():
    """An event that has to be made again, after a failed write, is a replay and no conflict."""
    entry = settlement(a_record(limits=LIMITS))
    event = entry.event
    assert entry.event == event
    assert event.timestamp == 1_700_000_000.25


def test_who_and_what_a_call_belongs_to():
    """Dimensions become the columns that reports group by; all others are tags only if they are tags."""
    dimensions = {"profile": "p", "user": "u", "session": "s", "run": "r", "tag:feature": "search", "tag:a:b": "c"}
    event = settlement(a_record(dimensions=dimensions, trace_id=7, span_id=8)).event
    assert (event.profile_id, event.user_id, event.session_id, event.run_id) == ("p", "u", "s", "r")
    assert event.tags == {"feature": "search", "a:b": "c"}
    assert (event.trace_id, event.span_id) == ("0" * 31 + "7", "0" * 15 + "8")
    bare = settlement(a_record()).event
    assert (bare.trace_id, bare.span_id, bare.profile_id, bare.tags) == (None, None, None, {})


@pytest.mark.parametrize(("answered", "model"), [(None, "gpt-4o"), ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06")])
def test_the_model_is_the_one_that_answered(answered, model):
    """The model of an event is the one that answered, or else the one that was asked for."""
    assert settlement(a_record(response_model=answered)).event.model == model


def test_how_a_call_went_is_kept():
    """Status, error, attempts, times, source and reason of the cost reach the event as they are."""
    fields = {
        "status": "error",
        "error_type": "rate_limit",
        "error_message": "slow down",
        "http_status": 429,
        "attempts": 3,
        "reason": "why",
    }
    event = settlement(a_record(ttft_ms=12.34567, **fields)).event
    assert {name: getattr(event, name) for name in fields} == fields
    assert event.timing == {"total_ms": 250.0, "ttft_ms": 12.346}
    assert event.cost_source == "genai-prices"


def test_a_hold_says_what_it_holds():
    """The hold's event carries its upper bound and its amounts, and adds nothing to spend."""
    record = a_record()
    event = event_of(hold_event(record, held_by(record), 0))
    assert (event.event_id, event.event_type) == (held_by(record).hold_id.hex(), "precheck_hold")
    assert (event.cost_est_usd, event.spend_usd) == (9000 * NANO, None)
    assert [charge.amount for charge in event.charges] == [9000, 5000, 1]


def test_a_repeated_attempt_is_spent_only_if_it_may_have_been_billed():
    """A retry after an unknown outcome books the estimate and ends the hold; after an unbilled one it does neither."""
    record = a_record(limits=LIMITS, usage=None, cost=None, estimate=9000, outcome="unknown")
    record.held = held_by(record)
    billed, unbilled = retry(record, 1, billed=True), retry(record, 1, billed=False)
    assert billed.release == record.held.hold_id
    assert (billed.event.spend_usd, billed.event.estimated) == (9000 * NANO, True)
    assert [charge.amount for charge in billed.event.charges] == [9000, 5000, 1]
    assert (unbilled.release, unbilled.event.spend_usd, unbilled.event.charges) == (None, None, ())


def test_the_events_of_a_call_never_share_an_id():
    """Holds, their withdrawals, retries, waits and the end of one call are different events, however it ends."""
    record = a_record(outcome="unbilled", cost=None)
    held = held_by(record)
    events = [
        *(hold_event(record, held, attempt) for attempt in range(3)),
        *(withdrawal(record, attempt) for attempt in range(3)),
        *(retry(record, attempt, billed=True).posting for attempt in (1, 2)),
        wait_event(record, 12.5),
        settlement(record).posting,
        settlement(a_record(call_id=record.call_id)).posting,
    ]
    assert len({event.event_id for event in events}) == len(events)
    assert {event.call_id for event in events} == {record.call_id}


@pytest.mark.parametrize("tier", [None, "", "auto", "default", "standard", "On_Demand", "standard_only"])
def test_the_standard_tier_is_not_worth_a_word(tier):
    """Nearly all calls are billed by it, and share the text of their prices."""
    assert settlement(a_record(service_tier=tier)).event.cost_rates is None


def test_another_service_tier_stands_with_the_prices():
    """Without it nobody could price the call again; a call without a price has it too."""
    card = PriceBook().resolve(provider="openai", model="gpt-4o", at=1_795_200_000.0, service_tier="batch")
    event = settlement(a_record(service_tier="Batch", rate_card=card)).event
    assert event.cost_rates == {**card.rates(), "service_tier": "batch"}
    assert settlement(a_record(service_tier="flex", cost=None)).event.cost_rates == {"service_tier": "flex"}


def test_a_wait_says_how_long():
    """A wait event carries the milliseconds in line, and no cost."""
    event = event_of(wait_event(a_record(), 1234.56789))
    assert (event.event_type, event.timing, event.spend_usd) == ("wait", {"total_ms": 1234.568}, None)


def test_what_is_held_in_a_limit_that_was_not_asked_is_nothing():
    """A hold answers for its own limits, by key, and holds 0 in any other."""
    record = a_record()
    held = held_by(record)
    assert [held.amount(limit) for limit in (USD, TOKENS)] == [9000, 5000]
    assert held.amount(type(USD)("other", "", 0, "USD", 1)) == 0
