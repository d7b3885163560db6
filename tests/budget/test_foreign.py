"""Calls that only spans of other instrumentations tell of: nobody could refuse them, and budgets count them still."""

from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tollspan.budget import BudgetExhausted, budget, scope
from tollspan.exporter import LedgerSpanProcessor

COST = Decimal("0.10025")


@pytest.fixture
def framework():
    """Another library that makes calls of its own: `framework(tokens_out)` makes a span, and sends nothing."""
    provider = TracerProvider()
    provider.add_span_processor(LedgerSpanProcessor())
    tracer = provider.get_tracer("another.instrumentation")

    def call(tokens_out=10_000, **attributes):
        usage = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": tokens_out}
        named = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
        with tracer.start_as_current_span("chat gpt-4o", attributes=named | usage | attributes):
            pass

    return call


def test_it_is_charged_to_every_budget_that_matches(framework, calls):
    """In the block and in the balances of its model, a foreign call is spent money like any other."""
    with (
        budget("0.15 USD", name="block") as block,
        budget("5 USD / day", name="model", match={"model": "gpt-4o"}) as model,
        budget("5 USD / day", name="other", match={"model": "claude-*"}) as other,
        budget("9 requests / rolling hour", name="pace") as pace,
    ):
        framework()
        assert (block.spent, model.spent, other.spent, pace.spent) == (COST, COST, 0, 1)
        with pytest.raises(BudgetExhausted):
            calls.ask()


def test_it_may_pass_a_limit_that_then_refuses_ours(framework, calls, book):
    """It is the named exception: what was not asked can only be counted, and is."""
    with budget("0.15 USD", name="block") as block:
        framework()
        framework()
        assert block.spent == 2 * COST
        with pytest.raises(BudgetExhausted):
            calls.ask()
    assert not book.verify()


def test_the_scope_around_it_says_whose_it_is(framework, book):
    """A user's budget counts what a framework does for that user; what the span says itself comes first."""
    with budget("5 USD / day", name="users", each="user"):
        with scope(user="ada", tags={"feature": "search"}):
            framework()
            framework(**{"user.id": "bob"})
        spent = {name: balance.spent for name, balance in book.balances("users", today(book)).items()}
    assert set(spent) == {"user=ada", "user=bob"}
    assert {event.tags["feature"] for event in book.events} == {"search"}


def today(book):
    book.flush()
    return max(event.charges[0].window_start for event in book.events if event.charges)


def test_outside_of_any_budget_it_is_charged_to_none(framework, book):
    """Where nothing is in force the event has no charges."""
    framework()
    book.flush()
    assert [event.charges for event in book.events] == [()]
