"""litellm, over its own HTTP clients and over OpenAI's SDK, against the wire formats of vendors that it speaks to."""

import asyncio
import os
from dataclasses import replace

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would fetch prices from the network
litellm = pytest.importorskip("litellm", reason="litellm is not installed")

from tollspan.budget import BudgetExceeded, budget  # noqa: E402

MODEL = "gpt-4o-mini"
ASK = {"messages": [{"role": "user", "content": "One river."}], "max_tokens": 50, "num_retries": 0}
USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25}
COUNTED = {"tokens_in": 18, "tokens_out": 7}
_ONE = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}


def _choice(**delta):
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


_MESSAGE = {"role": "assistant", "content": "Danube."}
CHAT = Reply(_ONE | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], "usage": USAGE})
CHAT_STREAM = sse(
    _CHUNK | {"choices": [_choice(role="assistant", content="")]},
    _CHUNK | {"choices": [_choice(content="Dan")]},
    _CHUNK | {"choices": [_choice(content="ube.")]},
    _CHUNK | {"choices": [_choice() | {"finish_reason": "stop"}]},
    _CHUNK | {"choices": [], "usage": USAGE},
    done=True,
)
BARE_STREAM = replace(CHAT_STREAM, chunks=(*CHAT_STREAM.chunks[:-2], CHAT_STREAM.chunks[-1]))
CLAUDE = "claude-sonnet-4-5"
MESSAGE = Reply(
    {
        "id": "msg_1", "type": "message", "role": "assistant", "model": CLAUDE, "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "Danube."}],
        "usage": {"input_tokens": 18, "output_tokens": 7},
    }
)  # fmt: skip
_START = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": CLAUDE, "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 18, "output_tokens": 1},
}  # fmt: skip
MESSAGE_STREAM = sse(
    {"type": "message_start", "message": _START},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Danube."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
)  # fmt: skip
VECTOR = Reply(
    {
        "object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    }
)  # fmt: skip
REFUSED = Reply({"error": {"message": "no", "type": "invalid_request_error", "code": "invalid"}}, status=400)


@pytest.fixture(autouse=True)
def _nothing_left_over(monkeypatch):
    """litellm keeps HTTP clients for whichever event loop comes next, and streams until a thread has logged them."""
    monkeypatch.setattr(litellm, "disable_streaming_logging", True)
    litellm.in_memory_llm_clients_cache.flush_cache()


def _deepseek(url):
    return {"model": f"deepseek/{MODEL}", "api_base": f"{url}/v1", "api_key": "sk-test"} | ASK


def _openai(url):
    return {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "sk-test"} | ASK


def _anthropic(url):
    return {"model": f"anthropic/{CLAUDE}", "api_base": url, "api_key": "sk-test"} | ASK


def _embedding(url):
    return {"model": "openai/text-embedding-3-small", "api_base": f"{url}/v1", "api_key": "sk-test", "input": ["river"]}


def _routed(url):
    """A router of one deployment, which repeats nothing."""
    deployed = {"model_name": "rivers", "litellm_params": {k: v for k, v in _anthropic(url).items() if k != "messages"}}
    return litellm.Router(model_list=[deployed], num_retries=0)


def _read_as(result, asynchronous, extra):
    """One class of litellm's is the stream of threads and of tasks: here a thread reads it."""
    return map(_itself, result) if extra and not asynchronous else result


def _routed_as(result, asynchronous, extra):
    """The stream of a router is of a class that is made for each call: here a generator reads it."""
    return _parts(result) if extra and asynchronous else _read_as(result, asynchronous, extra)


async def _parts(awaited):
    async for part in await awaited:
        yield part


def _itself(value):
    return value


def _shown(value):
    """litellm gives most answers an id and a time of its own."""
    if hasattr(value, "choices"):
        return [repr(choice) for choice in value.choices]
    return repr(value)


def _case(name, function, asked, reply, *, asynchronous, **more):
    extra = more.pop("extra", {})
    call = f"a{function}" if asynchronous else function
    return Case(
        name=name,
        site=f"litellm:{call}",
        client=asked,
        run=lambda client: _read_as(getattr(litellm, call)(**client, **extra), asynchronous, extra),
        reply=reply,
        asynchronous=asynchronous,
        streams="stream" in extra,
        refusal=REFUSED,
        shown=_shown,
        **({"usage": COUNTED, "provider": "openai", "model": MODEL} | more),
    )


def _router_case(name, reply, *, asynchronous, extra):
    call = "acompletion" if asynchronous else "completion"
    return Case(
        name=name,
        site=f"litellm.router:Router.{call}",
        client=_routed,
        run=lambda router: _routed_as(getattr(router, call)("rivers", ASK["messages"], **extra), asynchronous, extra),
        reply=reply,
        asynchronous=asynchronous,
        streams="stream" in extra,
        refusal=REFUSED,
        shown=_shown,
        usage=COUNTED,
        provider="anthropic",
        model=CLAUDE,
    )


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
_CLAUDE = {"provider": "anthropic", "model": CLAUDE}
CASES = [
    case
    for asynchronous in (False, True)
    for case in (
        _case("own chat", "completion", _deepseek, CHAT, asynchronous=asynchronous),
        _case("own chat stream", "completion", _deepseek, CHAT_STREAM, asynchronous=asynchronous, extra=_STREAMED),
        _case("openai chat", "completion", _openai, CHAT, asynchronous=asynchronous),
        _case("openai chat stream", "completion", _openai, CHAT_STREAM, asynchronous=asynchronous, extra=_STREAMED),
        _case("anthropic", "completion", _anthropic, MESSAGE, asynchronous=asynchronous, **_CLAUDE),
        _case(
            "anthropic stream",
            "completion",
            _anthropic,
            MESSAGE_STREAM,
            asynchronous=asynchronous,
            extra=_STREAMED,
            **_CLAUDE,
        ),
        _case(
            "embedding",
            "embedding",
            _embedding,
            VECTOR,
            asynchronous=asynchronous,
            usage={"tokens_in": 5, "tokens_out": 0},
            model="text-embedding-3-small",
            operation="embeddings",
        ),
        _router_case("router", MESSAGE, asynchronous=asynchronous, extra={}),
        _router_case("router stream", MESSAGE_STREAM, asynchronous=asynchronous, extra=_STREAMED),
    )
]


def _ask(function, url, **more):
    return getattr(litellm, function)(**_openai(url), **more)


def test_a_stream_is_asked_for_its_usage(server, instrumented):
    """A stream whose caller does not ask for usage has it all the same, and shows no more parts than without us."""
    server.reply = lambda asked: CHAT_STREAM if "stream_options" in asked.json else BARE_STREAM
    bare = [_shown(part) for part in _ask("completion", server.url, stream=True)]
    with instrumented() as seen:
        assert [_shown(part) for part in _ask("completion", server.url, stream=True)] == bare
        assert seen.end.usage == COUNTED


def test_a_repetition_that_a_budget_refuses(server, instrumented):
    """litellm makes errors of exceptions and repeats: a refusal is the budget's own exception, and nothing is sent."""
    server.reply = CHAT
    with instrumented() as seen, budget("0.000000001 USD", name="tiny"):
        with pytest.raises(BudgetExceeded):
            litellm.completion(**(_openai(server.url) | {"num_retries": 3}))
        with pytest.raises(BudgetExceeded):
            _repeating_router(server.url).completion("rivers", ASK["messages"])
        with pytest.raises(BudgetExceeded):
            asyncio.run(_repeating_router(server.url).acompletion("rivers", ASK["messages"]))
        assert not server.asked
        assert seen.open_holds == 0


def _repeating_router(url):
    params = {k: v for k, v in _deepseek(url).items() if k not in ("messages", "num_retries")}
    return litellm.Router(model_list=[{"model_name": "rivers", "litellm_params": params}], num_retries=3, retry_after=0)


def test_a_repetition_after_an_error_is_the_same_call(server, instrumented):
    """What litellm repeats after a refused attempt is one commit of two attempts."""
    replies = iter([Reply({"error": {"message": "slow down", "type": "limit"}}, status=429), CHAT])
    server.reply = lambda _asked: next(replies)
    with instrumented() as seen:
        _repeating_router(server.url).completion("rivers", ASK["messages"])
        event = seen.end
    assert (event.event_type, event.attempts, event.usage) == ("commit", 2, COUNTED)


def test_an_answer_from_the_cache_costs_nothing(instrumented):
    """What litellm answers itself is no call of a provider."""
    with instrumented() as seen:
        litellm.completion(model=f"openai/{MODEL}", messages=ASK["messages"], mock_response="Danube.")
        assert seen.events == []
