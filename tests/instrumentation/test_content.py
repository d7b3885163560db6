"""Prompts and answers: nowhere by default; by OpenTelemetry's own switch on spans and events, never in the ledger."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from sdk_calls import KINDS, MODELS, drive, library_of, listed, make_client, mocked, resolved

from tollspan.instrumentation import _content
from tollspan.instrumentation._content import CAPTURE, Capture, _told
from tollspan.instrumentation._content._fitted import as_json, fitted
from tollspan.instrumentation._content._messages import input_messages, output_messages, system_instructions
from tollspan.instrumentation._content._streams import joined

SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
NAMES = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")
SECRET = "the heron nests at midnight"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

PNG = {"mimeType": "image/png", "data": PIXEL}

# What the JSON schemas of the conventions (semantic-conventions-genai, model/gen-ai) require of each part.
REQUIRED = {
    "text": {"content"},
    "reasoning": {"content"},
    "tool_call": {"name"},
    "tool_call_response": {"response"},
    "server_tool_call": {"name", "server_tool_call"},
    "server_tool_call_response": {"server_tool_call_response"},
    "blob": {"modality", "content"},
    "file": {"modality", "file_id"},
    "uri": {"modality", "uri"},
}


def check_parts(parts):
    """What the schemas say of parts."""
    for part in parts:
        assert isinstance(part["type"], str)
        assert REQUIRED.get(part["type"], set()) <= part.keys()
        for key in ("content", "modality", "uri", "file_id", "name"):
            assert isinstance(part.get(key, ""), str), part


def check(messages):
    """What the schemas say of messages."""
    for message in messages:
        assert isinstance(message["role"], str)
        assert isinstance(message.get("finish_reason", ""), str)
        check_parts(message["parts"])


def said(text):
    return {"type": "text", "content": text}


# ---- requests

REQUESTS = {
    "openai chat": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                        {"type": "image_url", "image_url": {"url": "https://host/a.png"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "a pixel"},
            ]
        },
        [],
        [
            {"role": "system", "parts": [said("Be brief.")]},
            {
                "role": "user",
                "parts": [
                    said("What is this?"),
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "byte_size": 70, "content": ""},
                    {"type": "uri", "modality": "image", "uri": "https://host/a.png"},
                    {"type": "blob", "modality": "audio", "byte_size": 3, "content": ""},
                ],
            },
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}}],
            },
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a pixel"}]},
        ],
    ),
    "openai responses": (
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Look."}]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "a pixel"},
                {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
            ],
        },
        [said("Be brief.")],
        [
            {"role": "user", "parts": [said("Look.")]},
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "I look."}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a pixel"}]},
            {"role": "user", "parts": [{"type": "file", "modality": "document", "file_id": "file-1"}]},
        ],
    ),
    "openai responses, a text": ({"input": "Hello."}, [], [{"role": "user", "parts": [said("Hello.")]}]),
    "anthropic": (
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "Look."},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "I look.", "signature": "c2ln"},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a pixel"}]},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                        },
                    ],
                },
            ],
        },
        [said("Be brief.")],
        [
            {"role": "user", "parts": [said("Look.")]},
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "I look."},
                    {"type": "tool_call", "id": "t1", "name": "look", "arguments": {"at": 1}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"type": "tool_call_response", "id": "t1", "response": [said("a pixel")]},
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "byte_size": 70, "content": ""},
                ],
            },
        ],
    ),
    "gemini": (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {
                    "role": "user",
                    "parts": [{"text": "Look."}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}}],
                },
                {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": 1}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"seen": "a pixel"}}}]},
                {"parts": [{"fileData": {"mimeType": "video/mp4", "fileUri": "https://host/v"}}]},
            ],
        },
        [said("Be brief.")],
        [
            {
                "role": "user",
                "parts": [
                    said("Look."),
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "byte_size": 70, "content": ""},
                ],
            },
            {"role": "assistant", "parts": [{"type": "tool_call", "name": "look", "arguments": {"at": 1}}]},
            {
                "role": "user",
                "parts": [{"type": "tool_call_response", "id": "look", "response": {"seen": "a pixel"}}],
            },
            {
                "role": "user",
                "parts": [{"type": "uri", "modality": "video", "mime_type": "video/mp4", "uri": "https://host/v"}],
            },
        ],
    ),
    "completions": ({"prompt": ["a", "b"]}, [], [{"role": "user", "parts": [said(text)]} for text in "ab"]),
}


@pytest.mark.parametrize("flavour", REQUESTS)
def test_a_request_in_the_words_of_the_conventions(flavour):
    """Roles, texts, thoughts, tool calls and their results are as the conventions have them; media have no bytes."""
    body, system, messages = REQUESTS[flavour]
    assert system_instructions(body) == system
    assert input_messages(body) == messages
    check(messages)
    check_parts(system)


# ---- answers

CALLED = {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}}
ANSWERS = {
    "openai chat": (
        {
            "choices": [
                {"message": {"role": "assistant", "content": "A pixel.", "reasoning": "Hm."}, "finish_reason": "stop"},
                {
                    "message": {
                        "content": None,
                        "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": '{"at":1}'}}],
                    },
                    "finish_reason": "tool_calls",
                },
            ]
        },
        [
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "Hm."}, said("A pixel.")],
                "finish_reason": "stop",
            },
            {"role": "assistant", "parts": [CALLED], "finish_reason": "tool_call"},
        ],
    ),
    "openai responses": (
        {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "text": {"format": {"type": "text"}},
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "pixel"}},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A pixel."}]},
            ],
        },
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": ""},
                    {
                        "type": "server_tool_call",
                        "id": "ws_1",
                        "name": "web_search",
                        "server_tool_call": {"type": "web_search", "action": {"type": "search", "query": "pixel"}},
                    },
                    said("A pixel."),
                ],
                "finish_reason": "length",
            }
        ],
    ),
    "anthropic": (
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "A pixel."}, {"type": "tool_use", "id": "c1", "name": "look"}],
            "stop_reason": "end_turn",
        },
        [
            {
                "role": "assistant",
                "parts": [said("A pixel."), {"type": "tool_call", "id": "c1", "name": "look", "arguments": None}],
                "finish_reason": "stop",
            }
        ],
    ),
    "gemini": (
        {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": "A pixel."}]},
                    "finishReason": "MAX_TOKENS",
                }
            ]
        },
        [
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "Hm."}, said("A pixel.")],
                "finish_reason": "length",
            }
        ],
    ),
    "ollama": (
        {"model": "m", "message": {"role": "assistant", "content": "A pixel."}, "done_reason": "stop"},
        [{"role": "assistant", "parts": [said("A pixel.")], "finish_reason": "stop"}],
    ),
    "an error": ({"type": "error", "error": {"type": "overloaded", "message": "busy"}}, []),
    "images": ({"created": 1, "data": [{"b64_json": PIXEL}]}, []),
}


@pytest.mark.parametrize("flavour", ANSWERS)
def test_an_answer_in_the_words_of_the_conventions(flavour):
    """Each choice is one message, with its thoughts, texts and calls, and the reason why it ended."""
    answer, messages = ANSWERS[flavour]
    assert output_messages(answer) == messages
    check(messages)


def sse(*events):
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)


def _chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _block(index, **delta):
    return {"type": "content_block_delta", "index": index, "delta": delta}


STREAMS = {
    "openai chat": (
        sse(
            _chunk(role="assistant", content=""),
            _chunk(content="A pi"),
            _chunk(content="xel."),
            _chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]),
            _chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"at"'}}]),
            _chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}]),
            _chunk("tool_calls"),
        )
        + b"data: [DONE]\n\n",
        [{"role": "assistant", "parts": [said("A pixel."), CALLED], "finish_reason": "tool_call"}],
    ),
    "openai responses": (
        sse(
            {"type": "response.output_text.delta", "delta": "A pixel."},
            {
                "type": "response.completed",
                "response": {
                    "status": "completed",
                    "output": [{"type": "message", "content": [{"type": "output_text", "text": "A pixel."}]}],
                },
            },
        ),
        [{"role": "assistant", "parts": [said("A pixel.")], "finish_reason": "stop"}],
    ),
    "openai responses, cut": (
        sse({"type": "response.output_text.delta", "delta": "A pi"}),
        [{"role": "assistant", "parts": [said("A pi")]}],
    ),
    "anthropic": (
        sse(
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            _block(0, type="thinking_delta", thinking="Hm."),
            _block(0, type="signature_delta", signature="c2ln"),
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            _block(1, type="text_delta", text="A pi"),
            _block(1, type="text_delta", text="xel."),
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
            },
            _block(2, type="input_json_delta", partial_json='{"at":'),
            _block(2, type="input_json_delta", partial_json="1}"),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ),
        [
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "Hm."}, said("A pixel."), CALLED],
                "finish_reason": "tool_call",
            }
        ],
    ),
    "gemini": (
        sse(
            {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "A pi"}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "xel."}]}, "finishReason": "STOP"}]},
        ),
        [
            {
                "role": "assistant",
                "parts": [{"type": "reasoning", "content": "Hm."}, said("A pixel.")],
                "finish_reason": "stop",
            }
        ],
    ),
    "lines of JSON": (
        (
            b'{"message": {"role": "assistant", "content": "A pi"}, "done": false}\n'
            b'{"message": {"content": "xel."}, "done": true, "done_reason": "stop"}\n'
        ),
        [{"role": "assistant", "parts": [said("A pixel.")], "finish_reason": "stop"}],
    ),
}


@pytest.mark.parametrize("flavour", STREAMS)
def test_a_stream_in_the_words_of_the_conventions(flavour):
    """The pieces of a stream make the answer that they are the pieces of, however far they go."""
    received, messages = STREAMS[flavour]
    assert output_messages(joined(received)) == messages
    for cut in range(len(received)):
        check(output_messages(joined(received[:cut])))


KEYS = st.sampled_from(
    [
        *("messages", "contents", "input", "prompt", "message", "system", "instructions", "systemInstruction"),
        *("choices", "candidates", "output", "content", "response", "text", "parts", "role", "type", "delta", "index"),
        *(
            "tool_calls",
            "function",
            "arguments",
            "image_url",
            "source",
            "file",
            "inlineData",
            "finish_reason",
            "status",
        ),
        *("functionCall", "functionResponse", "thought", "thinking", "refusal", "tool_call_id", "content_block"),
    ]
)
TYPES = ["text", "image_url", "tool_use", "tool_result", "x_call", "content_block_delta", "content_block_start", "tool"]
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes seconds: tables are made for it
@given(st.dictionaries(KEYS, NESTED), st.integers(0, 300))
def test_any_json_is_told_or_left_out(body, limit):
    """Whatever JSON a request or an answer is, what is told of it fits the schemas and the limit, without an error."""
    received = json.dumps(body).encode()
    for messages in (
        input_messages(body),
        output_messages(body),
        output_messages(joined(received)),
        output_messages(joined(b"data: " + received + b"\n\ndata: " + received + b"\n\n")),
    ):
        check(messages)
        kept = fitted(messages, limit)
        assert not kept or len(as_json(kept)) <= limit
        check(kept)
    check_parts(system_instructions(body))


# ---- limits


def test_what_does_not_fit_is_cut_in_its_texts():
    """A limit cuts texts, marked by an ellipsis, and never the JSON around them."""
    messages = [{"role": "user", "parts": [said("\u00e9" * 500), said("short")]}]
    kept = fitted(messages, 200)
    assert 150 < len(as_json(kept)) <= 200
    check(kept)
    first, second = kept[0]["parts"]
    assert first["content"].endswith("\u2026")
    assert messages[0]["parts"][0]["content"].startswith(first["content"][:-1])
    assert second == said("short")


def test_of_a_long_conversation_the_newest_messages_are_kept():
    """The oldest messages go first, in the order of the conversation."""
    messages = [{"role": "user", "parts": [said(f"message {number}")]} for number in range(100)]
    kept = fitted(messages, 1000, newest_first=True)
    assert kept[1:] == messages[-len(kept) + 1 :]
    assert 5 < len(kept) < 100
    assert len(as_json(kept)) <= 1000


def test_what_json_and_utf8_cannot_say_is_replaced():
    """Lone surrogates, huge integers and absurd nesting are made harmless."""
    deep = {}
    for _ in range(1000):
        deep = {"deeper": deep}
    call = {"type": "tool_call", "name": "look", "arguments": {"text": "\ud800", "number": 10**30, "deep": deep}}
    (kept,) = fitted([call], 10_000)
    assert kept["arguments"]["text"] == "?"
    assert kept["arguments"]["number"] == str(10**30)
    assert as_json([kept])


# ---- the switch


@pytest.mark.parametrize(
    ("value", "spans", "events"),
    [
        (None, False, False),
        ("", False, False),
        ("false", False, False),
        ("no_content", False, False),
        ("yes please", False, False),
        ("true", True, False),
        ("True", True, False),
        ("span_only", True, False),
        ("EVENT_ONLY", False, True),
        ("SPAN_AND_EVENT", True, True),
    ],
)
def test_the_switch_is_that_of_opentelemetry(value, spans, events):
    """The values are those of OpenTelemetry, in any case; what is none of them is off."""
    asked = Capture()
    asked.read({} if value is None else {SWITCH: value})
    assert (asked.spans, asked.events, asked.active) == (spans, events, spans or events)


def test_the_limit_is_that_of_opentelemetry():
    """The limit of a span's attribute goes before the general one; where there is none, ours holds."""
    asked = Capture()
    asked.read({})
    assert asked.limit == _content.MOST_CHARS
    asked.read({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "500"})
    assert asked.limit == 500
    asked.read({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "500", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "300"})
    assert asked.limit == 300


