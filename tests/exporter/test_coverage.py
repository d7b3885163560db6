"""Count once, with the SDK's own provider: which of the spans that tell of a call make its event."""

import threading
import time
from contextlib import contextmanager
from contextvars import copy_context

import pytest
from foreign_spans import NO_CALLS, SPOKEN, tracer_of
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN, Status, StatusCode, set_span_in_context, use_span
from records import a_record

from tollspan import exporter
from tollspan.exporter import CURRENT, CallRecord, LedgerSpanProcessor, Pipeline, coverage, in_call
from tollspan.exporter import _coverage as module
from tollspan.ledger import Ledger, internal_errors, load_settings, new_call_id

USED = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 50}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini"}
AGENT = {"gen_ai.operation.name": "invoke_agent"}


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch):
    """No test sees the calls of another."""
    monkeypatch.setattr(module.coverage, "__dict__", module.Coverage().__dict__)


@pytest.fixture(name="tracing")
def _tracing(ledger):
    """A provider that feeds a ledger of its own."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LedgerSpanProcessor(ledger))
    return provider


@pytest.fixture(name="span")
def _span(tracing):
    """Makes a current span of an instrumentation; `told` is what it learns before it ends."""

    @contextmanager
    def block(scope, told=CHAT, **later):
        with tracing.get_tracer(scope).start_as_current_span(scope, attributes=dict(CHAT)) as span:
            yield span
            span.set_attributes(told | later)

    return block


@pytest.fixture(name="manual")
def _manual(tracing):
    """Starts a span that nobody makes current."""
    return lambda scope, attributes=CHAT, **how: tracing.get_tracer(scope).start_span(
        scope, attributes=attributes, **how
    )


class InForce:
    """A call of ours, as its wrapper has it in force."""

    def __init__(self, span=INVALID_SPAN, **fields):
        self.in_force = True
        ids = span.get_span_context()
        usual = {
            "call_id": new_call_id(),
            "request_model": "gpt-4o-mini",
            "total_ms": None,
            "usage": None,
            "cost": None,
        }
        self.record = a_record(
            **{**usual, "started": time.time(), "trace_id": ids.trace_id, "span_id": ids.span_id, **fields}
        )
        self._counted = coverage.opened(self.record)

    def __enter__(self):
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, *_):
        CURRENT.reset(self._token)
        self.in_force = False

    def settle(self, usage=None, response_id=None):
        """Its answer came."""
        self.record.usage, self.record.response_id, self.record.total_ms = usage, response_id, 1.0
        coverage.settled(self._counted, self.record)


def ids_of(ledger):
    """The span ids of the commits."""
    return [event.span_id for event in ledger.tail() if event.event_type == "commit"]


def hexed(*spans):
    """The ids of spans as events have them."""
    return [f"{span.get_span_context().span_id:016x}" for span in spans]


def test_a_foreign_call_is_counted(span, ledger):
    """A span of a call that nothing else tells of makes one commit."""
    with span("sdk", CHAT | USED) as told:
        pass
    assert ids_of(ledger) == hexed(told)


@pytest.mark.parametrize("name", NO_CALLS)
def test_what_is_no_call_makes_no_event(span, tracing, ledger, name):
    """Spans of agents, tools, requests and the rest are let through."""
    with tracing.get_tracer("x").start_as_current_span("x", attributes=NO_CALLS[name]):
        pass
    assert ledger.tail() == []


@pytest.mark.parametrize("name", SPOKEN)
def test_each_dialect_makes_one_commit(tracing, ledger, name):
    """The span of a call is one commit in each of the dialects."""
    with tracing.get_tracer("x").start_as_current_span("x", attributes=SPOKEN[name]):
        pass
    assert len(ledger.tail()) == 1


def test_the_innermost_of_nested_calls_counts(span, ledger):
    """A framework's span, the instrumentation's and the SDK's own are one call: that of the SDK, with its usage."""
    with span("framework", CHAT | USED), span("instrumentation", CHAT | USED), span("sdk", CHAT | USED) as inner:
        pass
    assert ids_of(ledger) == hexed(inner)


