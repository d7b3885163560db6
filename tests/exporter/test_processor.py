"""The span processor: it brings in what is bound to a span, once, and harms nobody."""

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from records import a_record

from tollspan.exporter import LedgerSpanProcessor, Pipeline
from tollspan.ledger import Ledger, internal_errors, load_settings


@pytest.fixture(name="line")
def _line(ledger):
    return Pipeline(load_settings(), ledger)


def a_provider(*processors):
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def a_span(provider):
    return provider.get_tracer("test").start_span("chat")


class Broken(SpanProcessor):
    """A processor of somebody else, with a bug."""

    def on_end(self, span):
        raise RuntimeError("somebody else's bug")


def test_a_span_brings_its_record_in_once(line, ledger):
    """However many of our processors see a span, its call is one event; ending it again adds none."""
    span = a_span(a_provider(LedgerSpanProcessor(), LedgerSpanProcessor(ledger), LedgerSpanProcessor()))
    record = a_record()
    line.settle(record, span)
    span.end()
    assert [event.call_id for event in ledger.events] == [record.call_id.hex()]


def test_spans_that_are_no_calls_are_let_through(line, ledger):
    """A span that no record is bound to, and that names no operation of a model, makes no event."""
    with a_provider(LedgerSpanProcessor(ledger)).get_tracer("other").start_as_current_span("chat") as span:
        span.set_attribute("gen_ai.usage.input_tokens", 5)
    assert list(ledger.events) == []


def test_a_processor_of_ones_own_writes_to_its_own_ledger(line, ledger, tmp_path):
    """Where the user's processor names a ledger, the call is counted there and not in the configured one too."""
    with Ledger(tmp_path / "mine.db") as mine:
        line.settle(a_record(), a_span(a_provider(LedgerSpanProcessor(mine))))
        assert len(mine.tail()) == 1
    assert ledger.tail() == []


def test_an_error_of_ours_never_reaches_the_caller(line, monkeypatch, caplog):
    """What goes wrong in a processor is logged and counted, and the span ends as it would without us."""
    monkeypatch.setattr(internal_errors, "raising", False)
    before = internal_errors.count
    provider = a_provider(LedgerSpanProcessor(object()))
    span = a_span(provider)
    line.settle(a_record(), span)
    assert not span.is_recording()
    assert internal_errors.count == before + 1
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize("order", [(Broken, LedgerSpanProcessor), (LedgerSpanProcessor, Broken), (Broken,)])
def test_a_broken_processor_of_others_costs_no_event(line, ledger, order):
    """Where another processor raises, before or after ours, the call is recorded once all the same."""
    with pytest.raises(RuntimeError, match="somebody else"):
        line.settle(a_record(), a_span(a_provider(*[kind() for kind in order])))
    line.settle(a_record(), a_span(a_provider(LedgerSpanProcessor())))
    assert len(ledger.tail()) == 2


@pytest.mark.parametrize("flush", [TracerProvider.force_flush, TracerProvider.shutdown])
def test_flush_and_shutdown_write_and_leave_it_usable(line, ledger, flush):
    """After a provider's flush its calls are on disk; after its shutdown calls are still recorded."""
    provider = a_provider(LedgerSpanProcessor())
    line.settle(a_record(), a_span(provider))
    flush(provider)
    assert ledger.writer.pending == 0
    line.settle(a_record(), a_span(provider))
    assert len(ledger.tail()) == 2


def test_a_processor_that_was_never_used_opens_nothing(tmp_path):
    """Adding, flushing and shutting down a processor makes no ledger."""
    provider = a_provider(LedgerSpanProcessor())
    assert provider.force_flush()
    provider.shutdown()
    assert list(tmp_path.iterdir()) == []
