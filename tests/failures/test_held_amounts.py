"""What is held before a call is sent: always something, never too little, no longer than the call, and not too much."""

import asyncio
import gc
import os
import signal
import threading
from contextlib import nullcontext, suppress
from decimal import Decimal
from warnings import catch_warnings

import pytest
from scenes import ask, chat_answer, full, locked, mock_client, reopened, until
from sdk_calls import arguments, make_client

from tollspan.budget import BudgetBusy, BudgetExhausted, LedgerOutOfReach, UnboundedCost, UnpricedModel, budget, scope
from tollspan.console import Answer

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/large.png"}}
WITHOUT_A_COST = {
    "a model without a price": {"model": "gpt-unheard-of"},
    "an image that only the server sees": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "a search by the server": {"web_search_options": {}},
}


@pytest.mark.parametrize("shape", WITHOUT_A_COST.values(), ids=WITHOUT_A_COST)
def test_03_a_call_whose_cost_cannot_be_estimated_is_not_held(chat, provider, configure, book, shape):
    """Where no estimate is possible nothing is held and all is let through: here it is refused, or held as told."""
    with budget("5 USD", name="b"), pytest.raises((UnpricedModel, UnboundedCost)):
        chat(max_tokens=5, **shape)
    assert provider.requests == []
    configure(hold_usd="0.25")
    with budget("0.20 USD", name="b"), pytest.raises(BudgetExhausted):
        chat(max_tokens=5, **shape)
    with budget("0.30 USD", name="b"):
        chat(max_tokens=5, **shape)
    (hold,) = book.of("precheck_hold")
    assert (hold.cost_est_usd, len(provider.requests)) == (Decimal("0.25"), 1)
    book.assert_settled()


TALK = {"type": "input_audio", "input_audio": {"data": "UklGRgAAAAA=", "format": "wav"}}
SOUND_AND_VISION = {
    "audio without a price": lambda client: ask(
        client, model="gpt-4o", max_tokens=5, messages=[{"role": "user", "content": [TALK]}]
    ),
    "speech without a price": lambda client: ask(
        client,
        model="gpt-4o",
        max_tokens=5,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
    ),
    "an image": lambda client: client.images.generate(model="gpt-image-1", prompt="a cat"),
    "speech": lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input="miaow"),
    "a transcription": lambda client: client.audio.transcriptions.create(model="whisper-1", file=b"RIFF"),
}


@pytest.mark.parametrize("act", SOUND_AND_VISION.values(), ids=SOUND_AND_VISION)
def test_03_images_and_audio_are_not_held(act, configure, book):
    """What is billed by the pixel or the second goes out unchecked: here it is refused, or held as told."""
    with mock_client(lambda _: chat_answer({"prompt_tokens": 1, "completion_tokens": 1})) as client:
        with budget("5 USD", name="b"), pytest.raises((UnpricedModel, UnboundedCost)):
            act(client)
        assert client.sent == []
        configure(hold_usd="0.25")
        with budget("0.20 USD", name="b"), pytest.raises(BudgetExhausted):
            act(client)
        with budget("0.30 USD", name="b"):
            act(client)
    (hold,) = book.of("precheck_hold")
    assert (hold.cost_est_usd, len(client.sent)) == (Decimal("0.25"), 1)
    book.assert_settled()


@pytest.fixture
def impatient(configure):
    """Give a locked ledger up soon."""
    configure(busy_timeout_ms=50)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", ["max_page_count = {pages}", "query_only = 1", None], ids=["full", "ro", "locked"])
def test_04_a_hold_that_cannot_be_written_sends_nothing(chat, provider, book, monkeypatch, trouble):
    """The check reads well, the hold fails to be written, and the call goes out: here a call without a hold is none."""
    with budget("5 USD / total", name="b") as handle, scope(session="wider than the rest of a page " * 300):
        chat(max_tokens=5)
        with monkeypatch.context() as patched, locked(book.path) if trouble is None else nullcontext():
            if trouble is not None:
                full(book, patched, trouble)
            for _ in range(3):
                with pytest.raises(LedgerOutOfReach):
                    chat(max_tokens=5)
        assert len(provider.requests) == 1
        reopened(book)
        assert (handle.spent, handle.held) == (provider.billed_usd(), 0)
        chat(max_tokens=5)
    assert len(provider.requests) == 2
    book.assert_settled()


