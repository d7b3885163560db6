"""`budget(...)` as a block: where it is in force, what it counts, and what its handle shows."""

import asyncio
import contextvars
from decimal import Decimal

import pytest

from tollspan.budget import BudgetEntry, BudgetExceeded, BudgetExhausted, budget, reach
from tollspan.exporter import Pipeline, pipeline, use_pipeline
from tollspan.ledger import BudgetSyntaxError, load_settings


def in_force():
    return [entry.definition.name for entry in reach().entries if entry.open]


def small(limit="1 USD", **options):
    return budget(limit, **{"name": "small"} | options)


def test_recursion_enters_once_for_each_call(calls):
    """A budget without a window gives each level of a recursion a balance of its own, and a call counts in all."""

    @small("0.25 USD")
    def descend(levels):
        calls.spend(10_000)
        return in_force() if levels == 1 else descend(levels - 1)

    assert descend(2) == ["small", "small"]
    with pytest.raises(BudgetExhausted):
        descend(3)
    assert in_force() == []


def test_a_shared_budget_that_is_entered_twice_counts_a_call_once(calls, book):
    """With a window the levels of a recursion share a balance: no call is held or charged twice in it."""
    shared = budget("1 USD / month", name="shared")
    with shared, shared as handle, budget("5 USD / month", name="shared"):
        record, _ = calls.ask()
        assert handle.held == Decimal("0.10025")
        calls.settle(record)
        assert (handle.spent, handle.held) == (Decimal("0.10025"), 0)
    assert book.verify() == []


def test_of_two_limits_of_one_balance_the_lower_one_holds(calls):
    """One name with two limits, entered in either order, refuses at the lower one."""
    low, high = budget("0.05 USD / month", name="b"), budget("5 USD / month", name="b", mode="best_effort")
    for outer, inner in ((low, high), (high, low)):
        with outer, inner, pytest.raises(BudgetExhausted) as refused:
            calls.ask()
        assert refused.value.limit == Decimal("0.05")


def test_one_name_in_two_units_is_two_balances(calls):
    """Dollars and requests under one name are counted apart, and each limit holds."""
    with budget("5 USD / month", name="b") as usd, budget("2 requests / month", name="b") as requests:
        calls.ask()
        calls.ask()
        assert (usd.held > 0, requests.held) == (True, 2)
        with pytest.raises(BudgetExceeded, match=r"budget 'b' is held by calls in flight: .* 2 requests held"):
            calls.ask()


async def test_two_hundred_tasks_on_one_budget_object(calls, at_once):
    """One object serves many tasks at once: each has its own entry, its own balance, and leaves no other's."""
    shared = small("0.15 USD")

    async def task(number):
        async with shared as own:
            await asyncio.sleep(0)
            record, _ = await calls.ask_in_task()
            calls.settle(record, 1_000 + number, flush=False)
            assert in_force() == ["small"]
            return number, own

    done = await at_once(*(task(number) for number in range(200)))
    assert all(own.spent == Decimal(1_000 + number) / 100_000 + Decimal("0.00025") for number, own in done)
    assert len({own.key() for _, own in done}) == 200
    assert (shared._entries, in_force()) == ([], [])


def test_one_object_nests_in_itself(calls):
    """Entering an object again inside itself gives a second handle; leaving takes the inner one out first."""
    both = small()
    with both as outer, both as inner:
        calls.spend(10_000)
        assert outer is not inner
        assert (outer.spent, inner.spent) == (Decimal("0.10025"),) * 2
        both.__exit__()
        assert (inner.open, outer.open) == (False, True)
        calls.spend(10_000)
        assert (outer.spent, inner.spent) == (Decimal("0.2005"), Decimal("0.10025"))
        both.__enter__()
    assert in_force() == []


async def test_a_budget_may_be_entered_and_left_in_different_tasks():
    """Fixtures and frameworks do that: leaving raises nothing, and closes the entry wherever it is still seen."""
    shared, seen = small(), []
    context = contextvars.copy_context()

    async def enter_it():
        await shared.__aenter__()
        seen.append(in_force())

    async def leave_it():
        await shared.__aexit__(None, None, None)

    async def look():
        seen.append(in_force())

    await asyncio.create_task(enter_it(), context=context)
    await asyncio.create_task(leave_it())
    await asyncio.create_task(look(), context=context)
    await asyncio.create_task(leave_it())
    assert seen == [["small"], []]


