"""xai-sdk against a gRPC server that speaks xAI's own protocol (package `xai_api`, as the SDK carries it)."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import logging
import threading
from dataclasses import dataclass
from decimal import Decimal

import pytest
from contract import *  # noqa: F403
from contract import Case, driven
from pydantic import BaseModel
from wire_server import Asked, Reply

xai_sdk = pytest.importorskip("xai_sdk", reason="xai-sdk is not installed")
grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

from google.protobuf.timestamp_pb2 import Timestamp  # noqa: E402 - it comes with the SDK
from xai_sdk.chat import user  # noqa: E402
from xai_sdk.proto import batch_pb2, chat_pb2, deferred_pb2, image_pb2, sample_pb2, usage_pb2, video_pb2  # noqa: E402

from tollspan.budget import CallRefused, budget  # noqa: E402
from tollspan.instrumentation import uncovered  # noqa: E402

MODEL = "grok-4-0709"
CREATED = 1_700_000_000
USED = usage_pb2.SamplingUsage(
    prompt_tokens=120,
    completion_tokens=9,
    reasoning_tokens=40,
    total_tokens=169,
    prompt_text_tokens=120,
    cached_prompt_text_tokens=64,
)
USAGE = {"tokens_in": 120, "tokens_out": 49, "tokens_cache_read": 64, "tokens_reasoning": 40}


@dataclass
class Deferred:
    """A reply that is pending at the first poll."""

    polls: int = 0


class GrpcServer:
    """As WireServer: `reply` has messages for a body and chunks; a status of HTTP stands for a code of gRPC."""

    def __init__(self):
        self.codes = {400: grpc.StatusCode.INVALID_ARGUMENT}
        self.reply = Reply(status=400)
        self.asked = []

    def __enter__(self):
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=(_Handlers(self),))
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *exc):
        self._server.stop(None).wait()

    @property
    def url(self):
        """Its address."""
        return f"127.0.0.1:{self._port}"


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server):
        self._server = server

    def service(self, details):
        """Answer every method, from bytes to bytes."""
        if details.method.endswith("Chunk"):
            return grpc.unary_stream_rpc_method_handler(lambda sent, at: self._chunks(details.method, sent, at))
        return grpc.unary_unary_rpc_method_handler(lambda sent, at: self._whole(details.method, sent, at))

    def _reply(self, method, sent, at):
        server = self._server
        asked = Asked("POST", method, {}, sent)
        server.asked.append(asked)
        reply = server.reply(asked) if callable(server.reply) else server.reply
        if reply.status in server.codes:
            at.abort(server.codes[reply.status], "no")
        return reply

    def _whole(self, method, sent, at):
        reply = self._reply(method, sent, at)
        if reply.cut_after is not None:
            _lose(at)
        return reply.content

    def _chunks(self, method, sent, at):
        reply = self._reply(method, sent, at)
        yield from reply.chunks[: reply.cut_after]
        if reply.cut_after is not None:
            _lose(at)


def _lose(at):
    """End as gRPC ends a call whose stream was reset."""
    at.abort(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")


@pytest.fixture
def server():
    """In place of the HTTP server of the other SDKs."""
    with GrpcServer() as running:
        yield running


def _output(index=0, text="Danube.", kind=chat_pb2.CompletionOutput):
    inner = {"message" if kind is chat_pb2.CompletionOutput else "delta": {"content": text, "role": "ROLE_ASSISTANT"}}
    return kind(index=index, finish_reason=sample_pb2.FinishReason.REASON_STOP, **inner)


def _completion(*texts, used=USED):
    outputs = [_output(index, text) for index, text in enumerate(texts)]
    created = Timestamp(seconds=CREATED)
    return chat_pb2.GetChatCompletionResponse(id="resp-1", model=MODEL, created=created, outputs=outputs, usage=used)


def _whole(*texts, used=USED):
    return Reply(_completion(*texts, used=used).SerializeToString())


def _chunk(text, used=None):
    delta = chat_pb2.Delta(content=text, role="ROLE_ASSISTANT")
    out = chat_pb2.CompletionOutputChunk(index=0, delta=delta)
    return chat_pb2.GetChatCompletionChunk(id="resp-1", model=MODEL, outputs=[out], usage=used).SerializeToString()


STREAM = Reply(chunks=(_chunk("Dan"), _chunk("ube"), _chunk("."), _chunk("", used=USED)))
IMAGES = image_pb2.ImageResponse(
    model="grok-2-image", images=[image_pb2.GeneratedImage(url="https://example.com/1.png", respect_moderation=True)]
)


class _River(BaseModel):
    name: str


def _client(url, *, asynchronous):
    made = xai_sdk.AsyncClient if asynchronous else xai_sdk.Client
    return made(api_key="xai-test", api_host=url, use_insecure_channel=True, timeout=30)


def _shown(value):
    """What a user reads of an answer: the SDK's objects show no content."""
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return getattr(value, "content", None) or getattr(value, "url", None) or repr(type(value))


