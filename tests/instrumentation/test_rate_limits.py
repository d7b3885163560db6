"""A call that meets its provider's rate limit waits, and neither its SDK nor its caller hears of it."""

import asyncio
import contextlib
import gzip
import os
import signal
import sys
import threading
import time
from decimal import Decimal
from email.utils import formatdate

import pytest
from sdk_calls import ASK, KINDS, MODELS, canned, create, drive, library_of, make_client, resolved
from test_outcomes import AMPLE, CALLS, PAGE, call, nano_billed, nano_spent, sdk_of

from tollspan.budget import BudgetExceeded, budget, set_testing
from tollspan.exporter import pipeline, use_pipeline
from tollspan.instrumentation import TollspanInstrumentor, instrument, uninstrument

SOON = ";retry-after=0.01"
LATE = ";retry-after=30"
LIMITED = f"status=429{SOON}"
QUOTA = b'{"error":{"message":"no credit","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}'
BUSY = b'{"type":"error","error":{"type":"rate_limit_error","message":"later"}}'
DEADLINE_S = 30


@pytest.fixture
def patient(seen):
    """What tollspan makes of calls that wait for rate limits."""
    instrument(wait_on_rate_limit=True)
    return seen


def kinds_of(events):
    return [event.event_type for event in events]


def limited(library, *, body=BUSY, **headers):
    return library.Response(429, headers={"content-type": "application/json", **headers}, content=body)


def mock(sdk, answers, *, asynchronous):
    """A client that gets these answers one after the other, the last one again and again; and the list of requests."""
    requests, library = [], library_of(sdk)

    def handle(request):
        requests.append(request)
        answer = answers[min(len(requests), len(answers)) - 1]
        return library.Response(**canned(request)) if answer is None else answer(library)

    transport = library.MockTransport(handle)
    client = (library.AsyncClient if asynchronous else library.Client)(transport=transport)
    return client, requests


async def outcome(work):
    """What a call gives, or the exception that it raises."""
    try:
        return await resolved(work())
    except Exception as error:  # noqa: BLE001 - which one it is, the tests look at
        return error


def ask(provider, sdk, answers, *, asynchronous, max_retries=0, **more):
    """Make a call of an SDK that gets these answers; gives what came of it, and its requests."""

    async def work():
        http_client, requests = mock(sdk, answers, asynchronous=asynchronous)
        options = {"base_url": "http://provider.test/v1", "http_client": http_client, "max_retries": max_retries}
        client = make_client(provider, sdk, asynchronous=asynchronous, **options)
        flavour = "chat" if sdk == "openai" else "messages"
        try:
            return await outcome(lambda: create(client, flavour, **more)), requests
        finally:
            await resolved(client.close())

    return drive(work(), asynchronous=asynchronous)


def check_limited(error, status=429):
    assert getattr(error, "status_code", None) == status, error
    assert status != 429 or type(error).__name__ == "RateLimitError"


@KINDS
@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("kind", CALLS)
def test_only_the_last_answer_is_seen(provider, patient, *, kind, max_retries, asynchronous):
    """The request waits and is sent again until it is let through; one hold covers it all, and it is charged once."""
    before, sent = len(provider.billed), len(provider.requests)
    plan = f"{LIMITED},status=529{SOON},{LIMITED},ok"
    with budget(AMPLE, name="b") as entry:
        answer = call(provider, kind, plan, asynchronous=asynchronous, max_retries=max_retries)
    assert not isinstance(answer, BaseException), answer
    assert kinds_of(patient.events) == ["precheck_hold", *["wait", "retry"] * 3, "commit"]
    for number, event in enumerate(patient.of("wait")):
        assert (event.http_status, event.reason) == ((429, 529, 429)[number], "the provider's rate limit")
        assert event.timing["total_ms"] > 0
    for number, event in enumerate(patient.of("retry"), start=2):
        assert (event.estimated, event.spend_usd, event.charges, event.attempts) == (False, None, (), number)
    assert (patient.end.attempts, patient.end.status, patient.end.estimated) == (4, "ok", False)
    assert nano_spent(patient.events) == entry.spent * 10**9 == nano_billed(provider, before, kind)
    assert (entry.held, patient.open_holds) == (0, 0)
    requests = provider.requests[sent:]
    assert len(requests) == 4
    assert all(request.headers == requests[0].headers for request in requests)
    assert all(request.body == requests[0].body for request in requests)


