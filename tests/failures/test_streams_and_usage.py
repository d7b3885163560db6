"""What an answer has cost: cut or cancelled, without usage or with a usage of 0, cached, reasoned, by two models."""

import asyncio
from contextlib import nullcontext, suppress
from decimal import Decimal

import pytest
from scenes import ask, chat_answer, mock_client, until
from sdk_calls import FLAVOURS, RATES, create, drive, make_client, next_of, resolved

from tollspan.budget import UnboundedCost, budget
from tollspan.console import Answer
from tollspan.exporter import pipeline

CHUNKS = 8
TOKENS = 80  # of an answer, ten in each chunk


def billed_nano(provider, sdk):
    """What the provider has billed, in nano-USD, at the prices of the models that these tests ask."""
    rate_in, rate_out = RATES[sdk]
    return sum(rate_in * bill.input_tokens + rate_out * bill.output_tokens for bill in provider.billed)


async def _read(stream, count):
    for _ in range(count):
        await next_of(stream)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("limit", ["strict", "best_effort", None])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_15_a_stream_left_by_its_client_costs_nothing(answering, book, flavour, limit, asynchronous):
    """Only a natural end is logged, and whoever disconnects pays nothing: here any cut costs at least what was seen."""
    provider, sdk = answering(lambda _: Answer(output_tokens=TOKENS)), FLAVOURS[flavour]

    async def cut_after(count):
        client = make_client(provider, sdk, asynchronous=asynchronous)
        try:
            stream = await resolved(create(client, flavour, stream=True))
            await _read(stream, count)
            await resolved(stream.close())
        finally:
            await resolved(client.close())

    with budget("5 USD", name="b", mode=limit) if limit else nullcontext() as handle:
        for count in range(CHUNKS):
            drive(cut_after(count), asynchronous=asynchronous)
        assert handle is None or (handle.held, handle.spent) == (0, book.spent)
    cuts = book.of("commit")
    assert [(cut.estimated, cut.status) for cut in cuts] == [(True, "cancelled")] * CHUNKS
    if limit == "strict":
        assert book.spent * 10**9 >= billed_nano(provider, sdk)
    rate_in, rate_out = RATES[sdk]
    opening = {"chat": 1, "responses": 4, "messages": 3}[flavour]  # events before the first text
    for count, cut in enumerate(cuts):
        seen = max(0, count - opening) * TOKENS // CHUNKS
        assert cut.spend_usd * 10**9 >= rate_in * provider.billed[count].input_tokens + rate_out * seen > 0
    book.assert_settled()


@pytest.mark.parametrize("cut_stream", ["hold", "estimate"])
def test_16_a_cut_stream_is_billed_a_fraction_as_if_that_were_all(answering, book, cut_stream):
    """The provider bills on, the usage never comes, and a fraction is booked as fact: here it is an estimate."""
    provider = answering(lambda _: Answer(output_tokens=TOKENS))
    with make_client(provider, "openai") as client, budget("1 USD", name="b", cut_stream=cut_stream) as handle:
        stream = ask(client, max_tokens=TOKENS, stream=True)
        for _ in range(4):
            next(stream)
        stream.close()
        assert (handle.spent, handle.held) == (book.spent, 0)
    (hold,), cut = book.of("precheck_hold"), book.commit
    assert (cut.estimated, cut.cost_actual_usd, cut.cost_source) == (True, None, "estimate")
    assert "cut" in cut.reason
    if cut_stream == "hold":
        assert cut.cost_est_usd == hold.cost_est_usd >= provider.billed_usd()
    else:
        assert 0 < cut.cost_est_usd <= hold.cost_est_usd


