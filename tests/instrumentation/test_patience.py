"""How long a provider's answer makes a call wait, as pure functions of its status, headers and body."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollspan.instrumentation._patience import Patience, Waits, asked_for, checked, is_hopeless, is_limited

DATE = "Tue, 10 Mar 2026 12:00:00 GMT"
LATER = "Tue, 10 Mar 2026 12:00:30 GMT"
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
AHEAD = "Fri, 31 Dec 9999 23:59:59 GMT"

HEADERS = (
    ({}, None),
    ({"retry-after": "2"}, 2),
    ({"retry-after": " 0.25 "}, 0.25),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "1e9"}, 1e9),
    ({"retry-after": "9" * 400}, math.inf),
    ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
    *(({"retry-after": text}, None) for text in ("", "-1", "nan", "inf", "-inf", "1_0", "1s", "1, 1", "later", "٣")),
    ({"retry-after": LATER, "date": DATE}, 30),
    ({"retry-after": "Tuesday, 10-Mar-26 12:00:30 GMT", "date": DATE}, 30),
    ({"retry-after": "Tue Mar 10 12:00:30 2026", "date": DATE}, 30),
    ({"retry-after": "Tue, 10 Mar 2026 12:00:30 -0000", "date": DATE}, 30),
    ({"retry-after": DATE, "date": LATER}, 0),
    ({"retry-after": LONG_AGO}, 0),
    ({"retry-after": LONG_AGO, "date": "yesterday"}, 0),
    ({"retry-after": "Tue, 99 Foo 2026 12:00:30 GMT", "date": DATE}, None),
    *(
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}, seconds)
        for text, seconds in (
            ("1s", 1),
            ("6m0s", 360),
            ("20ms", 0.02),
            ("1h2m3.5s", 3723.5),
            ("59.56s", 59.56),
            ("1d1s", 86_401),
            ("250µs", 0.00025),
            ("0s", 0),
            *((text, None) for text in ("", "1", "-1s", "s", "1s!", "1 s", "one", "1m soon")),
        )
    ),
    ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "9s"}, None),
    ({"x-ratelimit-remaining-requests": "0"}, None),
    ({"x-ratelimit-reset-requests": "9s"}, None),
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "2s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6s",
            "x-ratelimit-remaining-other": "5",
            "x-ratelimit-reset-other": "9s",
        },
        6,
    ),
    ({"retry-after": "1", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6s"}, 1),
    ({"retry-after": "?", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6s"}, 6),
    *(
        (
            {"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": at} | clock,
            wait,
        )
        for at, clock, wait in (
            ("2026-03-10T12:00:20Z", {"date": DATE}, 20),
            ("2026-03-10T14:00:20.5+02:00", {"date": DATE}, 20.5),
            ("2026-03-10T11:59:00Z", {"date": DATE}, 0),
            ("2001-01-01T00:00:00Z", {}, 0),
            ("soon", {"date": DATE}, None),
        )
    ),
    (
        {"anthropic-ratelimit-tokens-remaining": "8000", "anthropic-ratelimit-tokens-reset": "2026-03-10T12:00:20Z"},
        None,
    ),
)


@pytest.mark.parametrize(("headers", "seconds"), HEADERS, ids=lambda value: str(value)[:60])
def test_what_the_headers_ask_for(headers, seconds):
    """The seconds come from the most exact header that makes sense; one that makes none is as if it were not there."""
    told = asked_for(headers)
    assert told == (None if seconds is None else pytest.approx(seconds))


@given(
    name=st.sampled_from(
        ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset", "date"]
    ),
    text=st.one_of(
        st.text(max_size=40),
        st.from_regex(r"\A[0-9a-zA-Z:.,+\- ]{0,40}\Z"),
        st.from_regex(r"\A(Mon|Sun), [0-9]{1,2} (Jan|Dec) [0-9]{1,6} [0-9]{1,3}:[0-9]{2}:[0-9]{2} [+-]?[0-9]{0,9}\Z"),
        st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}\Z"),
    ),
)
@example(name="anthropic-ratelimit-tokens-reset", text="0001-01-01T00:00:00+23:59")
@example(name="retry-after", text=AHEAD.replace("GMT", "-2359"))
def test_no_header_breaks_it(name, text):
    """Whatever stands in a header, what comes out is None or a number of seconds that is not negative."""
    headers = {
        "x-ratelimit-remaining-tokens": "0",
        "anthropic-ratelimit-tokens-remaining": "0",
        "retry-after": AHEAD,
        name: text,
    }
    told = asked_for(headers)
    assert told is None or told >= 0


@pytest.mark.parametrize(
    ("status", "headers", "limited"),
    [
        (429, {}, True),
        (429, {"x-should-retry": "false", "retry-after": "1"}, False),
        (429, {"x-should-retry": "true"}, True),
        *((status, {"retry-after": "1"}, True) for status in (503, 529)),
        *((status, {"retry-after": LONG_AGO}, True) for status in (503, 529)),
        *((status, {"retry-after-ms": "1"}, True) for status in (503, 529)),
        *((status, {}, False) for status in (503, 529)),
        *((status, {"retry-after": "soon"}, False) for status in (503, 529)),
        *((status, {"retry-after": "1"}, False) for status in (200, 301, 400, 402, 408, 500, 502)),
    ],
)
def test_which_answers_are_waited_for(status, headers, limited):
    """Waited for is a 429, and an overload that says when it ends, unless the provider says that it is no use."""
    assert is_limited(status, headers) == limited


@pytest.mark.parametrize(
    ("body", "hopeless"),
    [
        (b'{"error":{"code":"insufficient_quota","type":"insufficient_quota","message":"..."}}', True),
        (b'{"error":{"code":null,"type":"insufficient_quota"}}', True),
        (b'{"error":{"code":"billing_hard_limit_reached","type":"invalid_request_error"}}', True),
        (b'{"type":"error","error":{"type":"billing_error","message":"..."}}', True),
        (b'{"error":{"code":"rate_limit_exceeded","type":"tokens","message":"no insufficient_quota"}}', False),
        (b'{"type":"error","error":{"type":"rate_limit_error"}}', False),
        (b'{"error":{"code":429,"type":["billing"]}}', False),
        *((body, False) for body in (b"", b"<html>", b"[]", b"null", b'{"error":null}', b'{"error":"billing"}')),
    ],
)
def test_what_waiting_cannot_cure(body, hopeless):
    """Where the account has no money, time does not help."""
    assert is_hopeless(body) == hopeless


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def waits(*, longest=60.0, in_all=90.0, chance=1.0):
    clock = Clock()
    return Waits(Patience(longest, in_all), clock=clock, chance=lambda: chance), clock


def told(text):
    return {"retry-after": text}


def test_backoff_doubles_up_to_its_cap():
    """Without a hint the waits are at most 0.5, 1, 2, 4, 8, 8 ... seconds, and any part of that by chance."""
    most, _ = waits(in_all=1000)
    half, _ = waits(in_all=1000, chance=0.5)
    assert [most.pause(429, {}, attempts=n) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert [half.pause(429, told("?"), attempts=n) for n in range(1, 7)] == [0.25, 0.5, 1, 2, 4, 4]


def test_backoff_is_no_longer_than_one_wait_may_be():
    """Our own waits fit into the longest wait; where none is allowed, none is made."""
    short, _ = waits(longest=1.5)
    none, _ = waits(longest=0)
    assert [short.pause(429, {}, attempts=n) for n in range(1, 5)] == [0.5, 1, 1.5, 1.5]
    assert none.pause(429, {}, attempts=1) is None


@pytest.mark.parametrize("text", ["60.5", "1e9", "9" * 400, AHEAD])
def test_a_provider_that_asks_for_too_much_is_not_waited_for(text):
    """A wait is never cut short: too long a one is not begun."""
    one, _ = waits(in_all=1e9)
    assert one.pause(429, told(text), attempts=1) is None
    assert one.pause(429, told("60"), attempts=1) == 60


def test_waits_end_within_the_retry_budget():
    """A wait that would end after the budget is not begun, and a shorter one still is."""
    one, clock = waits(in_all=90)
    clock.now += 60
    assert one.pause(429, told("31"), attempts=1) is None
    assert one.pause(429, told("30"), attempts=1) == 30
    clock.now += 30
    assert one.pause(429, told("0.001"), attempts=2) is None
    clock.now += 0.001
    assert one.pause(429, told("0"), attempts=2) is None


@pytest.mark.parametrize("text", ["0", LONG_AGO])
def test_at_once_is_believed_once(text):
    """A provider that always says "at once" is asked with a backoff from the second time on."""
    one, _ = waits()
    assert [one.pause(429, told(text), attempts=n) for n in (1, 2, 3)] == [0, 1, 2]


def test_a_call_has_so_many_attempts():
    """The waits of a call are numbered with the attempts before them, and end before the numbers do."""
    one, _ = waits(in_all=1e9)
    assert one.pause(429, told("1"), attempts=127) == 1
    assert one.pause(429, told("1"), attempts=128) is None


def test_arguments_of_instrument_are_checked():
    """What was not given is left to the settings; what is no number of seconds is refused with its name."""
    assert checked(wait_on_rate_limit=False, max_wait_timeout_s=0, retry_budget_s=None) == {
        "wait_on_rate_limit": False,
        "max_wait_timeout_s": 0,
    }
    for wrong in (-1, math.nan, math.inf, True, "60", 2e9):
        with pytest.raises(ValueError, match=r"retry_budget_s: .* is not a number of seconds"):
            checked(retry_budget_s=wrong)
