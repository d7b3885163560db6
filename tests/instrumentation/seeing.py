"""What the tests of calls look at: the spans of tollspan, and its ledger."""

import contextlib

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tollspan.exporter import pipeline, use_pipeline
from tollspan.instrumentation import instrument, uncovered, uninstrument


def restart():
    """Nothing is instrumented, and the next call opens a ledger of its own."""
    uninstrument()
    old = use_pipeline(None)
    if old is not None:
        old.close()
    uncovered.clear()


class Seen:
    """What tollspan has made of the calls so far: spans, and events of the ledger."""

    def __init__(self, tracing, spans):
        self.tracer = tracing.get_tracer("an application")
        self._spans = spans

    @property
    def spans(self):
        """The ended spans of tollspan."""
        ours = "tollspan.instrumentation"
        return [span for span in self._spans.get_finished_spans() if span.instrumentation_scope.name == ours]

    @property
    def events(self):
        """All events of the ledger."""
        ledger = pipeline().ledger
        assert ledger.flush(timeout_s=30)
        return list(ledger.events)

    def of(self, *kinds):
        """The events of these types."""
        return [event for event in self.events if event.event_type in kinds]

    @property
    def end(self):
        """The one event that ends the one call."""
        (event,) = self.of("commit", "cancel")
        return event

    @property
    def open_holds(self):
        """How many holds are not settled."""
        assert self.events is not None
        return pipeline().ledger.open_holds().calls


@contextlib.contextmanager
def instrumenting(sampler=None):
    """Instruments while its block runs, with a TracerProvider of its own; gives what is seen."""
    exporter = InMemorySpanExporter()
    tracing = TracerProvider(sampler=sampler)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(tracing)
    try:
        yield Seen(tracing, exporter)
    finally:
        uninstrument()
