"""groq, against the wire format of its chat completions (console.groq.com, API reference, "Chat")."""

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

groq = pytest.importorskip("groq", reason="the groq SDK is not installed")

USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25, "queue_time": 0.03, "total_time": 0.02}
_ONE = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "llama-3.3-70b-versatile"}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}


def _choice(**delta):
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


_WHOLE = Reply(
    _ONE
    | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
_STREAM = sse(
    _CHUNK | {"choices": [_choice(role="assistant", content="")], "x_groq": {"id": "req_1"}},
    _CHUNK | {"choices": [_choice(content="Dan")]},
    _CHUNK | {"choices": [_choice(content="ube.")]},
    _CHUNK | {"choices": [_choice() | {"finish_reason": "stop"}], "x_groq": {"id": "req_1", "usage": USAGE}},
    done=True,
)


def _client(url, *, asynchronous):
    made = groq.AsyncGroq if asynchronous else groq.Groq
    return made(base_url=url, api_key="gsk-test", max_retries=0)


def _case(name, reply, *, asynchronous, **more):
    asked = {"model": _ONE["model"], "messages": [{"role": "user", "content": "One river."}], "max_tokens": 50}
    return Case(
        name=name,
        site=f"groq.resources.chat.completions:{'Async' if asynchronous else ''}Completions.create",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=lambda client: client.chat.completions.create(**asked, **more),
        reply=reply,
        usage={"tokens_in": 18, "tokens_out": 7},
        provider="groq",
        model=_ONE["model"],
        streams=bool(more),
        asynchronous=asynchronous,
    )


CASES = [
    case
    for asynchronous in (False, True)
    for case in (
        _case("chat", _WHOLE, asynchronous=asynchronous),
        _case("chat stream", _STREAM, asynchronous=asynchronous, stream=True),
    )
]
