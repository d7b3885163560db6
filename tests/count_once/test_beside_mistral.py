"""A call by Mistral's SDK is one commit, whether the SDK records it itself, others do, or we, or all of these."""

import asyncio

import pytest
from mistral_server import LIMITED, UNKNOWN_KEY, mistral_server
from peers import ASK, CACHED, IN, MISTRAL_PEERS, OUT, missing

if missing(["mistralai"]):
    pytest.skip("these need the package mistralai of .ci/peers.txt", allow_module_level=True)

BEFORE_2 = not missing(["mistralai.models"])
if BEFORE_2:
    from mistralai import Mistral
else:
    from mistralai.client import Mistral

MODEL = "mistral-small-latest"
NATIVE_ONLY = ("native",)
OTHERS = ["openllmetry-mistral" if BEFORE_2 else "openinference-mistral"]
if absent := missing([module for name in OTHERS for module, _ in MISTRAL_PEERS[name]]):
    pytest.skip(f"these need the packages of .ci/peers*.txt; not installed: {absent}", allow_module_level=True)

SINCE_2 = pytest.mark.skipif(BEFORE_2, reason="before 2.0 the SDK tells less: nothing of streams, nothing of caches")
EACH_SET = pytest.mark.parametrize(
    "peers", [NATIVE_ONLY, *((name,) for name in OTHERS), *(("native", name) for name in OTHERS)], ids="+".join
)


@pytest.fixture(autouse=True)
def _mistral_at_our_host(monkeypatch):
    """The host tells the provider, and this one is no provider's."""
    monkeypatch.setenv("TOLLSPAN_PROVIDERS", "127.0.0.1=mistral_ai")


@pytest.fixture
def server():
    """Bills the same usage for every call."""
    with mistral_server(input_tokens=IN, output_tokens=OUT, cached_tokens=CACHED) as running:
        yield running


def client(server):
    """A client of the SDK for the local server."""
    return Mistral(api_key="local", server_url=server.url)


def plain(server):
    """One call."""
    client(server).chat.complete(model=MODEL, messages=ASK)


def stream(server):
    """One call whose answer is streamed, and read to its end."""
    assert list(client(server).chat.stream(model=MODEL, messages=ASK))


def from_task(server):
    """One call from a task."""

    async def work():
        async with client(server) as mistral:
            await mistral.chat.complete_async(model=MODEL, messages=ASK)

    asyncio.run(work())


def stream_from_task(server):
    """One streamed call from a task."""

    async def work():
        async with client(server) as mistral:
            answer = await mistral.chat.stream_async(model=MODEL, messages=ASK)
            assert [event async for event in answer]

    asyncio.run(work())


def agent(server):
    """One call of an agent that the provider keeps."""
    client(server).agents.complete(agent_id="ag-1", messages=ASK)


def agent_stream(server):
    """One streamed call of such an agent."""
    assert list(client(server).agents.stream(agent_id="ag-1", messages=ASK))


def fill_in(server):
    """One completion of code between two parts."""
    client(server).fim.complete(model=MODEL, prompt="def f(", suffix="return 1")


CHATS = (plain, stream, from_task, stream_from_task)
EACH_CHAT = pytest.mark.parametrize("way", CHATS, ids=lambda way: way.__name__)
EACH_WAY = pytest.mark.parametrize("way", [*CHATS, agent, agent_stream, fill_in], ids=lambda way: way.__name__)
ONE = [("commit", "mistral_ai", IN, OUT, CACHED)]


def shown(events):
    """What is compared of events: what they are, of whom, and what they say was billed."""
    keys = ("tokens_in", "tokens_out", "tokens_cache_read")
    return [(event.event_type, event.provider, *(event.usage.get(key, 0) for key in keys)) for event in events]


@EACH_SET
@EACH_WAY
@pytest.mark.parametrize("ours", ["first", "last"])
def test_with_our_patch(world, server, peers, way, ours):
    """Our patch and any set of others make one commit of a call, ours, in either order of activation."""
    with world(peers, ours) as seen:
        way(server)
        assert server.billed == 1
        assert shown(seen.ends) == ONE
        assert seen.ends[0].category is None


@EACH_SET
@EACH_CHAT
def test_without_our_patch(world, server, peers, way):
    """Without our patch any set of others that sees a call makes one commit of it, with its price."""
    if BEFORE_2 and peers == NATIVE_ONLY and "stream" in way.__name__:
        pytest.skip("before 2.0 the SDK tells nothing of streams")
    with world(peers, None) as seen:
        way(server)
        assert len(seen.spans) >= len(peers)
        told = shown(seen.ends)
        # Before 2.0 the SDK's own span, which counts because it is the first to end, tells of no cache.
        assert [row[:4] for row in told] == [row[:4] for row in ONE] if BEFORE_2 else told == ONE
        assert seen.ends[0].cost_actual_usd > 0