# ---- calls

ASK = [{"role": "user", "content": SECRET}]
CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": MODELS["openai"]}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def _answer(request, *, streams):
    if not streams:
        message = {"role": "assistant", "content": SECRET.upper()}
        answer = CHAT | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE}
        return {"status_code": 200, "json": answer}
    chunks = [CHAT | {"object": "chat.completion.chunk"} | _chunk(content=text) for text in (SECRET[:9], SECRET[9:])]
    chunks.append(CHAT | _chunk("stop") | {"usage": USAGE})
    content = sse(*chunks) + b"data: [DONE]\n\n"
    return {"status_code": 200, "content": content, "headers": {"content-type": "text/event-stream"}}


def ask(provider, *, asynchronous, streams=False, handler=None, **more):
    """Ask for a secret, and be told it."""
    handler = handler or (lambda request: _answer(request, streams=streams))

    async def work():
        http_client = mocked("openai", handler, asynchronous=asynchronous)
        client = make_client(provider, "openai", asynchronous=asynchronous, http_client=http_client)
        arguments = {"model": MODELS["openai"], "messages": ASK, "max_completion_tokens": 90, **more}
        try:
            answer = await resolved(client.chat.completions.create(**arguments, stream=streams))
            return await listed(answer) if streams else answer
        finally:
            await resolved(client.close())

    return drive(work(), asynchronous=asynchronous)


