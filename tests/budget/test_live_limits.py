"""Limits that are set while processes run, and corrections: both hold in every process within a second."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tollspan.budget import BudgetExhausted, budget, scope
from tollspan.exporter import pipeline
from tollspan.ledger import (
    BudgetDefinition,
    BudgetOverride,
    Charge,
    Ledger,
    LedgerEvent,
    LedgerUnavailable,
    Window,
    _view,
    new_call_id,
)
from tollspan.ledger._overrides import read_overrides

USD = 1_000_000_000
WITHIN_S = 1.0
HOLD = Decimal("0.10025")


def elsewhere(script, *arguments):
    """Run a script in another process, with the ledger of this one as `ledger`."""
    path = pipeline().ledger.path
    head = f"import sys\nfrom tollspan.ledger import *\nledger = Ledger({str(path)!r})\n"
    subprocess.run([sys.executable, "-c", f"{head}{script}\nledger.close()", *map(str, arguments)], check=True)


def set_elsewhere(usd, name="b"):
    elsewhere(f"ledger.override_budget(BudgetOverride(name={name!r}, limit={round(usd * USD)}, unit='USD'))")


def within_a_second(condition):
    """Whether a condition comes true within the second that is promised."""
    end = time.monotonic() + WITHIN_S
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met


def fits(calls):
    try:
        calls.settle(calls.ask()[0])
    except BudgetExhausted:
        return False
    return True


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_a_limit_raised_elsewhere_lets_calls_through_within_a_second(calls, mode):
    """No restart is needed, and no code is read again."""
    with budget("0.12 USD / day", name="b", mode=mode) as handle:
        while fits(calls):
            pass
        spent = handle.spent
        set_elsewhere(1)
        assert within_a_second(lambda: fits(calls))
        assert handle.limit == 1
        assert handle.spent > spent


def test_a_limit_lowered_elsewhere_refuses_within_a_second(calls):
    """What was allowed a second ago is not any more."""
    with budget("100 USD / day", name="b"):
        assert fits(calls)
        set_elsewhere(0.05)
        assert within_a_second(lambda: not fits(calls))


@pytest.mark.parametrize("kind", ["thread", "task"])
async def test_who_waits_is_let_in_by_a_raised_limit(calls, kind):
    """A call that stands in line need not come back to see the new limit."""
    with budget("0.15 USD / day", name="b", on_limit="wait", max_wait_timeout_s=30):
        calls.ask()
        waiting = asyncio.create_task(asyncio.to_thread(calls.ask) if kind == "thread" else calls.ask_in_task())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await asyncio.to_thread(set_elsewhere, 1)
        await asyncio.wait_for(waiting, WITHIN_S)


def test_an_override_ends_when_it_was_said_to(calls, book, monkeypatch):
    """After `until` the limit is again what code says."""
    now = time.time()
    book.override_budget(BudgetOverride(name="b", limit=USD, unit="USD", until=now + 3600))
    with budget("0.05 USD / total", name="b") as handle:
        assert (handle.limit, fits(calls)) == (1, True)
        monkeypatch.setattr(time, "time", lambda: now + 3601)
        assert (handle.limit, fits(calls)) == (Decimal("0.05"), False)


def test_an_override_is_taken_back(calls, book):
    """Removed, it is as if it had never been set; to remove it twice is told."""
    book.override_budget(BudgetOverride(name="b", limit=0, unit="USD"))
    with budget("5 USD / day", name="b"):
        assert not fits(calls)
        assert (book.remove_override("b"), book.remove_override("b")) == (True, False)
        assert fits(calls)


def test_an_override_of_another_unit_changes_nothing(calls, book):
    """A number of tokens is no limit in USD."""
    book.override_budget(BudgetOverride(name="b", limit=0, unit="tokens"))
    with budget("5 USD / day", name="b") as handle:
        assert (fits(calls), handle.limit) == (True, 5)


def test_a_budget_set_from_outside_holds_where_no_code_names_it(calls, book):
    """It is in force in every process of the ledger, also in one that ran before, and counts its own calls only."""
    calls.spend(10_000)
    definition = BudgetDefinition(name="ops", limit=USD // 5, unit="USD", window=Window("day"), match={"user": "ada"})
    text = "BudgetDefinition(name='ops', limit=200_000_000, unit='USD', window=Window('day'), match={'user': 'ada'})"
    elsewhere(f"ledger.override_budget(BudgetOverride(name='ops', limit=200_000_000, unit='USD', definition={text}))")
    assert within_a_second(lambda: [own.definition for own in book.overrides] == [definition])
    calls.spend(10_000)
    with scope(user="ada"):
        assert fits(calls)
        with pytest.raises(BudgetExhausted, match="budget 'ops'"):
            calls.ask()
    calls.spend(10_000)


def test_a_budget_from_outside_is_only_a_limit_where_code_has_one_of_that_name(calls, book):
    """Code says which calls count; from outside comes how much they may cost."""
    definition = BudgetDefinition(name="b", limit=USD, unit="USD", window=Window("day"), match={"user": "nobody"})
    book.override_budget(BudgetOverride(name="b", limit=USD // 5, unit="USD", definition=definition))
    with budget("0.05 USD / day", name="b") as handle:
        assert (handle.limit, fits(calls)) == (Decimal("0.2"), True)
        assert not fits(calls)


def test_a_limit_added_later_counts_its_own_window_only(calls):
    """What was spent before a limit was there, under other names or in earlier windows, is not carried into it."""
    with budget("5 USD / total", name="old"):
        for _ in range(3):
            calls.spend(10_000)
        with budget("0.15 USD / day", name="new") as new:
            assert new.spent == 0
            calls.spend(10_000)
            assert new.spent == HOLD


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_a_correction_elsewhere_makes_room_within_a_second(calls, book, mode):
    """An adjust counts in the window of its call, in every process."""
    with budget("0.10025 USD / day", name="b", mode=mode) as handle:
        record, _ = calls.ask()
        calls.settle(record)
        assert not fits(calls)
        elsewhere(
            "from decimal import Decimal\nledger.adjust(sys.argv[1], Decimal(0), reason='a credit')",
            record.call_id.hex(),
        )
        assert within_a_second(lambda: handle.spent == 0)
        assert within_a_second(lambda: fits(calls))
    assert not book.verify()


def test_a_hundred_waiters_see_a_raised_limit_in_their_order(calls):
    """A raise lets in as many as fit now, first come first served."""
    with ThreadPoolExecutor(20) as pool:
        order = []

        def one(number):
            with budget("0.15 USD / day", name="b", on_limit="wait", max_wait_timeout_s=30):
                calls.ask()
                order.append(number)

        with budget("0.15 USD / day", name="b"):
            calls.ask()
        line = pipeline().ledger.writer._line
        futures = []
        for number in range(10):
            futures.append(pool.submit(one, number))
            assert within_a_second(lambda number=number: len(line.waiting) == number + 1)
        set_elsewhere(0.45)
        assert within_a_second(lambda: len(line.waiting) == 7)
        set_elsewhere(5)
        for future in futures:
            future.result(10)
    assert (sorted(order[:3]), sorted(order)) == ([0, 1, 2], list(range(10)))


def test_a_change_is_not_missed_where_the_first_look_at_it_fails(tmp_path, monkeypatch):
    """What could not be read is read again at the next look, and not only when somebody writes again."""
    reads = []

    def read(store):
        reads.append(store)
        if len(reads) == 1:
            raise LedgerUnavailable("the disk is away for a moment")
        return read_overrides(store)

    with Ledger(tmp_path / "ledger.db") as here, Ledger(tmp_path / "ledger.db") as there:
        assert here.flush()  # the file is there
        assert list(here.overrides) == []
        monkeypatch.setattr(_view, "read_overrides", read)
        there.override_budget(BudgetOverride(name="b", limit=USD, unit="USD"))
        here.writer.start()
        assert within_a_second(lambda: [override.limit for override in here.overrides] == [USD])
    assert len(reads) > 1


@pytest.mark.parametrize("span", [0, 60])
def test_what_best_effort_sees_follows_every_commit(tmp_path, span):
    """A balance is looked up once; after that it follows the commits of this process at once, and those of others."""
    key = ("b", "", 1_800_000_000)
    charge = Charge(budget=key[0], scope=key[1], window_start=key[2], amount=5)

    def spend(book):
        book.write_event(LedgerEvent(event_type="commit", call_id=new_call_id().hex(), charges=(charge,)))
        assert book.flush()

    with Ledger(tmp_path / "ledger.db") as here, Ledger(tmp_path / "ledger.db") as there:
        assert here.flush()
        assert here.cached_balance(key, span).spent == 0
        spend(here)
        assert here.cached_balance(key, span).spent == 5
        spend(there)
        assert within_a_second(lambda: here.cached_balance(key, span).spent == 10)
