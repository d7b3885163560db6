"""A ledger and a tracer of its own for each test, and one local provider for each module."""

import contextlib
import gc
import os
import tempfile
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tollspan.console._provider import Answer, LocalProvider
from tollspan.exporter import pipeline, use_pipeline
from tollspan.instrumentation import instrument, uncovered, uninstrument
from tollspan.ledger import internal_errors


@pytest.fixture(scope="module")
def provider():
    """A provider whose answers have 90 output tokens, in 8 chunks where they are streamed."""
    parts = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")

    def answer(request):
        return Answer(output_tokens=90, **{part: int(request.headers.get(f"x-{part}", 0)) for part in parts})

    with LocalProvider(answer=answer) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_collections():
    """Leave what is there already out of garbage collections, which would take most of the time otherwise."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory where the system has one: a busy disk may take seconds for an fsync."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def ledger_path(quick_path, monkeypatch):
    """A ledger that nobody else has; nothing stays instrumented."""
    path = quick_path / "ledger.db"
    monkeypatch.setenv("TOLLSPAN_LEDGER", f"sqlite:///{path}")
    monkeypatch.setattr(internal_errors, "count", 0)
    _restart()
    yield path
    _restart()


def _restart():
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


@pytest.fixture
def instrumented():
    """Instruments while its block runs, with a TracerProvider of its own."""

    @contextlib.contextmanager
    def block(sampler=None):
        exporter = InMemorySpanExporter()
        tracing = TracerProvider(sampler=sampler)
        tracing.add_span_processor(SimpleSpanProcessor(exporter))
        instrument(tracing)
        try:
            yield Seen(tracing, exporter)
        finally:
            uninstrument()

    return block


@pytest.fixture
def seen(instrumented):
    """Instruments for the whole test."""
    with instrumented() as found:
        yield found