def _chat(client):
    return client.chat.create(model=MODEL, messages=[user("One river.")], max_tokens=50)


def _case(name, site, run, reply, *, asynchronous, **more):
    return Case(
        name=name,
        site=f"xai_sdk.{'aio' if asynchronous else 'sync'}.{site}",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=run,
        reply=reply,
        asynchronous=asynchronous,
        provider="x_ai",
        shown=_shown,
        **({"usage": USAGE, "model": MODEL} | more),
    )


CASES = [
    case
    for asynchronous in (False, True)
    for case in (
        _case("sample", "chat:Chat.sample", lambda c: _chat(c).sample(), _whole("Danube."), asynchronous=asynchronous),
        _case(
            "sample batch",
            "chat:Chat.sample_batch",
            lambda c: _chat(c).sample_batch(2),
            _whole("Danube.", "Rhine."),
            asynchronous=asynchronous,
        ),
        _case(
            "parse",
            "chat:Chat.parse",
            lambda c: _chat(c).parse(_River),
            _whole('{"name": "Danube"}'),
            asynchronous=asynchronous,
        ),
        _case(
            "stream",
            "chat:Chat.stream",
            lambda c: _chat(c).stream(),
            STREAM,
            asynchronous=asynchronous,
            streams=True,
        ),
        _case(
            "stream batch",
            "chat:Chat.stream_batch",
            lambda c: _chat(c).stream_batch(1),
            STREAM,
            asynchronous=asynchronous,
            streams=True,
        ),
        _case(
            "compact context",
            "chat:Client.compact_context",
            lambda c: c.chat.compact_context(MODEL, [user("One river.")]),
            Reply(chat_pb2.CompactContextResponse(usage=USED).SerializeToString()),
            asynchronous=asynchronous,
        ),
        _case(
            "image",
            "image:Client.sample",
            lambda c: c.image.sample("One river.", "grok-2-image", image_format="url"),
            Reply(IMAGES.SerializeToString()),
            asynchronous=asynchronous,
            operation="generate_content",
            usage={"images": 1},
            model="grok-2-image",
            bounded=False,
        ),
    )
]


@pytest.fixture(autouse=True)
def _no_context_errors(monkeypatch):
    """xai-sdk makes a span current across its yields; OpenTelemetry logs that, and pytest keeps the stream with it."""
    monkeypatch.setattr(logging.getLogger("opentelemetry.context"), "disabled", True)


def _sent(server):
    return chat_pb2.GetCompletionsRequest.FromString(server.asked[-1].content)


def _sampled(case_client, server):
    client = case_client(server.url)
    try:
        return _chat(client).sample()
    finally:
        client.close()


def _sync(url):
    return _client(url, asynchronous=False)


