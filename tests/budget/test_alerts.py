"""Alerts: each share of a limit is told once in a window, by one of all processes, after the commit that reached it."""

import datetime as dt
import logging
import os
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest
from polling import until

from tollspan.budget import BudgetAlert, budget, load_budgets, on_budget_alert, reach, scope
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument
from tollspan.ledger import BudgetOverride, BudgetSyntaxError, Ledger, LedgerUnavailable
from tollspan.ledger._batch import Batch

CALL = Decimal("0.10025")
"""USD that a call of the fixture `calls` costs with 10,000 tokens of output."""


@pytest.fixture
def alerts():
    """Every alert that this process tells."""
    told = []
    end = on_budget_alert(told.append)
    yield told
    end()


@pytest.fixture
def told(alerts, book):
    """The shares told so far, once every event is on disk and every listener has heard of it."""

    def told():
        settled(book)
        return [alert.share for alert in alerts]

    return told


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still where it is set, in UTC."""

    def set_to(text):
        instant = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()
        monkeypatch.setattr(time, "time", lambda: instant)
        return instant

    return set_to


def settled(ledger):
    assert ledger.flush(60)
    ledger.writer.listeners.drain(60)


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_each_share_is_told_once_and_what_is_passed_at_once_lowest_first(calls, told, mode):
    """Half and four fifths of a dollar: the one is told when it is reached, and later calls tell nothing again."""
    with budget("1 USD / day", name="daily", mode=mode, warn_at=(0.8, 0.1, 0.5)):
        calls.spend(8_000)
        assert told() == []
        calls.spend(50_000)
        assert told() == [0.1, 0.5]
        calls.spend(10_000)
        assert told() == [0.1, 0.5]
        for _ in range(3):
            calls.spend(8_000)
        assert told() == [0.1, 0.5, 0.8]


def test_an_alert_says_which_balance_and_how_much(calls, alerts, told, caplog, clock):
    """It carries the amounts as Decimal USD and the window in epoch seconds; the log says the same in a line."""
    noon = clock("2026-05-04 12:00")
    with budget("1 USD / day", name="daily", warn_at=(0.1,)):
        calls.spend(10_000)
        told()
    midnight = noon - 12 * 3600
    assert alerts == [
        BudgetAlert(
            budget="daily",
            scope="",
            share=0.1,
            spent=CALL,
            limit=Decimal(1),
            unit="USD",
            window_start=midnight,
            reset_at=midnight + 86_400,
            at=noon,
        )
    ]
    [record] = [record for record in caplog.records if record.name == "tollspan.budget"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "budget 'daily' has reached 10% of its limit: $0.1002 spent of $1.00, resets 2026-05-05 00:00 UTC"
    )


def test_shares_are_compared_exactly(calls, told):
    """A balance that is exactly at the share has reached it, whatever a product of floats would say."""
    with budget("100 requests / total", name="many", mode="best_effort", warn_at=(0.07, 0.08)):
        for _ in range(6):
            calls.spend(1)
        assert told() == []
        calls.spend(1)
        assert told() == [0.07]


def test_what_is_held_is_not_spent_and_what_is_estimated_is(calls, told):
    """A call in flight passes no share; when its outcome stays unknown, what it held has been spent."""
    with budget("1 USD / day", name="daily", warn_at=(0.1,)):
        record, _ = calls.ask()
        assert told() == []
        record.estimate = record.held.nano
        calls.settle(record, outcome="unknown")
        assert told() == [0.1]


def test_each_value_of_a_dimension_has_alerts_of_its_own(calls, alerts, told):
    """With `each` every user's balance is told of once, under that user's name."""
    with budget("1 USD / day", name="visitors", each="user", warn_at=(0.1,)):
        for user in ("ada", "grace", "ada"):
            with scope(user=user):
                calls.spend(10_000)
    told()
    assert [(alert.scope, alert.spent) for alert in alerts] == [("user=ada", CALL), ("user=grace", CALL)]


def test_the_next_window_is_told_anew(calls, alerts, told, clock):
    """The share of today's limit is another one than that of yesterday's."""
    with budget("1 USD / day", name="daily", warn_at=(0.1,)):
        for day in ("2026-05-04", "2026-05-05"):
            clock(f"{day} 12:00")
            calls.spend(10_000)
            calls.spend(10_000)
            told()
    assert [(alert.share, alert.spent) for alert in alerts] == [(0.1, CALL)] * 2
    assert alerts[1].window_start == alerts[0].reset_at


def test_a_rolling_window_is_judged_by_all_that_it_looks_back_on(calls, alerts, told, clock, caplog):
    """What was spent in several of its steps counts together, and is told once in a stretch of its length."""
    with budget("1 USD / rolling hour", name="rolling", warn_at=(0.25,)):
        for minute in ("10:05", "10:20", "10:40", "10:50"):
            now = clock(f"2026-05-04 {minute}")
            calls.spend(10_000)
            assert told() == [0.25] * (minute >= "10:40")
        clock("2026-05-04 11:10")
        calls.spend(10_000)
        assert told() == [0.25, 0.25]
    assert alerts[0].spent == 3 * CALL
    assert (alerts[0].window_start, alerts[0].reset_at) == (now - 600 - 3600, None)
    assert "since 2026-05-04 09:40 UTC" in caplog.text


def test_what_has_left_a_rolling_window_is_not_counted(calls, told, clock):
    """An hour later the old spend is gone, also that of a call which ends only now; the new one is not enough."""
    with budget("1 USD / rolling hour", name="rolling", warn_at=(0.15,)):
        clock("2026-05-04 10:05")
        calls.spend(10_000)
        record, _ = calls.ask()
        clock("2026-05-04 11:20")
        calls.settle(record)
        calls.spend(10_000)
        assert told() == []


@pytest.mark.parametrize("other", [("0.50 USD / hour", {}), ("0.50 USD / day", {"each": "user"})])
def test_budgets_of_one_name_are_judged_each_by_its_own_balance(calls, alerts, told, clock, other):
    """The share of the one that is small is not looked for in the balance of the one that is large."""
    clock("2026-05-04 12:30")
    limit, options = other
    with (
        scope(user="ada"),
        budget("10 USD / day", name="two", warn_at=(0.5,)),
        budget(limit, name="two", warn_at=(0.1,), **options),
    ):
        calls.spend(10_000)
        assert told() == [0.1]
    assert alerts[0].limit == Decimal("0.5")


def test_a_limit_raised_from_outside_moves_its_shares(calls, alerts, told, book):
    """Shares are of the limit in force: of the one that was set over that of the code."""
    with budget("0.20 USD / day", name="daily", warn_at=(0.5, 0.8)):
        book.override_budget(BudgetOverride(name="daily", limit=1_000_000_000, unit="USD"))
        calls.spend(10_000)
        calls.spend(10_000)
        assert told() == []
        for _ in range(3):
            calls.spend(10_000)
        assert told() == [0.5]
    assert alerts[0].limit == 1


def test_a_budget_that_is_loaded_anew_is_judged_by_its_new_limit(calls, alerts, told):
    """The shares of a limit that is no longer in force are not told."""
    table = "[[budget]]\nname = 'daily'\nlimit = '%s USD / day'\nwarn_at = [0.5]\n"
    with load_budgets(table % "0.30"):
        calls.spend(10_000)
        with load_budgets(table % "1"):
            for _ in range(3):
                calls.spend(10_000)
            assert told() == []
            calls.spend(10_000)
            assert told() == [0.5]
    assert alerts[0].limit == 1


def test_corrections_count_and_repeat_nothing(calls, told, book):
    """A correction may reach a share too; where another takes it back and a third brings it up, nothing is repeated."""
    with budget("1 USD / day", name="daily", warn_at=(0.5,)):
        record, _ = calls.ask()
        calls.settle(record)
        assert told() == []
        for usd, expected in (("0.60", [0.5]), ("0.10", [0.5]), ("0.70", [0.5])):
            book.adjust(record.call_id.hex(), Decimal(usd), reason="the invoice")
            assert told() == expected


def test_what_is_not_stored_tells_nothing(calls, alerts, told, book, monkeypatch):
    """While the disk is away nothing is spent as far as the ledger knows; when it is back, it is told."""
    save, fails = Batch.save_balances, threading.Event()

    def save_or_fail(batch):
        save(batch)
        if fails.is_set():
            raise LedgerUnavailable("the disk is away for a moment")

    monkeypatch.setattr(Batch, "save_balances", save_or_fail)
    with budget("1 USD / day", name="daily", mode="best_effort", warn_at=(0.1,)) as handle:
        calls.spend(1)
        fails.set()
        record, _ = calls.ask()
        calls.settle(record, flush=False)
        until(lambda: book.writer.counts.failures >= 2)
        book.writer.listeners.drain(60)
        assert alerts == []
        fails.clear()
        assert told() == [0.1]
        assert handle.spent > CALL


def test_what_others_had_spent_is_told_by_the_first_who_knows_the_share(calls, told):
    """A balance that is over its share already is told of at the next commit that touches it."""
    with budget("1 USD / day", name="daily"):
        calls.spend(50_000)
        assert told() == []
    with budget("1 USD / day", name="daily", warn_at=(0.5,)):
        assert told() == []
        calls.spend(1)
        assert told() == [0.5]


def test_a_budget_of_a_block_is_judged_by_each_entry(calls, alerts, told):
    """Two entries of one name have balances and limits of their own, and each tells whom it was given."""
    small, large = [], []
    with budget("0.20 USD", name="run", warn_at=(0.5,), on_warn=small.append):
        calls.spend(10_000)
    with budget("1 USD", name="run", warn_at=(0.5,), on_warn=large.append):
        calls.spend(10_000)
        told()
        assert (len(small), large) == (1, [])
        calls.spend(50_000)
    told()
    assert (len(small), len(large)) == (1, 1)
    assert alerts == small + large
    assert [(alert.limit, alert.window_start, alert.reset_at) for alert in alerts] == [
        (Decimal("0.2"), None, None),
        (Decimal(1), None, None),
    ]
    assert alerts[0].scope != alerts[1].scope


def test_configured_budgets_tell_as_well(calls, alerts, told, configure):
    """`warn_at` in TOML, in tokens: nobody has entered this budget, and its alert is told."""
    configure(budget=[{"name": "all", "limit": "10000 tokens / month", "warn_at": [0.5]}])
    calls.spend(6_000)
    settled(pipeline().ledger)
    assert [(alert.budget, alert.unit, alert.spent, alert.limit) for alert in alerts] == [
        ("all", "tokens", 6100, 10_000)
    ]


def test_calls_without_shares_have_no_listener(calls, told, book):
    """Nothing is subscribed to before a budget with `warn_at` is met."""
    with budget("1 USD / day", name="daily"):
        calls.spend(10_000)
    assert not book.writer.listeners._listeners
    with budget("1 USD / day", name="other", warn_at=(0.9,)):
        calls.spend(10_000)
        calls.spend(10_000)
    assert len(book.writer.listeners._listeners) == 1


def test_callbacks_run_elsewhere_and_see_no_budget(calls):
    """They are on a thread of the ledger, after the commit, and neither scope nor budget of any call is in force."""
    seen = []

    def look(alert):
        here = reach()
        stored = pipeline().ledger.balance(("daily", "", alert.window_start)).spent
        seen.append((threading.current_thread().name, here.entries, dict(here.dimensions), stored))

    instrument()  # the context of a call is carried into the threads that it starts
    try:
        with scope(user="ada"), budget("1 USD / day", name="daily", warn_at=(0.1,), on_warn=look):
            calls.spend(10_000)
            settled(pipeline().ledger)
    finally:
        uninstrument()
    assert seen == [("tollspan-listeners", (), {}, 100_250_000)]


def test_a_callback_that_raises_keeps_nobody_from_being_told(calls, told, caplog):
    """Its error is logged; the call, the other callbacks and later alerts go on."""

    def fails(_alert):
        raise RuntimeError("an application's own trouble")

    with budget("1 USD / day", name="daily", warn_at=(0.1, 0.2), on_warn=fails):
        calls.spend(10_000)
        calls.spend(10_000)
        assert told() == [0.1, 0.2]
    assert caplog.text.count("a callback for alerts of budget 'daily' failed") == 2


def test_who_has_ended_is_not_told_any_more(calls, told):
    """What `on_budget_alert` gives ends it once, and for this one alone, even where one is told twice."""
    mine = []
    ends = [on_budget_alert(mine.append), on_budget_alert(mine.append)]
    with budget("1 USD / day", name="daily", warn_at=(0.1, 0.2, 0.3)):
        for expected in (2, 3, 3):
            calls.spend(10_000)
            told()
            assert len(mine) == expected
            ends[expected - 2]()
            ends[expected - 2]()


async def _later(_alert):
    """A callback that needs a loop."""


class _Later:
    async def __call__(self, _alert):
        """Another one."""


@pytest.mark.parametrize("wrong", [_later, _Later(), "a name"])
def test_what_cannot_be_called_is_refused_at_once(wrong):
    """A coroutine function would never run on the ledger's thread: it is refused where it is given."""
    with pytest.raises(BudgetSyntaxError, match=r"budget 'b', on_warn: .*call"):
        budget("1 USD / day", name="b", warn_at=(0.5,), on_warn=wrong)
    with pytest.raises(TypeError, match="call"):
        on_budget_alert(wrong)


