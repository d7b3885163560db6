"""With `count_tokens`, the provider counts the input of a call before a strict budget holds its cost."""

import asyncio
import contextlib
from decimal import Decimal

import anthropic
import openai
import pytest

from tollspan.budget import BudgetExceeded, UnboundedCost, budget
from tollspan.instrumentation import _counting as counting

PROMPT = "how many tokens are these, please? " * 300
MODELS = {"anthropic": "claude-haiku-4-5", "openai": "gpt-5-mini"}
COUNTS = {"anthropic": "/v1/messages/count_tokens", "openai": "/v1/responses/input_tokens"}


@pytest.fixture(autouse=True)
def asking(monkeypatch):
    """Let providers be asked, and none be left alone because of another test."""
    monkeypatch.setenv("TOLLSPAN_COUNT_TOKENS", "true")
    counting.forget()


@pytest.fixture(autouse=True)
def own_books(provider):
    """Let each test see its own requests only."""
    for book in (provider.counts, provider.requests, provider.billed):
        book.clear()


def create(provider, sdk, *, asynchronous=False, headers=None, **more):
    """One call by an SDK: `stream` as in its API, `helper` by its streaming helper."""
    if asynchronous:
        return asyncio.run(_acreate(provider, sdk, headers or {}, more))
    if sdk == "anthropic":
        with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", default_headers=headers) as client:
            return _read(client.messages, {"model": MODELS[sdk], "max_tokens": 90, "messages": _messages()} | more)
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", default_headers=headers) as client:
        return _read(client.responses, {"model": MODELS[sdk], "input": PROMPT, "max_output_tokens": 90} | more)


def _messages():
    return [{"role": "user", "content": PROMPT}]


def _read(resource, asked):
    if asked.pop("helper", False):
        with resource.stream(**asked) as stream:
            return list(stream)
    answer = resource.create(**asked)
    return list(answer) if asked.get("stream") else answer


async def _acreate(provider, sdk, headers, more):
    if sdk == "anthropic":
        async with anthropic.AsyncAnthropic(
            base_url=provider.anthropic_url, api_key="k", default_headers=headers
        ) as client:
            asked = {"model": MODELS[sdk], "max_tokens": 90, "messages": _messages()} | more
            return await _aread(client.messages, asked)
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", default_headers=headers) as client:
        return await _aread(client.responses, {"model": MODELS[sdk], "input": PROMPT, "max_output_tokens": 90} | more)


async def _aread(resource, asked):
    if asked.pop("helper", False):
        async with resource.stream(**asked) as stream:
            return [event async for event in stream]
    answer = await resource.create(**asked)
    return [event async for event in answer] if asked.get("stream") else answer


def held(seen):
    """The hold and the end of the one call, in USD."""
    (hold,), (end,) = seen.of("precheck_hold"), seen.of("commit", "cancel")
    return hold.cost_est_usd, end


EVERY_WAY = pytest.mark.parametrize("how", [{}, {"stream": True}, {"helper": True}], ids=["whole", "stream", "helper"])
EVERY_SDK = pytest.mark.parametrize("sdk", sorted(MODELS))
BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@EVERY_WAY
@BOTH
@EVERY_SDK
def test_the_hold_is_what_the_provider_counts(provider, seen, sdk, asynchronous, how):
    """The hold is at least the cost, and not by far as high as by the bytes; one call is counted as one."""
    with budget("5 USD", name="b"):
        create(provider, sdk, asynchronous=asynchronous, **how)
    assert provider.counts == [COUNTS[sdk]]
    assert len(provider.requests) == len(provider.billed) == 1
    hold, end = held(seen)
    assert end.cost_actual_usd <= hold < 3 * end.cost_actual_usd
    assert (end.attempts, end.category, len(seen.spans)) == (1, None, 1)
    assert seen.spans[0].attributes["tollspan.request.counted_tokens"] == provider.billed[0].input_tokens


@EVERY_SDK
def test_without_the_setting_nobody_is_asked(provider, instrumented, monkeypatch, sdk):
    """By default the bytes of the request are the bound."""
    monkeypatch.delenv("TOLLSPAN_COUNT_TOKENS")
    with instrumented() as seen, budget("5 USD", name="b"):
        create(provider, sdk)
    assert provider.counts == []
    hold, end = held(seen)
    assert hold > 3 * end.cost_actual_usd


@EVERY_SDK
def test_only_a_strict_budget_has_the_provider_asked(provider, seen, sdk):
    """Without a budget, under one that only looks on, or one of requests, a call has one request."""
    create(provider, sdk)
    with budget("5 USD", name="b", mode="best_effort"), budget("5 USD", name="w", on_limit="warn"):
        create(provider, sdk)
    with budget("5 requests", name="r"):
        create(provider, sdk)
    assert provider.counts == []
    assert len(seen.of("commit")) == 3


@pytest.mark.parametrize("step", ["status=404", "status=500", "status=400", "drop", "not-json"])
@BOTH
@EVERY_SDK
def test_what_cannot_be_counted_is_bounded_by_its_bytes(provider, seen, sdk, asynchronous, step):
    """Whatever the endpoint does, the call goes out under a hold, and nobody sees a difference."""
    with budget("5 USD", name="b"):
        answer = create(provider, sdk, asynchronous=asynchronous, headers={"x-local-provider-count": step})
    assert answer.usage.output_tokens == 90
    assert len(provider.counts) == 1
    hold, end = held(seen)
    assert (end.status, hold > 3 * end.cost_actual_usd) == ("ok", True)


