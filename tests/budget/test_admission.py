"""What strict admission lets out: requests within their budgets, changed no more than they have to be."""

import asyncio
import gc
import os
import signal
import time
from contextlib import ExitStack, nullcontext, suppress
from decimal import Decimal

import openai
import pytest

from tollspan.budget import (
    BudgetExceeded,
    BudgetExhausted,
    LedgerOutOfReach,
    UnboundedCost,
    UnpricedModel,
    aadmit,
    budget,
    scope,
)
from tollspan.console._provider import Answer
from tollspan.ledger import internal_errors

HELLO = [{"role": "user", "content": "hello"}]


def run(limit, **options):
    return budget(limit, **{"name": "run"} | options)


def maxima(provider):
    return [request.body.get("max_completion_tokens", request.body.get("max_tokens")) for request in provider.requests]


# ---- clamping


def test_where_the_models_maximum_fits_the_request_stays_as_it_is(chat, provider, book):
    """A wide budget holds the model's maximum and changes nothing."""
    with run("1 USD"):
        chat()
    hold = next(book.events)
    assert maxima(provider) == [None]
    assert Decimal("0.16384") < hold.cost_est_usd < Decimal("0.165")


def test_a_tight_remainder_admits_cheap_calls_cut_to_what_it_buys(chat, provider):
    """Near its end a budget does not refuse what would fit: the request carries the largest maximum that it can pay."""
    with run("0.05 USD") as handle:
        chat()
        assert 256 <= maxima(provider)[0] <= 5_000
        assert Decimal("0.049") < handle.spent <= Decimal("0.05")
        assert provider.billed_usd() == handle.spent


def test_a_call_is_never_cut_below_the_floor(chat, provider, configure):
    """Below TOLLSPAN_OUTPUT_FLOOR a cut answer is worth nothing: the call is refused."""
    configure(output_floor=500)
    with run("0.004 USD"), pytest.raises(BudgetExhausted):
        chat()
    with run("0.006 USD"):
        chat()
    assert maxima(provider)[0] >= 500


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_an_explicit_maximum_is_never_changed(chat, provider, key):
    """What the caller asked for goes out as it is, or not at all."""
    with run("0.05 USD"):
        chat(**{key: 4_000})
        with pytest.raises(BudgetExhausted):
            chat(**{key: 4_000})
    assert [request.body[key] for request in provider.requests] == [4_000]


@pytest.mark.parametrize("max_tokens", [None, 1_500])
def test_every_choice_is_held(chat, provider, max_tokens):
    """`n` answers may each be as long as the maximum: all of them are held, and a cut is shared between them."""
    with run("0.05 USD") as handle:
        chat(n=3, **({"max_tokens": max_tokens} if max_tokens else {}))
        assert maxima(provider)[0] <= 1_666
        assert Decimal("0.04") < provider.billed_usd() == handle.spent <= Decimal("0.05")


@pytest.mark.parametrize(
    ("output_bound", "limit", "sent"),
    [("max", "0.5 USD", [None]), ("max", "0.1 USD", []), (1_000, "0.5 USD", [1_000]), (1_000, "0.005 USD", [])],
)
def test_other_bounds_are_not_cut(chat, provider, output_bound, limit, sent):
    """`max` sends the request as it is, a number sends that number; where it does not fit, nothing is sent."""
    with run(limit, output_bound=output_bound), suppress(BudgetExhausted):
        chat()
    assert maxima(provider) == sent


