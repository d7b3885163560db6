"""What xAI's gRPC messages become, read as JSON (xAI's protocol definitions: chat, image, video, batch and usage)."""

import json

import pytest

from tollspan.instrumentation._readers import ResponseFacts
from tollspan.instrumentation._readers._xai import XAI, XAI_CHAT, XAI_FETCHES, XAI_MEDIA

USED = {
    "prompt_tokens": 120,
    "completion_tokens": 9,
    "total_tokens": 169,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
USAGE = {"tokens_in": 120, "tokens_out": 49, "tokens_cache_read": 64, "tokens_reasoning": 40}
PATH = "/xai_api.Chat/GetCompletion"


def test_reasoning_is_output():
    """xAI leaves reasoning out of the completion tokens, and counts it in the total."""
    assert XAI_CHAT.response(json.dumps({"id": "1", "usage": USED}).encode()).usage == USAGE


def test_each_use_of_a_hosted_tool_is_counted():
    """Searches and executions are units of their own; a tool that nobody knows is no unit."""
    names = ["SERVER_SIDE_TOOL_WEB_SEARCH", "SERVER_SIDE_TOOL_WEB_SEARCH", "SERVER_SIDE_TOOL_CODE_EXECUTION", "NEW"]
    body = json.dumps({"id": "1", "usage": USED | {"server_side_tools_used": names}}).encode()
    assert XAI_CHAT.response(body).usage == USAGE | {"web_searches": 2, "code_executions": 1}


def test_the_method_tells_of_a_stream():
    """Nothing in a message says whether its answer is a stream."""
    assert not XAI_CHAT.request({"model": "grok-4"}, PATH).stream
    assert XAI_CHAT.request({"model": "grok-4"}, f"{PATH}Chunk").stream


@pytest.mark.parametrize(
    "more", [{"previous_response_id": "x"}, {"search_parameters": {"mode": 1}}, {"tools": [{"type": "web_search"}]}]
)
def test_what_has_no_bound(more):
    """Searches and what the server holds have no bound; functions of one's own have one."""
    assert XAI_CHAT.request({"model": "grok-4", "messages": []} | more, PATH).unbounded
    assert XAI_CHAT.request({"model": "grok-4", "tools": [{"type": "function"}]}, PATH).unbounded is None


def test_pieces_are_counted():
    """Images and seconds of video are counted, and the stated cost is taken."""
    facts = XAI_MEDIA.response(b'{"model":"m","images":2,"usage":{"cost":0.14}}')
    assert (facts.usage, float(facts.cost_usd)) == ({"images": 2}, 0.14)
    assert XAI_MEDIA.response(b'{"images":0}').usage is None


def test_a_poll_tells_of_what_is_complete():
    """Answers that are polled for are read one by one, each with its id and time."""
    body = json.dumps({"answers": [{"id": "1", "created": 5.5, "usage": USED}, 3]}).encode()
    for fetch in XAI_FETCHES:
        facts = list(fetch.read(body))
        assert (facts[0].response_id, facts[0].created) == ("1", 5.5)
        assert list(fetch.read(b"{}")) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"usage":3}', b'{"usage":{"server_side_tools_used":3}}', b"null"])
def test_odd_answers_raise_nothing(body):
    """An answer of any shape has facts, without usage."""
    for reader in XAI:
        assert reader.response(body).usage is None
        assert isinstance(reader.stream(body), ResponseFacts)