def test_an_endpoint_that_hangs_is_given_up(provider, seen, monkeypatch):
    """No call waits for a count longer than a few seconds."""
    monkeypatch.setattr("tollspan.instrumentation._wires._counts.TIMEOUT_S", 0.05)
    with budget("5 USD", name="b"):
        create(provider, "anthropic", headers={"x-local-provider-count": "hang=20"})
    hold, end = held(seen)
    assert (end.status, hold > 3 * end.cost_actual_usd) == ("ok", True)


def test_a_host_that_cannot_count_is_left_alone(provider, seen, caplog):
    """Where the endpoint is missing, that is said once, and nobody asks again; other errors may be of one request."""
    headers = {"x-local-provider-count": "status=404"}
    with budget("5 USD", name="b"):
        for _ in range(3):
            create(provider, "openai", headers=headers)
        assert len(provider.counts) == 1
        assert caplog.text.count("could not be asked for a count of input tokens (HTTP 404)") == 1
        counting.forget()
        for _ in range(2):
            create(provider, "openai", headers={"x-local-provider-count": "status=400"})
        assert len(provider.counts) == 3
    assert len(seen.of("commit")) == 5


@BOTH
@EVERY_SDK
def test_a_refusal_comes_before_the_request(provider, seen, sdk, asynchronous):
    """What does not fit is refused by an ordinary BudgetExceeded; only the count has been asked."""
    with budget("0.00001 USD", name="b"), pytest.raises(BudgetExceeded):
        create(provider, sdk, asynchronous=asynchronous)
    assert (provider.requests, len(provider.counts)) == ([], 1)
    assert seen.of("precheck_hold", "commit") == []
    assert seen.open_holds == 0


@pytest.mark.parametrize("asked", [True, False])
def test_a_small_budget_goes_further(provider, instrumented, monkeypatch, asked):
    """A call that its bytes would not let pass is admitted by its count."""
    monkeypatch.setenv("TOLLSPAN_COUNT_TOKENS", str(asked).lower())
    with instrumented() as seen, budget("0.01 USD", name="b"):
        with contextlib.nullcontext() if asked else pytest.raises(BudgetExceeded):
            create(provider, "anthropic")
        assert len(seen.of("commit")) == asked


@EVERY_SDK
def test_an_output_that_is_cut_to_fit_is_cut_in_each_attempt(provider, seen, sdk):
    """The maximum that a budget puts into a request on the wire is in what the SDK repeats, too."""
    limits = {"anthropic": {}, "openai": {"max_output_tokens": getattr(openai, "omit", openai.NOT_GIVEN)}}[sdk]
    headers = {"x-local-provider": "status=500,ok", "x-local-provider-key": f"cut {sdk}"}
    with budget("0.01 USD", name="b"):
        create(provider, sdk, headers=headers, **limits)
    named = {"anthropic": "max_tokens", "openai": "max_output_tokens"}[sdk]
    first, second = (request.body[named] for request in provider.requests)
    assert first == second
    assert len(provider.counts) == 1
    hold, end = held(seen)
    assert end.cost_actual_usd <= hold <= Decimal("0.01")


def test_what_only_the_provider_sees_is_bounded_by_its_count(provider, seen):
    """An image by its address, or an earlier response, is counted where it is; so a strict budget lets it pass."""
    image = [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]
    with budget("5 USD", name="b"):
        create(provider, "anthropic", messages=[{"role": "user", "content": image}])
        create(provider, "openai", previous_response_id="resp_1")
        with pytest.raises(UnboundedCost):
            create(provider, "anthropic", tools=[{"type": "web_search_20250305", "name": "web_search"}])
        with pytest.raises(UnboundedCost):
            create(provider, "openai", previous_response_id="resp_1", tools=[{"type": "web_search"}])
        with pytest.raises(UnboundedCost):
            create(
                provider,
                "anthropic",
                messages=[{"role": "user", "content": image}],
                headers={"x-local-provider-count": "status=400"},
            )
    assert len(seen.of("commit")) == 2


def test_a_client_that_is_not_watched_is_held_for_by_its_bytes(provider, seen):
    """A client that sends in its own way is admitted before its request is made, not on a wire that nobody sees."""

    class Own(openai.DefaultHttpxClient):
        def send(self, request, **kwargs):
            return super().send(request, **kwargs)

    with (
        budget("5 USD", name="b"),
        Own() as http,
        openai.OpenAI(base_url=provider.openai_url, api_key="k", http_client=http) as client,
    ):
        client.responses.create(model=MODELS["openai"], input=PROMPT, max_output_tokens=90)
    assert provider.counts == []
    hold, end = held(seen)
    assert hold > 3 * end.cost_actual_usd


def test_an_interrupted_count_leaves_nothing_behind(provider, seen):
    """Where the caller is interrupted while the provider counts, nothing is sent, held or billed."""
    headers = {"x-local-provider-count": "hang=20"}

    async def cancelled():
        async with asyncio.timeout(0.3):
            await _acreate(provider, "anthropic", headers, {})

    with budget("5 USD", name="b"), pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert (provider.requests, len(provider.counts)) == ([], 1)
    assert (seen.of("precheck_hold", "commit"), seen.open_holds) == ([], 0)
