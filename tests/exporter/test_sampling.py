"""Sampling: foreign calls are in the ledger at every sampling rate, and exporters see no more than without us."""

import pytest
from foreign_spans import NO_CALLS, SPOKEN
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from records import a_record

from tollspan.exporter import Pipeline
from tollspan.exporter import _coverage as module
from tollspan.exporter._sampling import RecordInference, record_unsampled
from tollspan.ledger import load_settings

CALL = SPOKEN["opentelemetry"]
SAMPLERS = {"on": ALWAYS_ON, "off": ALWAYS_OFF, "a tenth": TraceIdRatioBased(0.1), "by parent": ParentBased(ALWAYS_OFF)}


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch):
    """No test sees the calls of another."""
    monkeypatch.setattr(module.coverage, "__dict__", module.Coverage().__dict__)


def attached(ledger, sampler, *processors):
    """A provider with this sampler and these processors, that a pipeline is attached to."""
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    Pipeline(load_settings(), ledger).attach(provider)
    return provider


def make_call(tracer, attributes=CALL, **how):
    """A span of a call, which names itself when it starts."""
    span = tracer.start_span("a call", attributes=attributes, **how)
    span.end()
    return span


@pytest.mark.parametrize("name", SAMPLERS)
def test_foreign_calls_at_every_rate(ledger, name):
    """Whatever the sampler says, each foreign call is one commit."""
    tracer = attached(ledger, SAMPLERS[name]).get_tracer("x")
    for number in range(20):
        make_call(tracer, CALL | {"gen_ai.response.id": f"chatcmpl-of-number-{number}"})
    assert len(ledger.tail()) == 20


@pytest.mark.parametrize("name", [name for name in SPOKEN if name != "openlit"])
def test_every_dialect_is_known_at_its_start(ledger, name):
    """The attributes that a dialect gives at the start are enough to tell a call."""
    make_call(attached(ledger, ALWAYS_OFF).get_tracer("x"), SPOKEN[name])
    assert len(ledger.tail()) == 1


@pytest.mark.parametrize("kind", [SimpleSpanProcessor, BatchSpanProcessor])
def test_exporters_see_what_is_sampled(ledger, kind):
    """A span that is recorded for the ledger only reaches no exporter, and tells nobody that it was sampled."""
    exporter = InMemorySpanExporter()
    provider = attached(ledger, ALWAYS_OFF, kind(exporter))
    span = make_call(provider.get_tracer("x"))
    provider.force_flush()
    assert exporter.get_finished_spans() == ()
    assert not span.get_span_context().trace_flags.sampled
    assert len(ledger.tail()) == 1
    provider.shutdown()


def test_children_stay_unsampled(ledger):
    """Below a recorded span the sampler is asked as before: a plain child is dropped, a call is recorded."""
    tracer = attached(ledger, ParentBased(ALWAYS_OFF)).get_tracer("x")
    here = set_span_in_context(make_call(tracer))
    assert not tracer.start_span("plain", context=here).is_recording()
    child = make_call(tracer, CALL | {"gen_ai.response.id": "chatcmpl-of-the-child"}, context=here)
    assert not child.get_span_context().trace_flags.sampled
    assert len(ledger.tail()) == 2


@pytest.mark.parametrize("name", ["an HTTP request", "nothing at all", "LangSmith's chain"])
def test_other_spans_stay_dropped(ledger, name):
    """Only spans of the conventions for models are recorded; the cost of all others is the sampler's."""
    span = attached(ledger, ALWAYS_OFF).get_tracer("x").start_span("x", attributes=NO_CALLS[name])
    assert span.is_recording() is (name == "LangSmith's chain")


def test_our_own_spans_stay_dropped(ledger):
    """Our own calls need no span to be counted, so theirs cost nothing where they are not sampled."""
    tracer = attached(ledger, ALWAYS_OFF).get_tracer("tollspan.instrumentation")
    assert not tracer.start_span("chat", attributes=CALL | {"tollspan.event_id": "00"}).is_recording()


def test_tracers_that_exist_already(ledger):
    """An instrumentation that was activated before us has its tracer: its calls are recorded, too."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    before = provider.get_tracer("before")
    Pipeline(load_settings(), ledger).attach(provider)
    make_call(before)
    assert len(ledger.tail()) == 1


def test_the_setting_turns_it_off(ledger, monkeypatch):
    """With `record_unsampled` off the provider's sampler is left as it is."""
    monkeypatch.setenv("TOLLSPAN_RECORD_UNSAMPLED", "false")
    provider = attached(ledger, ALWAYS_OFF)
    assert provider.sampler is ALWAYS_OFF
    assert not make_call(provider.get_tracer("x")).get_span_context().trace_flags.sampled
    assert ledger.tail() == []


def test_two_pipelines_wrap_once(ledger):
    """A sampler that is wrapped already is not wrapped again."""
    provider = attached(ledger, ALWAYS_OFF)
    wrapped = provider.sampler
    Pipeline(load_settings(), ledger).attach(provider)
    assert provider.sampler is wrapped
    assert provider.get_tracer("x").sampler is wrapped


class Remote(TraceIdRatioBased):
    """A sampler with a state of its own, and a trace state."""

    def __init__(self):
        super().__init__(0)
        self.rate_seen = None

    def should_sample(self, parent_context, trace_id, name, *rest, **named):
        return SamplingResult(Decision.DROP, None, TraceState([("vendor", "7")]))

    def reconfigure(self, rate):
        self.rate_seen = rate


def test_the_sampler_stays_within_reach(ledger):
    """What a sampler can do besides sampling, its description and its trace state come through."""
    provider = attached(ledger, Remote())
    provider.sampler.reconfigure(0.5)
    assert provider.sampler.rate_seen == 0.5
    assert provider.sampler.get_description() == Remote().get_description()
    assert make_call(provider.get_tracer("x")).get_span_context().trace_state.get("vendor") == "7"
    with pytest.raises(AttributeError):
        _ = provider.sampler.unheard_of


def test_a_remote_parent_that_is_not_sampled(ledger):
    """A call within another service's unsampled trace is counted, in that trace."""
    tracer = attached(ledger, ParentBased(ALWAYS_ON)).get_tracer("x")
    parent = NonRecordingSpan(SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(0)))
    make_call(tracer, context=set_span_in_context(parent))
    assert [event.trace_id for event in ledger.tail()] == [f"{7:032x}"]


def test_what_has_no_sampler_is_left_alone():
    """A provider of another kind, such as one of the API only, is no error."""
    provider = NoOpTracerProvider()
    record_unsampled(provider)
    assert vars(provider) == {}


def test_our_own_calls_at_a_rate_of_nothing(ledger):
    """An unsampled span of ours is settled by hand, once."""
    provider = attached(ledger, ALWAYS_OFF)
    line = Pipeline(load_settings(), ledger)
    line.settle(a_record(), provider.get_tracer("tollspan.instrumentation").start_span("chat"))
    assert len(ledger.tail()) == 1


def test_the_wrapper_asks_the_sampler_alone_where_it_samples():
    """A decision to sample is handed on as it is."""
    result = RecordInference(ALWAYS_ON).should_sample(None, 1, "x", attributes=CALL)
    assert result.decision is Decision.RECORD_AND_SAMPLE
