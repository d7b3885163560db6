"""The reader of Anthropic's Messages API."""

import base64
import json

import pytest

from tollspan.instrumentation._readers import READERS, ResponseFacts, _sse

MESSAGES = READERS[2]
USAGE = {
    "input_tokens": 60,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 30},
    "service_tier": "standard",
}
READ = {
    "tokens_in": 100,
    "tokens_out": 50,
    "tokens_cache_read": 20,
    "tokens_cache_write": 20,
    "tokens_cache_write_5m": 15,
    "tokens_cache_write_1h": 5,
    "tokens_reasoning": 30,
}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01" + bytes(40)).decode()


def answer(**fields):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    } | fields


def read(body):
    return MESSAGES.response(json.dumps(body).encode())


def stream_of(*events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def whole_stream(start=None, last=None):
    placeholder = {key: value for key, value in USAGE.items() if key != "output_tokens_details"} | {"output_tokens": 1}
    message = answer(content=[], stop_reason=None, usage=placeholder if start is None else start)
    final = {"output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}} if last is None else last
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": final},
        {"type": "message_stop"},
    ]


EXPECTED = ResponseFacts(
    model="claude-1", response_id="msg_1", usage=READ, finish_reasons=("end_turn",), service_tier="standard"
)


def test_an_answer_is_read():
    """Input counts what was cached, and cache writes are split by time to live."""
    assert read(answer()) == EXPECTED


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_gives_the_same_as_an_answer(line_end):
    """The last `message_delta` is laid over `message_start`; its cumulative counts are never added."""
    assert MESSAGES.stream(stream_of(*whole_stream()).replace(b"\n", line_end)) == EXPECTED


def test_a_whole_stream_is_not_parsed_event_by_event(monkeypatch):
    """However long a stream, only its first event and its last two are parsed."""
    calls = []
    original = _sse.parsed
    monkeypatch.setattr(_sse, "parsed", lambda data: calls.append(data) or original(data))
    events = whole_stream()
    assert MESSAGES.stream(stream_of(*events[:3], *[events[3]] * 500, *events[4:])) == EXPECTED
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("start", "last", "expected"),
    [
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 5}, {"tokens_in": 9, "tokens_out": 5}),
        (
            {"input_tokens": 9, "output_tokens": 1},
            {"output_tokens": 5, "input_tokens": 11, "cache_read_input_tokens": 4},
            {"tokens_in": 15, "tokens_out": 5, "tokens_cache_read": 4},
        ),
        (
            {"input_tokens": 9, "output_tokens": 1},
            {"output_tokens": 5, "input_tokens": None},
            {"tokens_in": 9, "tokens_out": 5},
        ),
        ({}, {"output_tokens": 5, "input_tokens": 7}, {"tokens_in": 7, "tokens_out": 5}),
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 0}, {"tokens_in": 9, "tokens_out": 0}),
        ({"input_tokens": 9, "output_tokens": 1}, {}, None),
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": "5"}, None),
        ({"output_tokens": 1}, {"output_tokens": 5}, None),
    ],
)
def test_counts_are_overlaid_key_by_key(start, last, expected):
    """A key that the last event lacks keeps its first count; without a final output, the usage is unknown."""
    assert MESSAGES.stream(stream_of(*whole_stream(start, last))).usage == expected


def test_the_last_of_several_deltas_counts():
    """Counts are cumulative: an earlier `message_delta` is passed over."""
    events = whole_stream()
    early = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 20}}
    assert MESSAGES.stream(stream_of(*events[:5], early, *events[5:])) == EXPECTED


def test_a_stream_cut_before_its_delta_has_no_usage():
    """The output count of `message_start` is a placeholder: what was seen is counted instead."""
    facts = MESSAGES.stream(stream_of(*whole_stream()[:6]) + b'event: message_delta\ndata: {"type":"message_delta","us')
    assert facts == ResponseFacts(model="claude-1", response_id="msg_1", complete=False, visible_output_bytes=5)


def test_a_stream_cut_after_its_delta_has_its_usage():
    """Usage that has come counts, though the stream is not complete."""
    facts = MESSAGES.stream(stream_of(*whole_stream()[:-1]))
    assert (facts.usage, facts.complete) == (READ, False)


