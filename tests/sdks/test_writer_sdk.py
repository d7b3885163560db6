"""writer-sdk, against the wire format of Writer's chat and completions (dev.writer.com, API reference)."""

import pytest
from contract import *  # noqa: F403
from contract import Case
from wire_server import Reply, sse

writerai = pytest.importorskip("writerai", reason="writer-sdk is not installed")

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 9,
    "total_tokens": 49,
    "prompt_token_details": {"cached_tokens": 16},
    "completion_token_details": {"reasoning_tokens": 4},
}
COUNTED = {"tokens_in": 40, "tokens_out": 9, "tokens_cache_read": 16, "tokens_reasoning": 4}
_ONE = {
    "id": "57e4",
    "object": "chat.completion",
    "model": "palmyra-x5",
    "created": 1715361795,
    "system_fingerprint": "v1",
}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}


def _choice(text, reason=None):
    message = {"role": "assistant", "content": text, "refusal": None, "tool_calls": None}
    return {"index": 0, "finish_reason": reason, "message": message, "delta": message, "logprobs": None}


_WHOLE = Reply(_ONE | {"choices": [_choice("Danube.", "stop")], "usage": USAGE})
_STREAM = sse(
    _CHUNK | {"choices": [_choice("Dan")], "usage": None},
    _CHUNK | {"choices": [_choice("ube.")], "usage": None},
    _CHUNK | {"choices": [_choice(None, "stop")], "usage": None},
    _CHUNK | {"choices": [], "usage": USAGE},
)
_TEXT = Reply({"choices": [{"text": "Danube.", "log_probs": None}], "model": "palmyra-x5"})
_VALUES = sse({"value": "Dan"}, {"value": "ube"}, {"value": "."})


def _client(url, *, asynchronous):
    made = writerai.AsyncWriter if asynchronous else writerai.Writer
    return made(base_url=url, api_key="test", max_retries=0)


def _case(name, site, method, reply, asked, *, asynchronous, usage=COUNTED, operation="chat", **more):
    resource, _, function = method.partition(".")
    module, _, owner = site.partition(":")
    return Case(
        name=name,
        site=f"{module}:{'Async' if asynchronous else ''}{owner}",
        client=lambda url: _client(url, asynchronous=asynchronous),
        run=lambda client: getattr(getattr(client, resource), function)(**asked, **more),
        reply=reply,
        usage=usage,
        provider="writer",
        model="palmyra-x5",
        operation=operation,
        streams=bool(more),
        asynchronous=asynchronous,
        bounded=False,  # nobody lists a price of Palmyra
    )


_CHAT = {"model": "palmyra-x5", "messages": [{"role": "user", "content": "One river."}], "max_tokens": 50}
_PROMPT = {"model": "palmyra-x5", "prompt": "One river.", "max_tokens": 50}
_CHAT_SITE = "writerai.resources.chat:ChatResource.chat"
_TEXT_SITE = "writerai.resources.completions:CompletionsResource.create"
_ASKED = {"stream": True, "stream_options": {"include_usage": True}}
CASES = [
    case
    for asynchronous in (False, True)
    for case in (
        _case("chat", _CHAT_SITE, "chat.chat", _WHOLE, _CHAT, asynchronous=asynchronous),
        _case("chat stream", _CHAT_SITE, "chat.chat", _STREAM, _CHAT, asynchronous=asynchronous, **_ASKED),
        _case(
            "text",
            _TEXT_SITE,
            "completions.create",
            _TEXT,
            _PROMPT,
            asynchronous=asynchronous,
            usage=None,
            operation="text_completion",
        ),
        _case(
            "text stream",
            _TEXT_SITE,
            "completions.create",
            _VALUES,
            _PROMPT,
            asynchronous=asynchronous,
            usage=None,
            operation="text_completion",
            stream=True,
        ),
    )
]