@pytest.mark.parametrize("way", [agent, agent_stream, fill_in], ids=lambda way: way.__name__)
def test_other_calls_that_the_sdk_records_itself(world, server, way):
    """An agent that the provider keeps is one call to a model, and so is a completion of code."""
    if BEFORE_2 and "stream" in way.__name__:
        pytest.skip("before 2.0 the SDK tells nothing of streams")
    with world(NATIVE_ONLY, None) as seen:
        way(server)
        assert [row[:4] for row in shown(seen.ends)] == [row[:4] for row in ONE]
        if not BEFORE_2:  # it tells of no cache then, and of no model of an agent
            assert shown(seen.ends) == ONE
            assert seen.ends[0].cost_actual_usd > 0


def test_embeddings(world, server):
    """Embeddings are one commit of input only, with the peers that see them."""
    with world(["native", *OTHERS] if BEFORE_2 else NATIVE_ONLY, None) as seen:
        client(server).embeddings.create(model="mistral-embed", inputs=["one", "two"])
        assert shown(seen.ends) == [("commit", "mistral_ai", IN, 0, 0)]


def talk(server):
    """One answer of two messages, in a conversation that the provider keeps."""
    client(server).beta.conversations.start(inputs="Name three rivers.", model=MODEL)


def talk_on(server):
    """The same, in a conversation that has begun."""
    client(server).beta.conversations.append(conversation_id="conv_1", inputs="Name three rivers.")


def talk_stream(server):
    """The same, streamed, and read to its end."""
    assert list(client(server).beta.conversations.start_stream(inputs="Name three rivers.", model=MODEL))


@SINCE_2
@pytest.mark.parametrize("way", [talk, talk_on, talk_stream], ids=lambda way: way.__name__)
@pytest.mark.parametrize("ours", ["first", "last"])
def test_a_conversation_with_our_patch(world, server, way, ours):
    """However many messages there are, and whatever spans the SDK makes of them, it is one commit, with its model."""
    with world(NATIVE_ONLY, ours) as seen:
        way(server)
        assert shown(seen.ends) == ONE
        assert (seen.ends[0].category, seen.ends[0].model) == (None, MODEL)
        assert seen.ends[0].cost_actual_usd > 0


@SINCE_2
@pytest.mark.parametrize("ours", ["first", "last"])
def test_pages_with_our_patch(world, server, ours):
    """The SDK's span counts the same pages, and they are counted once."""
    with world(NATIVE_ONLY, ours) as seen:
        document = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
        client(server).ocr.process(model="mistral-ocr-2505", document=document)
        assert [dict(event.usage) for event in seen.ends] == [{"document_pages": 3}]
        assert seen.ends[0].cost_actual_usd > 0


@SINCE_2
def test_a_conversation_with_many_messages(world, server):
    """All messages of one answer are one commit, with the usage of the conversation and without a cost: no model."""
    with world(NATIVE_ONLY, None) as seen:
        client(server).beta.conversations.start(inputs="Name three rivers.", agent_id="ag-1")
        assert len(seen.spans) == 3
        assert shown(seen.ends) == ONE
        assert seen.ends[0].cost_actual_usd is None


@SINCE_2
def test_pages(world, server):
    """What is billed by the page is counted in pages."""
    with world(NATIVE_ONLY, None) as seen:
        document = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
        client(server).ocr.process(model="mistral-ocr-latest", document=document)
        assert [dict(event.usage) for event in seen.ends] == [{"document_pages": 3}]


@SINCE_2
@pytest.mark.parametrize(
    ("failure", "end"), [((429, LIMITED), "cancel"), ((401, UNKNOWN_KEY), "commit")], ids=["limited", "unknown key"]
)
def test_a_failure(world, server, failure, end):
    """A refused call is one end without a cost; where the span tells no status, nobody knows whether it was billed."""
    server.failure = failure
    with world(NATIVE_ONLY, None) as seen:
        with pytest.raises(Exception, match=str(failure[0])):
            plain(server)
        reason = "nobody can tell whether it was billed" if end == "commit" else None
        assert [(event.event_type, event.status, event.reason) for event in seen.ends] == [(end, "error", reason)]
        assert seen.ends[0].cost_actual_usd is None


@EACH_SET
def test_a_failure_that_others_see(world, server, peers):
    """However many see a refused call, it is one end, and no charge."""
    server.failure = (429, LIMITED)
    with world(peers, "first") as seen:
        with pytest.raises(Exception, match="429"):
            plain(server)
        assert [(event.event_type, event.cost_actual_usd) for event in seen.ends] == [("cancel", None)]


@pytest.mark.parametrize("peers", [(name,) for name in (OTHERS if BEFORE_2 else ["native", *OTHERS])], ids="+".join)
@EACH_CHAT
def test_unsampled(world, server, unsampled, peers, way):
    """Where the sampler drops every span, the calls that others see are counted all the same, and none is exported."""
    with world(peers, None) as seen:
        way(server)
        assert seen.spans == []
        assert [row[0] for row in shown(seen.ends)] == ["commit"]
