"""`on_limit="wait"`: in line, first come first served, no longer than told, and nothing left behind by who gives up."""

import asyncio
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from polling import until

from tollspan.budget import BudgetBusy, BudgetExhausted, admit, budget
from tollspan.exporter import pipeline
from tollspan.ledger import Ticket

HOLD = Decimal("0.10025")


def patient(limit="0.15 USD / month", seconds=10, **options):
    return budget(limit, **{"name": "line", "on_limit": "wait", "max_wait_timeout_s": seconds} | options)


def waiters():
    return len(pipeline().ledger.writer._line.waiting)


@pytest.fixture
def in_a_thread():
    """Start a call under a patient budget in a thread of its own; gives its future."""
    with ThreadPoolExecutor(32) as pool:

        def start(calls, **options):
            def one():
                with patient(**options):
                    return calls.ask()

            return pool.submit(one)

        yield start


# ---- in line


def test_who_came_first_is_served_first(calls, in_a_thread):
    """Each settlement lets in the call that waits longest, and no other."""
    with patient():
        holder, _ = calls.ask()
    futures = []
    for number in range(1, 6):
        futures.append(in_a_thread(calls))
        until(lambda expected=number: waiters() == expected)
    for number, future in enumerate(futures):
        assert [f.done() for f in futures] == [True] * number + [False] * (5 - number)
        calls.settle(holder, 10)
        holder, admission = future.result(5)
        assert admission.waited_ms > 0
    calls.settle(holder, 10)


def test_worst_case_holds_do_not_starve_calls_that_can_wait(calls, in_a_thread):
    """Each holds most of the budget and uses little: all ten are served, where calls that cannot wait are refused."""
    with budget("0.15 USD / month", name="line"):
        first, _ = calls.ask()
        with pytest.raises(BudgetBusy, match="held by calls in flight"):
            calls.ask()
    futures = [in_a_thread(calls) for _ in range(10)]
    until(lambda: waiters() == 10)
    calls.settle(first, 10)
    while futures:
        until(lambda: any(future.done() for future in futures))
        served = next(future for future in futures if future.done())
        futures.remove(served)
        calls.settle(served.result()[0], 10)
    with patient() as handle:
        assert (handle.spent, handle.held) == (11 * Decimal("0.00035"), 0)


def test_a_patient_call_is_not_cut_short_by_calls_in_flight(calls, in_a_thread):
    """What calls in flight hold will mostly come back: a patient call waits for it, an impatient one takes less."""
    with budget("0.15 USD / month", name="line"):
        holder, _ = calls.ask()
        small, admission = calls.ask(max_output_tokens=None)
        assert 4_000 < admission.output_tokens < 5_000
        calls.settle(small, outcome="unbilled")
    waiting = in_a_thread(calls, limit="0.3 USD / month", name="line")
    calls.settle(holder, 10)
    calls.settle(waiting.result(5)[0], 10)


def test_a_budget_that_raises_is_not_made_patient_by_one_that_waits(calls):
    """Next to a budget that waits, one that does not still admits what its remainder buys, as it does alone."""
    with patient("5 USD / month"), budget("0.15 USD", name="raises"):
        calls.ask()
        _, admission = calls.ask(max_output_tokens=None)
        assert 4_000 < admission.output_tokens < 5_000


def test_the_budget_that_waits_is_waited_for_next_to_one_that_raises(calls):
    """Where not every budget waits the call asks again and again, and gets in once there is room."""
    with patient() as line, budget("5 USD", name="raises"):
        holder, _ = calls.ask()
        threading.Timer(0.15, calls.settle, (holder, 10)).start()
        _, admission = calls.ask()
        assert admission.waited_ms >= 100
        assert line.held == HOLD


def test_a_wait_is_an_event_of_the_ledger(calls, in_a_thread, book):
    """How long a call stood in line is on record, in milliseconds."""
    with patient():
        holder, _ = calls.ask()
    waiting = in_a_thread(calls)
    until(lambda: waiters() == 1)
    time.sleep(0.08)
    calls.settle(holder, 10)
    record, admission = waiting.result(5)
    assert book.flush(60)
    (event,) = [e for e in book.events if e.event_type == "wait" and e.call_id == record.call_id.hex()]
    assert event.reason == "budget"
    assert event.timing["total_ms"] == pytest.approx(admission.waited_ms, abs=0.001)
    assert admission.waited_ms >= 80


# ---- giving up


