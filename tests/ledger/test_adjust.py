"""Corrections of what a call has cost: events that are added, where the call counts."""

import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import commit

from tollspan.ledger import Charge, Ledger, LedgerConflict, fetched_call_id, new_call_id, to_nano

B, TOKENS = ("b", "", 0), ("b [tokens]", "", 0)


def spent(usd, **fields):
    """A commit of a call that has cost so much, and counts in a budget in USD and in one in tokens."""
    charges = (
        Charge(budget="b", scope="", window_start=0, amount=to_nano(Decimal(usd))),
        Charge(budget="b [tokens]", scope="", window_start=0, amount=40),
    )
    return commit(usd, charges=charges, **fields)


def estimated(usd, **fields):
    return spent(usd, cost_actual_usd=None, cost_est_usd=Decimal(usd), estimated=True, **fields)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as own:
        yield own


def test_an_estimate_becomes_what_was_really_paid(ledger):
    """The estimate is taken back and the cost put in its place, in balances and in the day's spend alike."""
    event = estimated("0.10")
    ledger.append(event)
    back, put = ledger.adjust(event.call_id, Decimal("0.03"), reason="the invoice")
    assert (back.spend_usd, back.estimated, put.spend_usd, put.estimated) == (
        Decimal("-0.10"), True, Decimal("0.03"), False,
    )  # fmt: skip
    assert {back.reason, put.reason} == {"the invoice"}
    balance = ledger.balance(B)
    assert (balance.spent, balance.estimated) == (30_000_000, 0)
    assert ledger.balance(TOKENS).spent == 40
    assert ledger.spend_today() == 0.03
    assert not ledger.verify()
    assert [e.event_type for e in ledger.events] == ["commit", "adjust", "adjust"]


def test_a_cost_that_is_right_already_adds_nothing(ledger):
    """To correct a call twice in the same way is harmless."""
    event = spent("0.10")
    ledger.append(event)
    assert ledger.adjust(event.call_id, Decimal("0.10"), reason="checked") == []
    ledger.adjust(event.call_id, Decimal("0.30"), reason="the invoice")
    assert ledger.adjust(event.call_id, Decimal("0.30"), reason="the invoice") == []
    assert ledger.balance(B).spent == 300_000_000


def test_a_correction_counts_in_the_window_of_its_call(ledger):
    """What is corrected today of a call of yesterday changes yesterday."""
    yesterday = time.time() - 86_400
    event = spent("0.10", call_id=new_call_id(yesterday).hex(), timestamp=yesterday)
    ledger.append(event)
    ledger.adjust(event.call_id, Decimal(0), reason="a credit")
    assert ledger.spend_today() == 0
    assert ledger.balance(B).spent == 0
    assert not ledger.verify()


def test_a_call_without_a_price_gets_one(ledger):
    """What was unpriced is known now, and no estimate is taken back."""
    event = commit(cost_actual_usd=None, cost_source="unpriced")
    ledger.append(event)
    (put,) = ledger.adjust(event.call_id, Decimal("0.25"), reason="the invoice")
    assert put.cost_actual_usd == Decimal("0.25")
    assert ledger.spend_today() == 0.25


def test_a_call_that_is_not_there_is_an_error(ledger):
    """A wrong id is told, and nothing is stored."""
    with pytest.raises(KeyError, match="no spend of a call"):
        ledger.adjust(new_call_id().hex(), Decimal(1), reason="a typing error")
    assert ledger.latest_offset() == 0


def test_a_call_is_corrected_as_often_as_there_are_ids(ledger):
    """More corrections than a call has ids for are refused, and nothing is lost."""
    event = spent("0.10")
    ledger.append(event)
    for cents in range(255):
        ledger.adjust(event.call_id, Decimal(cents), reason="again")
    with pytest.raises(LedgerConflict, match="no more fits"):
        ledger.adjust(event.call_id, Decimal(1), reason="again")
    assert ledger.balance(B).spent == 254 * 10**9
    assert not ledger.verify()


def test_a_fetched_answer_that_had_no_estimate_can_be_corrected(ledger):
    """Its adjust is number 1 and there is no number 0; the next one is number 2 all the same."""
    began = time.time()
    event = commit(cost_actual_usd=None, response_id="resp_1", call_id=new_call_id(began).hex(), timestamp=began)
    ledger.append(event)
    fetched = fetched_call_id("resp_1", began)
    ledger.write_event(
        commit("0.25", response_id="resp_1", call_id=fetched.hex(), timestamp=began, usage={"tokens_in": 5})
    )
    ledger.flush()
    assert [e.event_id[-2:] for e in ledger.events_for_call(event.call_id)] == ["00", "01"]
    (put,) = ledger.adjust(event.call_id, Decimal("0.5"), reason="the invoice")
    assert put.event_id[-2:] == "02"
    assert ledger.spend_today() == 0.5


def test_a_call_that_was_corrected_is_not_corrected_again_by_its_answer(ledger):
    """Somebody has said what a call without a price has cost; when its answer is fetched, that is no second cost."""
    began = time.time()
    event = commit(cost_actual_usd=None, response_id="resp_1", call_id=new_call_id(began).hex(), timestamp=began)
    ledger.append(event)
    ledger.adjust(event.call_id, Decimal("0.25"), reason="the invoice")
    fetched = fetched_call_id("resp_1", began)
    ledger.write_event(
        commit("0.25", response_id="resp_1", call_id=fetched.hex(), timestamp=began, usage={"tokens_in": 5})
    )
    assert ledger.spend_today() == 0.25
    assert len(ledger.events_for_call(event.call_id)) == 2


def test_a_fetched_answer_is_appended_to_its_call(ledger):
    """What it adds are adjusts of its call, and the offset is that of the last one, also when it is told again."""
    began = time.time()
    event = commit(cost_actual_usd=None, response_id="resp_1", call_id=new_call_id(began).hex(), timestamp=began)
    ledger.append(event)
    fetched = fetched_call_id("resp_1", began).hex()
    answer = commit("0.25", response_id="resp_1", call_id=fetched, timestamp=began, usage={"tokens_in": 5})
    assert ledger.append(answer) == ledger.append(answer) == ledger.latest_offset() == 2


costs = st.integers(0, 10**12).map(lambda nano: Decimal(nano).scaleb(-9))


@settings(max_examples=50, deadline=None)
@given(costs, st.booleans(), st.lists(costs, min_size=1, max_size=5))
def test_after_any_corrections_the_last_one_holds(first, was_estimated, corrections):
    """However a call is corrected, the ledger shows what was said last, to the nano-dollar."""
    with Ledger(None) as ledger:
        event = (estimated if was_estimated else spent)(str(first))
        ledger.append(event)
        for cost in corrections:
            ledger.adjust(event.call_id, cost, reason="again")
        balance = ledger.balance(B)
        assert (balance.spent, balance.estimated) == (to_nano(corrections[-1]), 0)
        assert sum(e.spend_usd for e in ledger.events) == corrections[-1]
        assert not ledger.verify()
