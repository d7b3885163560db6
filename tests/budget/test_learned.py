"""`output_bound="learned"`: what the ledger's own history says, with how often it was wrong."""

from decimal import Decimal

import pytest

from tollspan.budget import BudgetExhausted, budget
from tollspan.ledger import LedgerEvent, _ledger
from tollspan.ledger._learned import LearnedBound


def answered(book, *outputs, model="gpt-4o-2024-08-06", **fields):
    """Answers of a model, as the ledger keeps them."""
    for tokens in outputs:
        usage = {"tokens_in": 10, "tokens_out": tokens}
        given = {"provider": "openai", "operation": "chat", "model": model, "usage": usage} | fields
        book.write_event(LedgerEvent(event_type="commit", cost_actual_usd=Decimal(0), **given))
    book.flush()


def learned(**options):
    return budget("5 USD / day", name="b", output_bound="learned", **options)


def test_a_hold_is_as_large_as_answers_were(calls, book):
    """Half as much again as the 99th percentile is held, not the model's maximum, and the request is not cut."""
    answered(book, *range(1, 101))
    with learned() as handle:
        _, admission = calls.ask(max_output_tokens=None, learned=lambda: 149)
        assert admission.output_tokens is None
        assert handle.held == Decimal(100 * 2_500 + 149 * 10_000) / 10**9
    assert book.learned_output("openai", "gpt-4o", "chat").tokens == 149


def test_the_sdks_call_is_held_by_its_models_history(provider, chat, book):
    """A call without a maximum goes out as it is, held by what its model has answered before."""
    answered(book, *[200] * 40)
    with learned():
        chat()
    hold = next(event for event in book.events if event.event_type == "precheck_hold")
    assert hold.cost_est_usd < Decimal("0.01")
    assert "max_tokens" not in provider.requests[0].body
    commit = [event for event in book.events if event.event_type == "commit"][-1]
    assert commit.spend_usd > hold.cost_est_usd  # longer than any before it, and at its true cost


def test_with_too_little_history_it_is_as_if_nothing_were_said(provider, chat, book):
    """Twenty-nine answers teach nothing: the call is clamped to what the budget buys."""
    answered(book, *[200] * 29)
    with budget("0.05 USD", name="b", output_bound="learned"):
        chat()
    assert 4_000 < provider.requests[0].body["max_tokens"] < 5_000


@pytest.mark.parametrize(("other", "sent"), [("clamp", False), ("max", False), ("learned", True)])
def test_one_budget_that_wants_certainty_is_given_it(calls, book, other, sent):
    """A bound that may be passed is used only where every budget that matches the call has asked for it."""
    answered(book, *[200] * 40)
    with learned(), budget("0.04 USD", name="other", output_bound=other):
        if other == "max":
            with pytest.raises(BudgetExhausted):
                calls.ask(max_output_tokens=None, learned=lambda: 300)
        else:
            _, admission = calls.ask(max_output_tokens=None, learned=lambda: 300)
            assert (admission.output_tokens is None) == sent


def test_history_that_is_learned_meanwhile_waits_for_the_next_call(provider, chat, monkeypatch):
    """A call that was clamped for want of history is sent with its maximum, whatever is known a moment later."""
    looks = iter([None])
    bound = LearnedBound("openai", "gpt-4o", "chat", tokens=300, answers=30, misses=0, tried=0)
    monkeypatch.setattr(_ledger, "_LEARNED_S", -1)
    monkeypatch.setattr(_ledger, "learned_bound", lambda *_: next(looks, bound))
    with budget("0.05 USD", name="b", output_bound="learned"):
        chat()
    assert 4_000 < provider.requests[0].body["max_tokens"] < 5_000


def test_history_is_not_asked_where_nothing_is_held(calls):
    """A best_effort budget holds nothing, and so has no use for a bound."""
    with learned(mode="best_effort"):
        _, admission = calls.ask(max_output_tokens=None, learned=lambda: pytest.fail("history was asked"))
    assert admission.output_tokens is None


def test_a_maximum_of_its_own_counts_as_ever(calls):
    """What the caller says is a bound, and history is not asked."""
    with learned() as handle:
        calls.ask(max_output_tokens=1_000, learned=lambda: 5)
        assert handle.held == Decimal(100 * 2_500 + 1_000 * 10_000) / 10**9


def test_misses_are_measured(book):
    """Each answer is held against the bound learned from those before it: the miss rate is what would have happened."""
    answered(book, *[100] * 60, 151, *[100] * 39)
    bound = book.learned_output("openai", "gpt-4o", "chat")
    assert (bound.answers, bound.tried, bound.misses, bound.miss_rate) == (100, 70, 1, 1 / 70)
    assert book.learned_outputs()[0].misses == 1


def test_only_the_same_model_teaches(book):
    """Neither another model that begins alike, nor another provider, nor what was only estimated says anything."""
    answered(book, *[900] * 40, model="gpt-4o-mini-2024-07-18")
    answered(book, *[900] * 40, provider="azure")
    answered(book, *[900] * 40, estimated=True)
    assert book.learned_output("openai", "gpt-4o", "chat") is None


def test_what_was_learned_is_looked_up_once_in_five_minutes(book, monkeypatch):
    """Calls do not pay for a look at the log each time."""
    answered(book, *[100] * 40)
    assert book.learned_output("openai", "gpt-4o", "chat").answers == 40
    monkeypatch.setattr(book, "store", None)
    assert book.learned_output("openai", "gpt-4o", "chat").answers == 40