def test_a_callback_without_shares_is_refused():
    """It would never be called."""
    with pytest.raises(BudgetSyntaxError, match="on_warn: it belongs to warn_at"):
        budget("1 USD / day", name="b", on_warn=print)


SPEND = """
import sys, time
from tollspan.budget import CallIntent, admit, budget, on_budget_alert
from tollspan.exporter import CallRecord, pipeline, settlement
from tollspan.ledger import Unpriced, new_call_id

def spend():
    record = CallRecord(call_id=new_call_id(), started=time.time(), operation="chat", request_model="m")
    admit(record, CallIntent(price=Unpriced("no price"), input_tokens=1, max_output_tokens=1))
    record.cost, record.usage = 0, {}
    pipeline().ledger.writer.put(settlement(record))
"""

TELL = (
    SPEND
    + """
on_budget_alert(lambda alert: print(alert.share, flush=True))
with budget("40 requests / total", name="shared", warn_at=(0.25, 0.5, 1.0)):
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        spend()
"""
)


def test_of_two_processes_one_tells():
    """Both know the shares and both commit; each share is told by exactly one of them, the last one too."""
    running = [run(TELL) for _ in range(2)]
    for one in running:
        assert one.stdout.readline() == "ready\n"
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [share for one in running for share in one.communicate(timeout=60)[0].split()]
    assert [one.returncode for one in running] == [0, 0]
    assert sorted(told) == ["0.25", "0.5", "1.0"]
    with Ledger.from_file(os.environ["TOLLSPAN_LEDGER"].removeprefix("sqlite:///")) as ledger:
        assert ledger.balance(("shared [requests]", "", 0)).spent == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_tells_of_its_own_commits(calls, alerts, told):
    """A child has the callbacks of its parent, and tells what its parent has not told."""
    with budget("1 USD / day", name="daily", warn_at=(0.1, 0.2)):
        calls.spend(10_000)
        assert told() == [0.1]
        pid = os.fork()
        if pid == 0:
            try:
                calls.spend(10_000)
                os._exit(0 if told() == [0.1, 0.2] else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        calls.spend(10_000)
        assert told() == [0.1]


def run(text):
    """Start a script in a process of its own, in the configuration of the test."""
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
