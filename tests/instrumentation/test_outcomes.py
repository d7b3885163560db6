"""What an attempt's ending means for the bill, row by row of the table of outcomes in the design."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from dataclasses import dataclass
from decimal import Decimal

import pytest
from sdk_calls import FLAVOURS, KINDS, RATES, arguments, create, drive, entered, listed, make_client, resolved

from tollspan.budget import BudgetExceeded, budget

AGAIN = ";retry-after=0.01"
PAGE = ";body=html"
AMPLE = "5 USD"
CALLS = ("chat", "responses", "messages", "chat stream", "messages stream", "messages manager")


@dataclass(frozen=True)
class Row:
    """One ending of an attempt: the provider's fault, what it says of the bill, and the HTTP status if any."""

    fault: str
    outcome: str
    http_status: int | None = None


ROWS = (
    Row("refused", "unbilled"),
    *(Row(f"status={code}", "unbilled", code) for code in (400, 401, 403, 404, 409, 413, 422, 429)),
    *(Row(f"status={code}", "unbilled", code) for code in (500, 503, 529)),
    *(Row(f"status={code}{PAGE}", "unknown", code) for code in (500, 502, 503, 529)),
    *(Row(f"status={code}", "unknown", code) for code in (408, 499, 502, 504)),
    Row("hang=1", "unknown"),
    Row("drop", "unknown"),
    Row("reset", "unknown"),
    Row("interrupted", "unknown"),
    Row("cut=1", "unknown"),
    Row("not-json", "billed", 200),
)
OF_STREAMS_TOO = {row.fault for row in ROWS} - {"cut=1", "not-json"}
"""A stream that has begun has endings of its own, see `test_stream_endings`."""
CASES = [(row, kind) for row in ROWS for kind in ("chat", "messages")] + [
    (row, "messages stream") for row in ROWS if row.fault in OF_STREAMS_TOO
]


