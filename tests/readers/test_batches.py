"""Results of batches. Wire format: OpenAI's guide "Batch API" (output file), Anthropic's guide "Batch processing"."""

import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tollspan.instrumentation._readers import FETCHES

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-4o-mini",
    "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_001,
    "status": "completed",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
TEXT = CHAT | {"id": "cmpl-1", "object": "text_completion"}
EMBEDDINGS = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
IMAGES = {"created": 1_790_000_002, "data": [{"b64_json": "eA=="}], "usage": {"input_tokens": 4, "output_tokens": 272}}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 6, "output_tokens": 2, "service_tier": "batch"},
}
OPENAI = "/v1/files/file-1/content"
ANTHROPIC = "/v1/messages/batches/msgbatch_1/results"


def fetched(path, *lines):
    """The facts of the answers in a file of these lines."""
    (fetch,) = [fetch for fetch in FETCHES if re.fullmatch(fetch.path, path)]
    return list(
        fetch.read(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    )


def line(body, ident="batch_req_1", status=200):
    """A line of an output file of OpenAI's."""
    return {
        "id": ident,
        "custom_id": "mine",
        "response": {"status_code": status, "request_id": "req_1", "body": body},
        "error": None,
    }


@pytest.mark.parametrize(
    ("body", "ident", "usage"),
    [
        (CHAT, "chatcmpl-1", {"tokens_in": 9, "tokens_out": 7}),
        (TEXT, "cmpl-1", {"tokens_in": 9, "tokens_out": 7}),
        (RESPONSE, "resp_1", {"tokens_in": 5, "tokens_out": 3}),
        (EMBEDDINGS, "batch_req_1", {"tokens_in": 8, "tokens_out": 0}),
        (IMAGES, "batch_req_1", {"tokens_in": 4, "tokens_out": 272, "tokens_image_out": 272}),
    ],
    ids=["chat", "completion", "response", "embeddings", "images"],
)
def test_each_line_is_an_answer(body, ident, usage):
    """Whatever was asked, its usage counts under its own id, or else under that of its line, at the tier of a batch."""
    (facts,) = fetched(OPENAI, line(body))
    assert (facts.response_id, facts.usage, facts.service_tier) == (ident, usage, "batch")


def test_answers_count_when_they_were_made():
    """The time of an answer is its own; one that does not tell it counts when it is fetched."""
    now = time.time()
    chat, embeddings = fetched(OPENAI, line(CHAT), line(EMBEDDINGS))
    assert chat.created == CHAT["created"]
    assert now - 1 <= embeddings.created <= time.time()


def test_a_message_of_a_batch():
    """Anthropic's results have the message itself; it does not tell when it was made."""
    (facts,) = fetched(ANTHROPIC, {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}})
    assert (facts.response_id, facts.model, facts.usage) == (
        "msg_1",
        "claude-sonnet-4-5",
        {"tokens_in": 6, "tokens_out": 2},
    )
    assert facts.service_tier == "batch"
    assert facts.created


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (OPENAI, line({"error": {"message": "no"}}, status=400)),
        (OPENAI, {"id": "batch_req_1", "custom_id": "a", "response": None, "error": {"code": "batch_expired"}}),
        (OPENAI, {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}),
        (OPENAI, {"messages": [{"role": "user", "content": "of a training file"}]}),
        (OPENAI, b"\x89PNG\r\n\x1a\n"),
        (OPENAI, b"{torn"),
        (OPENAI, b""),
        (ANTHROPIC, {"custom_id": "a", "result": {"type": "errored", "error": {"type": "error"}}}),
        (ANTHROPIC, {"custom_id": "a", "result": {"type": "expired"}}),
        (ANTHROPIC, {"custom_id": "a", "result": {"type": "canceled"}}),
    ],
)
def test_what_is_no_answer(path, other):
    """Requests that failed, inputs, and other files give nothing, and a good line after them still counts."""
    assert fetched(path, other) == []
    good = line(CHAT) if path == OPENAI else {"result": {"type": "succeeded", "message": MESSAGE}}
    assert len(fetched(path, good, other, good)) == 2


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/batches/batch_1", "/v1/files/file-1", "/v1/files", "/v1/messages/batches/msgbatch_1"),
        *("/drive/files/1/content", "/v1/containers/c/files/f/content"),
    ],
)
def test_other_addresses_are_none_of_ours(path):
    """How a batch is getting on tells nothing, and files of others are not read."""
    assert not [fetch for fetch in FETCHES if re.fullmatch(fetch.path, path)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.dictionaries(st.text(max_size=9), x)))
def test_any_json_is_harmless(value):
    """Whatever stands in a line, reading it raises nothing."""
    for path in (OPENAI, ANTHROPIC):
        for each in (value, {"response": value}, line(value), {"result": value}, {"result": {"message": value}}):
            assert all(facts.service_tier == "batch" for facts in fetched(path, each))