def everything_on_disk(path):
    """All bytes that the ledger keeps: the database, its log and the journals."""
    return b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())


@KINDS
@pytest.mark.parametrize("streams", [False, True])
def test_nothing_is_captured_by_default(provider, seen, ledger_path, *, streams, asynchronous):
    """Without the switch, no prompt and no answer is on a span, in the ledger or in its files."""
    ask(provider, asynchronous=asynchronous, streams=streams)
    (span,) = seen.spans
    assert SECRET not in repr(dict(span.attributes)).lower()
    assert seen.end.status == "ok"
    assert SECRET.encode() not in everything_on_disk(ledger_path).lower()


@KINDS
@pytest.mark.parametrize("streams", [False, True])
def test_content_on_the_span(provider, instrumented, ledger_path, monkeypatch, *, streams, asynchronous):
    """With the switch, the span has what was asked and answered, as JSON; the ledger has none of it all the same."""
    monkeypatch.setenv(SWITCH, "span_only")
    with instrumented() as seen:
        ask(provider, asynchronous=asynchronous, streams=streams)
        (span,) = seen.spans
        assert seen.end.status == "ok"
    asked, answered, system = (span.attributes.get(name) for name in NAMES)
    assert json.loads(asked) == [{"role": "user", "parts": [said(SECRET)]}]
    answer = SECRET if streams else SECRET.upper()
    assert json.loads(answered) == [{"role": "assistant", "parts": [said(answer)], "finish_reason": "stop"}]
    assert system is None
    assert SECRET.encode() not in everything_on_disk(ledger_path).lower()


