"""What a refused caller is told, and that a budget which only warns refuses nobody."""

import copy
import logging
import pickle
from decimal import Decimal

import pytest

from tollspan import budget as face
from tollspan.budget import (
    BudgetBusy,
    BudgetExceeded,
    BudgetExhausted,
    CallRefused,
    LedgerOutOfReach,
    UnboundedCost,
    UncoveredCall,
    UnpricedModel,
    budget,
    scope,
)
from tollspan.budget._errors import exceeded
from tollspan.ledger import Balance, Limit, Refusal

RAISE_IT = (
    "raise its limit where it is set: in code, TOLLSPAN_BUDGET or tollspan.toml, or now with: "
    "tollspan budget raise b AMOUNT"
)
LIMIT = Limit("b", "user=ada", 1_699_920_000, "USD", 1_000_000_000, 1_700_006_400.0)


def refusal(*, spent=950_000_000, held=0, needed=100_000_000, busy=False, limit=LIMIT):
    return Refusal(limit, Balance(spent, held, 0), needed, busy)


def test_the_tree_of_exceptions_is_the_documented_one():
    """One `except CallRefused` catches all, `except BudgetExceeded` what a limit refuses; nothing else is public."""
    tree = {
        CallRefused: Exception,
        BudgetExceeded: CallRefused,
        BudgetExhausted: BudgetExceeded,
        BudgetBusy: BudgetExceeded,
        UnpricedModel: CallRefused,
        UnboundedCost: CallRefused,
        UncoveredCall: CallRefused,
        LedgerOutOfReach: CallRefused,
    }
    assert {error: error.__base__ for error in tree} == tree
    public = [getattr(face, name) for name in face.__all__]
    assert {thing for thing in public if isinstance(thing, type) and issubclass(thing, Exception)} == set(tree)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            refusal(),
            (
                "budget 'b' (user=ada) is spent: $0.9500 spent + $0.00 held + $0.1000 for this call > $1.00, resets "
                f"2023-11-15 00:00 UTC; {RAISE_IT}"
            ),
        ),
        (
            refusal(needed=1_500_000_000),
            (
                "budget 'b' (user=ada) is too small for this call: $0.9500 spent + $0.00 held + $1.50 for this call > "
                f"$1.00; ask for less, with a smaller max_tokens, or {RAISE_IT}"
            ),
        ),
        (
            refusal(spent=0, held=950_000_000, busy=True),
            (
                "budget 'b' (user=ada) is held by calls in flight: $0.00 spent + $0.9500 held + $0.1000 for this call "
                '> $1.00; retry when they have settled, or wait for it with on_limit="wait"'
            ),
        ),
        (
            refusal(limit=Limit("b", "", 0, "tokens", 1_000), spent=1_000, needed=0),
            f"budget 'b' is spent: 1000 tokens spent + 0 tokens held >= 1000 tokens, and it never resets; {RAISE_IT}",
        ),
    ],
    ids=["exhausted", "too small", "busy", "best_effort"],
)
def test_a_refusal_says_how_things_stand_and_what_to_do(given, text):
    """Budget, scope, spent, held, this call and the limit; a reset only where waiting for it would help."""
    assert str(exceeded(given)) == text


def test_an_exception_carries_what_it_is_about(calls):
    """Its amounts are exact, in the budget's unit, so that a program can decide by them."""
    with scope(user="ada"), budget("1 USD / day", name="b", each="user", timezone="UTC"):
        calls.spend(60_000)
        record, _ = calls.ask(max_output_tokens=20_000)
        with pytest.raises(BudgetBusy) as busy:
            calls.ask(max_output_tokens=30_000)
        calls.settle(record, 30_000)
        with pytest.raises(BudgetExhausted) as spent:
            calls.ask(max_output_tokens=30_000)
    told = busy.value
    assert (told.budget, told.scope, told.unit, told.limit) == ("b", "user=ada", "USD", 1)
    assert (told.spent, told.held, told.needed) == (Decimal("0.60025"), Decimal("0.20025"), Decimal("0.30025"))
    assert told.retry_after > 0
    assert (spent.value.spent, spent.value.held) == (Decimal("0.9005"), 0)
    assert spent.value.reset_at == record.limits[0].reset_at
    assert spent.value.reset_at % 86_400 == 0


@pytest.mark.parametrize("given", [refusal(), refusal(busy=True)])
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_exception_travels_between_processes(given, again):
    """Process pools pickle the exceptions of their workers: one that cannot be unpickled would break the pool."""
    error = exceeded(given)
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert (twin.budget, twin.limit, twin.needed, twin.reset_at) == ("b", error.limit, error.needed, error.reset_at)


# ---- warn


def test_a_budget_that_warns_lets_calls_go_on_and_logs(calls, caplog):
    """Beyond its limit each call is logged, with how things stand, and counted; none is refused."""
    with budget("0.15 USD", name="b", on_limit="warn") as handle, caplog.at_level(logging.WARNING, "tollspan.budget"):
        calls.spend(10_000)
        assert caplog.messages == []
        calls.spend(10_000)
        calls.spend(10_000)
        assert handle.spent == 3 * Decimal("0.10025")
    (message,) = caplog.messages
    assert message.startswith("budget 'b'")
    assert "$0.2005 spent" in message
    assert message.endswith("; the call goes on, because the budget only warns")


@pytest.mark.parametrize("fields", [{"max_output_tokens": None}, {"unbounded": "x"}, {"model": "gpt-unheard-of"}])
def test_a_budget_that_warns_neither_cuts_nor_refuses(calls, fields):
    """It changes no request, and needs no price and no bound; next to it, one that enforces does what it does alone."""
    with budget("0.05 USD", name="warns", on_limit="warn"):
        record, admission = calls.ask(**fields)
        assert (record.held, admission.output_tokens, admission.budgets) == (None, None, ("warns",))
        with budget("5 requests", name="enforces"):
            record, admission = calls.ask(**fields)
            assert record.held is not None
            assert (admission.output_tokens, admission.budgets) == (None, ("warns", "enforces"))


def test_a_budget_that_warns_counts_what_an_enforcing_one_holds(calls):
    """Both are charged when the call settles."""
    with budget("0.05 USD", name="warns", on_limit="warn") as warns, budget("1 USD", name="enforces") as enforces:
        calls.spend(10_000)
        assert (warns.spent, enforces.spent) == (Decimal("0.10025"),) * 2