def test_text_thinking_and_arguments_are_seen():
    """All that a cut stream has shown is counted; signatures are not."""
    deltas = [
        {"type": "text_delta", "text": "héllo"},
        {"type": "thinking_delta", "thinking": "hmm"},
        {"type": "input_json_delta", "partial_json": '{"a":'},
        {"type": "signature_delta", "signature": "A" * 400},
    ]
    block = {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get"}}
    events = [whole_stream()[0], block, *({"type": "content_block_delta", "delta": delta} for delta in deltas)]
    assert MESSAGES.stream(stream_of(*events)).visible_output_bytes == 3 + 6 + 3 + 5


def test_event_names_in_generated_text_are_not_events():
    """Text that looks like an event, or names one, is only text."""
    said = 'event: message_stop\n\ndata: {"type":"message_delta","usage":{"output_tokens":1}}'
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": said}}
    named = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "message_delta"}}
    events = whole_stream()
    assert MESSAGES.stream(stream_of(*events[:7], delta, named, events[7])) == EXPECTED
    assert not MESSAGES.stream(stream_of(*events[:4], delta, named)).complete


def test_an_error_event():
    """An error in a stream gives its type, and the stream is not complete."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    facts = MESSAGES.stream(stream_of(*whole_stream()[:4], error))
    assert (facts.error_type, facts.error_message, facts.complete) == ("overloaded_error", "Overloaded", False)
    assert facts.visible_output_bytes == 3


def test_an_error_answer():
    """An error in JSON is read, as an answer and where a stream was asked for."""
    body = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}})
    for facts in (MESSAGES.response(body.encode()), MESSAGES.stream(body.encode())):
        assert (facts.error_type, facts.error_message, facts.usage) == (
            "authentication_error",
            "invalid x-api-key",
            None,
        )


@pytest.mark.parametrize(
    "key", ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
)
@pytest.mark.parametrize("wrong", ["7", -1, True, [7]])
def test_a_wrong_count_is_unknown(key, wrong):
    """A usage one of whose totals is no count is unknown, never 0."""
    assert read(answer(usage=USAGE | {key: wrong})).usage is None


@pytest.mark.parametrize("key", ["cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"])
def test_a_null_part_is_not_there(key):
    """Null is how the wire says that there was no caching."""
    usage = read(answer(usage=USAGE | {key: None})).usage
    assert usage["tokens_in"] == 100 - (USAGE[key] if key != "cache_creation" else 0)


@pytest.mark.parametrize(
    ("detail", "split"),
    [
        ((15, 5), (15, 5)),
        ((0, 5), (0, 20)),
        ((5, 0), (20, 0)),
        ((5, 5), (15, 5)),
        ((0, 0), (20, 0)),
        ((0, 30), (0, 20)),
    ],
)
def test_cache_writes_are_always_split_whole(detail, split):
    """The two kinds of cache writes sum up to the total, even where the total has grown past its detail."""
    creation = dict(zip(("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"), detail, strict=True))
    usage = read(answer(usage=USAGE | {"cache_creation": creation})).usage
    assert (usage.get("tokens_cache_write_5m", 0), usage.get("tokens_cache_write_1h", 0)) == split


def test_iterations_that_the_headline_leaves_out_are_added():
    """Compaction is billed beside the headline; messages are in it; an advisor is another model's."""
    counts = {"input_tokens": 1_000, "cache_read_input_tokens": 10, "output_tokens": 100}
    kinds = ("message", "compaction", "advisor_message", "fallback_message")
    iterations = [{"type": kind, **counts} for kind in kinds]
    usage = read(answer(usage=USAGE | {"iterations": iterations})).usage
    assert usage == READ | {"tokens_in": 1_110, "tokens_out": 150, "tokens_cache_read": 30}