def test_an_output_limit_is_put_into_the_message(server, instrumented):
    """Where the caller names no maximum, a small budget puts one into the request, and the caller's chat has none."""
    server.reply = _whole("Danube.")
    with instrumented(), budget("0.05 USD", name="small"):
        client = _sync(server.url)
        chat = client.chat.create(model=MODEL, messages=[user("One river.")])
        chat.sample()
        client.close()
    assert 0 < _sent(server).max_tokens < 3_400  # 0.05 USD buy no more at 15 USD a million
    assert not chat.proto.HasField("max_tokens")


def test_what_the_provider_states_is_the_cost(server, instrumented):
    """A cost in ticks of 1e-10 USD is the cost, and every use of a tool on the server is counted."""
    used = usage_pb2.SamplingUsage()
    used.CopyFrom(USED)
    used.cost_in_usd_ticks = 123_456_789
    used.server_side_tools_used.extend(["SERVER_SIDE_TOOL_WEB_SEARCH"] * 2 + ["SERVER_SIDE_TOOL_X_SEARCH"])
    server.reply = _whole("Danube.", used=used)
    with instrumented() as seen:
        _sampled(_sync, server)
        event = seen.end
    assert event.cost_actual_usd == Decimal("0.012345679")
    assert event.cost_source == "provider"
    assert event.usage == USAGE | {"web_searches": 2, "social_searches": 1}


@pytest.mark.parametrize("more", [{"tools": ["web_search"]}, {"previous_response_id": "resp-0"}], ids=["tool", "state"])
def test_what_has_no_bound_is_refused(server, instrumented, more):
    """A hosted tool, or a conversation that the server holds, may cost any amount: a strict budget refuses it."""
    if "tools" in more:
        more = {"tools": [chat_pb2.Tool(web_search=chat_pb2.WebSearch())]}
    with instrumented(), budget("5 USD", name="large"):
        client = _sync(server.url)
        chat = client.chat.create(model=MODEL, messages=[user("One river.")], max_tokens=50, **more)
        with pytest.raises(CallRefused):
            chat.sample()
        client.close()
    assert not server.asked


def test_a_repetition_by_grpc_is_one_call(server, instrumented):
    """gRPC sends again what was unavailable, below everything that Python sees: that is one commit."""
    replies = iter([Reply(status=503), _whole("Danube.")])
    server.codes = {503: grpc.StatusCode.UNAVAILABLE}
    server.reply = lambda _asked: next(replies)
    with instrumented() as seen:
        assert _sampled(_sync, server).content == "Danube."
        assert seen.end.usage == USAGE
    assert len(server.asked) == 2


def test_a_connection_that_is_not_made_costs_nothing(instrumented):
    """Where nobody listens, nothing was sent."""
    with GrpcServer() as gone:
        pass
    with instrumented() as seen:
        with pytest.raises(grpc.RpcError):
            _sampled(_sync, gone)
        assert seen.end.event_type == "cancel"


def test_a_lost_connection_may_have_been_billed(server, instrumented):
    """Where gRPC lost the connection, or ran out of time, the call is a commit with a reason."""
    server.codes = {504: grpc.StatusCode.DEADLINE_EXCEEDED}
    server.reply = Reply(status=504)
    with instrumented() as seen:
        with pytest.raises(grpc.RpcError):
            _sampled(_sync, server)
        event = seen.end
    assert (event.event_type, event.status, event.http_status) == ("commit", "error", 504)
    assert event.reason


def test_a_stub_of_ones_own_is_counted(server, instrumented):
    """A request that no row of the table covers is a commit, and is counted as uncovered."""
    server.reply = _whole("Danube.")
    with instrumented() as seen:
        client = _sync(server.url)
        asked = chat_pb2.GetCompletionsRequest(model=MODEL, max_tokens=5)
        client.chat._stub.GetCompletion(asked)
        client.close()
        assert seen.end.usage == USAGE
    assert uncovered == {"/xai_api.Chat/GetCompletion": 1}
    uncovered.clear()


