"""Budgets and the clock: a window is where the calendar says it is, in every process, and nothing is ever zeroed."""

import datetime as dt
import time
import zoneinfo
from decimal import Decimal

import pytest

from tollspan.budget import BudgetExhausted, budget
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.ledger import load_settings


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still where it is set: `clock("2026-03-08 23:59:59", "Asia/Shanghai")`."""

    def set_to(text, zone="UTC"):
        instant = dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()
        monkeypatch.setattr(time, "time", lambda: instant)
        return instant

    return set_to


def daily(zone, **options):
    return budget("0.15 USD / day", name="daily", timezone=zone, **options)


ZONES = [
    ("Asia/Shanghai", "2026-05-04"),
    ("Asia/Kolkata", "2026-05-04"),
    ("Asia/Kathmandu", "2026-05-04"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("UTC", "2026-12-31"),
]


@pytest.mark.parametrize(("zone", "day"), ZONES)
def test_a_day_ends_at_midnight_of_its_zone_and_not_hours_later(calls, clock, zone, day):
    """Spent to the last second of the local day, free from the first second of the next, also when clocks change."""
    next_day = dt.date.fromisoformat(day) + dt.timedelta(days=1)
    midnight = clock(f"{next_day} 00:00:00", zone)
    clock(f"{day} 00:00:00", zone)
    with daily(zone) as handle:
        calls.spend(10_000)
        clock(f"{day} 23:59:59", zone)
        with pytest.raises(BudgetExhausted) as refused:
            calls.ask()
        assert refused.value.reset_at == midnight
        clock(f"{next_day} 00:00:00", zone)
        assert handle.spent == 0
        calls.spend(10_000)
        clock(f"{next_day} 23:59:59", zone)
        with pytest.raises(BudgetExhausted):
            calls.ask()


def test_spend_is_not_zeroed_minutes_after_creation(calls, clock):
    """Nothing runs that resets: what was spent stands until its window is over, and behind it for good."""
    with daily("UTC") as handle:
        for minutes in range(0, 60, 10):
            clock(f"2026-05-04 10:{minutes:02}:00")
            if minutes == 0:
                calls.spend(10_000)
            assert handle.spent == Decimal("0.10025")
        clock("2026-05-05 10:00:00")
        assert handle.spent == 0
        clock("2026-05-04 23:00:00")
        assert handle.spent == Decimal("0.10025")


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_after_the_turn_of_a_window_every_process_admits(calls, clock, mode):
    """No process goes on refusing by what it remembers of the day before, however often it was asked."""
    processes = [Pipeline(load_settings()) for _ in range(3)]
    clock("2026-05-04 12:00:00")
    with daily("UTC", mode=mode) as handle:
        for line in processes:
            use_pipeline(line)
            if line is processes[0]:
                calls.spend(20_000 if mode == "best_effort" else 10_000)
            for _ in range(3):
                with pytest.raises(BudgetExhausted):
                    calls.ask()
        clock("2026-05-05 00:00:00")
        for number, line in enumerate(processes):
            use_pipeline(line)
            record, _ = calls.ask(max_output_tokens=1_000)
            calls.settle(record, 1_000)
            assert handle.spent == (number + 1) * Decimal("0.01025")
    for line in processes[:-1]:
        line.close()


def test_a_call_counts_in_the_window_that_it_began_in(calls, clock):
    """A call over midnight is charged to the day of its hold, and takes no room of the new day."""
    clock("2026-05-04 23:59:59")
    with daily("UTC") as handle:
        record, _ = calls.ask()
        clock("2026-05-05 00:00:01")
        assert (handle.held, handle.spent) == (0, 0)
        calls.settle(record)
        assert (handle.held, handle.spent) == (0, 0)
        clock("2026-05-04 23:59:59")
        assert (handle.held, handle.spent) == (0, Decimal("0.10025"))
    assert pipeline().ledger.verify() == []


def test_a_limit_added_later_counts_only_its_window(calls, clock):
    """A key that has spent for months is not refused by a daily budget that it gets today."""
    clock("2026-05-04 12:00:00")
    with budget("50 USD / total", name="lifetime"):
        calls.spend(300_000)
        clock("2026-05-05 12:00:00")
        with daily("UTC") as added:
            calls.spend(10_000)
            assert added.spent == Decimal("0.10025")


def test_a_raised_limit_holds_from_the_next_call_on(calls):
    """The limit is what the code says now, and not what the ledger has noted before."""
    with budget("0.15 USD / month", name="b"):
        calls.spend(10_000)
        with pytest.raises(BudgetExhausted):
            calls.ask()
    with budget("0.30 USD / month", name="b"):
        calls.ask()
    assert [k.definition.limit for k in pipeline().ledger.known_budgets()] == [300_000_000]