def test_a_budget_in_tokens_cuts_as_well(chat, provider):
    """The room that is left after the input is what the answer may take."""
    with run("5000 tokens") as handle:
        chat()
        assert 4_500 < maxima(provider)[0] < 5_000
        assert handle.spent == provider.billed[0].input_tokens + provider.billed[0].output_tokens


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("explicit", [None, 16_000])
@pytest.mark.parametrize("limit", ["0.20 USD", "0.35 USD"])
def test_a_repetition_by_the_sdk_is_held_as_it_is_sent(answering, book, explicit, limit):
    """An SDK repeats the request that it has: a hold for less of it would let the budget be passed."""
    provider = answering(lambda _: Answer(output_tokens=16_000, fault="reset,ok"))
    client = openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=1)
    options = {} if explicit is None else {"max_tokens": explicit}
    sent = 2 if limit == "0.35 USD" else 1
    with run(limit) as handle:
        with suppress(BudgetExceeded) if sent == 1 else nullcontext():
            client.chat.completions.create(model="gpt-4o", messages=HELLO, **options)
        held = next(book.events).cost_est_usd
        assert len(provider.billed) == sent
        assert handle.spent == held + (provider.billed[1].cost_usd if sent == 2 else 0)
        assert handle.held == 0
    assert provider.billed_usd() <= handle.spent <= handle.limit


# ---- prices and bounds


def test_a_model_without_a_price_is_refused_before_anything_is_sent(chat, provider, book):
    """The text tells what is missing and what to do; nothing is sent, and the ledger has the call as cancelled."""
    with run("5 USD"), pytest.raises(UnpricedModel, match=r"'gpt-unheard-of'.*TOLLSPAN_PRICES.*TOLLSPAN_HOLD_USD"):
        chat(model="gpt-unheard-of")
    assert provider.requests == []
    (cancel,) = book.events
    assert (cancel.event_type, cancel.reason) == ("cancel", "refused by a budget")


def test_told_what_to_hold_an_unpriced_call_is_counted_at_that(chat, configure):
    """With TOLLSPAN_HOLD_USD the budget counts what was held; the ledger's cost stays unknown, with its reason."""
    book = configure(hold_usd="0.25").ledger
    with run("0.40 USD") as handle:
        chat(model="gpt-unheard-of", max_tokens=5)
        assert (handle.spent, handle.held) == (Decimal("0.25"), 0)
        with pytest.raises(BudgetExhausted):
            chat(model="gpt-unheard-of", max_tokens=5)
    commit = next(event for event in book.events if event.event_type == "commit")
    assert (commit.cost_actual_usd, commit.cost_source) == (None, "unpriced")
    assert "no price for model 'gpt-unheard-of'" in commit.reason


def test_best_effort_lets_an_unpriced_call_through_and_says_so(chat, book):
    """Its cost is NULL with a reason, and never a silent 0."""
    with run("5 USD", mode="best_effort"):
        chat(model="gpt-unheard-of", max_tokens=5)
    (commit,) = book.events
    assert (commit.event_type, commit.cost_actual_usd, commit.cost_est_usd) == ("commit", None, None)
    assert "no price for model 'gpt-unheard-of'" in commit.reason


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"tools": [{"type": "web_search"}]}, "hosted tool web_search"),
        ({"previous_response_id": "resp_1"}, "previous"),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}
                ]
            },
            "image",
        ),
    ],
)
@pytest.mark.usefixtures("instrumented")
def test_shapes_without_a_bound_are_refused_unless_told_what_to_hold(provider, configure, shape, why):
    """Hosted tools, state of the server and remote media cost what nobody can tell beforehand."""
    client = openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=0)
    request = {"model": "gpt-4o", "input": "hello", "max_output_tokens": 50} | shape
    with run("5 USD"), pytest.raises(UnboundedCost, match=why):
        client.responses.create(**request)
    assert provider.requests == []
    with run("5 USD", mode="best_effort"):
        client.responses.create(**request)
    configure(hold_usd="0.25")
    with run("5 USD") as handle:
        client.responses.create(**request)
        assert 0 < handle.spent < Decimal("0.01")
    assert len(provider.requests) == 2


# ---- strict fails closed


