"""Every surface of the SDKs gives what it gives without us, and is recorded once: on one span and as one commit."""

import json

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from sdk_calls import (
    FLAVOURS,
    KINDS,
    MODELS,
    RATES,
    SURFACES,
    Surface,
    call,
    canned,
    create,
    listed,
    make_client,
    method,
    mocked,
    resolved,
    shown,
)

from tollspan.instrumentation import uncovered


@KINDS
@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name.replace(" ", "-"))
def test_surface(provider, instrumented, *, surface, asynchronous):
    """The result is as without us; one commit has what the provider billed; one span says the same."""
    bare = call(provider, surface, asynchronous=asynchronous)
    with instrumented() as seen:
        result = call(provider, surface, asynchronous=asynchronous)
        event, (span,) = seen.end, seen.spans
    assert shown(result) == shown(bare)
    assert len(seen.events) == 1
    assert not uncovered
    _check_event(event, surface, provider.billed[-1])
    _check_span(span, event, surface)


def _check_event(event, surface, bill):
    rate_in, rate_out = RATES[surface.sdk]
    assert (event.event_type, event.status, event.http_status, event.attempts) == ("commit", "ok", 200, 1)
    assert event.usage == {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}
    assert event.cost_actual_usd * 10**9 == rate_in * bill.input_tokens + rate_out * bill.output_tokens
    assert (event.provider, event.model, event.operation) == (surface.sdk, MODELS[surface.sdk], "chat")
    assert (event.estimated, event.reason, event.error_type) == (False, None, None)
    assert event.cost_source not in (None, "unpriced", "estimate")
    assert set(event.timing) == ({"total_ms", "ttft_ms"} if surface.streams else {"total_ms"})
    assert 0 < event.timing.get("ttft_ms", event.timing["total_ms"]) <= event.timing["total_ms"]


def _check_span(span, event, surface):
    found, model = dict(span.attributes), MODELS[surface.sdk]
    assert (span.name, span.kind, span.status.status_code) == (f"chat {model}", SpanKind.CLIENT, StatusCode.UNSET)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": surface.sdk,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.usage.input_tokens": event.usage["tokens_in"],
        "gen_ai.usage.output_tokens": event.usage["tokens_out"],
        "gen_ai.usage.cost.amount": float(event.cost_actual_usd),
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
        "server.address": "127.0.0.1",
        "tollspan.event_id": event.event_id,
    }.items() <= found.items()
    assert found["gen_ai.response.id"]
    assert len(found["gen_ai.response.finish_reasons"]) == 1
    assert ("gen_ai.response.time_to_first_chunk" in found) == surface.streams
    assert found.get("gen_ai.response.time_to_first_chunk", 0) * 1000 == pytest.approx(
        event.timing.get("ttft_ms", 0), abs=0.001
    )
    assert not {key for key in found if key.startswith("tollspan.cost") or key == "error.type"}
    context = span.get_span_context()
    assert (event.trace_id, event.span_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")


PARTS = {
    "chat": (
        {"x-cached_tokens": "4", "x-reasoning_tokens": "30"},
        {"tokens_cache_read": 4, "tokens_reasoning": 30},
        3 * 150 + 4 * 75 + 90 * 600,
    ),
    "responses": (
        {"x-cached_tokens": "4", "x-reasoning_tokens": "30"},
        {"tokens_cache_read": 4, "tokens_reasoning": 30},
        3 * 150 + 4 * 75 + 90 * 600,
    ),
    "messages": (
        {"x-cached_tokens": "2", "x-cache_write_tokens": "3", "x-reasoning_tokens": "30"},
        {"tokens_cache_read": 2, "tokens_cache_write": 3, "tokens_cache_write_5m": 3, "tokens_reasoning": 30},
        2 * 1_000 + 2 * 100 + 3 * 1_250 + 90 * 5_000,
    ),
}
NAMES = {
    "tokens_cache_read": "gen_ai.usage.cache_read.input_tokens",
    "tokens_cache_write": "gen_ai.usage.cache_write.input_tokens",
    "tokens_reasoning": "gen_ai.usage.reasoning.output_tokens",
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("flavour", PARTS)
def test_parts_of_tokens(provider, seen, *, flavour, streams):
    """Cached, written and reasoning tokens are parts of input and output, priced each at its rate, and on the span."""
    headers, parts, nano = PARTS[flavour]
    with make_client(provider, FLAVOURS[flavour]) as client:
        answer = create(client, flavour, stream=streams, extra_headers=headers)
        streams and list(answer)
    expected = {name: value for name, value in parts.items() if value}
    assert {name: value for name, value in seen.end.usage.items() if value} == {
        "tokens_in": 7,
        "tokens_out": 90,
    } | expected
    assert seen.end.cost_actual_usd * 10**9 == nano
    attributes = seen.spans[0].attributes
    assert {name: attributes.get(name) for name in NAMES.values()} == {
        name: parts.get(part) for part, name in NAMES.items()
    }


def test_spans_of_calls_are_children_of_the_applications(provider, seen):
    """A call's span is a child of the span that is current, in its trace, and leaves that one current."""
    with make_client(provider, "openai") as client, seen.tracer.start_as_current_span("work") as outer:
        create(client, "chat")
        for _ in create(client, "chat", stream=True):
            assert trace.get_current_span() is outer
        assert trace.get_current_span() is outer
    for span, event in zip(seen.spans, seen.events, strict=True):
        assert span.parent.span_id == outer.get_span_context().span_id
        assert event.trace_id == f"{outer.get_span_context().trace_id:032x}"


def test_where_spans_are_suppressed_the_ledger_is_kept(provider, seen):
    """An application that suppresses instrumentation has no span of the call, and its event all the same."""
    inside = []

    def answer(request):
        inside.append(trace.get_current_span())
        return canned(request)

    http_client = mocked("openai", answer, asynchronous=False)
    client, work = make_client(provider, "openai", http_client=http_client), seen.tracer.start_as_current_span("work")
    with client, work as outer, suppress_instrumentation():
        create(client, "chat")
    assert inside == [outer]
    assert not seen.spans
    assert (seen.end.status, seen.end.trace_id) == ("ok", None)


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ALWAYS_ON], ids=["off", "on"])
def test_sampling_changes_nothing_in_the_ledger(provider, instrumented, sampler):
    """Whether a span is sampled or not, the call is one commit, with the same usage and cost."""
    with instrumented(sampler) as seen, make_client(provider, "openai") as client:
        create(client, "chat")
        list(create(client, "chat", stream=True))
        assert [(e.event_type, e.usage["tokens_out"], e.status) for e in seen.events] == [("commit", 90, "ok")] * 2
        assert len(seen.spans) == (2 if sampler is ALWAYS_ON else 0)


