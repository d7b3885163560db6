"""The reader of OpenAI's chat completions, and of the servers that speak the same."""

import json
from decimal import Decimal

import openai
import pytest

from tollspan.instrumentation._readers import READERS, ResponseFacts, _sse, reader_for_path

CHAT = READERS[0]
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
READ = {"tokens_in": 100, "tokens_out": 50, "tokens_cache_read": 40, "tokens_reasoning": 30}


def answer(**fields):
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-1", "choices": [choice], **fields}


def read(body):
    return CHAT.response(json.dumps(body).encode())


def chunk(content=None, *, finish=None, index=0, **fields):
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "gpt-4o-1", "service_tier": "default", "choices": [choice], **fields}


def stream_of(*events, compact=True, done=True):
    separators = (",", ":") if compact else None
    framed = [f"data: {json.dumps(event, separators=separators)}\n\n" for event in events]
    return "".join([*framed, "data: [DONE]\n\n" if done else ""]).encode()


def whole_stream(**last):
    usage = {"id": "chatcmpl-1", "model": "gpt-4o-1", "service_tier": "default", "choices": [], "usage": USAGE} | last
    return [chunk("Hel", usage=None), chunk("lo", usage=None), chunk(finish="stop", usage=None), usage]


def test_an_answer_is_read():
    """Model, id, finish reason, tier and usage come from a plain answer."""
    assert read(answer(usage=USAGE, service_tier="priority")) == ResponseFacts(
        model="gpt-4o-1", response_id="chatcmpl-1", usage=READ, finish_reasons=("stop",), service_tier="priority"
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0}, {"tokens_in": 0, "tokens_out": 0}),
        ({"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}, {"tokens_cache_read": 8}),
        ({"cached_tokens": 3}, {"tokens_cache_read": 3}),
        ({"num_cached_tokens": 4}, {"tokens_cache_read": 4}),
        (
            {"prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2, "audio_tokens": 3}},
            {"tokens_cache_read": 1, "tokens_cache_write": 2, "tokens_audio_in": 3},
        ),
        (
            {"completion_tokens_details": {"audio_tokens": 4, "image_tokens": 5}},
            {"tokens_audio_out": 4, "tokens_image_out": 5},
        ),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, {}),
        ({"prompt_tokens_details": {"cached_tokens": "9"}}, {}),
    ],
)
def test_the_parts_of_a_usage(usage, expected):
    """Parts are taken under every vendor's name for them; parts of 0 or of a wrong type are left out."""
    base = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    assert read(answer(usage=base | usage)).usage == {"tokens_in": 10, "tokens_out": 7} | expected


def test_reasoning_outside_of_the_completion_is_added():
    """XAI counts reasoning in the total only: it is part of the output all the same."""
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
    usage["completion_tokens_details"] = {"reasoning_tokens": 94}
    assert read(answer(usage=usage)).usage == {"tokens_in": 32, "tokens_out": 103, "tokens_reasoning": 94}


@pytest.mark.parametrize("wrong", ["7", -1, None, True, 1.5, [7], {"n": 7}])
@pytest.mark.parametrize("key", ["prompt_tokens", "completion_tokens"])
def test_a_wrong_count_is_unknown(key, wrong):
    """A usage whose input or output is no count is unknown, never 0."""
    assert read(answer(usage=USAGE | {key: wrong})).usage is None


@pytest.mark.parametrize("usage", [None, [], "x", 5, {}, {"total_tokens": 5}])
def test_no_usage_is_unknown(usage):
    """An answer without a usage has None, whatever stands in its place."""
    assert read(answer(usage=usage)).usage is None


def test_an_output_left_out_comes_from_the_total():
    """A server that leaves out `completion_tokens` tells it by the total."""
    assert read(answer(usage={"prompt_tokens": 5, "total_tokens": 8})).usage == {"tokens_in": 5, "tokens_out": 3}


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ({"cost": 0.00014}, "0.00014"),
        ({"cost": 0}, "0"),
        ({"cost": {"total_cost": 0.006, "request_cost": 0.005}}, "0.006"),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, "0.021"),
        ({"cost": 0.001, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, "0.001"),
        ({"cost": "0.1"}, None),
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({"cost": 1e300}, None),
        ({}, None),
    ],
)
def test_a_stated_cost_is_kept_exactly(cost, expected):
    """The cost on the wire is kept as the decimal that was written; with a key of one's own, both charges count."""
    assert read(answer(usage=USAGE | cost)).cost_usd == (None if expected is None else Decimal(expected))