@KINDS
def test_an_attempt_that_fails_shows_what_was_asked(provider, instrumented, monkeypatch, *, asynchronous):
    """What was asked is on the span of a call that failed, too; an error is no answer."""
    monkeypatch.setenv(SWITCH, "true")
    no = {"status_code": 400, "json": {"error": {"message": "no", "type": "invalid_request_error"}}}
    with instrumented() as seen:
        with pytest.raises(Exception, match="no"):
            ask(provider, asynchronous=asynchronous, handler=lambda request: no)
        (span,) = seen.spans
    assert json.loads(span.attributes[NAMES[0]]) == [{"role": "user", "parts": [said(SECRET)]}]
    assert NAMES[1] not in span.attributes


def test_the_limit_of_opentelemetry_holds(provider, instrumented, monkeypatch):
    """With OpenTelemetry's limit for attributes, what is on the span is shorter, and is still JSON."""
    monkeypatch.setenv(SWITCH, "true")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "120")
    messages = [*({"role": "user", "content": f"{number} {SECRET * 9}"} for number in range(9)), *ASK]
    with instrumented() as seen:
        ask(provider, asynchronous=False, messages=messages)
        (span,) = seen.spans
    assert len(span.attributes[NAMES[0]]) <= 120
    kept = json.loads(span.attributes[NAMES[0]])
    assert kept[-1] == {"role": "user", "parts": [said(SECRET)]}


