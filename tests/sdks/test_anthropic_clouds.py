"""Anthropic's SDK as a client of Bedrock and of Vertex, against their wire formats.

Sources: Amazon Bedrock API reference, "InvokeModel"; Google Cloud, "Use Claude models"; Anthropic's "Messages".
"""

import json
import struct
import zlib
from base64 import b64encode

import pytest
from contract import *  # noqa: F403
from contract import Case, driven
from wire_server import Reply

from tollspan.budget import budget
from tollspan.instrumentation import uncovered

anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
pytest.importorskip("boto3", reason="nothing can sign requests to Bedrock")
httpx = getattr(anthropic._base_client, "httpx2", None) or anthropic._base_client.httpx  # whichever this version has

BEDROCK_MODEL, VERTEX_MODEL = "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5@20250929"
NAME = "claude-sonnet-4-5-20250929"
ASKED = {"max_tokens": 50, "messages": [{"role": "user", "content": "One river."}]}
ANSWER = {
    "type": "message",
    "role": "assistant",
    "model": NAME,
    "content": [{"type": "text", "text": "Danube."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 20, "output_tokens": 7, "cache_read_input_tokens": 100},
}
START = ANSWER | {"content": [], "stop_reason": None, "usage": ANSWER["usage"] | {"output_tokens": 1}}
USAGE = {"tokens_in": 120, "tokens_out": 7, "tokens_cache_read": 100}


def events(message_id):
    yield {"type": "message_start", "message": START | {"id": message_id}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in ("Dan", "ube."):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    yield {"type": "message_stop"}


def frame(event):
    """One event as Bedrock streams it (Smithy, "Amazon Event Stream Specification")."""
    named = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    coded = b"".join(
        b"%c%s\x07%s%s" % (len(name), name.encode(), struct.pack(">H", len(value)), value.encode())
        for name, value in named.items()
    )
    payload = json.dumps({"bytes": b64encode(json.dumps(event).encode()).decode(), "p": "abc"}).encode()
    prelude = struct.pack(">II", 16 + len(coded) + len(payload), len(coded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + coded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def named_events(message_id):
    named = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events(message_id))
    return Reply(chunks=tuple(text.encode() for text in named), content_type="text/event-stream")


BEDROCK_STREAM = Reply(
    chunks=tuple(map(frame, events("msg_bdrk_1"))), content_type="application/vnd.amazon.eventstream"
)
VERTEX_STREAM = named_events("msg_vrtx_1")
MANTLE_STREAM = named_events("msg_1")


def _elsewhere(request, url):
    """The real host is what tells the provider; the request goes to the local server all the same."""
    local = httpx.URL(url)
    request.url = request.url.copy_with(scheme=local.scheme, host=local.host, port=local.port)
    return request


class Redirected(httpx.HTTPTransport):
    def __init__(self, url):
        super().__init__()
        self._local = url

    def handle_request(self, request):
        return super().handle_request(_elsewhere(request, self._local))


class AsyncRedirected(httpx.AsyncHTTPTransport):
    def __init__(self, url):
        super().__init__()
        self._local = url

    async def handle_async_request(self, request):
        return await super().handle_async_request(_elsewhere(request, self._local))


AWS = {"aws_region": "us-east-1", "aws_access_key": "AKIDEXAMPLE", "aws_secret_key": "secret"}
CLOUDS = {
    "bedrock": ("AnthropicBedrock", AWS, BEDROCK_MODEL, "aws.bedrock", BEDROCK_MODEL, "msg_bdrk_1", BEDROCK_STREAM),
    "vertex": (
        "AnthropicVertex",
        {"region": "us-east5", "project_id": "p", "access_token": "t"},
        VERTEX_MODEL,
        "gcp.vertex_ai",
        NAME,
        "msg_vrtx_1",
        VERTEX_STREAM,
    ),
    "mantle": ("AnthropicBedrockMantle", AWS, BEDROCK_MODEL, "aws.bedrock", NAME, "msg_1", MANTLE_STREAM),
}
CLOUDS = {name: cloud for name, cloud in CLOUDS.items() if hasattr(anthropic, cloud[0])}


def client_of(cloud, url, *, asynchronous):
    made, how, *_ = CLOUDS[cloud]
    if asynchronous:
        client = httpx.AsyncClient(transport=AsyncRedirected(url))
        return getattr(anthropic, f"Async{made}")(http_client=client, max_retries=0, **how)
    return getattr(anthropic, made)(http_client=httpx.Client(transport=Redirected(url)), max_retries=0, **how)


def managed(client, asked, *, asynchronous):
    manager = client.messages.stream(**asked)
    return manager.__aenter__() if asynchronous else manager.__enter__()


def created(client, asked, *, asynchronous):
    return client.messages.create(**asked)


def created_beta(client, asked, *, asynchronous):
    return client.beta.messages.create(**asked)


MESSAGES, BETA = "anthropic.resources.messages.messages", "anthropic.resources.beta.messages.messages"
WAYS = {
    "create": (created, {}, MESSAGES, ("Messages.create", "AsyncMessages.create")),
    "stream": (created, {"stream": True}, MESSAGES, ("Messages.create", "AsyncMessages.create")),
    "beta": (created_beta, {}, BETA, ("Messages.create", "AsyncMessages.create")),
    "manager": (
        managed,
        {},
        "anthropic.lib.streaming._messages",
        ("MessageStreamManager.__enter__", "AsyncMessageStreamManager.__aenter__"),
    ),
}


def case(cloud, way, *, asynchronous):
    _, _, asked_for, provider, model, message_id, stream = CLOUDS[cloud]
    call, more, module, names = WAYS[way]
    streams = way in ("stream", "manager")
    asked = {"model": asked_for, **ASKED, **more}
    if way == "beta" and cloud != "mantle":
        module = f"anthropic.lib.{cloud}._beta_messages"
    return Case(
        name=f"{cloud} {way}",
        site=f"{module}:{names[asynchronous]}",
        client=lambda url: client_of(cloud, url, asynchronous=asynchronous),
        run=lambda client: call(client, asked, asynchronous=asynchronous),
        reply=stream if streams else Reply(ANSWER | {"id": message_id}),
        usage=USAGE,
        provider=provider,
        model=model,
        streams=streams,
        asynchronous=asynchronous,
    )


CASES = [case(cloud, way, asynchronous=late) for late in (False, True) for cloud in CLOUDS for way in WAYS]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_left_limits_the_output(server, instrumented, cloud, asynchronous):
    """What is left of a budget is the limit on the wire, in a request that is signed after that."""
    chosen = case(cloud, "create", asynchronous=asynchronous)
    server.reply = chosen.reply

    async def use(result):
        return result

    with instrumented(), budget("0.02 USD", name="small"):
        driven(_without_limit(chosen, CLOUDS[cloud][2]), server, use)
    assert 256 <= server.asked[0].json["max_tokens"] < 5_000


def _without_limit(chosen, model):
    asked = {
        "model": model,
        "messages": ASKED["messages"],
        "max_tokens": getattr(anthropic, "omit", anthropic.NOT_GIVEN),
    }
    run = lambda client: client.messages.create(**asked)  # noqa: E731
    return type(chosen)(**{**{name: getattr(chosen, name) for name in chosen.__dataclass_fields__}, "run": run})


def test_bedrock_costs_what_its_profile_costs(server, instrumented):
    """The answer names a model without a region: a global profile has no regional premium."""
    chosen = case("bedrock", "create", asynchronous=False)
    server.reply = Reply(ANSWER | {"id": "msg_bdrk_1", "usage": {"input_tokens": 10, "output_tokens": 10}})

    async def use(result):
        return result

    with instrumented() as seen:
        driven(chosen, server, use)
        assert str(seen.end.cost_actual_usd) == "0.00018"


def test_counting_tokens_on_vertex_is_no_call_of_a_model(server, instrumented):
    """Its path ends like one, and it costs nothing."""
    server.reply = Reply({"input_tokens": 12})
    with instrumented() as seen:
        client = client_of("vertex", server.url, asynchronous=False)
        assert client.messages.count_tokens(model=VERTEX_MODEL, messages=ASKED["messages"]).input_tokens == 12
        assert all(event.spend_usd in (None, 0) for event in seen.events)
    assert server.asked[0].path.endswith("/count-tokens:rawPredict")
    assert not uncovered


@pytest.mark.parametrize(
    "end", ["/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke-with-response-stream", ":streamRawPredict"]
)
def test_a_request_that_no_row_covers(server, instrumented, end):
    """A request by hand is read all the same, with its model and its stream out of the path."""
    on_bedrock = end.startswith("/model")
    server.reply = BEDROCK_STREAM if on_bedrock else VERTEX_STREAM
    path = end if on_bedrock else f"/v1/projects/p/locations/l/publishers/anthropic/models/{VERTEX_MODEL}{end}"
    with instrumented() as seen, httpx.Client() as client:
        body = {"anthropic_version": "v", **ASKED}
        with client.stream("POST", server.url + path, json=body) as response:
            assert b"".join(response.iter_raw()) == b"".join(server.reply.chunks)
        event = seen.end
    assert event.usage == USAGE
    assert event.provider == ("aws.bedrock" if on_bedrock else "gcp.vertex_ai")
    assert event.category == "uncovered"
    if on_bedrock:
        assert event.model == "anthropic.claude-3-haiku-20240307-v1:0"