def test_choices_finish_in_their_order():
    """Every choice has its finish reason, by index."""
    choices = [{"index": 1, "finish_reason": "length"}, {"index": 0, "finish_reason": "stop"}]
    assert read(answer(choices=choices)).finish_reasons == ("stop", "length")


def test_an_error_is_read_without_its_key():
    """Type and message of an error are read, and a key in it is not."""
    facts = read({"error": {"message": "Incorrect API key: sk-proj-abc12345.", "type": "invalid_request_error"}})
    assert (facts.error_type, facts.usage) == ("invalid_request_error", None)
    assert "sk-proj" not in facts.error_message


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_stream_is_read_from_its_end(compact, end):
    """Usage, finish reason, ids and tier of a stream, in any spacing and with any line ends."""
    received = stream_of(*whole_stream(), compact=compact).replace(b"\n", end)
    assert CHAT.stream(received) == ResponseFacts(
        model="gpt-4o-1", response_id="chatcmpl-1", usage=READ, finish_reasons=("stop",), service_tier="default"
    )


def test_a_whole_stream_is_not_parsed_event_by_event(monkeypatch):
    """However long a stream, only a handful of its events are parsed."""
    calls = []
    original = _sse.parsed
    monkeypatch.setattr(_sse, "parsed", lambda data: calls.append(data) or original(data))
    received = stream_of(*[chunk("word ", usage=None)] * 500, *whole_stream())
    assert CHAT.stream(received).usage == READ
    assert len(calls) <= 4


@pytest.mark.parametrize(
    "last",
    [
        chunk("lo", finish="stop", x_groq={"id": "req_1", "usage": USAGE}),
        chunk("lo", finish="stop", usage=USAGE),
        chunk("", usage=USAGE, finish="stop", index=0),
    ],
)
def test_usage_on_a_chunk_with_content(last):
    """Groq and Mistral put the usage on the last chunk with content."""
    facts = CHAT.stream(stream_of(chunk("Hel"), last))
    assert (facts.usage, facts.finish_reasons, facts.complete) == (READ, ("stop",), True)


def test_the_last_of_several_usages_counts():
    """Servers that repeat a growing usage on every chunk are read by the last one."""
    events = [chunk("a", usage=USAGE | {"completion_tokens": n}) for n in (1, 2, 50)]
    assert CHAT.stream(stream_of(*events)).usage == READ


def test_azure_begins_with_an_empty_event():
    """Azure's first event has no choices, no model and no usage, and is not taken for the usage chunk."""
    first = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}
    without = CHAT.stream(stream_of(first, chunk("Hello"), chunk(finish="stop")))
    assert (without.model, without.response_id, without.usage) == ("gpt-4o-1", "chatcmpl-1", None)
    assert CHAT.stream(stream_of(first, *whole_stream())).usage == READ


def test_usage_in_generated_text_is_not_usage():
    """A usage that the model writes, or that a chunk nests, is passed over."""
    said = json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    nested = chunk("x", provider={"usage": {"prompt_tokens": 2, "completion_tokens": 2}})
    assert CHAT.stream(stream_of(*whole_stream(), chunk(said), chunk("usage"), nested)).usage == READ
    assert CHAT.stream(stream_of(chunk(said), nested)).usage is None


def test_several_choices_of_a_stream():
    """Each choice's finish reason is found, however early it came."""
    early = chunk(finish="stop", index=1)
    events = [early, *[chunk("x")] * 300, chunk(finish="length"), whole_stream()[-1]]
    assert CHAT.stream(stream_of(*events)).finish_reasons == ("length", "stop")


