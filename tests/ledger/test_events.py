"""Events: their ids, their checks, and what they add to spend."""

import dataclasses
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.ledger import EventType, LedgerEvent, event_id_for, new_call_id

ids = st.tuples(st.binary(min_size=14, max_size=14), st.sampled_from(get_args(EventType)), st.integers(0, 255))


@given(ids, ids)
def test_two_events_share_an_id_only_if_they_are_the_same_event_of_the_same_call(one, other):
    """An event's id is a function of its call, type and number, and of nothing else."""
    assert (event_id_for(*one) == event_id_for(*other)) == (one == other)


@given(st.lists(st.integers(0, 2**38), min_size=2))
def test_call_ids_sort_by_the_time_of_their_calls(instants):
    """Call ids of different instants sort as the calls began, so that the index of ids grows at its end."""
    made = [(second, new_call_id(second)) for second in instants]
    assert [second for second, _ in sorted(made, key=lambda pair: pair[1])] == sorted(instants)


def test_a_number_that_does_not_fit_into_an_id_is_an_error():
    """The 257th event of a type in one call fails, and does not get the id of another event."""
    with pytest.raises(ValueError, match="256"):
        event_id_for(new_call_id(), "retry", 256)


def test_an_event_made_bare_gets_its_ids_and_its_instant():
    """An event without ids gets a fresh call id and the event id that belongs to it."""
    event = LedgerEvent(event_type="commit")
    assert event.event_id == event_id_for(bytes.fromhex(event.call_id), "commit").hex()
    assert int(event.call_id[:12], 16) == int(event.timestamp * 1000)
    assert event.offset is None


@pytest.mark.parametrize("wrong", [{"event_type": "payment"}, {"event_type": "commit", "status": "fine"}])
def test_an_event_of_an_unknown_kind_is_refused_with_the_known_ones(wrong):
    """The error for a wrong type or status names what may stand there."""
    with pytest.raises(ValueError, match="none of"):
        LedgerEvent(**wrong)


def test_events_never_change():
    """An event is immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        LedgerEvent(event_type="commit").status = "error"


@pytest.mark.parametrize(
    ("event_type", "actual", "estimate", "estimated", "spend"),
    [
        ("commit", "2", "3", False, "2"),
        ("commit", "2", "3", True, "2"),
        ("commit", None, "3", True, "3"),
        ("commit", None, "3", False, None),
        ("commit", "0", None, False, "0"),
        ("adjust", "-1", None, False, "-1"),
        ("retry", None, "3", True, "3"),
        ("retry", None, "3", False, None),
        ("precheck_hold", None, "3", True, None),
        ("cancel", None, "3", False, None),
        ("wait", "2", None, False, None),
    ],
)
def test_what_an_event_adds_to_spend(event_type, actual, estimate, estimated, spend):
    """Commits, adjusts and billed retries spend their cost, or their estimate where that is all there will ever be."""
    cost = {"cost_actual_usd": actual and Decimal(actual), "cost_est_usd": estimate and Decimal(estimate)}
    event = LedgerEvent(event_type=event_type, estimated=estimated, **cost)
    assert event.spend_usd == (None if spend is None else Decimal(spend))
