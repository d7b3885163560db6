"""A call by LiteLLM with its own callback is one commit, whether an SDK sends it or LiteLLM's own HTTP client does."""

import asyncio
import gc
import time

import pytest
from mistral_server import mistral_server
from opentelemetry import context
from peers import ANTHROPIC, ASK, CACHED, IN, LITELLM_PEERS, NEEDED, OPENAI, OUT, missing, openai_client

if absent := missing([*NEEDED, "mcp"]):
    needed = f"these need the packages of .ci/peers.txt; not installed: {', '.join(absent)}"
    pytest.skip(needed, allow_module_level=True)

import litellm
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

ONE = [("commit", IN, OUT, CACHED)]
EACH_ORDER = pytest.mark.parametrize("ours", ["first", "last"])
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(autouse=True)
def _nothing_left_over():
    """No test sees what was left by another.

    LiteLLM keeps HTTP clients, and what it has yet to call back, for whichever event loop comes next. Some peers leave
    a span of theirs current for ever; LiteLLM writes on the current span where there is one, and makes none of its own.
    """

    async def work():
        GLOBAL_LOGGING_WORKER.start()
        await GLOBAL_LOGGING_WORKER.flush()

    asyncio.run(work())
    litellm.in_memory_llm_clients_cache.flush_cache()
    token = context.attach(context.Context())
    yield
    context.detach(token)


def by_openai(provider, *, asynchronous=False):
    """A request that OpenAI's SDK sends."""
    client = openai_client(provider, asynchronous=asynchronous)
    return {"model": f"openai/{OPENAI}", "client": client, "api_key": "sk-local", "messages": ASK, "num_retries": 0}


def by_itself(provider, *, asynchronous=False):
    """A request that LiteLLM sends, and whose answer it gives an id of its own."""
    return {
        "model": f"anthropic/{ANTHROPIC}", "api_base": provider.anthropic_url, "api_key": "sk-local", "messages": ASK,
        "num_retries": 0,
    }  # fmt: skip


def by_itself_in_openai_s_way(provider, *, asynchronous=False):
    """A request that LiteLLM sends to one of the many that speak OpenAI's wire format."""
    return {
        "model": "deepseek/deepseek-chat", "api_base": provider.openai_url, "api_key": "sk-local", "messages": ASK,
        "num_retries": 0,
    }  # fmt: skip


EACH_REQUEST = pytest.mark.parametrize(
    "request_of", [by_openai, by_itself, by_itself_in_openai_s_way], ids=lambda made: made.__name__
)


def told(seen):
    """How many calls LiteLLM's callback has told of."""
    return len([span for span in seen.spans if span.attributes.get("litellm.call_id")])


def wait_for(done):
    """What LiteLLM calls back is called by a thread of its own, after the call."""
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


async def await_for(done):
    """From a task the callback is called by another task of the same loop, after the call."""
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing of LiteLLM's tells
        await asyncio.sleep(0.01)


def ends_of(seen, ours, number=1):
    """The events that end calls, when ours have ended: LiteLLM leaves its streams to the garbage collector."""

    def is_there():
        gc.collect()
        return ours is None or len([event for event in seen.ends if event.category != "foreign"]) >= number

    wait_for(is_there)
    return seen.ends


def plain(provider, request_of, seen):
    """One call."""
    litellm.completion(**request_of(provider))
    wait_for(lambda: told(seen))


def stream(provider, request_of, seen):
    """One streamed call, read to its end."""
    assert list(litellm.completion(**request_of(provider), **USAGE))
    wait_for(lambda: told(seen))


def from_task(provider, request_of, seen):
    """One call from a task."""

    async def work():
        await litellm.acompletion(**request_of(provider, asynchronous=True))
        await await_for(lambda: told(seen))

    asyncio.run(work())


def stream_from_task(provider, request_of, seen):
    """One streamed call from a task."""

    async def work():
        answer = await litellm.acompletion(**request_of(provider, asynchronous=True), **USAGE)
        assert [chunk async for chunk in answer]
        await await_for(lambda: told(seen))

    asyncio.run(work())


FROM_TASKS = (from_task, stream_from_task)
EACH_WAY = pytest.mark.parametrize(
    ("callback", "way"),
    [*(("callback", way) for way in (plain, stream, *FROM_TASKS)), *(("callback-v2", way) for way in FROM_TASKS)],
    ids=lambda value: getattr(value, "__name__", value),
)


def shown(events):
    """What is compared of events: their types and what they say was billed."""
    keys = ("tokens_in", "tokens_out", "tokens_cache_read")
    return [(event.event_type, *(event.usage.get(key, 0) for key in keys)) for event in events]


@EACH_ORDER
@EACH_REQUEST
@EACH_WAY
def test_with_our_patch(world, provider, callback, way, request_of, ours):  # noqa: PLR0917 - fixtures
    """Our patch sees the call, and the callback tells of it afterwards: one commit, ours."""
    with world([callback], ours) as seen:
        way(provider, request_of, seen)
        assert told(seen) == 1
        assert shown(ends_of(seen, ours)) == ONE
        assert seen.ends[0].category is None


