"""What a call finds when the ground moves while it asks or stands in line: limits, windows, neighbours, the dead."""

import contextvars
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from polling import until

from tollspan.budget import BudgetBusy, BudgetExceeded, BudgetExhausted, admit, budget
from tollspan.exporter import pipeline, retry
from tollspan.ledger import BudgetOverride, Demand, Grant, HoldRequest, LedgerEvent, Limit, event_id_for, new_call_id
from tollspan.ledger._postings import posting_of

USD = 1_000_000_000


def in_line():
    return len(pipeline().ledger.writer._line.waiting)


@pytest.fixture
def beside():
    """Run something in a thread, with what is in force here."""
    with ThreadPoolExecutor(4) as pool:
        yield lambda function, *args, **more: pool.submit(contextvars.copy_context().run, function, *args, **more)


def set_elsewhere(limit):
    path = pipeline().ledger.path
    script = (
        f"from tollspan.ledger import *\nledger = Ledger({str(path)!r})\n"
        f"ledger.override_budget(BudgetOverride(name='b', limit={limit}, unit='USD'))\nledger.close()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_limit_raised_in_this_process_lets_in_who_waits_here(calls, book, beside):
    """It need not come from outside."""
    with budget("0.15 USD / month", name="b", on_limit="wait", max_wait_timeout_s=20):
        calls.ask()
        waiting = beside(calls.ask)
        until(lambda: in_line() == 1)
        book.override_budget(BudgetOverride(name="b", limit=USD, unit="USD"))
        record, _ = waiting.result(3)
        assert record.held.limits[0].limit == USD


@pytest.mark.parametrize(("code", "during"), [("5 USD / month", 0.15), ("0.05 USD / month", 0.15)])
def test_an_override_that_ends_ends_for_those_in_line_too(calls, book, beside, code, during):
    """Where it was lower, they are let in when it ends; where it was higher, it lets in nobody any more."""
    book.override_budget(BudgetOverride(name="b", limit=int(during * USD), unit="USD", until=time.time() + 1))
    with budget(code, name="b", on_limit="wait", max_wait_timeout_s=10) as handle:
        first, _ = calls.ask()
        waiting = beside(calls.ask)
        until(lambda: in_line() == 1)
        if code.startswith("5"):
            waiting.result(5)
            return
        until(lambda: handle.limit == Decimal("0.05"))
        calls.settle(first, outcome="unbilled")
        with pytest.raises(BudgetExceeded):
            waiting.result(10)


def test_a_limit_raised_between_asking_and_standing_is_not_missed(calls, monkeypatch):
    """Whoever comes into the line looks once more at what holds now."""
    writer = pipeline().ledger.writer
    ask = writer.ask

    def slow(*args, **more):
        set_elsewhere(USD)
        until(lambda: [override.limit for override in pipeline().ledger.overrides] == [USD])
        return ask(*args, **more)

    with budget("0.15 USD / month", name="b", on_limit="wait", max_wait_timeout_s=20):
        calls.ask()
        monkeypatch.setattr(writer, "ask", slow)
        _, admission = calls.ask()
    assert admission.waited_ms < 15_000


@pytest.mark.parametrize("way_out", ["raise", "fallback"])
def test_a_budget_that_waits_makes_no_other_wait(calls, way_out):
    """The one that raises does so at once, and the one that falls back does that, however patient its neighbour is."""
    model = "gpt-4o-mini" if way_out == "fallback" else None
    with (
        budget("5 USD / month", name="patient", on_limit="wait", max_wait_timeout_s=60),
        budget("0.15 USD", name="other", on_limit=way_out, fallback_model=model),
    ):
        calls.ask()
        if way_out == "fallback":
            _, admission = calls.ask(of_model=lambda name: calls.intent(model=name))
            assert admission.model == "gpt-4o-mini"
        else:
            with pytest.raises(BudgetBusy, match="'other'"):
                calls.ask()


def test_best_effort_sees_a_raised_limit_while_it_waits_for_a_window(calls, beside):
    """It does not sleep to the end of the month."""
    with budget("0.1 USD / month", name="b", on_limit="wait", mode="best_effort", max_wait_timeout_s=40 * 86_400):
        calls.spend(10_000)
        waiting = beside(calls.ask)
        set_elsewhere(USD)
        record, _ = waiting.result(5)
        assert record.limits[0].limit == USD


def test_best_effort_says_when_a_rolling_window_has_room(calls):
    """A refusal names an instant also where nothing is held."""
    with budget("0.1 USD / rolling hour", name="b", mode="best_effort"):
        calls.spend(10_000)
        with pytest.raises(BudgetExhausted, match="resets") as refused:
            calls.ask()
    assert 3_500 < refused.value.reset_at - time.time() < 3_700


def test_a_repetition_is_held_by_what_was_learned(calls):
    """What an SDK sends again is the same request, and no larger than the first time."""
    with budget("0.12 USD / month", name="b", output_bound="learned") as handle:
        asked = {"max_output_tokens": None, "learned": lambda: 1_000}
        record, _ = calls.ask(**asked)
        record.attempts, record.estimate = 1, record.held.nano
        pipeline().ledger.writer.put(retry(record, 1, billed=True))
        record.estimate = record.held = None
        admit(record, calls.intent(**asked), attempt=1)
        assert handle.held == handle.spent == Decimal("0.01025")


HOLDER = """
import sys, time
from tollspan.budget import CallIntent, admit, budget
from tollspan.exporter import CallRecord, pipeline
from tollspan.ledger import new_call_id
record = CallRecord(call_id=new_call_id(), started=time.time(), operation="chat", request_model="gpt-4o")
price = pipeline().prices.resolve(provider="openai", model="gpt-4o", at=time.time())
with budget("1 concurrent", name="places"):
    admit(record, CallIntent(price=price, input_tokens=10, max_output_tokens=10))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_place_of_a_process_that_was_killed_is_found_while_somebody_waits(calls):
    """Who waits for what a dead process holds need not wait for the next quiet moment."""
    with budget("5 concurrent", name="other"):
        calls.settle(calls.ask()[0])
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        holder.kill()
    with budget("1 concurrent", name="places", on_limit="wait", max_wait_timeout_s=60):
        _, admission = calls.ask()
    assert admission.waited_ms < 15_000


def test_two_steps_of_a_rolling_window_in_one_batch(book):
    """Of two that ask at once, the later step first, both count what the earlier one looks back on."""

    def asks(start):
        call_id = new_call_id()
        event = posting_of(LedgerEvent(event_type="precheck_hold", call_id=call_id.hex()))
        limit = Limit("b", "", start, "requests", 2, None, 60)
        hold_id = event_id_for(call_id, "precheck_hold")
        return HoldRequest(hold_id, Demand(None, 1, 1, 1), (limit,), lambda _: event, lambda: event)

    with book.writer.store_lock:
        now = 1_800_000_000
        assert isinstance(book.store.write(holds=[asks(now - 60)]).answers[0], Grant)
        later, earlier = book.store.write(holds=[asks(now + 1), asks(now)]).answers
    assert (isinstance(later, Grant), isinstance(earlier, Grant)) == (True, False)


def test_an_interrupt_anywhere_in_admission_leaves_no_hold(calls, book):
    """Ctrl-C between asking and waiting, too: the hold goes back, and the writer serves the next one."""
    writer = pipeline().ledger.writer
    start = writer.start
    interrupted = threading.Event()

    def start_and_interrupt():
        start()
        if threading.current_thread() is threading.main_thread() and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    with budget("0.15 USD / month", name="b") as handle:
        writer.start = start_and_interrupt
        with pytest.raises(KeyboardInterrupt):
            calls.ask()
        writer.start = start
        until(lambda: handle.held == 0)
        calls.ask()
    assert book.verify() == []


def test_those_who_wait_are_looked_at_when_something_has_changed(calls, book, beside):
    """The writer does not look over and over for each of those in line, and still serves each in turn."""
    looks = []
    with budget("0.15 USD / month", name="b", on_limit="wait", max_wait_timeout_s=30):
        record, _ = calls.ask()
        waiting = []
        for number in range(1, 4):
            waiting.append(beside(calls.ask))
            until(lambda number=number: in_line() == number)
        ready = book.writer._line.ready
        book.writer._line.ready = lambda *args, **more: looks.append(1) or ready(*args, **more)
        until(lambda: len(looks) >= 2)  # twice a second, in case that something was missed
        assert len(looks) <= 3
        for future in waiting:
            calls.settle(record, 10)
            record, _ = future.result(5)
        calls.settle(record, 10)
    assert book.open_holds().calls == 0