def test_a_stream_without_usage_counts_what_was_seen():
    """Without usage, the bytes of text, refusal, reasoning and calls are counted, and nothing is made up."""
    function = {"index": 0, "id": "call_1", "function": {"name": "get", "arguments": '{"a":'}}
    deltas = [
        {"role": "assistant", "content": ""},
        {"content": "héllo"},
        {"refusal": "no"},
        {"reasoning": "think", "reasoning_content": "think"},
        {"tool_calls": [function]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        {"content": [{"type": "text", "text": "abc"}, {"type": "thinking", "thinking": [{"text": "de"}]}]},
        {"function_call": {"name": "f", "arguments": "{}"}},
        {"audio": {"id": "a", "data": "AAAA" * 99, "transcript": "hi"}},
    ]
    events = [{"model": "m", "id": "i", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    facts = CHAT.stream(stream_of(*events, chunk(finish="stop")))
    assert facts.visible_output_bytes == 6 + 2 + 5 + 3 + 5 + 2 + 5 + 3 + 2
    assert (facts.usage, facts.complete, facts.finish_reasons) == (None, True, ("stop",))


def test_a_cut_stream_is_incomplete():
    """A stream cut before its usage has none, and counts the events that came whole."""
    received = stream_of(*whole_stream())
    facts = CHAT.stream(received[: received.index(b'"lo"') + 10])
    assert (facts.usage, facts.complete, facts.visible_output_bytes) == (None, False, 3)


def test_a_stream_with_its_middle_left_out():
    """Of a long stream, head and tail are enough."""
    received = stream_of(*[chunk("word ", usage=None)] * 50, *whole_stream())
    facts = CHAT.stream(received[:300] + received[-900:])
    assert (facts.usage, facts.model, facts.complete) == (READ, "gpt-4o-1", True)


def test_an_error_inside_a_stream():
    """An error event gives its type; a usage beside it still counts."""
    error = {"error": {"code": 400, "message": "Token limit reached"}}
    facts = CHAT.stream(stream_of(chunk("Hel"), error, done=False))
    assert (facts.error_type, facts.error_message, facts.complete) == ("400", "Token limit reached", False)
    facts = CHAT.stream(stream_of(*whole_stream(**error)))
    assert (facts.error_type, facts.usage, facts.complete) == ("400", READ, True)


def test_a_would_be_stream_that_is_json():
    """An answer in JSON where a stream was asked for is read as an answer."""
    assert CHAT.stream(json.dumps(answer(usage=USAGE)).encode()).usage == READ


@pytest.mark.parametrize(
    ("tail", "complete"), [(b"data: [DONE]\n\n", True), (stream_of(chunk("x"), done=False), False), (b"", False)]
)
def test_done_ends_a_stream(tail, complete):
    """A stream is complete when its tail holds the `[DONE]` line."""
    assert CHAT.is_complete(tail) is complete


def test_a_request_is_read():
    """Model, maximum, choices, tier and the attributes of the conventions."""
    facts = CHAT.request(
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "hi"}],
            "max_completion_tokens": 9,
            "n": 2,
            "stream": True,
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 4,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "seed": -7,
            "stop": "END",
            "service_tier": "flex",
        }
    )
    assert (facts.model, facts.max_output_tokens, facts.choices, facts.service_tier) == ("gpt-4o", 9, 2, "flex")
    assert facts.stream
    assert facts.unbounded is None
    assert facts.attributes == {
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.top_k": 4.0,
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.seed": -7,
        "gen_ai.request.stop_sequences": ["END"],
        "openai.request.service_tier": "flex",
    }


def test_an_attribute_needs_a_value():
    """One choice, no stream and null values leave no attribute."""
    assert CHAT.request({"messages": [], "n": 1, "stream": False, "stop": None, "max_tokens": "x"}).attributes == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"name": "untyped"}]}, None),
        ({"tools": [{"type": "openrouter:web_search"}]}, "hosted tool openrouter:web_search"),
        ({"web_search_options": {"search_context_size": "low"}}, "hosted tool web_search"),
        ({"model": "gpt-4o-search-preview"}, "hosted tool web_search"),
        ({"model": "openai/gpt-4o:online"}, "hosted tool web_search"),
        ({"prediction": {"type": "content", "content": "x"}}, "predicted output"),
        ({"extra_body": {"models": ["a", "b"]}}, "fallback models"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "audio held by the server"),
        ({"content": {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}}, "image by URL"),
        ({"content": {"type": "image_url", "image_url": "gs://bucket/a.png"}}, "image by URL"),
        ({"content": {"type": "file", "file": {"file_id": "file-1"}}}, "file held by the server"),
        ({"content": {"type": "file", "file": {"file_data": "https://x.org/a.pdf"}}}, "file by URL"),
        ({"content": {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}}, "video input"),
        ({"content": {"type": "text", "text": "https://x.org/a.png"}}, None),
    ],
)
def test_what_has_no_bound_is_named(body, reason):
    """Hosted tools, state held by the server and remote media are named; text that looks like them is not."""
    messages = [{"role": "user", "content": [body.pop("content", "x")]}]
    assert CHAT.request({"model": "gpt-4o", "messages": messages} | body).unbounded == reason