@KINDS
@pytest.mark.parametrize("kind", ["chat", "chat stream", "messages manager"])
def test_without_a_budget(provider, patient, *, kind, asynchronous):
    """Calls without a budget wait, too, and are charged once."""
    before = len(provider.billed)
    answer = call(provider, kind, f"{LIMITED},ok", asynchronous=asynchronous)
    assert not isinstance(answer, BaseException), answer
    assert kinds_of(patient.events) == ["wait", "retry", "commit"]
    assert nano_spent(patient.events) == nano_billed(provider, before, kind)


@KINDS
@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("kind", ["chat", "messages stream"])
def test_a_limit_that_stays(provider, seen, *, kind, max_retries, asynchronous):
    """When the retry budget is used up, the SDK gets the answer, retries as it always does, and raises its error."""
    instrument(wait_on_rate_limit=True, retry_budget_s=0.6)
    sent, plan = len(provider.requests), "status=429;retry-after=0.05"
    with budget(AMPLE, name="b") as entry:
        error = call(provider, kind, plan, asynchronous=asynchronous, max_retries=max_retries)
    check_limited(error)
    requests = provider.requests[sent:]
    assert requests[-1].headers["x-stainless-retry-count"] == str(max_retries)
    waits, retries, end = seen.of("wait"), seen.of("retry"), seen.end
    assert len(requests) == end.attempts == len(retries) + 1
    assert 1 <= len(waits) == len(retries) - max_retries <= 12
    assert len({event.event_id for event in seen.events}) == len(seen.events)
    assert (end.event_type, end.http_status, end.status) == ("cancel", 429, "error")
    assert (entry.spent, entry.held, seen.open_holds) == (0, 0, 0)


@KINDS
def test_waits_of_a_call_share_one_retry_budget(provider, patient, *, asynchronous):
    """Where the SDK repeats the request for another reason, the waits are numbered on, and the budget is the same."""
    plan = f"{LIMITED},status=500,{LIMITED},ok"
    answer = call(provider, "chat", plan, asynchronous=asynchronous, max_retries=1)
    assert not isinstance(answer, BaseException), answer
    assert kinds_of(patient.events) == ["wait", "retry", "retry", "wait", "retry", "commit"]
    assert [event.http_status for event in patient.of("retry")] == [429, 500, 429]
    assert patient.end.attempts == 4


@KINDS
@pytest.mark.parametrize("kind", ["chat", "chat stream", "messages", "messages manager"])
@pytest.mark.parametrize(
    "fault",
    [
        f"status=429{LATE}",
        "status=429;retry-after=1e9",
        "status=429;x-ratelimit-remaining-tokens=0;x-ratelimit-reset-tokens=6m0s",
        f"status=429{SOON};x-should-retry=false",
        "status=503",
        "status=529;retry-after=soon",
        f"status=500{SOON}",
        f"status=408{SOON}",
    ],
)
def test_what_is_handed_on_at_once(provider, seen, *, fault, kind, asynchronous):
    """Other errors, and limits that last longer than one wait may, go to the SDK as they came."""
    instrument(wait_on_rate_limit=True, max_wait_timeout_s=5)
    sent = len(provider.requests)
    error = call(provider, kind, f"{fault},ok", asynchronous=asynchronous)
    check_limited(error, int(fault[7:10]))
    assert error.body is not None
    assert "a chosen fault" in str(error)
    assert len(provider.requests) == sent + 1
    assert seen.of("wait", "retry") == []


@KINDS
@pytest.mark.parametrize("reset", ["20ms", "0.01s"])
def test_the_reset_of_a_bucket_that_is_used_up(provider, seen, *, reset, asynchronous):
    """Without `Retry-After` the wait lasts until the exhausted bucket is filled again."""
    instrument(wait_on_rate_limit=True, retry_budget_s=20)
    fault = f"status=429;x-ratelimit-remaining-requests=0;x-ratelimit-reset-requests={reset}"
    answer = call(provider, "chat", f"{fault},ok", asynchronous=asynchronous)
    assert not isinstance(answer, BaseException), answer
    assert kinds_of(seen.events) == ["wait", "retry", "commit"]


@KINDS
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
@pytest.mark.parametrize("text", ["Sun, 06 Nov 1994 08:49:37 GMT", "0"])
def test_a_date_that_has_passed(provider, patient, *, text, sdk, asynchronous):
    """A `Retry-After` that has passed means at once."""
    answers = [lambda library: limited(library, **{"retry-after": text, "date": formatdate(usegmt=True)}), None]
    answer, requests = ask(provider, sdk, answers, asynchronous=asynchronous)
    assert answer.model == MODELS[sdk]
    assert len(requests) == 2
    assert kinds_of(patient.events) == ["wait", "retry", "commit"]


