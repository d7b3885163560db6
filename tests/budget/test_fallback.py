"""`on_limit="fallback"`: a call that does not fit goes to the cheaper model that still fits, and says so."""

from decimal import Decimal

import anthropic
import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tollspan.budget import BudgetExceeded, BudgetExhausted, UnpricedModel, budget
from tollspan.instrumentation import instrument, uninstrument

MINI = "gpt-4o-mini"


def cheaper(limit="0.05 USD", model=MINI, **options):
    return budget(limit, **{"name": "b", "on_limit": "fallback", "fallback_model": model} | options)


def commits(book):
    book.flush()
    return [event for event in book.events if event.event_type == "commit"]


def models_asked(provider):
    return [request.body["model"] for request in provider.requests]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_does_not_fit_goes_to_the_cheaper_model(provider, chat, book, stream):
    """The request, the hold, the charge and the ledger are those of the other model; the caller's answer is whole."""
    with cheaper() as handle:
        answer = chat(max_tokens=9_000, stream=stream)
        if stream:
            list(answer)
        assert models_asked(provider) == [MINI]
        assert 0 < handle.spent < Decimal("0.01")
        assert handle.held == 0
    assert [event.model for event in commits(book)] == [MINI]
    hold = next(event for event in book.events if event.event_type == "precheck_hold")
    assert (hold.model, hold.cost_est_usd < Decimal("0.05")) == (MINI, True)


async def test_in_a_task(provider, achat):
    """A task's call falls back in the same way."""
    with cheaper():
        await achat(max_tokens=9_000)
    assert models_asked(provider) == [MINI]


def test_a_call_that_fits_is_not_touched(provider, chat):
    """The cheaper model is asked only where the other one has no room."""
    with cheaper("5 USD"):
        chat(max_tokens=9_000)
    assert models_asked(provider) == ["gpt-4o"]


def test_the_span_tells_both_models(provider):
    """Whoever reads the trace sees which model was wanted, and which one was asked."""
    exporter = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(traces)
    try:
        with cheaper(), openai.OpenAI(base_url=provider.openai_url, api_key="local") as client:
            client.chat.completions.create(
                model="gpt-4o", max_tokens=9_000, messages=[{"role": "user", "content": "hello"}]
            )
    finally:
        uninstrument()
    (span,) = exporter.get_finished_spans()
    assert span.attributes["tollspan.request.fallback_from"] == "gpt-4o"
    assert span.attributes["gen_ai.request.model"] == MINI


def test_where_neither_fits_the_call_is_refused(provider, chat, book):
    """The refusal names the budget, nothing is sent, and the ledger tells the model that was wanted."""
    with cheaper("0.0001 USD"), pytest.raises(BudgetExhausted, match="budget 'b'"):
        chat(max_tokens=9_000)
    assert provider.requests == []
    book.flush()
    assert [(event.event_type, event.model) for event in book.events] == [("cancel", "gpt-4o")]


def test_another_budget_without_a_way_out_still_refuses(provider, chat):
    """Every budget has to admit the cheaper call as well."""
    with cheaper(), budget("0.0001 USD", name="c"), pytest.raises(BudgetExceeded):
        chat(max_tokens=9_000)
    assert provider.requests == []


def test_budgets_on_the_model_follow_the_model(provider, chat):
    """A budget for the expensive model does not count what the cheaper one was asked; one for the cheaper one does."""
    with (
        cheaper(match={"model": "gpt-4o"}) as dear,
        budget("5 USD", name="cheap", match={"model": MINI}) as cheap,
    ):
        chat(max_tokens=9_000)
        assert dear.spent == 0
        assert cheap.spent > 0


def test_a_way_out_of_a_way_out(provider, chat):
    """The cheaper model may have a budget with a cheaper model again."""
    with (
        cheaper("0.08 USD", match={"model": "gpt-4o"}),
        cheaper("0.004 USD", "gpt-4.1-nano", name="c", match={"model": MINI}),
    ):
        chat(max_tokens=9_000)
    assert models_asked(provider) == ["gpt-4.1-nano"]


def test_two_budgets_that_send_to_each_other_end_in_a_refusal(provider, chat):
    """A circle of fallbacks is walked once."""
    with (
        cheaper("0.0001 USD", match={"model": "gpt-4o"}),
        cheaper("0.0001 USD", "gpt-4o", name="c", match={"model": MINI}),
        pytest.raises(BudgetExhausted),
    ):
        chat(max_tokens=9_000)
    assert provider.requests == []


def test_a_cheaper_model_without_a_price_is_refused(chat, provider):
    """Strict sends nothing that it cannot bound, also not instead of something else."""
    with cheaper(model="no-such-model"), pytest.raises(UnpricedModel):
        chat(max_tokens=9_000)
    assert provider.requests == []


def test_without_max_tokens_a_call_is_rather_cut_than_sent_elsewhere(provider, chat):
    """As long as the remainder buys more than the floor, the model stays the one that was asked for."""
    with cheaper():
        chat()
    assert models_asked(provider) == ["gpt-4o"]
    assert provider.requests[0].body["max_tokens"] < 5_000


def test_in_best_effort_a_spent_budget_of_one_model_sends_to_the_other(provider, chat, book):
    """Where nothing is held beforehand, the way out is taken once the budget is spent."""
    with cheaper(match={"model": "gpt-4o"}, mode="best_effort", limit="0.01 USD"):
        chat(max_tokens=9_000)
        book.flush()
        chat(max_tokens=9_000)
    assert models_asked(provider) == ["gpt-4o", MINI]


def test_with_anthropic(provider, instrumented):
    """The same for the other SDK, and for its stream helper, whose request is changed on the wire."""
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="local", max_retries=0) as client:
        asked = {"max_tokens": 9_000, "messages": [{"role": "user", "content": "hello"}], "model": "claude-opus-4-5"}
        with cheaper("0.05 USD", "claude-3-haiku-20240307"):
            client.messages.create(**asked)
            with client.messages.stream(**asked) as stream:
                assert stream.get_final_message().usage.output_tokens
    assert models_asked(provider) == ["claude-3-haiku-20240307"] * 2