@pytest.mark.parametrize("kind", ["thread", "task"])
@pytest.mark.parametrize("others", [None, "5 USD"], ids=["alone", "next to one that raises"])
async def test_waiting_ends_after_max_wait_timeout_s(calls, kind, others):
    """BudgetBusy comes when the time is over, not before and not long after."""
    with patient(seconds=0.2), budget(others or "9 USD", name="other", on_limit="raise" if others else "wait"):
        await asyncio.to_thread(calls.ask)
        began = time.monotonic()
        with pytest.raises(BudgetBusy):
            await (asyncio.to_thread(calls.ask) if kind == "thread" else calls.ask_in_task())
        assert 0.2 <= time.monotonic() - began < 1.5
    until(lambda: waiters() == 0)


@pytest.mark.parametrize(
    ("limit", "max_tokens"),
    [("0.15 USD / month", 16_000), ("0.05 USD / minute", 10_000), ("0.15 USD", 10_000)],
    ids=["spent, and resets too late", "never fits", "spent, and never resets"],
)
def test_what_waiting_cannot_help_is_refused_at_once(calls, limit, max_tokens):
    """A call that will not fit within the time it may wait is told so, and does not wait."""
    with patient(limit) as handle:
        if handle.limit > HOLD:
            calls.spend(10_000)
        began = time.monotonic()
        with pytest.raises(BudgetExhausted):
            calls.ask(max_output_tokens=max_tokens)
        assert time.monotonic() - began < 1


async def test_tasks_that_are_cancelled_in_line_leave_no_hold(calls, book):
    """Cancelled before, while and after they are granted: what they held goes back, and the others are served."""

    async def one(number):
        async with patient():
            record, _ = await calls.ask_in_task()
            try:
                await asyncio.sleep(0.001)
            finally:
                calls.settle(record, 10, flush=False)
        return number

    dice = random.Random(7)
    tasks = [asyncio.create_task(one(number)) for number in range(60)]
    for task in dice.sample(tasks, 30):
        await asyncio.sleep(dice.random() * 0.008)
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    finished = [number for number in done if isinstance(number, int)]
    assert len(finished) >= 30
    assert finished == sorted(finished)
    assert await book.aflush(60)
    assert book.verify() == []
    assert book.open_holds().calls == 0
    until(lambda: waiters() == 0)


def test_an_interrupted_thread_leaves_no_hold(calls, book):
    """Ctrl-C while a call stands in line: KeyboardInterrupt as without us, and its place is free."""
    with patient() as handle:
        holder, _ = calls.ask()
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            calls.ask()
        timer.join()
        calls.settle(holder, 10)
        until(lambda: waiters() == 0)
        assert handle.held == 0
        calls.ask()
    assert book.verify() == []


def test_a_hold_granted_to_nobody_goes_back(calls, book, monkeypatch):
    """Interrupted at the very moment of the grant: the hold is on disk already, and is cancelled."""
    wait = Ticket.wait

    def interrupted(self, timeout_s=None):
        if timeout_s is not None and timeout_s > 5:
            wait(self, timeout_s)
            raise KeyboardInterrupt
        return wait(self, timeout_s)

    with patient() as handle:
        monkeypatch.setattr(Ticket, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            admit(calls.record(), calls.intent())
        monkeypatch.undo()
        assert handle.held == 0
    assert [event.event_type for event in book.events] == ["precheck_hold", "cancel"]


# ---- windows that turn


@pytest.mark.parametrize("kind", ["thread", "task"])
@pytest.mark.parametrize("spent", [True, False], ids=["spent", "busy"])
async def test_a_call_waits_for_a_window_to_turn(calls, monkeypatch, kind, spent):
    """A spent (or held) minute is over soon: the call waits for the next one, and is counted there."""
    begins, real = time.monotonic(), time.time
    monkeypatch.setattr(time, "time", lambda: 1_700_000_039.7 + time.monotonic() - begins)
    assert real() > time.time()
    with patient("0.15 USD / minute") as handle:
        record, _ = await asyncio.to_thread(calls.ask)
        if spent:
            calls.settle(record)
        second, admission = await (asyncio.to_thread(calls.ask) if kind == "thread" else calls.ask_in_task())
        assert time.time() >= 1_700_000_040
        assert 100 < admission.waited_ms < 2_000
        assert [limit.window_start for limit in second.limits] == [1_700_000_040]
        assert (handle.spent, handle.held) == (0, HOLD)
