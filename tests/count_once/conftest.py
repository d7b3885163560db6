"""One tracer provider and one local provider for all tests, one ledger for each."""

import contextlib
import os

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from peers import CACHED, IN, OUT, instrumented_by, restored

from tollspan.console import Answer, LocalProvider
from tollspan.exporter import pipeline
from tollspan.instrumentation import instrument, uninstrument

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no look at the network when it is imported


@pytest.fixture(scope="session")
def tracing():
    """The global provider, because some SDKs write spans of their own to that one only."""
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def unsampled(tracing):
    """The sampler of the provider drops every span; some peers keep their first tracer, so theirs change, too."""

    def put(sampler):
        for holder in (tracing, *tracing._tracers.values()):
            holder.sampler = sampler

    before = tracing.sampler
    put(ALWAYS_OFF)
    yield
    put(before)


@pytest.fixture(scope="session")
def provider():
    """A provider that bills the same usage for every call."""
    with LocalProvider(answer=lambda _: Answer(input_tokens=IN, output_tokens=OUT, cached_tokens=CACHED)) as running:
        yield running


class World:
    """What was seen of the calls of a test."""

    def __init__(self, tracing, spans):
        self.tracer = tracing.get_tracer("an application")
        self._spans = spans

    @property
    def spans(self):
        """The spans of others that were exported."""
        return [
            span for span in self._spans.get_finished_spans() if span.instrumentation_scope.name != "an application"
        ]

    @property
    def ends(self):
        """The events that end a call."""
        assert pipeline().ledger.flush(timeout_s=30)
        return [event for event in pipeline().ledger.events if event.event_type in {"commit", "cancel"}]


@pytest.fixture
def world(tracing):
    """With these peers active, and our patch before them, after them or not at all."""

    @contextlib.contextmanager
    def block(peers, ours):
        exporter = InMemorySpanExporter()
        pipeline().attach(tracing)
        tracing.add_span_processor(SimpleSpanProcessor(exporter))  # the last one: what is seen here is counted already
        with contextlib.ExitStack() as stack:
            stack.enter_context(restored())
            if ours == "first":
                stack.enter_context(_patched(tracing))
            stack.enter_context(instrumented_by(peers, tracing))
            if ours == "last":
                stack.enter_context(_patched(tracing))
            try:
                yield World(tracing, exporter)
            finally:
                # Processors cannot be removed, and the next test has a ledger of its own.
                tracing._active_span_processor._span_processors = ()

    return block


@contextlib.contextmanager
def _patched(tracing):
    instrument(tracing)
    try:
        yield
    finally:
        uninstrument()