@KINDS
@pytest.mark.parametrize("text", ["nan", "-1", "", "tomorrow"])
def test_a_header_that_makes_no_sense(provider, seen, *, text, asynchronous):
    """Without a hint that makes sense the call backs off by itself, for no longer than one wait may last."""
    instrument(wait_on_rate_limit=True, max_wait_timeout_s=0.02)
    answers = [*[lambda library: limited(library, **{"retry-after": text})] * 3, None]
    answer, requests = ask(provider, "openai", answers, asynchronous=asynchronous)
    assert answer.model == MODELS["openai"]
    assert len(requests) == 4
    assert kinds_of(seen.events) == [*["wait", "retry"] * 3, "commit"]


@KINDS
@pytest.mark.parametrize("more", [{}, {"stream": True}])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_an_account_without_credit(provider, patient, *, coding, more, asynchronous):
    """A 429 that is about money is handed on at once, and its body is as it came."""
    body = gzip.compress(QUOTA) if coding == "gzip" else QUOTA
    headers = {"retry-after": "0.01", "content-encoding": coding}

    def answer(library):
        parts = _in_pieces(body, asynchronous=asynchronous)
        return library.Response(429, headers=headers | {"content-type": "application/json"}, content=parts)

    error, requests = ask(provider, "openai", [answer, None], asynchronous=asynchronous, **more)
    check_limited(error)
    assert (error.code, error.body["message"]) == ("insufficient_quota", "no credit")
    assert error.response.headers["content-encoding"] == coding
    assert len(requests) == 1
    assert kinds_of(patient.events) == ["cancel"]
    assert patient.end.error_type == "insufficient_quota"


def _in_pieces(body, *, asynchronous, error=None):
    async def slowly():
        yield body[:10]
        if error is not None:
            raise error
        yield body[10:]

    def at_once():
        yield body[:10]
        if error is not None:
            raise error
        yield body[10:]

    return slowly() if asynchronous else at_once()


@KINDS
def test_an_answer_that_breaks_off(provider, patient, *, asynchronous):
    """The status of a streaming request's answer is enough to wait; a body that cannot be read is not missed."""

    def broken(library):
        parts = _in_pieces(BUSY, asynchronous=asynchronous, error=library.ReadError("gone"))
        return library.Response(429, headers={"retry-after": "0.01"}, content=parts)

    stream, requests = ask(provider, "anthropic", [broken, None], asynchronous=asynchronous, stream=True)
    assert hasattr(stream, "response"), stream
    assert len(requests) == 2
    assert kinds_of(patient.of("wait", "retry")) == ["wait", "retry"]


@KINDS
@pytest.mark.parametrize("kind", CALLS)
def test_a_connection_is_given_back_before_the_wait(provider, patient, *, kind, asynchronous):
    """A client that may have one connection only can wait, and send again."""
    flavour, _, way = kind.partition(" ")
    library = library_of(sdk_of(kind))

    async def work():
        http = (library.AsyncClient if asynchronous else library.Client)(
            limits=library.Limits(max_connections=1), timeout=library.Timeout(20, pool=1)
        )
        client = make_client(provider, sdk_of(kind), asynchronous=asynchronous, http_client=http)
        headers = {"x-local-provider": f"{LIMITED},{LIMITED},ok", "x-local-provider-key": os.urandom(4).hex()}
        try:
            more = {"stream": True} if way else {}
            answer = await resolved(create(client, flavour, extra_headers=headers, **more))
            if way:
                await resolved(answer.close())
        finally:
            await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    assert kinds_of(patient.of("wait", "retry")) == ["wait", "retry"] * 2