@pytest.fixture(autouse=True)
def _interruptible():
    """SIGINT interrupts, also where a shell that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sdk_of(kind):
    return FLAVOURS[kind.partition(" ")[0]]


def _closed_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


async def _make(client, kind, **more):
    """Make a call of one of CALLS, and read its answer to the end."""
    flavour, _, way = kind.partition(" ")
    if way == "manager":
        async with entered(client.messages.stream(**{**arguments(flavour), **more})) as stream:
            return await listed(stream)
    if way == "stream":
        return await listed(await resolved(create(client, flavour, stream=True, **more)))
    return await resolved(create(client, flavour, **more))


def call(provider, kind, fault, *, asynchronous, max_retries=0, **more):
    """Make a call under a fault; gives its answer, or the exception that reached the caller."""

    async def work():
        options = {"max_retries": max_retries, "timeout": 0.15 if fault.startswith("hang") else 20}
        if fault == "refused":
            options["base_url"] = f"http://127.0.0.1:{_closed_port()}/v1"
        client = make_client(provider, sdk_of(kind), asynchronous=asynchronous, **options)
        plan = {"refused": "ok", "interrupted": "hang=1"}.get(fault, fault)
        headers = {"x-local-provider": plan, "x-local-provider-key": os.urandom(4).hex()}
        try:
            if fault == "interrupted" and asynchronous:
                return await asyncio.wait_for(_make(client, kind, extra_headers=headers, **more), 0.15)
            if fault == "interrupted":
                threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT)).start()
            return await _make(client, kind, extra_headers=headers, **more)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - which one it is, the tests look at
            return error
        finally:
            await resolved(client.close())

    return drive(work(), asynchronous=asynchronous)


def nano_billed(provider, since, kind):
    """What the provider has billed since so many bills, in nano-USD."""
    rate_in, rate_out = RATES[sdk_of(kind)]
    return sum(rate_in * bill.input_tokens + rate_out * bill.output_tokens for bill in provider.billed[since:])


def nano_spent(events):
    """What these events add to spend, in nano-USD."""
    return sum(int((event.spend_usd or 0) * 10**9) for event in events)


def _check_end(event, row):
    kind = "cancel" if row.outcome == "unbilled" else "commit"
    assert (event.event_type, event.http_status, event.attempts) == (kind, row.http_status, 1)
    assert event.status == ("cancelled" if row.fault == "interrupted" else "error")
    assert event.error_type
    assert event.estimated == (row.outcome != "unbilled")
    assert (event.reason is None) == (row.outcome == "unbilled")


@KINDS
@pytest.mark.parametrize(("row", "kind"), CASES, ids=[f"{row.fault}-{kind}".replace(";", "-") for row, kind in CASES])
def test_under_a_strict_budget(provider, seen, *, row, kind, asynchronous):
    """An attempt that was not billed gives its hold back, one that may have been keeps it as estimated spend."""
    before = len(provider.billed)
    with budget(AMPLE, name="b") as entry:
        assert isinstance(call(provider, kind, row.fault, asynchronous=asynchronous), BaseException)
    hold, end = seen.events
    assert hold.event_type == "precheck_hold"
    _check_end(end, row)
    assert entry.spent == (0 if row.outcome == "unbilled" else hold.cost_est_usd)
    assert (entry.held, seen.open_holds) == (0, 0)
    assert entry.spent * 10**9 >= nano_billed(provider, before, kind)


@KINDS
@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.fault.replace(";", "-"))
def test_without_a_budget(provider, seen, *, row, asynchronous):
    """Without a hold, what may have been billed is counted at the most that the request can cost."""
    before = len(provider.billed)
    call(provider, "chat", row.fault, asynchronous=asynchronous)
    (end,) = seen.events
    _check_end(end, row)
    assert nano_spent([end]) >= nano_billed(provider, before, "chat")


@KINDS
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("code", [429, 529])
def test_retries_of_unbilled_attempts_share_one_hold(provider, seen, *, code, kind, asynchronous):
    """Each attempt that was not billed is a `retry` without an amount, and the hold is used for the next one."""
    before, plan = len(provider.billed), f"status={code}{AGAIN},status={code}{AGAIN},ok"
    with budget(AMPLE, name="b") as entry:
        answer = call(provider, kind, plan, asynchronous=asynchronous, max_retries=2)
    assert not isinstance(answer, BaseException), answer
    assert [e.event_type for e in seen.events] == ["precheck_hold", "retry", "retry", "commit"]
    for number, event in enumerate(seen.of("retry"), start=1):
        assert (event.estimated, event.spend_usd, event.charges) == (False, None, ())
        assert (event.http_status, event.status, event.attempts) == (code, "error", number + 1)
    assert (seen.end.attempts, seen.end.status, seen.end.estimated) == (3, "ok", False)
    assert nano_spent(seen.events) == entry.spent * 10**9 == nano_billed(provider, before, kind)
    assert (entry.held, seen.open_holds) == (0, 0)


@KINDS
@pytest.mark.parametrize("kind", CALLS)
def test_retries_of_unknown_attempts_are_held_and_counted_each(provider, seen, *, kind, asynchronous):
    """An attempt that may have been billed becomes estimated spend, and the next one has a hold of its own."""
    with budget(AMPLE, name="b") as entry:
        answer = call(provider, kind, f"status=502{PAGE}{AGAIN},ok", asynchronous=asynchronous, max_retries=2)
    assert not isinstance(answer, BaseException), answer
    assert [e.event_type for e in seen.events] == ["precheck_hold", "retry", "precheck_hold", "commit"]
    first, retry, second, commit = seen.events
    assert (retry.estimated, retry.http_status, commit.estimated, commit.attempts) == (True, 502, False, 2)
    assert first.event_id != second.event_id
    assert retry.spend_usd == first.cost_est_usd == second.cost_est_usd > commit.spend_usd > 0
    assert (entry.spent, entry.held, seen.open_holds) == (retry.spend_usd + commit.spend_usd, 0, 0)


@KINDS
@pytest.mark.parametrize("mode", ["best_effort", None])
def test_without_holds_unknown_attempts_are_counted_too(provider, seen, *, mode, asynchronous):
    """Where nothing is held, an attempt that may have been billed is spend all the same, of best_effort budgets too."""
    plan = f"status=502{PAGE}{AGAIN},status=429{AGAIN},ok"
    with budget(AMPLE, name="b", mode=mode) if mode else contextlib.nullcontext() as entry:
        call(provider, "chat", plan, asynchronous=asynchronous, max_retries=2)
        assert entry is None or entry.spent * 10**9 == nano_spent(seen.events)
    assert [(e.event_type, e.estimated) for e in seen.events] == [("retry", True), ("retry", False), ("commit", False)]
    assert seen.events[0].spend_usd > seen.events[2].spend_usd > 0
    assert seen.events[1].spend_usd is None


@KINDS
@pytest.mark.parametrize("kind", ["chat", "messages manager"])
def test_transport_errors_are_retried_the_same_way(provider, seen, *, kind, asynchronous):
    """A connection dropped after the request may have been billed: what the provider billed is counted at the least."""
    before = len(provider.billed)
    with budget(AMPLE, name="b") as entry:
        answer = call(provider, kind, "drop,ok", asynchronous=asynchronous, max_retries=1)
    assert not isinstance(answer, BaseException), answer
    assert [e.event_type for e in seen.events] == ["precheck_hold", "retry", "precheck_hold", "commit"]
    assert entry.spent * 10**9 >= nano_billed(provider, before, kind) > 0
    assert seen.of("retry")[0].error_type == "RemoteProtocolError"


def _hold_of(provider, seen, kind, *, asynchronous, output_bound="clamp", **more):
    with budget(AMPLE, name="first", output_bound=output_bound):
        call(provider, kind, "ok", asynchronous=asynchronous, **more)
    return seen.of("precheck_hold")[0].cost_est_usd


@KINDS
@pytest.mark.parametrize(
    ("fault", "kind"),
    [*((f"status=502{PAGE}{AGAIN}", kind) for kind in CALLS), ("drop", "chat"), ("drop", "messages manager")],
)
def test_a_refused_retry_is_not_sent(provider, seen, *, kind, fault, asynchronous):
    """Where the budget has no room for the second hold, nothing more is sent, and the caller gets the refusal."""
    hold = _hold_of(provider, seen, kind, asynchronous=asynchronous)
    before, sent = len(seen.events), len(provider.requests)
    with budget(f"{hold * Decimal('1.5')} USD", name="b") as entry:
        error = call(provider, kind, fault, asynchronous=asynchronous, max_retries=2)
    assert isinstance(error, BudgetExceeded), error
    assert type(error.__cause__).__name__ == ("RemoteProtocolError" if fault == "drop" else "NoneType")
    assert len(provider.requests) == sent + 1
    events = seen.events[before:]
    assert [e.event_type for e in events] == ["precheck_hold", "retry", "cancel"]
    assert (events[-1].status, events[-1].attempts, events[-1].error_type) == ("error", 1, "BudgetExhausted")
    assert (entry.spent, entry.held, seen.open_holds) == (hold, 0, 0)
    assert nano_spent(events) == hold * 10**9


@KINDS
@pytest.mark.parametrize("output_bound", ["clamp", 1_000])
def test_a_retry_is_held_at_what_its_request_says(provider, seen, *, output_bound, asynchronous):
    """What an SDK repeats can be clamped no more: its hold is the first one's, or the retry is refused."""
    more = {"max_completion_tokens": None, "asynchronous": asynchronous}
    plan = f"status=502{PAGE}{AGAIN},ok"
    hold, sent = _hold_of(provider, seen, "chat", output_bound=output_bound, **more), len(provider.requests)
    with budget(f"{hold * 2} USD", name="twice", output_bound=output_bound):
        assert not isinstance(call(provider, "chat", plan, max_retries=2, **more), BaseException)
    assert {event.cost_est_usd for event in seen.of("precheck_hold")} == {hold}
    with budget(f"{hold * Decimal('1.9')} USD", name="less", output_bound=output_bound):
        assert isinstance(call(provider, "chat", plan, max_retries=2, **more), BudgetExceeded)
    assert len(provider.requests) == sent + 3
    assert seen.open_holds == 0
