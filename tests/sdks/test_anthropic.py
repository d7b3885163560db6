"""anthropic, against the wire formats of Anthropic's API reference (docs.anthropic.com/en/api)."""

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

from tollspan.budget import budget

anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")

MODEL = "claude-sonnet-4-5"
USAGE = {
    "tokens_in": 100,
    "tokens_out": 50,
    "tokens_cache_read": 20,
    "tokens_cache_write": 20,
    "tokens_cache_write_5m": 15,
    "tokens_cache_write_1h": 5,
    "tokens_reasoning": 30,
}
_INPUT = {
    "input_tokens": 60,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
}
_OUTPUT = {"output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": '{"name":"Danube"}'}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _INPUT | _OUTPUT,
}
STREAM = sse(
    {
        "type": "message_start",
        "message": MESSAGE | {"content": [], "stop_reason": None, "usage": _INPUT | {"output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '{"name":'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '"Danube"}'}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": _OUTPUT},
    {"type": "message_stop"},
)
# Anthropic names its events a second time, and its SDK goes by that name.
STREAM = Reply(
    chunks=tuple(b"event: " + chunk.split(b'"type": "')[1].split(b'"')[0] + b"\n" + chunk for chunk in STREAM.chunks),
    content_type=STREAM.content_type,
)
_REFUSAL = Reply({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, status=400)
_ASKED = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "One river."}]}


def _client(url, *, asynchronous):
    made = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    return made(base_url=url, api_key="sk-ant-test", max_retries=0)


def entered(manager_of, items=lambda entered: entered):
    """A generator over what a manager gives when it is entered, of either kind."""

    def run(client):
        manager = manager_of(client)
        return _astepped(manager, items) if hasattr(manager, "__aenter__") else _stepped(manager, items)

    return run


def _stepped(manager, items):
    with manager as inside:
        yield from items(inside)


async def _astepped(manager, items):
    async with manager as inside:
        async for item in items(inside):
            yield item


def river():
    """A model for structured answers; made anew, as in a test of an application."""
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("River", name=(str, ...))


_HELPERS = {
    "lib.streaming._messages": ("MessageStreamManager.__enter__", "AsyncMessageStreamManager.__aenter__"),
    "lib.streaming._beta_messages": ("BetaMessageStreamManager.__enter__", "BetaAsyncMessageStreamManager.__aenter__"),
}


def cases(name, module, method, run, reply, usage=None, **more):  # noqa: PLR0917 - a case has its columns
    """The same case with a sync and with an async client."""
    for asynchronous in (False, True):
        named = _HELPERS.get(module, (method, f"Async{method}"))
        yield Case(
            name=name,
            site=f"anthropic.{module}:{named[asynchronous]}",
            client=lambda url, asynchronous=asynchronous: _client(url, asynchronous=asynchronous),
            run=run,
            reply=reply if isinstance(reply, Reply) else Reply(reply),
            usage=usage,
            provider="anthropic",
            model=MODEL,
            asynchronous=asynchronous,
            refusal=_REFUSAL,
            **more,
        )


def surface(prefix, resource, module, helpers):
    """The ways to ask for a message, of the API or of its beta."""
    yield from cases(
        f"{prefix}message", module, "Messages.create", lambda c: resource(c).create(**_ASKED), MESSAGE, USAGE
    )
    yield from cases(
        f"{prefix}message stream",
        module,
        "Messages.create",
        lambda c: resource(c).create(**_ASKED, stream=True),
        STREAM,
        USAGE,
        streams=True,
    )
    yield from cases(
        f"{prefix}message stream helper",
        helpers,
        "",
        entered(lambda c: resource(c).stream(**_ASKED)),
        STREAM,
        USAGE,
        streams=True,
    )
    yield from cases(
        f"{prefix}message parse",
        module,
        "Messages.parse",
        lambda c: resource(c).parse(**_ASKED, output_format=river()),
        MESSAGE,
        USAGE,
        shown=lambda answer: answer.parsed_output.name,
    )
    yield from cases(
        f"{prefix}message raw",
        module,
        "Messages.create",
        lambda c: resource(c).with_raw_response.create(**_ASKED),
        MESSAGE,
        USAGE,
        shown=lambda raw: raw.status_code,
    )
    yield from cases(
        f"{prefix}message raw stream",
        module,
        "Messages.create",
        entered(
            lambda c: resource(c).with_streaming_response.create(**_ASKED, stream=True),
            lambda response: response.iter_lines(),
        ),
        STREAM,
        USAGE,
        streams=True,
        cuttable=False,
    )


CASES = [
    *surface("", lambda c: c.messages, "resources.messages.messages", "lib.streaming._messages"),
    *surface("beta ", lambda c: c.beta.messages, "resources.beta.messages.messages", "lib.streaming._beta_messages"),
    *cases(
        "message with options",
        "resources.messages.messages",
        "Messages.create",
        lambda c: c.with_options(timeout=20).messages.create(**_ASKED),
        MESSAGE,
        USAGE,
    ),
]
if hasattr(anthropic.Anthropic(api_key="x"), "completions"):  # until 1.0
    _LEGACY = {"model": "claude-2.1", "max_tokens_to_sample": 50, "prompt": "\n\nHuman: One river.\n\nAssistant:"}
    _TEXT = {"type": "completion", "id": "compl_1", "model": MODEL, "completion": " Dan", "stop_reason": None}
    CASES += [
        *cases(
            "completion",
            "resources.completions",
            "Completions.create",
            lambda c: c.completions.create(**_LEGACY),
            _TEXT | {"stop_reason": "stop_sequence"},
            operation="text_completion",
            bounded=False,
        ),
        *cases(
            "completion stream",
            "resources.completions",
            "Completions.create",
            lambda c: c.completions.create(**_LEGACY, stream=True),
            Reply(
                chunks=tuple(
                    b"event: completion\n" + chunk
                    for chunk in sse(_TEXT, _TEXT, _TEXT | {"completion": "ube", "stop_reason": "stop_sequence"}).chunks
                ),
                content_type="text/event-stream",
            ),
            operation="text_completion",
            bounded=False,
            streams=True,
        ),
    ]

_ASKED_COUNT = {"model": MODEL, "messages": _ASKED["messages"]}
CASES += [
    *cases(
        "count",
        "resources.messages.messages",
        "Messages.count_tokens",
        lambda c: c.messages.count_tokens(**_ASKED_COUNT),
        {"input_tokens": 11},
        operation="count_tokens",
        free=True,
    ),
    *cases(
        "beta count",
        "resources.beta.messages.messages",
        "Messages.count_tokens",
        lambda c: c.beta.messages.count_tokens(**_ASKED_COUNT),
        {"input_tokens": 11, "context_management": None},
        operation="count_tokens",
        free=True,
    ),
]


def test_other_requests_pass(server, instrumented):
    """Files, batches and models leave no event, under a budget that has nothing left too."""
    server.reply = Reply({"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"})
    with instrumented() as seen, budget("0.000000001 USD", name="tiny"):
        client = _client(server.url, asynchronous=False)
        client.messages.batches.create(requests=[{"custom_id": "a", "params": _ASKED}])
        client.messages.batches.retrieve("msgbatch_1")
        client.beta.messages.batches.create(requests=[{"custom_id": "a", "params": _ASKED}])
        client.models.retrieve(MODEL)
        client.close()
        assert seen.events == []
        assert len(server.asked) == 4