@pytest.mark.parametrize("more", [{}, {"stream": True}])
async def test_a_task_that_is_cancelled_while_it_waits(provider, patient, *, more):
    """Its call ends as not billed: the hold is given back, and nothing is sent any more."""
    answers = [lambda library: limited(library, **{"retry-after": "30"}), None]
    http_client, requests = mock("openai", answers, asynchronous=True)
    client = make_client(provider, "openai", asynchronous=True, base_url="http://p.test/v1", http_client=http_client)
    with budget(AMPLE, name="b") as entry:
        task = asyncio.create_task(create(client, "chat", **more))
        until = time.monotonic() + DEADLINE_S
        # From its answer to its wait, the task gives way to no other.
        while not requests and time.monotonic() < until:  # noqa: ASYNC110 - a transport has no event to wait for
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert kinds_of(patient.events) == ["precheck_hold", "cancel"]
    assert (patient.end.status, patient.end.http_status, patient.end.attempts) == ("cancelled", 429, 1)
    assert (entry.spent, entry.held, patient.open_holds) == (0, 0, 0)
    assert len(requests) == 1
    await client.close()


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_a_thread_that_is_interrupted_while_it_waits(provider, patient, *, sdk):
    """KeyboardInterrupt ends the wait, and the call as not billed."""
    main, over = threading.get_ident(), threading.Event()

    def interrupt():
        while not over.wait(0.005):
            if sys._current_frames()[main].f_code.co_name == "waited":
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    thread.start()
    answers = [lambda library: limited(library, **{"retry-after": "30"}), None]
    try:
        with budget(AMPLE, name="b") as entry, pytest.raises(KeyboardInterrupt):
            ask(provider, sdk, answers, asynchronous=False)
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert kinds_of(patient.events) == ["precheck_hold", "cancel"]
    assert (patient.end.status, patient.end.http_status, patient.end.attempts) == ("cancelled", 429, 1)
    assert (entry.spent, entry.held, patient.open_holds) == (0, 0, 0)


@KINDS
def test_a_body_that_is_streamed_is_not_sent_twice(provider, patient, *, asynchronous):
    """What the application makes while it is sent is there only once: it gets the provider's answer."""
    library, sent = library_of("openai"), len(provider.requests)
    body = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'
    headers = {"x-local-provider": f"{LIMITED},{LIMITED}", "content-length": str(len(body))}

    async def work():
        client = (library.AsyncClient if asynchronous else library.Client)(headers=headers)
        content = _in_pieces(body, asynchronous=asynchronous)
        response = await resolved(client.post(f"{provider.openai_url}/chat/completions", content=content))
        await resolved(client.aclose() if asynchronous else client.close())
        return response.status_code

    assert drive(work(), asynchronous=asynchronous) == 429
    assert len(provider.requests) == sent + 1
    assert patient.of("wait", "retry") == []


@KINDS
@pytest.mark.parametrize("way", ["whole", "stream"])
def test_requests_of_the_application_itself(provider, patient, *, way, asynchronous):
    """A request that no SDK has made waits, too."""
    library = library_of("openai")
    headers = {"x-local-provider": f"{LIMITED},{LIMITED},ok", "x-local-provider-key": os.urandom(4).hex()}
    body = {"model": MODELS["openai"], "messages": ASK}

    async def work():
        client = (library.AsyncClient if asynchronous else library.Client)()
        request = client.build_request("POST", f"{provider.url}/v1/chat/completions", json=body, headers=headers)
        response = await resolved(client.send(request, stream=way == "stream"))
        text = await resolved(response.aread() if asynchronous else response.read())
        await resolved(client.aclose() if asynchronous else client.close())
        return response.status_code, text

    with budget(AMPLE, name="b") as entry:
        status, text = drive(work(), asynchronous=asynchronous)
    assert status == 200
    assert b'"usage"' in text
    assert kinds_of(patient.events) == ["precheck_hold", *["wait", "retry"] * 2, "commit"]
    assert (entry.held, patient.end.attempts) == (0, 3)


@KINDS
def test_an_attempt_that_may_have_been_billed_has_a_hold_of_its_own(provider, patient, *, asynchronous):
    """A gateway's 503 tells nothing of the bill: before the request is sent again, it is counted, and held anew."""
    plan = f"status=503{PAGE}{SOON},ok"
    with budget(AMPLE, name="b") as entry:
        answer = call(provider, "chat", plan, asynchronous=asynchronous)
    assert not isinstance(answer, BaseException), answer
    first, _, retry, second, commit = patient.events
    assert kinds_of(patient.events) == ["precheck_hold", "wait", "retry", "precheck_hold", "commit"]
    assert retry.spend_usd == first.cost_est_usd == second.cost_est_usd
    assert (entry.spent, entry.held) == (retry.spend_usd + commit.spend_usd, 0)


@KINDS
def test_a_repeat_that_no_budget_has_room_for_is_not_sent(provider, patient, *, asynchronous):
    """The second hold may be refused, as before a retry of the SDK."""
    with budget(AMPLE, name="first"):
        call(provider, "chat", "ok", asynchronous=asynchronous)
    hold, sent = patient.of("precheck_hold")[0].cost_est_usd, len(provider.requests)
    with budget(f"{hold * Decimal('1.5')} USD", name="b") as entry:
        error = call(provider, "chat", f"status=503{PAGE}{SOON},ok", asynchronous=asynchronous)
    assert isinstance(error, BudgetExceeded), error
    assert len(provider.requests) == sent + 1
    assert (entry.spent, entry.held, patient.open_holds) == (hold, 0, 0)