def test_spans_between_nested_calls_are_seen_through(span, tracing, ledger):
    """Spans that are no calls, between two of one call, do not make them two."""
    step = tracing.get_tracer("x").start_as_current_span
    with span("framework", CHAT | USED), step("one"), step("another"), span("sdk", CHAT | USED) as inner:
        pass
    assert ids_of(ledger) == hexed(inner)


def test_an_agent_over_calls_is_not_counted(span, tracing, ledger):
    """Two calls below one agent are two commits, and the agent's sum is none."""
    with tracing.get_tracer("agents").start_as_current_span("agent", attributes=AGENT | USED):
        with span("sdk", CHAT | USED, **{"gen_ai.response.id": "chatcmpl-a-first-answer"}) as first:
            pass
        with span("sdk", CHAT | USED, **{"gen_ai.response.id": "chatcmpl-a-second-answer"}) as second:
            pass
    assert ids_of(ledger) == hexed(first, second)


def test_an_inner_span_without_usage_leaves_the_call_to_the_outer(span, ledger):
    """Where only the framework learned the usage, its span counts."""
    with span("framework", CHAT | USED) as outer, span("sdk"):
        pass
    assert ids_of(ledger) == hexed(outer)


def test_an_outer_span_that_ends_early_leaves_the_call_to_the_inner(tracing, manual, ledger):
    """A wrapper that ends its span before the stream is read knows nothing; the SDK's own span counts."""
    outer = manual("wrapper")
    inner = manual("sdk", context=set_span_in_context(outer))
    outer.end()
    inner.set_attributes(USED)
    inner.end()
    assert ids_of(ledger) == hexed(inner)


def test_a_chain_without_usage_is_one_commit(span, ledger):
    """Where nobody learned the usage, the outermost span makes the one commit, without a cost."""
    with span("framework") as outer, span("instrumentation"), span("sdk"):
        pass
    assert ids_of(ledger) == hexed(outer)
    assert ledger.tail()[0].cost_actual_usd is None


def test_spans_inside_a_call_of_ours_are_covered(span, ledger):
    """What starts while our call is in force tells of our call, which makes its event itself."""
    with InForce(), span("sdk", CHAT | USED):
        assert in_call()
    assert not in_call()
    assert ledger.tail() == []


def test_spans_around_a_call_of_ours_are_covered(span, ledger):
    """An instrumentation around our patch does not count what we count, even if it counts it wrongly."""
    with span("framework", CHAT | USED), span("instrumentation", CHAT | USED):
        with InForce() as call:
            pass
        call.settle({"tokens_in": 60, "tokens_out": 51})
    assert ledger.tail() == []


def test_a_second_call_after_ours_is_counted(span, ledger):
    """A covered span covers nothing else: a foreign call that follows ours under the same agent counts."""
    with span("agent", AGENT | USED):
        with InForce() as call:
            pass
        call.settle(response_id="chatcmpl-one-of-our-own")
        with span("sdk", CHAT | USED, **{"gen_ai.response.id": "chatcmpl-not-one-of-ours"}) as foreign:
            pass
    assert ids_of(ledger) == hexed(foreign)


def test_a_context_that_outlives_our_call(span, ledger):
    """A task that was started inside our call and goes on after it makes calls of its own."""
    with InForce() as call:
        later = copy_context()
    call.settle({"tokens_in": 1})

    def work():
        with span("sdk", CHAT | USED, **{"gen_ai.response.id": "chatcmpl-of-that-task"}):
            pass

    later.run(work)
    assert len(ledger.tail()) == 1