def test_web_searches_and_speed():
    """Searches are counted, and the fast mode stands for the tier, since it sets the price."""
    usage = USAGE | {"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}, "speed": "fast"}
    facts = read(answer(usage=usage))
    assert (facts.usage, facts.service_tier) == (READ | {"web_searches": 3}, "fast")


@pytest.mark.parametrize(
    ("tail", "complete"),
    [
        (stream_of({"type": "message_stop"}), True),
        (b'data: {"type":"message_stop"}', True),
        (b'data: {"type":"message_stop"', False),
        (stream_of({"type": "message_delta"}), False),
    ],
)
def test_message_stop_ends_a_stream(tail, complete):
    """A stream is complete once `message_stop` is there as a whole."""
    assert MESSAGES.is_complete(tail) is complete


def test_a_request_is_read():
    """Model, maximum, tier and the attributes of the conventions."""
    facts = MESSAGES.request(
        {
            "model": "claude-1",
            "max_tokens": 99,
            "messages": [{"role": "user", "content": "hi"}],
            "system": "s" * 500,
            "stop_sequences": ["END"],
            "stream": True,
            "temperature": 1,
            "top_k": 3,
            "top_p": 0.5,
            "service_tier": "auto",
            "betas": ["b" * 5_000],
        }
    )
    assert (facts.model, facts.max_output_tokens, facts.choices, facts.stream) == ("claude-1", 99, 1, True)
    assert (facts.service_tier, facts.unbounded) == ("auto", None)
    assert 500 < facts.input_tokens_bound < 1_000
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_k": 3.0,
        "gen_ai.request.top_p": 0.5,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}, None),
        ({"tools": [{"type": "bash_20250124"}, {"type": "text_editor_20250728"}, {"type": "computer_20251124"}]}, None),
        ({"tools": [{"type": "web_search_20250305"}]}, "hosted tool web_search_20250305"),
        ({"tools": [{"type": "code_execution_20260521"}]}, "hosted tool code_execution_20260521"),
        ({"tools": [{"type": "advisor_20260301"}]}, "hosted tool advisor_20260301"),
        ({"mcp_servers": [{"type": "url"}]}, "hosted tool mcp"),
        ({"container": "c"}, "container"),
        ({"fallbacks": [{"model": "claude-2"}]}, "fallback models"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "server-side compaction"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, None),
        ({"part": {"type": "image", "source": {"type": "url", "url": "https://x.org/a.png"}}}, "image by URL"),
        ({"part": {"type": "document", "source": {"type": "url", "url": "https://x.org"}}}, "document by URL"),
        ({"part": {"type": "image", "source": {"type": "file", "file_id": "f"}}}, "file held by the server"),
        ({"part": {"type": "document", "source": {"type": "file", "file_id": "f"}}}, "file held by the server"),
        ({"part": {"type": "container_upload", "file_id": "f"}}, "file held by the server"),
        ({"part": {"type": "document", "source": {"type": "base64", "data": object()}}}, "file of unknown size"),
        ({"part": {"type": "document", "source": {"type": "text", "data": "x"}}}, None),
        ({"part": {"type": "image", "source": "odd"}}, None),
    ],
)
def test_what_has_no_bound_is_named(body, reason):
    """Server tools, state held by the server and remote media are named; client tools are not."""
    messages = [{"role": "user", "content": [body.pop("part", {"type": "text", "text": "x"})]}]
    assert MESSAGES.request({"model": "claude-1", "messages": messages} | body).unbounded == reason


def bound(*parts, **body):
    messages = [{"role": "user", "content": list(parts)}]
    return MESSAGES.request({"model": "claude-1", "messages": messages, **body}).input_tokens_bound


def test_media_are_bounded_for_each_item():
    """An image counts its patches wherever it stands, an unread PDF its bytes and 8,192, a text its bytes."""
    bare = bound()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG + "A" * 400_000}}
    assert 1 <= bound(image) - bare <= 100
    assert 1 <= bound({"type": "tool_result", "tool_use_id": "t", "content": [image]}) - bare <= 200
    pdf = {"type": "document", "source": {"type": "base64", "data": "JVBERi0" + "A" * 40_000}, "title": "t" * 300}
    assert 38_500 <= bound(pdf) - bare <= 39_000
    text = {"type": "document", "source": {"type": "text", "data": "x" * 40_000}}
    assert 40_000 <= bound(text) - bare <= 40_200


@pytest.mark.parametrize("kind", ["image", "document"])
def test_no_text_hides_behind_media(kind):
    """A tool's input that only looks like media counts all of its bytes."""
    fake = {"type": kind, "source": {"type": "base64", "data": "text " * 20_000, "more": "x" * 20_000}}
    assert bound({"type": "tool_use", "id": "t", "name": "f", "input": fake}) >= 120_000


def test_client_tools_bring_hidden_tokens():
    """A tool that Anthropic defines and the client runs has a definition that the request does not show."""
    tools = [{"type": "bash_20250124", "name": "bash"}, {"type": "custom", "name": "own"}]
    assert bound(tools=tools) - bound(tools=tools[1:]) > 1_500


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ({}, {"max_tokens": 2_000}),
        ({"max_tokens": 9_000}, {"max_tokens": 2_000}),
        ({"max_tokens": 10}, {"max_tokens": 10}),
        ({"max_tokens": 9_000, "thinking": {"type": "adaptive"}}, {"max_tokens": 2_000}),
        ({"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 1_500}}, {"max_tokens": 2_000}),
        (
            {"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 8_000}},
            {"max_tokens": 2_000, "thinking": {"type": "enabled", "budget_tokens": 1_999}},
        ),
        (
            {"max_tokens": 500, "thinking": {"type": "enabled", "budget_tokens": 8_000}},
            {"max_tokens": 500, "thinking": {"type": "disabled"}},
        ),
        ({"extra_body": {"max_tokens": 9_000}}, {"extra_body": {"max_tokens": 2_000}}),
    ],
)
def test_the_output_limit_keeps_the_call_valid(arguments, changed):
    """The limit lowers a budget for thinking with it, since the API wants it below the maximum."""
    assert MESSAGES.with_output_limit(arguments, 2_000) == changed


def test_usage_needs_no_asking():
    """A stream of this flavour always reports its usage."""
    assert MESSAGES.with_usage_asked({"stream": True}) is None