@EACH_REQUEST
@EACH_WAY
def test_without_our_patch(world, provider, callback, way, request_of):
    """Without our patch the callback makes the one commit, at the cost that LiteLLM states."""
    with world([callback], None) as seen:
        way(provider, request_of, seen)
        assert shown(seen.ends) == ONE
        assert (seen.ends[0].category, seen.ends[0].cost_source) == ("foreign", "span")
        assert seen.ends[0].operation == "chat"


@pytest.mark.parametrize("ours", ["first", "last", None])
@pytest.mark.parametrize("peers", [["openllmetry"], ["openinference"], ["openllmetry", "openinference"]], ids="+".join)
@pytest.mark.parametrize("way", [plain, from_task], ids=lambda way: way.__name__)
def test_beside_others(world, provider, peers, way, ours):
    """The callback and the instrumentations of the SDK below it tell of one call."""
    with world(["callback", *peers], ours) as seen:
        way(provider, by_openai, seen)
        assert told(seen) == 1
        assert shown(ends_of(seen, ours)) == ONE


@pytest.mark.parametrize("ours", ["first", "last", None])
def test_below_a_span_of_the_application(world, provider, tracing, ours):
    """Where a span is current, LiteLLM writes on that one: it is no call of its own, or else it is the one commit."""
    with world(["callback"], ours) as seen:
        with tracing.get_tracer("a service").start_as_current_span("work") as span:
            litellm.completion(**by_openai(provider))
            wait_for(lambda: "litellm.call_id" in span.attributes)
        assert told(seen) == 1
        assert shown(ends_of(seen, ours)) == ONE


def test_two_calls_alike(world, provider):
    """Two calls that are equal in all but their ids, at the same time, are two commits."""

    async def work():
        await asyncio.gather(*(litellm.acompletion(**by_itself(provider)) for _ in range(2)))
        await await_for(lambda: told(seen) == 2)

    with world(["callback"], "first") as seen:
        asyncio.run(work())
        assert told(seen) == 2
        assert shown(ends_of(seen, "first", 2)) == 2 * ONE


@pytest.mark.parametrize("request_of", [by_openai, by_itself], ids=lambda made: made.__name__)
def test_without_messages(world, provider, monkeypatch, request_of):
    """Where LiteLLM is told to keep messages to itself, its span names no operation; it is a call all the same."""
    monkeypatch.setattr(litellm, "turn_off_message_logging", True)
    with world(["callback"], None) as seen:
        from_task(provider, request_of, seen)
        assert shown(seen.ends) == ONE
        assert seen.ends[0].operation == "chat"


@pytest.mark.parametrize("ours", ["first", None])
@pytest.mark.parametrize("callback", LITELLM_PEERS)
def test_responses(world, provider, callback, ours):
    """LiteLLM sends these itself, and packs the provider's id into one of its own."""

    async def work():
        await litellm.aresponses(model=f"openai/{OPENAI}", input="A river?", **where)
        await await_for(lambda: told(seen))

    where = {"api_base": provider.openai_url, "api_key": "sk-local"}
    with world([callback], ours) as seen:
        asyncio.run(work())
        assert told(seen) == 1
        assert shown(ends_of(seen, ours)) == ONE


@pytest.mark.parametrize("ours", ["first", None])
def test_embeddings(world, ours):
    """Embeddings have no id at OpenAI; LiteLLM's for them is known to nobody else."""
    with (
        world(["callback"], ours) as seen,
        mistral_server(input_tokens=IN, output_tokens=OUT, cached_tokens=CACHED) as server,
    ):
        where = {"api_base": f"{server.url}/v1", "api_key": "sk-local"}
        litellm.embedding(model="openai/text-embedding-3-small", input=["a river"], **where)
        wait_for(lambda: told(seen))
        assert told(seen) == 1
        assert shown(ends_of(seen, ours)) == [("commit", IN, 0, 0)]


@pytest.mark.parametrize("ours", ["first", None])
def test_a_failure(world, provider, ours):
    """A refused call is one end, and no charge."""
    with world(["callback"], ours) as seen:
        with pytest.raises(litellm.RateLimitError):
            litellm.completion(**by_openai(provider), extra_headers={"x-local-provider": "status=429"})
        wait_for(lambda: told(seen))
        assert told(seen) == 1
        assert [(event.event_type, event.cost_actual_usd) for event in ends_of(seen, ours)] == [("cancel", None)]


@EACH_REQUEST
@pytest.mark.parametrize("callback", LITELLM_PEERS)
def test_unsampled(world, provider, unsampled, callback, request_of):
    """Where the sampler drops every span, the call is counted all the same, and no span of it is exported."""
    with world([callback], None) as seen:

        async def work():
            await litellm.acompletion(**request_of(provider, asynchronous=True))
            await await_for(lambda: seen.ends)

        asyncio.run(work())
        assert shown(seen.ends) == ONE
        assert seen.spans == []