def test_a_span_that_is_written_when_our_stream_has_ended(manual, ledger):
    """What Logfire writes of a stream comes after it, without an id, and is of our call."""
    with InForce() as call:
        pass
    call.settle({"tokens_in": 100, "tokens_out": 50}, "chatcmpl-of-that-stream")
    manual("logfire", CHAT | USED | {"logfire.msg_template": "took {duration}", "duration": 1.0}).end()
    assert ledger.tail() == []


def test_a_span_below_ours_after_our_call_is_counted(tracing, span, ledger):
    """Some peers leave the context of our call behind when their stream ends: what follows is no part of our call."""
    ours = tracing.get_tracer("tollspan.instrumentation").start_span("chat", attributes=CHAT)
    with InForce(ours) as call:
        pass
    call.settle({"tokens_in": 100, "tokens_out": 50}, "chatcmpl-of-our-own-call")
    ours.end()
    with use_span(ours), span("sdk", CHAT | USED, **{"gen_ai.response.id": "chatcmpl-of-a-later-call"}) as later:
        pass
    assert ids_of(ledger) == hexed(later)


def test_our_own_span_is_not_foreign(tracing, ledger):
    """A span of ours that no record is bound to, such as one of a second processor, makes no event."""
    tracing.get_tracer("tollspan.instrumentation").start_span("chat", attributes=CHAT | USED).end()
    assert ledger.tail() == []


@pytest.mark.parametrize("ours", [True, False], ids=["of ours", "of another span"])
def test_an_id_that_was_counted(manual, ledger, ours):
    """The id of a counted answer is not counted again, though the spans have nothing else in common."""
    answer = {"gen_ai.response.id": "chatcmpl-seen-by-two", **USED}
    if ours:
        with InForce() as call:
            pass
        call.settle({"tokens_in": 999}, "chatcmpl-seen-by-two")
    else:
        manual("one", CHAT | answer).end()
    before = len(ledger.tail())
    manual("other", CHAT | answer | {"gen_ai.request.model": "another-name"}).end()
    assert len(ledger.tail()) == before == (0 if ours else 1)


def test_short_ids_come_again(manual, ledger):
    """Some servers number their answers: an id like `chatcmpl-7` is one call's only while that call lasts."""
    for start in (1_000, 2_000):
        answer = CHAT | USED | {"gen_ai.response.id": "chatcmpl-7"}
        for scope in ("one", "other"):
            manual(scope, answer, start_time=start * 10**9).end((start + 1) * 10**9)
    assert len(ledger.tail()) == 2


def test_two_instrumentations_without_an_id_or_a_parent_in_common(manual, ledger):
    """One of them tells no id, and neither is around the other: model, usage and time tell that it is one call."""
    framework = manual("framework")
    sdk = manual("sdk", CHAT | USED)
    sdk.end()
    framework.set_attributes(USED | {"gen_ai.response.id": "chatcmpl-known-to-one"})
    framework.end()
    assert ids_of(ledger) == hexed(sdk)


def test_as_many_commits_as_calls_when_all_are_alike(manual, ledger):
    """Ten equal calls at the same time, seen by two instrumentations, are ten commits."""
    spans = [(manual("framework"), manual("sdk", CHAT | USED)) for _ in range(10)]
    for number, (framework, sdk) in enumerate(spans):
        sdk.end()
        framework.set_attributes(USED | {"gen_ai.response.id": f"chatcmpl-of-number-{number}"})
    for framework, _ in spans:
        framework.end()
    assert len(ledger.tail()) == 10


def test_a_counted_call_stands_for_one_span_of_each_scope(manual, ledger):
    """Two equal calls at the same time, of which one instrumentation saw both and another only one, are two commits."""
    frameworks = [manual("framework"), manual("framework")]
    manual("sdk", CHAT | USED).end()
    for number, framework in enumerate(frameworks):
        framework.set_attributes(USED | {"gen_ai.response.id": f"chatcmpl-of-number-{number}"})
        framework.end()
    assert len(ledger.tail()) == 2