def test_waits_for_the_provider_and_for_a_budget_are_told_apart(provider, patient):
    """A repeat may wait for its provider and then for a budget: the ledger has both, and both reasons."""
    with budget(AMPLE, name="first"):
        call(provider, "chat", "ok", asynchronous=False)
    hold, before = patient.of("precheck_hold")[0].cost_est_usd, len(patient.events)
    patience = budget(f"{hold * Decimal('2.8')} USD / total", name="b", on_limit="wait", max_wait_timeout_s=DEADLINE_S)

    def slow_call():
        with patience:
            call(provider, "chat", "slow=0.3", asynchronous=False)

    arrived = len(provider.requests)
    thread = threading.Thread(target=slow_call)
    thread.start()
    until = time.monotonic() + DEADLINE_S
    while len(provider.requests) == arrived and time.monotonic() < until:
        time.sleep(0.005)
    with patience:
        answer = call(provider, "chat", f"status=503{PAGE}{SOON},ok", asynchronous=False)
    thread.join()
    assert not isinstance(answer, BaseException), answer
    waits = [event for event in patient.events[before:] if event.event_type == "wait"]
    assert [(event.reason, event.http_status) for event in waits] == [
        ("the provider's rate limit", 503),
        ("budget", None),
    ]
    assert len({event.call_id for event in waits}) == 1
    assert patient.open_holds == 0


@KINDS
def test_off_it_changes_nothing(provider, seen, *, asynchronous):
    """Without the option the SDK gets each answer."""
    sent = len(provider.requests)
    check_limited(call(provider, "chat", f"{LIMITED},ok", asynchronous=asynchronous))
    assert len(provider.requests) == sent + 1
    assert kinds_of(seen.events) == ["cancel"]


def _waits(provider):
    return not isinstance(call(provider, "chat", f"{LIMITED},ok", asynchronous=False), BaseException)


def test_how_it_is_switched(provider, instrumented):
    """What `instrument` was told last holds until `uninstrument`; a call that says nothing changes nothing."""
    with instrumented():
        assert not _waits(provider)
        instrument(wait_on_rate_limit=True)
        assert _waits(provider)
        instrument()
        assert _waits(provider)
        instrument(retry_budget_s=0)
        assert not _waits(provider)
        instrument(retry_budget_s=9, max_wait_timeout_s=0.001)
        assert not _waits(provider)
        instrument(wait_on_rate_limit=False, max_wait_timeout_s=9)
        assert not _waits(provider)
        instrument(wait_on_rate_limit=True)
        assert _waits(provider)
        uninstrument()
        instrument()
        assert not _waits(provider)


def test_settings_and_arguments(provider, instrumented, monkeypatch):
    """The settings decide where `instrument` is told nothing, as in zero-code mode; its arguments win."""
    monkeypatch.setenv("TOLLSPAN_WAIT_ON_RATE_LIMIT", "true")
    monkeypatch.setenv("TOLLSPAN_RETRY_BUDGET_S", "9")
    use_pipeline(None)
    with instrumented():
        assert pipeline().settings.retry_budget_s == 9
        assert _waits(provider)
        instrument(max_wait_timeout_s=0.001)
        assert not _waits(provider)
    with instrumented():
        instrument(wait_on_rate_limit=False)
        assert not _waits(provider)


def test_settings_of_a_test_hold_whenever_it_was_instrumented(provider, instrumented):
    """Settings are looked at for each call, so those of `set_testing()` begin and end with it."""
    with instrumented():
        assert not _waits(provider)
        with set_testing(wait_on_rate_limit=True):
            assert _waits(provider)
        assert not _waits(provider)


def test_the_instrumentor_takes_the_same_arguments(provider):
    """What is given to the instrumentor reaches `instrument`."""
    instrumentor = TollspanInstrumentor()
    instrumentor.instrument(wait_on_rate_limit=True, retry_budget_s=9)
    with contextlib.ExitStack() as stack:
        stack.callback(instrumentor.uninstrument)
        assert _waits(provider)
    assert not _waits(provider)


def test_nonsense_is_refused():
    """A mistake in the arguments is told where it is made, before anything is instrumented."""
    with pytest.raises(ValueError, match="max_wait_timeout_s: -1 is not a number of seconds"):
        instrument(wait_on_rate_limit=True, max_wait_timeout_s=-1)