def test_grok_counts_its_hidden_tokens():
    """Grok gets more room, for what it adds to every request."""
    body = {"messages": [{"role": "user", "content": "x"}]}
    plain, grok = (CHAT.request({**body, "model": model}).input_tokens_bound for model in ("gpt-4", "grok9"))
    assert grok - plain == 1_024


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ({"model": "gpt-3.5-turbo"}, {"max_tokens": 64}),
        ({"model": "gpt-4o"}, {"max_tokens": 64}),
        ({"model": "gpt-5.1"}, {"max_completion_tokens": 64}),
        ({"model": "o3-mini"}, {"max_completion_tokens": 64}),
        ({"model": "ft:gpt-4o:x"}, {"max_completion_tokens": 64}),
        ({"model": "llama-3.3-70b"}, {"max_tokens": 64}),
        ({}, {"max_tokens": 64}),
        ({"model": "gpt-5", "max_tokens": 100}, {"max_tokens": 64}),
        ({"model": "gpt-4", "max_completion_tokens": 100}, {"max_completion_tokens": 64}),
        ({"model": "gpt-4", "max_tokens": 10}, {"max_tokens": 10}),
        ({"model": "gpt-5", "max_tokens": openai.omit}, {"max_completion_tokens": 64}),
        (
            {"model": "gpt-4", "max_tokens": 500, "extra_body": {"max_tokens": 100, "x": 1}},
            {"extra_body": {"max_tokens": 64, "x": 1}},
        ),
    ],
)
def test_the_output_limit_takes_the_right_key(arguments, changed):
    """The limit goes under the key in use, else under the one that the model takes, and never raises a smaller one."""
    assert CHAT.with_output_limit(arguments, 64) == changed
    assert CHAT.request({"messages": [], **arguments, **changed}).max_output_tokens <= 64


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ({"stream": True}, {"stream_options": {"include_usage": True}}),
        ({"stream": True, "stream_options": None}, {"stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            {"stream_options": {"include_obfuscation": False, "include_usage": True}},
        ),
        ({"stream": True, "stream_options": {"include_usage": False}}, None),
        ({"stream": True, "stream_options": {"include_usage": True}}, None),
        ({"stream": False}, None),
        ({}, None),
        ({"stream": openai.omit}, None),
        ({"stream": True, "extra_body": {"stream_options": {"include_usage": False}}}, None),
        (
            {"stream": True, "extra_body": {"stream_options": {"a": 1}, "b": 2}},
            {"extra_body": {"stream_options": {"a": 1, "include_usage": True}, "b": 2}},
        ),
        ({"extra_body": {"stream": True}}, {"stream_options": {"include_usage": True}}),
    ],
)
def test_usage_is_asked_for_where_the_caller_left_it_open(arguments, changed):
    """`include_usage` is added to a stream, beside the caller's other options, and never against the caller's word."""
    before = json.dumps(arguments, default=str)
    assert CHAT.with_usage_asked(arguments) == changed
    assert json.dumps(arguments, default=str) == before


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai.chat"),
        ("/openai/deployments/x/chat/completions?api-version=1", "openai.chat"),
        ("/chat/completions/", "openai.chat"),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/completions", "openai.completions"),
        ("/v1/embeddings", "openai.embeddings"),
        ("/v1/responses/compact", "openai.responses"),
        ("/v1/responses", "openai.responses"),
        ("/v1/responses/resp_1", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/messages", "anthropic.messages"),
        ("/v1/messages?beta=true", "anthropic.messages"),
        ("/anthropic/v1/messages", "anthropic.messages"),
        ("/messages", "anthropic.messages"),
        ("/v1/messages/batches", None),
        ("/v1/messages/count_tokens", "anthropic.count_tokens"),
        ("/v1/threads/thread_1/messages", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_tells_its_reader(path, name):
    """The reader is told from the end of the path, and nothing that merely resembles it is taken."""
    reader = reader_for_path(path)
    assert (reader and reader.name) == name


def test_readers_are_frozen():
    """Readers hold no state."""
    for reader in READERS:
        with pytest.raises(AttributeError):
            reader.name = "x"