@pytest.mark.parametrize(
    "differs",
    [
        {"gen_ai.usage.output_tokens": 51},
        {"gen_ai.request.model": "gpt-4o"},
        {"gen_ai.response.id": "chatcmpl-another-answer"},
    ],
)
def test_calls_that_differ_are_two(manual, ledger, differs):
    """At the same time, but of another model, with other usage, or with another id: two calls."""
    one = manual("one", CHAT | USED | {"gen_ai.response.id": "chatcmpl-the-first-one"} if len(differs) else CHAT)
    other = manual("other", CHAT | USED | differs)
    one.end()
    other.end()
    assert len(ledger.tail()) == 2


def test_a_span_that_names_no_model(manual, ledger):
    """Of a call to an agent that the provider keeps, some know the model and some do not: time and usage tell."""
    one, other = manual("one", CHAT | USED), manual("other", {"gen_ai.operation.name": "chat", **USED})
    one.end()
    other.end()
    assert ids_of(ledger) == hexed(one)


def test_calls_one_after_the_other_are_two(manual, ledger):
    """Equal in everything but the time: two calls."""
    manual("one", CHAT | USED, start_time=10**18).end(10**18 + 10**9)
    manual("other", CHAT | USED, start_time=10**18 + 2 * 10**9).end(10**18 + 3 * 10**9)
    assert len(ledger.tail()) == 2


def test_equal_calls_of_one_instrumentation_are_two(manual, ledger):
    """One instrumentation does not see a call twice: equal spans of it at the same time are calls of two threads."""
    one, other = manual("sdk", CHAT | USED), manual("sdk", CHAT | USED)
    one.end()
    other.end()
    assert len(ledger.tail()) == 2


@pytest.mark.parametrize("settled_first", [True, False])
@pytest.mark.parametrize("told", [USED, {}], ids=["usage", "no usage"])
def test_a_manual_span_around_a_call_of_ours(manual, ledger, settled_first, told):
    """A span that is around our call but not current, and has no id, as of embeddings: it is of our call."""
    outer = manual("wrapper")
    with InForce() as call:
        pass
    if settled_first:
        call.settle({"tokens_in": 100, "tokens_out": 50})
    outer.set_attributes(told)
    outer.end()
    assert ledger.tail() == []


def test_a_span_written_after_its_call(manual, ledger):
    """LiteLLM writes its span when the call is over, with the call's times: it is known to be of our call."""
    with InForce() as call:
        pass
    call.settle({"tokens_in": 100, "tokens_out": 50})
    started = int(call.record.started * 1e9)
    manual("litellm", CHAT | USED, start_time=started - 10**6).end(started + 10**8)
    assert ledger.tail() == []


def test_a_failure_of_ours_is_not_counted_by_the_span_around_it(tracing, manual, ledger):
    """Our call was refused, and so ends the span of the framework: nothing was billed, and no second event is made."""
    outer = manual("wrapper")
    with InForce() as call:
        pass
    call.settle()
    outer.set_status(Status(StatusCode.ERROR))
    outer.end()
    assert ledger.tail() == []


def test_a_provider_that_comes_late(ledger):
    """Our call attaches us to a provider whose span around the call is open already: that span is covered, too."""
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("framework").start_as_current_span("x", attributes=CHAT | USED):
        provider.add_span_processor(LedgerSpanProcessor(ledger))
        with InForce() as call:
            pass
        call.settle({"tokens_in": 60, "tokens_out": 51})
    assert ledger.tail() == []


def test_suppression_by_another_instrumentation_is_not_ours(span, ledger):
    """OpenLLMetry's key that suppresses spans of models suppresses no spend."""
    token = context.attach(context.set_value("suppress_language_model_instrumentation", True))
    try:
        with span("sdk", CHAT | USED):
            pass
    finally:
        context.detach(token)
    assert len(ledger.tail()) == 1


