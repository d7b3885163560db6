"""Windows that roll, and calls at once: what is counted leaves again by itself, never too early."""

import asyncio
import itertools
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollspan.budget import BudgetBusy, BudgetExhausted, budget, scope
from tollspan.ledger import Ledger, Limit, Window, charge_of
from tollspan.ledger._batch import Entry, HoldRequest
from tollspan.ledger._events import LedgerEvent, event_id_for, new_call_id
from tollspan.ledger._holds import Demand, Grant
from tollspan.ledger._postings import posting_of

T = 1_700_000_040.0
"""A full minute."""


@pytest.fixture
def clock(monkeypatch):
    """Epoch seconds as the test sets them; a float in a list."""
    now = [T]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_what_was_spent_counts_for_the_whole_span_and_no_longer(calls, clock):
    """A call made half a minute into a rolling minute counts until a minute later, whatever the calendar says."""
    with budget("0.15 USD / rolling minute", name="b") as handle:
        clock[0] = T + 30.5
        calls.spend(10_000)
        clock[0] = T + 90.4
        with pytest.raises(BudgetExhausted) as refused:
            calls.ask()
        assert refused.value.reset_at == T + 91
        clock[0] = T + 91
        calls.ask()
        assert (handle.spent, handle.held) == (0, Decimal("0.10025"))


def test_room_comes_back_step_by_step(calls, clock):
    """The refusal says when enough of what was spent has left for this call to fit."""
    with budget("0.35 USD / rolling hour", name="b"):
        for minutes in (1, 10, 30):
            clock[0] = T + 60 * minutes
            calls.spend(10_000)
        clock[0] = T + 60 * 40
        with pytest.raises(BudgetExhausted) as refused:
            calls.ask(max_output_tokens=20_000)
        first_two_have_left = max(step_end(T + 60 * minutes) for minutes in (1, 10)) + 3600
        assert refused.value.reset_at == first_two_have_left
        clock[0] = first_two_have_left
        calls.ask(max_output_tokens=20_000)


def test_what_is_held_leaves_as_what_is_spent_does(calls, clock):
    """The refusal counts on the room that a call in flight gives back when it is out of the window."""
    with budget("0.25 USD / rolling hour", name="b"):
        clock[0] = T + 60
        calls.spend(10_000)
        clock[0] = T + 60 * 5
        calls.ask(max_output_tokens=10_000)
        clock[0] = T + 60 * 10
        calls.spend(4_000)
        clock[0] = T + 60 * 40
        with pytest.raises(BudgetExhausted) as refused:
            calls.ask(max_output_tokens=15_000)
        assert refused.value.reset_at == step_end(T + 60 * 5) + 3600


def step_end(at):
    return Window("hour", rolling=True).end(at)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60), st.booleans()), min_size=1, max_size=40),
    st.sampled_from(["minute", "hour"]),
)
def test_no_span_ever_holds_more_than_the_limit(asked, kind):
    """However calls are spread over time, those of any stretch as long as the window fit into the limit."""
    window, made, at = Window(kind, rolling=True), [], T
    with Ledger(None) as ledger:
        for pause, tokens, settles in asked:
            at += pause * window.span / 60
            limit = Limit("b", "", window.start(at), "tokens", 100, None, window.span)
            answer = hold(ledger, limit, tokens, settles=settles)
            if isinstance(answer, Grant):
                made.append((at, tokens))
            else:
                assert sum(n for t, n in made if t > at - window.span * 62 / 60) + tokens > 100
        for first, _ in made:
            assert sum(n for t, n in made if first <= t < first + window.span) <= 100
        assert not ledger.verify()


def hold(ledger, limit, tokens, *, settles):
    """Ask for a hold of so many tokens; if it `settles` it is spent at once, else it stays open."""
    call_id = new_call_id()

    def event(kind):
        charge = charge_of(limit, tokens)
        return LedgerEvent(event_type=kind, call_id=call_id.hex(), charges=(charge,))

    request = HoldRequest(
        event_id_for(call_id, "precheck_hold"),
        Demand(None, 0, tokens, tokens),
        (limit,),
        lambda _: posting_of(event("precheck_hold")),
        lambda: posting_of(event("cancel")),
    )
    answer = ledger.writer.ask(request).wait(5)
    if isinstance(answer, Grant) and settles:
        ledger.writer.put(Entry.of(event("commit"), request.hold_id))
        ledger.flush()
    return answer