def test_a_raw_request_shows_its_content(provider, instrumented, monkeypatch):
    """A request without any SDK shows its content as well."""
    monkeypatch.setenv(SWITCH, "true")
    library = library_of("openai")
    with instrumented() as seen, library.Client() as client:
        body = {"model": MODELS["openai"], "messages": ASK, "max_tokens": 90}
        answer = client.post(f"{provider.url}/v1/chat/completions", json=body).json()
        (span,) = seen.spans
    assert json.loads(span.attributes[NAMES[0]])[0]["parts"] == [said(SECRET)]
    assert json.loads(span.attributes[NAMES[1]])[0]["parts"] == [said(answer["choices"][0]["message"]["content"])]


@pytest.fixture
def events(monkeypatch):
    """The log records that an application's own LoggerProvider has got."""
    # In a newer release it is named InMemoryLogRecordExporter.
    from opentelemetry.sdk._logs import export  # noqa: PLC0415

    name = "InMemoryLogRecordExporter"
    exporter = getattr(export, name if hasattr(export, name) else "InMemoryLogExporter")()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr(_told, "get_logger_provider", lambda: provider)
    return lambda: [data.log_record for data in exporter.get_finished_logs()]


@pytest.mark.parametrize(("mode", "on_span"), [("event_only", False), ("span_and_event", True)])
def test_content_in_an_event(provider, instrumented, events, monkeypatch, *, mode, on_span):
    """With the switch, an event of the conventions' name belongs to the span, and has the content as structures."""
    monkeypatch.setenv(SWITCH, mode)
    with instrumented() as seen:
        ask(provider, asynchronous=False)
        (span,) = seen.spans
    (event,) = events()
    assert event.event_name == "gen_ai.client.inference.operation.details"
    assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
    assert event.attributes["gen_ai.operation.name"] == "chat"
    assert event.attributes["gen_ai.usage.input_tokens"] == 9
    (asked,) = event.attributes[NAMES[0]]
    assert asked["role"] == "user"
    assert asked["parts"][0]["content"] == SECRET
    assert (NAMES[0] in span.attributes) is on_span


def test_nothing_is_captured_after_it_is_taken_away(instrumented, monkeypatch):
    """The switch is read by `instrument()`, and forgotten by `uninstrument()`."""
    monkeypatch.setenv(SWITCH, "true")
    with instrumented():
        assert CAPTURE.active
    assert not CAPTURE.active