def _chat(usage):
    return chat_answer(usage)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_16_the_usage_of_a_stream_that_was_left_never_comes(answering, book, flavour):
    """The reading stops with the client, before the usage: here it may go on in the background until that is there."""
    provider = answering(lambda _: Answer(output_tokens=TOKENS, fault="slow=0.02"))
    with make_client(provider, FLAVOURS[flavour]) as client, budget("1 USD", name="b", cut_stream="drain") as handle:
        stream = create(client, flavour, stream=True)
        next(iter(stream))
        stream.close()
        until(lambda: book.of("commit"))
        assert (handle.spent, handle.held) == (book.commit.cost_actual_usd, 0)
    assert (book.commit.estimated, book.commit.status) == (False, "cancelled")
    assert book.commit.cost_actual_usd * 10**9 == billed_nano(provider, FLAVOURS[flavour])
    book.assert_settled()


def _message(usage, model="claude-haiku-4-5", **more):
    text = [{"type": "text", "text": "hi"}]
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": text}
    return whole | {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage} | more


def _response(usage, model="gpt-4o"):
    whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": model}
    return whole | {"output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage}


NOTHING = {
    "chat": _chat({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "responses": _response({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}),
    "messages": _message({"input_tokens": 0, "output_tokens": 0}),
}


@pytest.mark.parametrize("answer", [NOTHING, {f: a | {"usage": None} for f, a in NOTHING.items()}], ids=["0", "none"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_17_a_usage_of_zero_is_replaced_by_an_estimate(book, flavour, answer):
    """Zero is taken for missing and estimated: here 0 stays 0, and a usage that is missing is an estimate, not 0."""
    with mock_client(lambda _: answer[flavour], FLAVOURS[flavour]) as client, budget("1 USD", name="b") as handle:
        create(client, flavour)
        assert handle.held == 0
        missing = answer is not NOTHING
        assert (handle.spent > 0) == missing
    assert (book.commit.estimated, book.commit.cost_actual_usd) == (missing, None if missing else 0)


@pytest.mark.parametrize("events", range(1, 2 + CHUNKS))
@pytest.mark.parametrize("limit", ["1 USD", None])
def test_18_the_first_count_of_a_stream_is_taken_for_its_last(answering, book, events, limit):
    """The one token that a stream begins with is priced as its whole output: here a count that is no total is none."""
    provider = answering(lambda _: Answer(output_tokens=TOKENS, fault=f"cut={events}"))
    limited = budget(limit, name="b") if limit else nullcontext()
    with make_client(provider, "anthropic") as client, limited, suppress(Exception):
        list(create(client, "messages", stream=True))
    seen = max(0, events - 3) * TOKENS // CHUNKS
    assert (book.commit.estimated, book.commit.usage) == (True, {})
    assert book.spent * 10**9 >= RATES["anthropic"][1] * max(seen, 0)
    assert limit is None or book.spent * 10**9 >= billed_nano(provider, "anthropic")


@pytest.mark.parametrize("limit", ["1 USD", None])
@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_19_a_call_cancelled_while_it_waits_costs_nothing(answering, book, flavour, limit):
    """What follows a call is skipped when it is cancelled, and all is free: here the most it can cost is spend."""
    provider = answering(lambda _: Answer(output_tokens=TOKENS, fault="hang=20"))
    async with make_client(provider, FLAVOURS[flavour], asynchronous=True) as client:
        with budget(limit, name="b") if limit else nullcontext():
            task = asyncio.create_task(create(client, flavour))
            await asyncio.to_thread(until, lambda: provider.billed)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (book.commit.status, book.commit.estimated) == ("cancelled", True)
    assert book.spent * 10**9 >= billed_nano(provider, FLAVOURS[flavour]) > 0
    book.assert_settled()


RATE_OF = {  # which listed price each part of a usage has, in USD per million tokens
    "tokens_cache_read": "cache_read_mtok",
    "tokens_cache_write_5m": "cache_write_mtok",
    "tokens_cache_write_1h": "cache_write_1h_mtok",
}


def _sum_of_parts(event):
    """What the parts of a usage cost at the rates in its row, in USD: none of them twice, none of them left out."""
    parts = {part: event.usage.get(part, 0) for part in RATE_OF}
    fresh = event.usage["tokens_in"] - sum(parts.values())
    rates = {key: Decimal(rate) for key, rate in event.cost_rates.items() if key in {*RATE_OF.values(), *IN_AND_OUT}}
    cost = sum(rates[RATE_OF[part]] * count for part, count in parts.items() if count)
    return (cost + rates["input_mtok"] * fresh + rates["output_mtok"] * event.usage["tokens_out"]).scaleb(-6)


IN_AND_OUT = ("input_mtok", "output_mtok")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_20_the_cost_of_a_stream_is_0_next_to_a_breakdown_that_is_not(answering, book, flavour):
    """Two ways to price are two prices: here plain and streamed calls cost the same, the sum of their parts."""
    parts = {"cached_tokens": 300, "cache_write_tokens": 200 * (flavour == "messages"), "reasoning_tokens": 50}
    provider = answering(lambda _: Answer(input_tokens=1_000, output_tokens=TOKENS, **parts))
    with make_client(provider, FLAVOURS[flavour]) as client:
        create(client, flavour)
        list(create(client, flavour, stream=True))
    plain, streamed = book.of("commit")
    assert plain.usage == streamed.usage
    assert plain.usage["tokens_cache_read"] == 300
    assert plain.cost_actual_usd == streamed.cost_actual_usd == _sum_of_parts(plain) > 0


PRICES = """
[[price]]
model = "*"
input_mtok = 10
cache_read_mtok = 1
cache_write_mtok = 12.5
cache_write_1h_mtok = 20
output_mtok = 100
"""
MADE_OF = (Decimal(10), Decimal(1), Decimal("12.5"), Decimal(20), Decimal(100))
"""USD for a million tokens: fresh, read from a cache, written for 5 minutes, written for an hour, and output."""


@pytest.fixture
def priced(tmp_path, configure):
    """Give the prices above to every model."""
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    configure(prices=str(path))


def _cost_of(*tokens):
    return sum(rate * count for rate, count in zip(MADE_OF, tokens, strict=True)).scaleb(-6)


def _usage(total, out, **more):
    return {"prompt_tokens": total, "completion_tokens": out, "total_tokens": total + out} | more


def _tokens(total, out, **more):
    return {"input_tokens": total, "output_tokens": out} | more


WRITTEN = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 50}
CACHED = {  # by provider: where it is, what it answers, and the tokens of each kind that it bills
    "openai chat": (None, chat_answer(_usage(1_000, 7, prompt_tokens_details={"cached_tokens": 800})), (200, 800)),
    "openai responses": (None, _response(_tokens(1_000, 7, input_tokens_details={"cached_tokens": 800})), (200, 800)),
    "openrouter": (
        "https://openrouter.ai/api/v1",
        chat_answer(_usage(1_000, 7, prompt_tokens_details={"cached_tokens": 800, "cache_write_tokens": 100})),
        (100, 800, 100),
    ),
    "deepseek": (
        "https://api.deepseek.com",
        chat_answer(_usage(1_000, 7, prompt_cache_hit_tokens=800, prompt_cache_miss_tokens=200)),
        (200, 800),
    ),
    "mistral": ("https://api.mistral.ai/v1", chat_answer(_usage(1_000, 7, num_cached_tokens=800)), (200, 800)),
    "anthropic": (
        None,
        _message(_tokens(50, 7, cache_read_input_tokens=800, cache_creation_input_tokens=150, cache_creation=WRITTEN)),
        (50, 800, 100, 50),
    ),
}


@pytest.mark.usefixtures("priced")
@pytest.mark.parametrize(("base_url", "answer", "kinds"), CACHED.values(), ids=CACHED)
def test_24_cached_tokens_are_billed_twice_or_not_at_all(book, base_url, answer, kinds):
    """Some providers count cached tokens in their input, some do not: here each token is billed once, at its rate."""
    made = _made(answer, base_url)
    fresh, read, short, long = (*kinds, 0, 0)[:4]
    assert made.cost_actual_usd == book.commit.cost_actual_usd == _cost_of(fresh, read, short, long, 7)
    assert made.usage["tokens_in"] == sum(kinds)
    assert made.usage["tokens_cache_read"] == read
    assert made.usage.get("tokens_cache_write", 0) == short + long


def _made(answer, base_url=None):
    """The commit of a call that is answered so, of the flavour of the answer."""
    flavour = {"message": "messages", "response": "responses"}.get(answer.get("type") or answer["object"], "chat")
    more = {"base_url": base_url} if base_url else {}
    with mock_client(lambda _: answer, FLAVOURS[flavour], **more) as client:
        create(client, flavour)
    assert pipeline().ledger.flush(20)
    return pipeline().ledger.tail()[-1]


REASONED = {  # by provider: where it is, what it answers, and all output tokens that it bills
    "openai chat": (None, chat_answer(_usage(9, 100, completion_tokens_details={"reasoning_tokens": 60})), 100),
    "openai responses": (None, _response(_tokens(9, 100, output_tokens_details={"reasoning_tokens": 60})), 100),
    "anthropic": (None, _message(_tokens(9, 100, output_tokens_details={"thinking_tokens": 60})), 100),
    "xai": (
        "https://api.x.ai/v1",
        chat_answer(_usage(9, 40, completion_tokens_details={"reasoning_tokens": 60}) | {"total_tokens": 109}),
        100,
    ),
}


@pytest.mark.usefixtures("priced")
@pytest.mark.parametrize(("base_url", "answer", "output"), REASONED.values(), ids=REASONED)
def test_25_reasoning_has_no_price_of_its_own_and_so_none(base_url, answer, output):
    """Reasoning without a price key is left out, or added to an output that has it: here it is output, once."""
    made = _made(answer, base_url)
    assert made.cost_actual_usd == _cost_of(9, 0, 0, 0, output)
    assert (made.usage["tokens_out"], made.usage["tokens_reasoning"]) == (output, 60)


FABLE, OPUS, HAIKU = "claude-fable-5", "claude-opus-4-8", "claude-haiku-4-5"
FALLBACK = {"max_tokens": 500, "extra_body": {"fallbacks": [{"model": OPUS}]}, "model": FABLE}


def test_26_a_second_model_behind_one_request_is_priced_as_the_first(configure, book):
    """Who answers is decided by the server, at another price: here strict refuses it, or holds what it is told."""
    with mock_client(lambda _: _message(_tokens(400, 200), OPUS), "anthropic") as client:
        with budget("5 USD", name="b"), pytest.raises(UnboundedCost, match="fallback models"):
            create(client, "messages", **FALLBACK)
        assert client.sent == []
        configure(hold_usd="0.10")
        with budget("5 USD", name="b"):
            create(client, "messages", **FALLBACK)
    (hold,) = book.of("precheck_hold")
    assert hold.cost_est_usd == Decimal("0.10")
    assert book.commit.cost_actual_usd == Decimal(400 * 5 + 200 * 25).scaleb(-6)


def test_26_attempts_of_other_models_are_left_out_or_priced_as_one(book):
    """The usage of each attempt stands beside the sum, and is ignored: here each is priced at its own model's price."""
    attempts = [
        {"type": "message", "model": FABLE} | _tokens(400, 150),
        {"type": "advisor_message", "model": HAIKU} | _tokens(50, 10),
        {"type": "fallback_message", "model": OPUS} | _tokens(400, 200),
    ]
    usage = _tokens(400, 200, iterations=attempts)
    with mock_client(lambda _: _message(usage, OPUS), "anthropic") as client:
        create(client, "messages", **FALLBACK)
    declined = {f"tokens_in@{FABLE}": 400, f"tokens_out@{FABLE}": 150}
    advised = {f"tokens_in@{HAIKU}": 50, f"tokens_out@{HAIKU}": 10}
    assert book.commit.usage == {"tokens_in": 400, "tokens_out": 200, **declined, **advised}
    fable, opus, haiku = 400 * 10 + 150 * 50, 400 * 5 + 200 * 25, 50 * 1 + 10 * 5
    assert book.commit.cost_actual_usd == Decimal(fable + opus + haiku).scaleb(-6)
