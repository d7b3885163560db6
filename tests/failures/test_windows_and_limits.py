"""Windows begin and end where the calendar says, nothing is ever set to zero, and a limit is what it is now."""

import datetime as dt
import itertools
import json
import os
import subprocess
import sys
import time
import zoneinfo
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from scenes import restarted, until

from tollspan.budget import BudgetExhausted, budget
from tollspan.console._cli import cli

DAILY = {"name": "daily", "timezone": "UTC"}
COST = Decimal("0.0100050")  # of a call: 2 tokens of input, 1,000 of output


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still where it is set: `clock("2026-03-08 23:59:59", "Asia/Shanghai")`."""

    def set_to(text, zone="UTC"):
        instant = dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()
        monkeypatch.setattr(time, "time", lambda: instant)
        return instant

    return set_to


@pytest.fixture
def spend(chat):
    """Make one call of 0.010005 USD, or be refused."""
    return lambda: chat(max_tokens=1_000)


ZONES = {
    "Asia/Shanghai": "2026-05-04",
    "Asia/Kolkata": "2026-05-04",
    "America/New_York": "2026-03-08",  # of 23 hours
    "Europe/Berlin": "2026-10-25",  # of 25 hours
    "America/Santiago": "2026-09-06",  # without a midnight
}


@pytest.mark.parametrize(("zone", "day"), ZONES.items(), ids=ZONES)
def test_27_a_day_ends_hours_late_because_its_zone_is_read_as_another(spend, clock, zone, day):
    """Local midnight taken for one of UTC makes days of 32 hours: here a day is the zone's own, to the second."""
    first, next_day = dt.date.fromisoformat(day), dt.date.fromisoformat(day) + dt.timedelta(days=1)
    end = clock(f"{next_day} 00:00:00", zone)
    clock(f"{first} 01:00:00", zone)
    with budget("0.011 USD / day", name="daily", timezone=zone) as handle:
        spend()
        clock(f"{first} 23:59:59", zone)
        with pytest.raises(BudgetExhausted) as refused:
            spend()
        assert refused.value.reset_at == end
        clock(f"{next_day} 00:00:00", zone)
        assert handle.spent == 0
        spend()


def test_28_spend_is_set_to_zero_minutes_after_a_budget_is_made(spend, clock, book):
    """A job that resets what has no reset date yet erases spend: here nothing resets, restarts and upkeep included."""
    for minutes, kind in itertools.product(range(0, 30, 10), ("day", "month", "total")):
        clock(f"2026-05-04 10:{minutes:02}:00")
        with budget(f"0.02 USD / {kind}", name=kind, timezone="UTC") as handle:
            if not minutes:
                spend()
            assert handle.spent == COST
            book.recover()
            book.prune(1)
            restarted()
            assert handle.spent == COST
            with pytest.raises(BudgetExhausted):
                spend()
    assert book.verify() == []


@pytest.fixture
def call_at(provider):
    """Have one of three replicas call at an instant: whether it was admitted. They are processes that stay."""
    job = json.dumps({"url": provider.openai_url, "replicas": 3})
    command = [sys.executable, Path(__file__).with_name("replicas.py"), "calls_at", job]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process, ExitStack() as stack:
        stack.callback(process.kill)

        def call_at(instant, replica):
            print(replica, instant, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield call_at
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the replicas are forked")
def test_29_a_budget_that_starts_anew_goes_on_refusing(call_at):
    """What a process remembers of the day before is renewed by each refusal: here all admit from the first second."""
    noon, midnight = (dt.datetime(2026, 5, day, hour, tzinfo=dt.UTC).timestamp() for day, hour in ((4, 12), (5, 0)))
    assert [call_at(noon, replica) for replica in (0, 1, 2) * 3] == [True] * 3 + [False] * 6
    assert [call_at(midnight - 1, replica) for replica in (0, 1, 2)] == [False] * 3
    assert [call_at(midnight, replica) for replica in (0, 1, 2) * 2] == [True] * 3 + [False] * 3


def test_30_a_window_that_is_added_begins_with_the_spend_of_a_lifetime(spend, clock):
    """A daily limit given to an old key counts all of its past: here it counts the calls of its own window."""
    clock("2026-05-03 12:00:00")
    with budget("1 USD / total", name="key-7"):
        spend()
        clock("2026-05-04 12:00:00")
        spend()
        with budget("0.011 USD / day", name="key-7 by day", timezone="UTC") as added:
            spend()
            assert added.spent == COST
            with pytest.raises(BudgetExhausted):
                spend()


def tollspan(*arguments):
    """Run the command line on the ledger of the test."""
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output


def _is_admitted(spend):
    """Whether a call is admitted now."""
    try:
        spend()
    except BudgetExhausted:
        return False
    return True


def test_31_a_raised_limit_is_not_enforced_until_a_cache_expires(spend):
    """The old limit is enforced from a copy: here calls are measured by the new one, set in code or by hand."""
    with budget("0.011 USD / total", name="b"):
        spend()
        assert not _is_admitted(spend)
    with budget("0.022 USD / total", name="b") as handle:
        spend()
        assert not _is_admitted(spend)
        tollspan("budget", "raise", "b", "0.032 USD")
        until(lambda: _is_admitted(spend))
        assert not _is_admitted(spend)
        assert (handle.limit, handle.spent) == (Decimal("0.032"), 3 * COST)


def test_31_a_correction_is_not_seen_by_what_is_enforced(spend, book):
    """An administrator corrects the spend, and calls are refused as before: here the room is there at once."""
    with budget("0.011 USD / total", name="b") as handle:
        spend()
        assert not _is_admitted(spend)
        tollspan("adjust", book.commit.call_id, "0.0005", "--reason", "the provider has given a credit")
        until(lambda: _is_admitted(spend))
        assert handle.spent == Decimal("0.0005") + COST
    assert book.verify() == []