def test_a_closed_handle_is_ignored(calls):
    """A context that was copied inside the block sees the entry after its end, and counts nothing in it."""
    with small("0.15 USD") as handle:
        inside = contextvars.copy_context()
        calls.spend(10_000)
    inside.run(calls.spend, 10_000)
    assert (handle.open, handle.spent) == (False, Decimal("0.10025"))


def test_a_handle_shows_exact_amounts(calls):
    """`limit`, `spent`, `held` and `remaining` are Decimal USD, exact to the nano, and never below zero."""
    with small("0.2 USD") as handle:
        assert (handle.limit, handle.spent, handle.held, handle.remaining) == (Decimal("0.2"), 0, 0, Decimal("0.2"))
        record, _ = calls.ask()
        assert (handle.spent, handle.held, handle.remaining) == (0, Decimal("0.10025"), Decimal("0.09975"))
        calls.settle(record, 25_000)  # more than was held
        assert (handle.spent, handle.held, handle.remaining) == (Decimal("0.25025"), 0, 0)
        assert {type(getattr(handle, name)) for name in ("limit", "spent", "held", "remaining")} == {Decimal}


@pytest.mark.parametrize(("unit", "held", "spent"), [("tokens", 10_100, 2_100), ("requests", 1, 1)])
def test_a_handle_counts_in_the_unit_of_its_budget(calls, unit, held, spent):
    """Budgets in tokens and in requests show those."""
    with small(f"50000 {unit}") as handle:
        record, _ = calls.ask()
        assert handle.held == held
        calls.settle(record, 2_000)
        assert (handle.spent, handle.held, handle.limit) == (spent, 0, 50_000)


def test_without_a_window_each_entry_has_a_balance_of_its_own(calls):
    """The limit of a run starts anew with each run, also of the same object."""
    run = small("0.15 USD")
    for _ in range(3):
        with run as handle:
            calls.spend(10_000)
            assert handle.spent == Decimal("0.10025")
            with pytest.raises(BudgetExhausted):
                calls.ask()


def test_with_a_window_the_name_is_the_balance(calls):
    """Another object, after a restart of the process, goes on where the first one left off."""
    with budget("0.15 USD / month", name="shared"):
        calls.spend(10_000)
    use_pipeline(Pipeline(load_settings())).close()
    with budget("0.15 USD / month", name="shared") as again, pytest.raises(BudgetExhausted):
        calls.ask()
    assert again.spent == Decimal("0.10025")


def test_a_definition_is_noted_in_every_ledger_that_sees_it(calls):
    """Budgets written in code are listed with their limits in the ledger, also in a second one of the same process."""
    shared = budget("5 USD / month", name="shared", output_bound=4096)
    for _ in range(2):
        with shared:
            calls.spend(10)
        line = pipeline()
        assert [known.definition for known in line.ledger.known_budgets()] == [shared.definition]
        use_pipeline(Pipeline(load_settings(ledger="sqlite:///:memory:"))).close()


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"limit": "5 USD / dya"}, "did you mean day?"),
        ({"limit": "5 USD / day", "timezone": "Europe/Berln"}, "budget 'b'.*did you mean Europe/Berlin?"),
        ({"limit": "5 USD / day", "timezone": ""}, "budget 'b'"),
        ({"limit": "5 USD", "mode": "strct"}, "did you mean strict?"),
        ({"limit": "5 USD", "on_limit": "fallback"}, "'b', fallback_model: it belongs to on_limit=\"fallback\""),
        ({"limit": "5 USD", "fallback_model": "gpt-4o-mini"}, "'b', fallback_model: it belongs to on_limit"),
        ({"limit": "5 USD", "on_limit": "fallback", "fallback_model": ""}, "'' is no model"),
        ({"limit": "5 USD", "warn_at": 0.8}, "'b', warn_at: 0.8 is no list of fractions"),
        ({"limit": "5 USD", "warn_at": (0.5, -1)}, "'b', warn_at: .* is no list of fractions"),
        ({"limit": "5 USD / rolling total"}, "'b', rolling total is no window"),
        ({"limit": "8 concurrent / day"}, "'b', .* has a window"),
        ({"limit": "5 USD", "name": "b [tokens]"}, "leave out the brackets"),
        ({"limit": "5 USD", "name": ""}, "a budget needs one"),
    ],
)
def test_a_wrong_budget_is_told_how_to_be_right(wrong, advice):
    """What makes no sense is an error where the budget is written, and never taken in silence."""
    with pytest.raises(BudgetSyntaxError, match=advice):
        budget(**{"name": "b"} | wrong)


def test_an_entry_is_what_a_block_gives():
    """`as` gives the entry, in `with` as in `async with`."""
    with small() as handle:
        assert isinstance(handle, BudgetEntry)