TOKENS = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
TEXT = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
CHOICE = {"text": "Rhine", "index": 0, "logprobs": None, "finish_reason": "stop"}
COMPACTED = {"id": "resp_1", "object": "response.compaction", "created_at": 1, "model": "gpt-4o-mini", "output": []}
COMPACT_ASK = {"model": "gpt-4o-mini", "input": "Hello"}
EMBEDDED = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
ITEM = {"object": "embedding", "index": 0, "embedding": [0.5]}
OTHERS = {
    "embeddings.create": (
        {"model": "text-embedding-3-small", "input": "Hello"},
        {**EMBEDDED, "data": [ITEM]},
        {"tokens_in": 8, "tokens_out": 0},
        "embeddings",
    ),
    "completions.create": (
        {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello", "max_tokens": 9},
        {**TEXT, "choices": [CHOICE], "usage": TOKENS},
        {"tokens_in": 8, "tokens_out": 2},
        "text_completion",
    ),
    "completions.create stream": (
        {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello", "max_tokens": 9, "stream": True},
        [{**TEXT, "choices": [CHOICE]}, {**TEXT, "choices": [], "usage": TOKENS}],
        {"tokens_in": 8, "tokens_out": 2},
        "text_completion",
    ),
    "responses.compact": (
        COMPACT_ASK,
        {**COMPACTED, "usage": {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}},
        {"tokens_in": 8, "tokens_out": 2},
        "chat",
    ),
    "beta.responses.compact": (
        COMPACT_ASK,
        {**COMPACTED, "usage": {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}},
        {"tokens_in": 8, "tokens_out": 2},
        "chat",
    ),
}


@KINDS
@pytest.mark.parametrize("name", OTHERS)
def test_other_operations(provider, instrumented, *, name, asynchronous):
    """Embeddings, legacy completions and compaction are as without us, and recorded once each."""
    asked, answer, usage, operation = OTHERS[name]

    def respond(request):
        if not isinstance(answer, list):
            return {"status_code": 200, "json": answer}
        hidden = "stream_options" not in json.loads(request.content)
        chunks = [chunk for chunk in answer if chunk["choices"] or not hidden]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in [*chunks]) + "data: [DONE]\n\n"
        return {"status_code": 200, "content": body.encode(), "headers": {"content-type": "text/event-stream"}}

    async def run(client):
        result = await resolved(method(client, name.partition(" ")[0])(**asked))
        return [type(result), *await listed(result)] if "stream" in asked else [result]

    def made():
        http_client = mocked("openai", respond, asynchronous=asynchronous)
        return call(provider, Surface(name, "chat", run), asynchronous=asynchronous, http_client=http_client)

    bare = made()
    with instrumented() as seen:
        assert shown(made()) == shown(bare)
        event, (span,) = seen.end, seen.spans
    assert (event.usage, event.operation, event.status, event.estimated) == (usage, operation, "ok", False)
    assert event.cost_actual_usd > 0
    assert span.name == f"{operation} {asked['model']}"
    assert not uncovered