WAYS = {
    "answered": {},
    "refused": {"fault": "status=400"},
    "failed": {"fault": "status=502;body=html"},
    "reset": {"fault": "reset"},
    "cut": {"fault": "cut=1"},
    "no json": {"fault": "not-json"},
    "streamed": {"stream": True},
    "stream cut": {"stream": True, "fault": "cut=2"},
    "stream closed": {"stream": True, "leave": lambda stream: (next(stream), stream.close())},
    "generator closed": {"stream": True, "leave": lambda stream: _first_of(chunk for chunk in stream)},
    "stream never read": {"stream": True, "leave": id},
    "interrupted": {"fault": "hang=20", "interrupt": True},
}


def _first_of(generator):
    next(generator)
    generator.close()


def _interrupt_when_billed(provider):
    until(lambda: provider.billed)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_05_an_ending_that_nobody_thought_of_leaves_a_hold(answering, book, way):
    """Holds that no end settles fill a budget of which nothing is spent: here every way out settles its hold, once."""
    provider, stream = answering(lambda _: Answer(fault=way.get("fault", "ok"))), way.get("stream", False)
    if way.get("interrupt"):
        threading.Thread(target=_interrupt_when_billed, args=(provider,)).start()
    with make_client(provider, "openai") as client, budget("1 USD", name="b") as handle:
        with suppress(Exception, KeyboardInterrupt):
            answer = ask(client, max_tokens=100, stream=stream)
            way.get("leave", list if stream else id)(answer)
        answer = None
        gc.collect()  # openai's stream is in a reference cycle of its own
        assert handle.held == 0
        assert handle.spent >= provider.billed_usd()
    assert len(book.of("precheck_hold")) == 1
    book.assert_settled()


async def test_05_a_cancelled_task_leaves_a_hold(answering, book):
    """A task cancelled while it waits for its answer skips the end of its call: here its hold becomes spend."""
    provider = answering(lambda _: Answer(fault="hang=20"))
    async with make_client(provider, "openai", asynchronous=True) as client:
        with budget("1 USD", name="b") as handle:
            task = asyncio.create_task(client.chat.completions.create(**arguments("chat")))
            await asyncio.to_thread(until, lambda: provider.billed)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (handle.held, handle.spent) == (0, book.commit.cost_est_usd)
    book.assert_settled()


async def test_07_worst_case_holds_starve_agents_of_a_budget_that_nobody_spent(answering, book):
    """A few maxima in flight fill a budget, and the rest is turned away: here they are told so, or wait their turn."""
    gate = threading.Event()
    provider = answering(lambda _: gate.wait(20) and Answer(output_tokens=10))
    terms = {"name": "agents", "max_wait_timeout_s": 20}

    async def agent(client, on_limit):
        with budget("0.25 USD / total", on_limit=on_limit, **terms):
            return await ask(client, max_tokens=16_000)  # 0.16 USD at the most, and 0.0001 in truth

    async with make_client(provider, "openai", asynchronous=True) as client:
        first = asyncio.create_task(agent(client, "raise"))
        await asyncio.to_thread(until, lambda: provider.requests)
        with pytest.raises(BudgetBusy, match=r"\$0\.00 spent \+ \$0\.16\d* held") as busy:
            await agent(client, "raise")
        assert busy.value.spent == 0 < busy.value.held
        waiting = [asyncio.create_task(agent(client, "wait")) for _ in range(10)]
        gate.set()
        assert all(answer.choices for answer in await asyncio.gather(first, *waiting))
    assert len(provider.billed) == 11
    book.assert_settled()