@pytest.mark.parametrize("raising", [True, False], ids=["under test", "in production"])
def test_what_cannot_be_stored_is_refused_in_strict_and_sent_in_best_effort(chat, provider, monkeypatch, raising):
    """A hold that no row takes (a user's name that is no text) is no licence to send; best_effort goes on without."""
    monkeypatch.setattr(internal_errors, "raising", raising)
    with scope(user="\ud800"):
        with run("5 USD"), pytest.raises(LedgerOutOfReach, match="a strict budget cannot be checked"):
            chat(max_tokens=5)
        assert provider.requests == []
        with run("5 USD", mode="best_effort"):
            chat(max_tokens=5)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("broken", ["demand", "hold_event", "remember"])
def test_a_bug_of_ours_in_a_strict_admission_sends_nothing(chat, provider, monkeypatch, broken):
    """In production our own errors are swallowed everywhere but here: strict never lets an unchecked call out."""

    def bug(*_args):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(internal_errors, "raising", False)
    monkeypatch.setattr(f"tollspan.budget._admission.{broken}", bug)
    with run("5 USD / month"), pytest.raises(LedgerOutOfReach, match="ZeroDivisionError") as refused:
        chat(max_tokens=5)
    assert isinstance(refused.value.__cause__, ZeroDivisionError)
    assert provider.requests == []


def test_a_task_of_another_kind_of_event_loop_is_admitted_as_a_thread(calls):
    """Without a running asyncio loop, as under trio, a strict call is held all the same."""
    record = calls.record()
    with run("1 USD") as handle:
        task = aadmit(record, calls.intent())
        with pytest.raises(StopIteration):
            task.send(None)
        assert handle.held == Decimal("0.10025")
        calls.settle(record)


# ---- after the request


def _mocked(make):
    """An OpenAI client whose answers are made here."""
    import httpx2  # noqa: PLC0415 - the HTTP library of the SDK installed here

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=make(request)))
    return openai.OpenAI(
        base_url="http://127.0.0.1/v1", api_key="local", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def _answer(**usage):
    return {
        "id": "always-the-same",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": usage,
    }


def _call(client):
    return client.chat.completions.create(model="gpt-4o", max_tokens=10, messages=HELLO)


@pytest.mark.usefixtures("instrumented")
def test_a_limit_is_never_raised_after_paying(book):
    """An answer that cost more than its hold is handed over and counted in full; the next call is refused."""
    client = _mocked(lambda _: _answer(prompt_tokens=10, completion_tokens=50_000, total_tokens=50_010))
    with run("0.01 USD") as handle:
        assert _call(client).choices[0].message.content == "hi"
        assert (handle.spent, handle.held, handle.remaining) == (Decimal("0.500025"), 0, 0)
        with pytest.raises(BudgetExhausted):
            _call(client)
    assert book.verify() == []


@pytest.mark.usefixtures("instrumented")
def test_an_explicit_usage_of_zero_stays_zero(book):
    """0 is not None: what the provider says was not used is not replaced by an estimate."""
    client = _mocked(lambda _: _answer(prompt_tokens=0, completion_tokens=0, total_tokens=0))
    with run("0.01 USD") as handle:
        _call(client)
        assert (handle.spent, handle.held) == (0, 0)
    commit = book.tail()[-1]
    assert (commit.cost_actual_usd, commit.estimated) == (0, False)


@pytest.mark.usefixtures("instrumented")
def test_answers_with_one_id_are_charges_of_their_own(book):
    """Providers and gateways repeat ids, or send none; the ids of events are ours."""
    client = _mocked(lambda _: _answer(prompt_tokens=10, completion_tokens=10, total_tokens=20))
    with run("0.01 USD") as handle:
        for _ in range(3):
            _call(client)
        assert handle.spent == 3 * Decimal("0.000125")
    assert [event.event_type for event in book.events].count("commit") == 3


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        ("ok", False),
        ("ok", True),
        ("status=400", False),
        ("status=429", False),
        ("status=500", False),
        ("status=502;body=html", False),
        ("reset", False),
        ("cut=2", True),
        ("not-json", False),
        ("error-event", True),
    ],
)
def test_phantom_holds_every_way_out_settles_its_hold_once(answering, book, fault, stream):
    """Whatever becomes of a call, its hold ends in one commit or one cancel, and nothing stays held."""
    provider = answering(lambda _: Answer(output_tokens=40, fault=fault))
    client = openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=0)
    with run("1 USD") as handle:
        try:
            answer = client.chat.completions.create(model="gpt-4o", max_tokens=50, stream=stream, messages=HELLO)
            for _ in answer if stream else ():
                pass
        except Exception:  # noqa: BLE001 - which exception an SDK raises is not the point here
            pass
        assert handle.held == 0
        assert handle.spent >= provider.billed_usd()
    hold, end = book.events
    assert (hold.event_type, end.event_type) in {("precheck_hold", "commit"), ("precheck_hold", "cancel")}
    assert book.verify() == []


