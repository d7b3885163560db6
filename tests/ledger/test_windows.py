"""Windows: the calendar of every zone, at every instant, on the days when clocks change too."""

import timeit
from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollspan.ledger import _windows
from tollspan.ledger._windows import Window, WindowKind, did_you_mean

ODD_ZONES = (
    "Africa/Cairo",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Shanghai",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
)
CALENDAR_KINDS = [kind for kind in get_args(WindowKind) if kind != "total"]
zones = st.sampled_from(ODD_ZONES) | st.sampled_from(sorted(available_timezones()))
instants = st.floats(min_value=-2e9, max_value=4e9) | st.integers(min_value=-2_000_000_000, max_value=4_000_000_000)


def local(text, zone):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def utc(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("kind", "zone", "at", "start", "end"),
    [
        ("minute", "UTC", "2026-03-04T05:06:07", "2026-03-04T05:06", "2026-03-04T05:07"),
        ("hour", "UTC", "2026-03-04T05:06:07", "2026-03-04T05:00", "2026-03-04T06:00"),
        ("day", "UTC", "2026-03-04T00:00:00", "2026-03-04T00:00", "2026-03-05T00:00"),
        ("week", "UTC", "2026-03-04T05:06:07", "2026-03-02T00:00", "2026-03-09T00:00"),
        ("week", "UTC", "2026-03-02T00:00:00", "2026-03-02T00:00", "2026-03-09T00:00"),
        ("week", "UTC", "2027-01-03T23:59:59", "2026-12-28T00:00", "2027-01-04T00:00"),
        ("month", "UTC", "2026-03-31T23:59:59", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("month", "UTC", "2026-02-28T12:00:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("month", "UTC", "2028-02-29T12:00:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "UTC", "2026-12-31T12:00:00", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("day", "UTC", "2028-02-29T12:00:00", "2028-02-29T00:00", "2028-03-01T00:00"),
        ("day", "Asia/Shanghai", "2026-03-04T07:59:00", "2026-03-04T00:00", "2026-03-05T00:00"),
        ("day", "Asia/Kolkata", "2026-03-04T00:10:00", "2026-03-04T00:00", "2026-03-05T00:00"),
        ("hour", "Asia/Kathmandu", "2026-03-04T05:59:59", "2026-03-04T05:00", "2026-03-04T06:00"),
        ("month", "Europe/Berlin", "2026-03-31T12:00:00", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("week", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-23T00:00", "2026-03-30T00:00"),
    ],
)
def test_a_window_is_one_of_the_local_calendar(kind, zone, at, start, end):
    """A window starts and ends where the calendar of its zone says, on Mondays for weeks, in leap years too."""
    window = Window(kind, zone)
    assert (window.start(local(at, zone)), window.end(local(at, zone))) == (local(start, zone), local(end, zone))


@pytest.mark.parametrize(
    ("zone", "at", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T03:00", "2026-04-04T13:00", 24.5),
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", 23),  # 00:00 became 01:00
        ("America/Sao_Paulo", "2018-02-17T12:00", "2018-02-17T02:00", 25),  # the next 00:00 became 23:00
        ("Asia/Beirut", "2024-03-31T12:00", "2024-03-30T22:00", 23),  # 00:00 became 01:00
        ("America/Havana", "2025-11-02T12:00", "2025-11-02T04:00", 25),  # 01:00 became 00:00
        ("America/Toronto", "1919-03-31T12:00", "1919-03-31T04:30", 23.5),  # 23:30 became 00:30
        ("Pacific/Apia", "2011-12-29T12:00", "2011-12-29T10:00", 24),  # the day before the one that was skipped
        ("Pacific/Apia", "2011-12-31T12:00", "2011-12-30T10:00", 24),  # the day after it
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone, at, start, hours):
    """A day starts at its first instant, which need not be midnight, and is shorter or longer where clocks change."""
    window, instant = Window("day", zone), local(at, zone)
    assert window.start(instant) == utc(start)
    assert window.end(instant) == utc(start) + hours * 3600


def test_clocks_set_back_across_midnight_do_not_bring_back_a_day():
    """At 00:01 of 29 October 2006 clocks of St. John's went back to 23:01, and the new day went on."""
    window, midnight = Window("day", "America/St_Johns"), utc("2006-10-29T02:30")
    assert window.end(midnight - 1) == midnight
    assert {window.start(midnight + second) for second in (0, 59, 60, 3599, 3660, 80_000)} == {midnight}
    assert window.end(midnight) == midnight + 25 * 3600


@pytest.mark.parametrize(
    ("zone", "transition", "before", "after"),
    [
        ("Europe/Berlin", "2026-10-25T01:00", 3600, 3600),  # 02:00 to 03:00 comes twice
        ("Europe/Berlin", "2026-03-29T01:00", 3600, 3600),  # 02:00 to 03:00 does not come
        ("Australia/Lord_Howe", "2026-04-04T15:00", 3600, 1800),  # 02:00 became 01:30
        ("America/Toronto", "1919-03-31T04:30", 1800, 1800),  # 23:30 became 00:30
    ],
)
def test_an_hour_is_cut_where_the_clocks_change(zone, transition, before, after):
    """An hour ends where the offset of the zone changes, so that no hour is longer than 3600 seconds."""
    window, instant = Window("hour", zone), utc(transition)
    assert (window.start(instant - 1), window.end(instant - 1)) == (instant - before, instant)
    assert (window.start(instant), window.end(instant)) == (instant, instant + after)


@given(kind=st.sampled_from(CALENDAR_KINDS), zone=zones, at=instants)
@example(kind="day", zone="UTC", at=86_399.999999999985)
@example(kind="day", zone="Europe/Berlin", at=82_799.999999999985)
@example(kind="day", zone="America/St_Johns", at=1162089000)
@example(kind="week", zone="America/St_Johns", at=1162092599)
@example(kind="month", zone="Pacific/Apia", at=1325239200)
def test_windows_hold_their_instants_and_touch_without_overlap(kind, zone, at):
    """In every zone, an instant is in its window, and each window starts where the one before ends."""
    window = Window(kind, zone)
    _windows._latest.clear()
    start, end = window.start(at), window.end(at)
    assert start <= at < end
    assert window.start(start) == start
    assert window.start(end) == end
    assert window.end(start) == window.end(end - 1) == end
    assert window.end(start - 1) == start
    assert window.start(end - 1) == start


@given(kind=st.sampled_from(CALENDAR_KINDS), zone=zones, at=instants, other=instants)
def test_the_answer_does_not_depend_on_what_was_asked_before(kind, zone, at, other):
    """A window is a function of kind, zone and instant alone, whatever was looked up in between."""
    window = Window(kind, zone)
    _windows._latest.clear()
    alone = window.start(at), window.end(at)
    window.start(other)
    assert (window.start(at), window.end(at)) == alone


@given(at=instants)
def test_the_fast_path_of_utc_agrees_with_the_calendar(at):
    """Minutes, hours and days of UTC by integer arithmetic are those of the zone Etc/UTC."""
    for kind in CALENDAR_KINDS:
        fast, slow = Window(kind, "UTC"), Window(kind, "Etc/UTC")
        assert (fast.start(at), fast.end(at)) == (slow.start(at), slow.end(at))


@given(zone=st.sampled_from(ODD_ZONES), at=instants)
def test_a_day_starts_at_the_first_instant_of_its_date(zone, at):
    """A second before the start of a day the wall clock shows an earlier date, and at the start the new one."""
    start = Window("day", zone).start(at)
    before, first = (datetime.fromtimestamp(instant, ZoneInfo(zone)).date() for instant in (start - 1, start))
    assert before < first
    assert first - before <= timedelta(days=2)


def test_total_is_one_window_without_end():
    """`total` starts at 0 and has no end, in every zone and at every instant."""
    for zone in ("UTC", "Asia/Tokyo"):
        window = Window("total", zone)
        assert (window.start(1.8e9), window.end(1.8e9)) == (0, None)


@pytest.mark.parametrize(
    ("kind", "zone", "advice"),
    [
        ("day", "Europe/Berln", "did you mean Europe/Berlin?"),
        ("day", "europe/berlin", "Europe/Berlin"),
        ("day", "", "write an IANA name"),
        ("day", "../etc/passwd", "write an IANA name"),
        ("day", "America", "write an IANA name"),
        ("day", 1, "write an IANA name"),
        ("dya", "UTC", "did you mean day?"),
        ("fortnight", "UTC", "minute, hour, day, week, month, total"),
    ],
)
def test_an_unknown_zone_or_kind_is_refused_with_advice(kind, zone, advice):
    """A wrong zone or kind raises ValueError at once, and the text says what to write."""
    with pytest.raises(ValueError, match="write") as refused:
        Window(kind, zone)
    assert advice in str(refused.value)


def test_a_word_like_no_other_gets_no_suggestion():
    """A suggestion is made only where a known word is close."""
    assert did_you_mean("fortnight", ("day", "week")) == ""
    assert did_you_mean("WEEKS", ("day", "week")) == " (did you mean week?)"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_the_window_of_now_is_cheap(zone):
    """Asking again for the window of an instant takes below 5 microseconds, as each call to a model asks."""
    window = Window("day", zone)
    best = min(timeit.repeat(lambda: window.start(1_772_600_000.5), number=1000, repeat=5)) / 1000
    assert best < 5e-6
