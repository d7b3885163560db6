"""No reader raises, whatever comes: cut, split, damaged, nested or wrongly typed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.instrumentation._readers import READERS, ResponseFacts

BY_NAME = {reader.name: reader for reader in READERS}
CHAT_USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}, "cost": 0.1}
RESPONSE = {
    "id": "resp_1",
    "model": "m",
    "status": "completed",
    "incomplete_details": {"reason": None},
    "output": [{"type": "web_search_call", "action": {"type": "search"}}],
    "usage": {"input_tokens": 9, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}},
}
MESSAGE = {
    "id": "msg_1",
    "model": "m",
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 9,
        "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
        "output_tokens": 7,
        "iterations": [{"type": "compaction", "input_tokens": 5, "output_tokens": 1}],
    },
}
IMAGE_USAGE = {"input_tokens": 9, "output_tokens": 7, "input_tokens_details": {"image_tokens": 4, "text_tokens": 5}}
ANSWERS = {
    "openai.chat": {"id": "c", "model": "m", "choices": [{"index": 0, "finish_reason": "stop"}], "usage": CHAT_USAGE},
    "openai.responses": RESPONSE,
    "anthropic.messages": MESSAGE,
    "openai.completions": {"id": "c", "model": "m", "choices": [{"index": 0, "text": "x"}], "usage": CHAT_USAGE},
    "openai.embeddings": {"model": "m", "data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
    "openai.media": {"created": 1, "data": [], "usage": IMAGE_USAGE},
}
EVENTS = {
    "openai.chat": [
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "h\u00e9llo \u5b57"}}], "usage": None},
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
        {"id": "c", "model": "m", "choices": [], "usage": CHAT_USAGE},
    ],
    "openai.responses": [
        {"type": "response.created", "response": RESPONSE | {"usage": None, "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "h\u00e9llo \u5b57"},
        {"type": "response.completed", "response": RESPONSE},
    ],
    "anthropic.messages": [
        {"type": "message_start", "message": MESSAGE | {"usage": MESSAGE["usage"] | {"output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "h\u00e9llo \u5b57"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ],
}
EVENTS["openai.completions"] = [
    {"id": "c", "model": "m", "choices": [{"index": 0, "text": "h\u00e9llo \u5b57"}], "usage": None},
    {"id": "c", "model": "m", "choices": [], "usage": CHAT_USAGE},
]
EVENTS["openai.embeddings"] = []  # it has no streams
EVENTS["openai.media"] = [
    {"type": "image_generation.partial_image", "b64_json": "aGVsbG8=", "partial_image_index": 0},
    {"type": "image_generation.completed", "b64_json": "aGVsbG8=", "usage": IMAGE_USAGE},
]
STREAMS = {
    name: b"".join(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n" for event in events)
    for name, events in EVENTS.items()
}
STREAMS["openai.chat"] += b"data: [DONE]\n\n"
STREAMS["openai.completions"] += b"data: [DONE]\n\n"
FIELDS = [
    *("model", "messages", "input", "system", "tools", "stream", "n", "max_tokens", "max_completion_tokens", "stop"),
    *("max_output_tokens", "seed", "temperature", "top_p", "extra_body", "stream_options", "thinking", "reasoning"),
    *("context_management", "service_tier", "prompt", "best_of", "dimensions"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = pytest.mark.parametrize("name", BY_NAME)


def paths_in(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def check(facts):
    assert isinstance(facts, ResponseFacts)
    assert facts.visible_output_bytes >= 0
    for value in (facts.usage or {}).values():
        assert type(value) is int
        assert value >= 0
    if facts.usage is not None:
        assert {"tokens_in", "tokens_out"} <= facts.usage.keys()


@names
def test_streams_cut_anywhere(name):
    """A stream cut at any byte knows its whole usage or none, and is complete only at its end."""
    reader, received = BY_NAME[name], STREAMS[name]
    whole = reader.stream(received)
    for cut in range(len(received)):
        facts = reader.stream(received[:cut])
        check(facts)
        assert facts.usage in (None, whole.usage)
        assert facts.complete is reader.is_complete(received[:cut])
        assert not facts.complete or facts.usage == whole.usage


@names
def test_streams_with_any_middle_left_out(name):
    """A stream without a part of its middle gives the right usage or none."""
    reader, received = BY_NAME[name], STREAMS[name]
    whole = reader.stream(received)
    for start in range(0, len(received), 17):
        for stop in range(start, len(received), 61):
            facts = reader.stream(received[:start] + b"\n\n" + received[stop:])
            check(facts)
            tokens_out = None if facts.usage is None else facts.usage["tokens_out"]
            assert tokens_out in (None, whole.usage["tokens_out"])


@names
@given(st.binary(max_size=300), st.integers(0, 2_000), st.integers(0, 300))
def test_damaged_streams(name, junk, at, dropped):
    """Bytes lost or put in anywhere are harmless."""
    received = STREAMS[name]
    damaged = received[:at] + junk + received[at + dropped :]
    check(BY_NAME[name].stream(damaged))
    check(BY_NAME[name].response(damaged))
    assert BY_NAME[name].is_complete(damaged) in (True, False)


@names
@given(st.binary(max_size=200))
def test_garbage(name, junk):
    """Garbage has no usage, and is no complete stream unless it ends like one."""
    assert BY_NAME[name].response(junk).usage is None
    check(BY_NAME[name].stream(b"data: " + junk + b"\n\n"))
    for encoding in ("utf-16", "utf-32", "latin-1"):
        check(BY_NAME[name].response(json.dumps(ANSWERS[name]).encode(encoding)))


@names
@pytest.mark.parametrize(
    "new",
    [None, True, -1, 1.5, 10**400, float("nan"), float("-inf"), "7", "", [], {}, [None], {"type": []}, [[]] * 2],
    ids=repr,
)
def test_every_field_of_a_wrong_type(name, new):
    """Any field of any answer may be of any type: no reader raises, and no count is made up."""
    reader, answer = BY_NAME[name], ANSWERS[name]
    for path in paths_in(answer):
        damaged = replaced(answer, path, new)
        check(reader.response(json.dumps(damaged).encode()))
        event = {"type": "response.completed", "response": damaged, "message": damaged, "choices": damaged}
        check(reader.stream(f"data: {json.dumps(event)}\n\ndata: {json.dumps(damaged)}\n\n".encode()))


@names
@given(JSON, JSON)
def test_any_json(name, value, other):
    """Any JSON at the places where the readers look is harmless."""
    reader = BY_NAME[name]
    kinds = ("message_start", "message_delta", "content_block_delta", "response.completed", "response.x.delta", "error")
    for kind in kinds:
        event = dict.fromkeys(("usage", "choices", "message", "delta", "response", "error", "x_groq"), value)
        event |= {"type": kind, "content_block": other, "output": other}
        check(reader.stream(f"data: {json.dumps(event)}\n\n".encode() * 2))
        check(reader.response(json.dumps(event).encode()))


@names
@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        JSON
        | st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["image_url", "input_file", "file", "image", "document", "reasoning"]) | JSON},
                optional=dict.fromkeys(("image_url", "file", "source", "file_data", "id", "tools", "content"), JSON),
            ),
            max_size=3,
        ),
    ),
    st.integers(1, 5_000),
)
def test_any_request(name, body, tokens):
    """Any request body is read, bounded or said to be unbounded, and can be limited."""
    reader = BY_NAME[name]
    facts = reader.request(body)
    assert facts.input_tokens_bound > 0
    assert facts.choices >= 1
    assert facts.max_output_tokens is None or facts.max_output_tokens >= 0
    limited = reader.request({**body, **reader.with_output_limit(body, tokens)})
    assert limited.max_output_tokens is None or limited.max_output_tokens <= max(tokens, 16)
    asked = reader.with_usage_asked(body)
    assert asked is None or reader.with_usage_asked({**body, **asked}) is None


@names
def test_deep_nesting(name):
    """Absurd nesting in a request or an answer is read or given up, without an error."""
    deep = {}
    for _ in range(100_000):
        deep = {"content": [deep]}
    assert BY_NAME[name].request({"messages": [deep], "input": [deep]}).input_tokens_bound > 100_000
    check(BY_NAME[name].response(b'{"usage":' * 100_000))
    check(BY_NAME[name].stream(b'data: {"usage":{' + b'"a":[' * 100_000 + b"\n\n"))
