"""The reader of OpenAI's Responses API."""

import json
from decimal import Decimal

import pytest

from tollspan.instrumentation._readers import READERS, ResponseFacts, _sse

RESPONSES = READERS[1]
USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}
READ = {
    "tokens_in": 100,
    "tokens_out": 50,
    "tokens_cache_read": 40,
    "tokens_cache_write": 5,
    "tokens_reasoning": 30,
}


def answer(**fields):
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-5-1",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
        "service_tier": "default",
        "usage": USAGE,
    } | fields


def read(body):
    return RESPONSES.response(json.dumps(body).encode())


def stream_of(*events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def whole_stream(kind="response.completed", **fields):
    begun = answer(status="in_progress", output=[], usage=None)
    return [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": kind, "response": answer(**fields)},
    ]


EXPECTED = ResponseFacts(
    model="gpt-5-1", response_id="resp_1", usage=READ, finish_reasons=("completed",), service_tier="default"
)


def test_an_answer_is_read():
    """Model, id, status, tier and usage come from a plain answer."""
    assert read(answer()) == EXPECTED


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_is_read_from_its_terminal_event(line_end):
    """The terminal event holds the whole response; a `[DONE]` after it does no harm."""
    received = stream_of(*whole_stream()).replace(b"\n", line_end)
    assert RESPONSES.stream(received) == EXPECTED
    assert RESPONSES.stream(received + b"data: [DONE]\n\n") == EXPECTED


def test_a_whole_stream_is_not_parsed_event_by_event(monkeypatch):
    """However long a stream, only its terminal event is parsed."""
    calls = []
    original = _sse.parsed
    monkeypatch.setattr(_sse, "parsed", lambda data: calls.append(data) or original(data))
    first, *rest = whole_stream()
    assert RESPONSES.stream(stream_of(first, *[rest[0]] * 500, *rest)) == EXPECTED
    assert len(calls) == 1


def test_an_incomplete_response_says_why():
    """An incomplete response is billed like a complete one, and gives its reason as finish reason."""
    fields = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    for facts in (read(answer(**fields)), RESPONSES.stream(stream_of(*whole_stream("response.incomplete", **fields)))):
        assert (facts.usage, facts.finish_reasons, facts.complete) == (READ, ("max_output_tokens",), True)


def test_a_failed_response_has_its_error():
    """A failed response is complete, has its error, and its usage where there is one."""
    fields = {"status": "failed", "error": {"code": "server_error", "message": "sorry"}, "usage": None}
    facts = RESPONSES.stream(stream_of(*whole_stream("response.failed", **fields)))
    assert (facts.error_type, facts.error_message, facts.complete, facts.usage) == ("server_error", "sorry", True, None)
    assert facts.visible_output_bytes == len("Hello")


def test_an_error_event_ends_a_stream_unfinished():
    """An error event gives its type; the stream is not complete."""
    events = [*whole_stream()[:2], {"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}]
    facts = RESPONSES.stream(stream_of(*events))
    assert (facts.error_type, facts.error_message, facts.complete) == ("rate_limit_exceeded", "slow down", False)


def test_a_queued_response_knows_nothing_yet():
    """A background response that has only begun has neither usage nor finish reason."""
    facts = read(answer(status="queued", usage=None, output=[]))
    assert (facts.usage, facts.finish_reasons, facts.response_id) == (None, (), "resp_1")


@pytest.mark.parametrize("key", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("wrong", ["7", -1, None, False, [7]])
def test_a_wrong_count_is_unknown(key, wrong):
    """A usage whose input or output is no count is unknown, never 0."""
    assert read(answer(usage=USAGE | {key: wrong})).usage is None


def test_web_searches_are_counted():
    """Each search that the hosted tool made is counted; pages that it opened are none."""
    actions = [{"type": "search"}, {"type": "open_page"}, {"type": ["odd"]}, None]
    calls = [{"type": "web_search_call", "action": action} for action in actions]
    assert read(answer(output=[*calls, "odd", {"type": "message"}])).usage == READ | {"web_searches": 2}


def test_a_stated_cost_is_kept():
    """OpenRouter states its cost in this flavour too."""
    assert read(answer(usage=USAGE | {"cost": 0.002196})).cost_usd == Decimal("0.002196")


def test_a_cut_stream_counts_what_was_seen():
    """Before the terminal event nothing is known but the ids and the bytes of text, reasoning and arguments."""
    deltas = {
        "response.output_text.delta": "héllo",
        "response.refusal.delta": "no",
        "response.reasoning_text.delta": "think",
        "response.reasoning_summary_text.delta": "sum",
        "response.function_call_arguments.delta": '{"a":1}',
        "response.custom_tool_call_input.delta": "in",
        "response.audio.delta": "AAAA" * 100,
    }
    events = [whole_stream()[0], *({"type": kind, "delta": delta} for kind, delta in deltas.items())]
    facts = RESPONSES.stream(stream_of(*events) + stream_of(whole_stream()[-1])[:-40])
    assert facts == ResponseFacts(
        model="gpt-5-1",
        response_id="resp_1",
        service_tier="default",
        complete=False,
        visible_output_bytes=6 + 2 + 5 + 3 + 7 + 2,
    )


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_terminal_events_end_a_stream(kind):
    """The three terminal events complete a stream, once they are there as a whole."""
    received = stream_of(*whole_stream(kind))
    assert RESPONSES.is_complete(received)
    assert not RESPONSES.is_complete(received[:-10])
    assert not RESPONSES.is_complete(stream_of({"type": "x.delta", "delta": f'"type":"{kind}"'}))


def test_a_would_be_stream_that_is_json():
    """An answer in JSON where a stream was asked for is read as an answer."""
    assert RESPONSES.stream(json.dumps(answer()).encode()) == EXPECTED


def test_a_request_is_read():
    """Model, maximum, tier and the attributes of the conventions."""
    facts = RESPONSES.request(
        {
            "model": "gpt-5",
            "input": "hi",
            "instructions": "i" * 500,
            "max_output_tokens": 99,
            "service_tier": "priority",
            "stream": True,
            "temperature": 1,
        }
    )
    assert (facts.model, facts.max_output_tokens, facts.service_tier, facts.stream) == ("gpt-5", 99, "priority", True)
    assert facts.unbounded is None
    assert facts.input_tokens_bound > 500
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 99,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 1.0,
        "openai.request.service_tier": "priority",
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"type": "namespace", "tools": []}]}, None),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "hosted tool web_search"),
        ({"tools": ({"type": "mcp"},)}, "hosted tool mcp"),
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "stored prompt"),
        ({"background": True}, "background response"),
        ({"background": False, "previous_response_id": None}, None),
        ({"context_management": [{"type": "compaction"}]}, "server-side compaction"),
        ({"reasoning": {"mode": "pro"}}, "reasoning mode pro"),
        ({"reasoning": {"effort": "high"}}, None),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item held by the server"),
        ({"input": [{"id": "msg_1"}]}, "item held by the server"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "reasoning held by the server"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"}]}, None),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}, "hosted tool mcp"),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, "image held by the server"),
        ({"part": {"type": "input_image", "image_url": "https://x.org/a.png"}}, "image by URL"),
        ({"part": {"type": "input_image", "file_id": "file-1"}}, "file held by the server"),
        ({"part": {"type": "input_file", "file_id": "file-1"}}, "file held by the server"),
        ({"part": {"type": "input_file", "file_url": "https://x.org/a.pdf"}}, "file by URL"),
        ({"part": {"type": "input_file", "file_data": "data:application/pdf;base64,JVBER"}}, None),
        ({"part": {"type": "input_text", "text": "web_search"}}, None),
    ],
)
def test_what_has_no_bound_is_named(body, reason):
    """Hosted tools, state held by the server and remote media are named; text that looks like them is not."""
    items = [{"role": "user", "content": [body.pop("part", "x")]}]
    assert RESPONSES.request({"model": "gpt-5", "input": items} | body).unbounded == reason


def test_the_output_limit_is_never_below_what_the_api_takes():
    """The limit replaces a larger one, keeps a smaller one, and is at least 16."""
    assert RESPONSES.with_output_limit({}, 64) == {"max_output_tokens": 64}
    assert RESPONSES.with_output_limit({"max_output_tokens": 32}, 64) == {"max_output_tokens": 32}
    assert RESPONSES.with_output_limit({}, 3) == {"max_output_tokens": 16}
    inside = {"extra_body": {"max_output_tokens": 100}}
    assert RESPONSES.with_output_limit(inside, 64) == {"extra_body": {"max_output_tokens": 64}}


def test_usage_needs_no_asking():
    """A stream of this flavour always reports its usage."""
    assert RESPONSES.with_usage_asked({"stream": True}) is None