_NUMBERS = itertools.count()  # the process remembers which answers it has counted


def _deferring(done, method):
    """Answer a start with an id, the first poll with nothing, and the second one with what is done."""
    polls, name = Deferred(), f"req-{next(_NUMBERS)}"
    pending = type(done)(status=deferred_pb2.DeferredStatus.PENDING)

    def reply(asked):
        if asked.path.endswith(method):
            polls.polls += 1
            return Reply((done if polls.polls > 1 else pending).SerializeToString())
        return Reply(deferred_pb2.StartDeferredResponse(request_id=name).SerializeToString())

    return reply


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_deferred_answer_counts_once(server, instrumented, asynchronous):
    """What is started and polled for is a commit without usage, and adjusts that bring the usage of its answer."""
    done = chat_pb2.GetDeferredCompletionResponse(status="DONE", response=_completion("Danube."))
    server.reply = _deferring(done, "GetDeferredCompletion")
    case = _case("defer", "chat:Chat.defer", lambda c: _chat(c).defer(), None, asynchronous=asynchronous)

    async def use(result):
        return result.content

    with instrumented() as seen:
        assert driven(case, server, use) == "Danube."
        event, adjusts = seen.end, seen.of("adjust")
    assert event.cost_source is not None
    assert [adjust.usage for adjust in adjusts if adjust.usage] == [USAGE]
    assert not uncovered


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_video_counts_its_seconds(server, instrumented, asynchronous):
    """A video is billed by its seconds and at the cost that its poll states, however often it is polled for."""
    response = video_pb2.VideoResponse(
        video=video_pb2.GeneratedVideo(url="https://example.com/1.mp4", duration=6, respect_moderation=True),
        model="grok-imagine-video",
        usage=usage_pb2.SamplingUsage(cost_in_usd_ticks=3_000_000_000),
    )
    done = video_pb2.GetDeferredVideoResponse(status="DONE", response=response)
    server.reply = _deferring(done, "GetDeferredVideo")
    case = _case("video", "", _video, None, asynchronous=asynchronous)

    async def use(result):
        return result.url

    with instrumented() as seen:
        assert driven(case, server, use) == "https://example.com/1.mp4"
        spent = sum(event.spend_usd or 0 for event in seen.events)
        adjusts = seen.of("adjust")
    assert spent == Decimal("0.3")
    assert [adjust.usage for adjust in adjusts if adjust.usage] == [{"video_seconds": 6}]


def _video(client):
    return client.video.generate("One river.", "grok-imagine-video", duration=6)


def test_results_of_a_batch_count_once(server, instrumented):
    """Each result of a batch is a commit, and listing the results again adds none."""
    data = batch_pb2.BatchResultData(completion_response=_completion("Danube."))
    results = [batch_pb2.BatchResult(batch_request_id="one", response=data)]
    server.reply = Reply(batch_pb2.ListBatchResultsResponse(results=results).SerializeToString())
    with instrumented() as seen:
        client = _sync(server.url)
        client.batch.list_batch_results("batch-1")
        client.batch.list_batch_results("batch-1")
        client.close()
        assert seen.end.usage == USAGE


def test_a_task_that_is_cancelled_may_have_been_billed(server, instrumented):
    """A task that is cancelled while its request is on its way is a commit with a reason."""
    arrived = threading.Event()
    go_on = threading.Event()

    def reply(_asked):
        arrived.set()
        go_on.wait(20)
        return _whole("Danube.")

    async def work():
        client = _client(server.url, asynchronous=True)
        task = asyncio.create_task(_chat(client).sample())
        await asyncio.to_thread(arrived.wait, 20)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()

    server.reply = reply
    with instrumented() as seen:
        asyncio.run(work())
        go_on.set()
        event = seen.end
    assert (event.event_type, event.status) == ("commit", "cancelled")
    assert event.reason