def _until_billed(provider):
    while not provider.billed:
        time.sleep(0.01)


@pytest.mark.usefixtures("instrumented")
async def test_phantom_holds_a_cancelled_task_settles_its_hold_as_spend(answering, book):
    """Cancelled while its request is under way, a call may have been billed: its hold is spent, and held no more."""
    provider = answering(lambda _: Answer(output_tokens=40, fault="hang=5"))
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="local", max_retries=0) as client:
        with run("1 USD") as handle:
            request = client.chat.completions.create(model="gpt-4o", max_tokens=50, messages=HELLO)
            task = asyncio.create_task(request)
            await asyncio.to_thread(_until_billed, provider)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert handle.held == 0
            assert handle.spent == next(book.events).cost_est_usd >= provider.billed_usd()
    assert [event.event_type for event in book.events] == ["precheck_hold", "commit"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be killed at a known line")
def test_phantom_holds_a_killed_process_leaves_spend_and_no_hold(calls, configure):
    """Killed between hold and answer, a call may have been billed: the next process counts its hold as spent."""
    budgets = {"budget": "1 USD / month", "mode": "strict"}
    configure(**budgets)
    child = os.fork()
    if child == 0:
        try:
            calls.ask()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    line = configure(**budgets)
    with budget("1 USD / month", name="env: 1 USD / month") as handle:
        assert (handle.spent, handle.held) == (Decimal("0.10025"), 0)
    assert line.ledger.verify() == []


def _close(stream):
    next(stream)
    stream.close()


def _break(stream):
    for _ in stream:
        break


def _pull(stream):
    generator = (chunk for chunk in stream)
    next(generator)
    generator.close()


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("leave", [_close, _break, _pull, id], ids=["close", "break", "generator", "never read"])
def test_a_stream_that_is_left_keeps_its_hold_as_spend(answering, book, leave):
    """The provider may go on generating: without its usage the hold is spent, unless the budget says otherwise."""
    provider = answering(lambda _: Answer(output_tokens=40))
    client = openai.OpenAI(base_url=provider.openai_url, api_key="local", max_retries=0)
    with run("1 USD") as handle:
        leave(client.chat.completions.create(model="gpt-4o", max_tokens=50, stream=True, messages=HELLO))
        gc.collect()
        assert book.flush(60)
        assert (handle.held, book.open_holds().calls) == (0, 0)
        assert handle.spent == next(book.events).cost_est_usd >= provider.billed_usd()


@pytest.mark.parametrize(
    ("wishes", "done"),
    [
        (["hold"], "hold"),
        (["estimate", "estimate"], "estimate"),
        (["estimate", "hold"], "hold"),
        (["hold", "estimate"], "hold"),
        (["estimate", "drain"], "drain"),
        (["drain", "hold"], "drain"),
    ],
)
def test_a_cut_stream_is_estimated_only_where_every_budget_says_so(calls, wishes, done):
    """Of several budgets the one that wants to know decides, then the one that is sure."""
    with ExitStack() as stack:
        for number, wish in enumerate(wishes):
            stack.enter_context(budget("5 USD", name=str(number), cut_stream=wish))
        _, admission = calls.ask()
    assert admission.cut_stream == done