def test_two_processors_count_once(ledger, tmp_path):
    """A user's own processor and the one that `instrument` adds see each span twice: the first one counts."""
    with Ledger(tmp_path / "second.db") as second:
        tracer = tracer_of(LedgerSpanProcessor(ledger), LedgerSpanProcessor(second))
        for ended_by in (ledger, second):
            with (
                tracer.start_as_current_span("outer", attributes=CHAT | USED),
                tracer.start_as_current_span(
                    "inner", attributes=CHAT | USED | {"gen_ai.response.id": f"chatcmpl-before-{id(ended_by)}"}
                ),
            ):
                pass
        assert (len(ledger.tail()), len(second.tail())) == (2, 0)


def test_the_configured_ledger_is_used(tmp_path):
    """A processor without a ledger of its own counts foreign calls in the configured one, opened for the first."""
    with tracer_of(LedgerSpanProcessor()).start_as_current_span("x", attributes=CHAT | USED):
        assert not exporter.pipeline().is_open
    assert len(exporter.pipeline().ledger.tail()) == 1


def test_the_pipeline_s_own_ledger_is_used(ledger):
    """A pipeline's processor counts foreign calls in that pipeline's ledger."""
    provider = TracerProvider(shutdown_on_exit=False)
    Pipeline(load_settings(), ledger).attach(provider)
    with provider.get_tracer("x").start_as_current_span("x", attributes=CHAT | USED):
        pass
    assert len(ledger.tail()) == 1


def test_threads(span, ledger):
    """Calls of many threads are counted once each, with their frameworks around them."""

    def work(number):
        for turn in range(20):
            answer = {"gen_ai.response.id": f"chatcmpl-of-{number:04}-{turn:04}"}
            with span("framework", CHAT | USED), span("sdk", CHAT | USED | answer):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.tail()) == 160


def test_a_stream_of_ours_takes_no_call_of_others(manual, ledger):
    """A call by a way that we do not patch, to the same model while a stream of ours is open, is a call of its own."""
    outer = manual("another way")
    with InForce():
        pass
    outer.set_attributes(USED | {"gen_ai.response.id": "chatcmpl-by-another-way"})
    outer.end()
    manual("another way", CHAT | USED).end()
    assert len(ledger.tail()) == 2


def test_everything_is_bounded(monkeypatch, manual, ledger):
    """Spans that never end, and calls without end, do not fill the memory."""
    monkeypatch.setattr(module, "_MOST_SPANS", 50)
    for number in range(200):
        manual("leaky")
        manual("sdk", CHAT | USED | {"gen_ai.response.id": f"chatcmpl-of-the-{number:06}"}).end()
        InForce(trace.NonRecordingSpan(trace.SpanContext(number + 1, number + 1, is_remote=False)))
    kept = vars(coverage)
    assert {name: len(value) <= 50 for name, value in kept.items() if name != "_calls"} == dict.fromkeys(
        set(kept) - {"_calls"}, True
    )
    assert kept["_calls"].maxlen is not None
    assert len(ledger.tail()) == 200


def test_a_bug_of_ours_harms_no_span(monkeypatch, caplog):
    """Whatever goes wrong while a foreign span starts or ends is logged, and the span ends as without us."""
    monkeypatch.setattr(internal_errors, "raising", False)
    monkeypatch.setattr(module.Coverage, "started", lambda *_: 1 / 0)
    with tracer_of(LedgerSpanProcessor(object())).start_as_current_span("x", attributes=CHAT | USED) as span:
        pass
    assert not span.is_recording()
    assert "ZeroDivisionError" in caplog.text
    assert "AttributeError" in caplog.text


def test_a_record_without_a_model_is_matched_by_nothing_but_failures():
    """A span that names neither model nor usage may be any call's: it repeats one only where that is going on."""
    ours = coverage.opened(CallRecord(call_id=new_call_id(), started=10.0, operation="chat", request_model="m"))
    nameless = module.CountedCall("sdk", 5.0, frozenset({None}), ended=6.0)
    assert not ours.is_repeated_by(nameless)
    nameless.ended = 11.0
    assert ours.is_repeated_by(nameless)