@pytest.mark.parametrize(("output_bound", "admitted"), [("clamp", True), (500, True), ("max", False), (16_384, False)])
def test_08_a_tight_remainder_refuses_a_cheap_call_because_its_model_could_give_more(
    answering, book, output_bound, admitted
):
    """A hold of all that a model can give refuses what costs a tenth of the rest: here one says how much to hold."""
    provider = answering(lambda _: Answer(output_tokens=200))
    with make_client(provider, "openai") as client, budget("0.02 USD", name="b", output_bound=output_bound) as handle:
        with nullcontext() if admitted else pytest.raises(BudgetExhausted):
            ask(client)
        assert len(provider.requests) == admitted
        assert handle.spent == provider.billed_usd()
    if admitted:
        (hold,) = book.of("precheck_hold")
        assert hold.cost_est_usd <= Decimal("0.02")
        assert provider.requests[0].body["max_tokens"] <= 2_000


def test_08_what_a_model_usually_gives_cannot_be_held(answering, book):
    """With the maximum as the only bound few calls fit at once: here a hold may be what answers so far have had."""
    provider = answering(lambda _: Answer(output_tokens=200))
    with make_client(provider, "openai") as client:
        for _ in range(40):
            ask(client)
        assert len(book.of("commit")) == 40
        with budget("0.02 USD", name="b", output_bound="learned") as handle:
            for _ in range(8):
                ask(client)
            assert handle.spent == 8 * provider.billed[0].cost_usd
    assert not any("max_tokens" in request.body for request in provider.requests)
    assert all(hold.cost_est_usd < Decimal("0.004") for hold in book.of("precheck_hold"))
    book.assert_settled()


LONG = 300_000
PRICED = {  # model, service tier, and USD for a million tokens of input and of output that such a call is billed
    "above the step of a price": ("gpt-5.4", None, LONG, (Decimal(5), Decimal("22.5"))),
    "with priority": ("gpt-5.4", "priority", 1_000, (Decimal(5), Decimal(30))),
}


@pytest.mark.parametrize(("model", "tier", "length", "price"), PRICED.values(), ids=PRICED)
def test_09_the_dearer_price_of_a_call_is_charged_and_not_held(book, model, tier, length, price):
    """Long or fast calls held at the ordinary price pass the limit together: here the hold has their own price."""
    usage = {"prompt_tokens": length, "completion_tokens": 1_000, "total_tokens": length + 1_000}
    cost = (price[0] * length + price[1] * 1_000).scaleb(-6)
    text, more = [{"role": "user", "content": "x" * length}], {"service_tier": tier} if tier else {}
    client = mock_client(lambda _: chat_answer(usage, model=model, service_tier=tier or "default"))
    with client, budget(f"{cost * Decimal('3.5')} USD", name="b") as handle:
        for _ in range(5):
            with suppress(BudgetExhausted):
                ask(client, model=model, messages=text, max_tokens=1_000, **more)
        assert handle.spent == 3 * cost <= handle.limit
    assert len(client.sent) == 3
    holds, commits = book.of("precheck_hold"), book.of("commit")
    assert all(hold.cost_est_usd >= commit.cost_actual_usd == cost for hold, commit in zip(holds, commits, strict=True))


def test_09_a_call_longer_than_its_listed_window_is_held_as_if_it_were_not(answering, book):
    """A list names a window that ends where a dearer price begins: here the hold covers what a longer call costs."""
    provider = answering(lambda _: Answer(input_tokens=LONG, cache_write_tokens=LONG, output_tokens=10))
    text = [{"role": "user", "content": "x" * LONG}]
    with make_client(provider, "anthropic") as client, budget("50 USD", name="b"), catch_warnings(action="ignore"):
        client.messages.create(model="claude-sonnet-4-5", max_tokens=10, messages=text)
    (hold,) = book.of("precheck_hold")
    assert hold.cost_est_usd >= book.commit.cost_actual_usd > Decimal("2.2")
