"""The ledger is the same whatever becomes of the spans."""

import contextlib

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from sdk_calls import RATES, create, make_client

from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument

CALLS = 20
UNSAMPLED = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.DEFAULT))


@contextlib.contextmanager
def remote_unsampled_parent():
    """In a request that came from elsewhere, where its trace is not sampled."""
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(UNSAMPLED)))
    try:
        yield
    finally:
        context.detach(token)


def sdk(sampler):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


CASES = {
    "all": lambda: (*sdk(ALWAYS_ON), contextlib.nullcontext()),
    "none": lambda: (*sdk(ALWAYS_OFF), contextlib.nullcontext()),
    "ratio-0": lambda: (*sdk(TraceIdRatioBased(0)), contextlib.nullcontext()),
    "ratio-10-percent": lambda: (*sdk(TraceIdRatioBased(0.1)), contextlib.nullcontext()),
    "parent-unsampled": lambda: (*sdk(ParentBased(ALWAYS_ON)), remote_unsampled_parent()),
    "no-op": lambda: (trace.NoOpTracerProvider(), InMemorySpanExporter(), contextlib.nullcontext()),
    "proxy": lambda: (None, InMemorySpanExporter(), contextlib.nullcontext()),
}
EXPORTED = {"all": CALLS, "none": 0, "ratio-0": 0, "parent-unsampled": 0, "no-op": 0, "proxy": 0}


@pytest.mark.parametrize("case", CASES)
def test_the_ledger_is_the_same(provider, case):
    """However spans are sampled, or if there are none, each call is one commit with its usage and its cost."""
    tracing, exporter, around = CASES[case]()
    already = len(provider.billed)
    instrument(tracing)
    try:
        with around, make_client(provider, "openai") as client:
            for i in range(CALLS):
                answer = create(client, "chat", stream=i % 2 == 1)
                i % 2 and list(answer)
        pipeline().ledger.flush()
        rows = [(e.event_type, e.status, dict(e.usage), e.estimated) for e in pipeline().ledger.tail()]
        spend = sum(e.cost_actual_usd for e in pipeline().ledger.tail())
    finally:
        uninstrument()
    bills = provider.billed[already:]
    assert rows == [
        ("commit", "ok", {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}, False) for bill in bills
    ]
    assert len(rows) == CALLS
    per_in, per_out = RATES["openai"]
    assert spend * 10**9 == sum(bill.input_tokens * per_in + bill.output_tokens * per_out for bill in bills)
    exported = len(exporter.get_finished_spans())
    assert exported == EXPORTED.get(case, exported)