def test_holds_of_one_batch_meet_each_other(book):
    """Those who ask at the same moment share what a rolling window has left, also across the edge of a step."""
    limits = [Limit("b", "", start, "requests", 5, None, 60) for start in (100, 101)]
    with book.writer.store_lock:
        requests = [
            HoldRequest(
                event_id_for(call_id, "precheck_hold"),
                Demand(None, 0, 0, 0),
                (limit,),
                lambda _, call_id=call_id: posting_of(LedgerEvent(event_type="precheck_hold", call_id=call_id.hex())),
                lambda: None,
            )
            for limit, _ in zip(itertools.cycle(reversed(limits)), range(20), strict=False)
            for call_id in [new_call_id()]
        ]
        tickets = [book.writer.ask(request) for request in requests]
    answers = [ticket.wait(5) for ticket in tickets]
    assert sum(isinstance(answer, Grant) for answer in answers) == 5


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_both_modes_count_a_rolling_window(calls, clock, mode):
    """Without a hold, too, a rolling window is full until what was spent in it has left."""
    with budget("0.10 USD / rolling minute", name="b", mode=mode):
        calls.spend(9_975)  # with its input exactly 0.10 USD
        with pytest.raises(BudgetExhausted):
            calls.spend(10)
        clock[0] = T + 60.9
        with pytest.raises(BudgetExhausted):
            calls.spend(10)
        clock[0] = T + 61
        calls.spend(9_000)


async def test_those_who_wait_for_a_step_to_leave_go_in_order(calls, monkeypatch):
    """A full rolling window lets in who waits, first come first served, as its steps leave it."""
    begins = time.monotonic()
    monkeypatch.setattr(time, "time", lambda: T + 59.8 + time.monotonic() - begins)
    with budget("2 requests / rolling minute", name="b", on_limit="wait", max_wait_timeout_s=30):
        for moment in (T + 0.1, T + 1.1):
            with monkeypatch.context() as earlier:
                earlier.setattr(time, "time", lambda moment=moment: moment)
                await asyncio.to_thread(calls.spend, 10)
        order = []

        async def one(number):
            await calls.ask_in_task()
            order.append((number, time.time()))

        tasks = []
        for number in range(2):
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
    assert [number for number, _ in order] == [0, 1]
    assert order[0][1] >= T + 61 > T + 60
    assert order[1][1] >= T + 62


# ---- calls at once


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_only_so_many_calls_at_once(calls, mode):
    """A call beyond those at once is refused, whatever the mode, until one of them has ended."""
    with budget("2 concurrent", name="c", mode=mode) as handle:
        first, _ = calls.ask()
        calls.ask()
        with pytest.raises(BudgetBusy, match="2 at once held"):
            calls.ask()
        calls.settle(first, 10)
        assert (handle.spent, handle.held, handle.remaining) == (0, 1, 1)
        calls.ask()


def test_calls_at_once_are_counted_for_each_value(calls):
    """`each` gives every user calls at once of their own, one that was never seen before included."""
    with budget("1 concurrent", name="c", each="user"):
        for user in ("ada", "bob"):
            with scope(user=user):
                calls.ask()
                with pytest.raises(BudgetBusy):
                    calls.ask()


def test_a_call_nobody_hears_of_again_is_forgotten_after_an_hour(calls, clock):
    """A stream that is never closed does not keep a place for ever."""
    with budget("1 concurrent", name="c"):
        calls.ask()
        clock[0] = T + 3_599
        with pytest.raises(BudgetBusy):
            calls.ask()
        clock[0] = T + 3_661
        calls.ask()


def test_a_call_that_costs_nothing_more_stands_in_line_for_a_place(calls):
    """With `wait` a call goes as soon as another one has ended, and a limit in USD is kept beside it."""
    with budget("1 concurrent", name="c", on_limit="wait"), budget("5 USD / day", name="d") as usd:
        record, _ = calls.ask()
        calls.settle(record, 10, flush=False)
        _, admission = calls.ask()
        assert set(admission.budgets) == {"c", "d"}
        assert usd.held > 0


def test_the_place_of_a_dead_process_is_free_again(calls, book):
    """What a dead owner held of calls at once is not taken for spent."""
    with budget("1 concurrent", name="c") as handle:
        record, _ = calls.ask()
        book.writer.settle_at_hold(record.held.hold_id, "its process is gone")
        assert book.flush()
        assert (handle.spent, handle.held) == (0, 0)
        calls.ask()
    assert not book.verify()
