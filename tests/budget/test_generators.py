"""What is decorated more than once, suspended or left early: in force while it runs, and nowhere else."""

import asyncio
import functools
import gc
from decimal import Decimal

import pytest

from tollspan.budget import budget, reach

A_CALL = Decimal("0.10025")


def in_force():
    return [entry.definition.name for entry in reach().entries if entry.open]


def both(function):
    """Decorate with two budgets."""
    return budget("1 USD", name="outer")(budget("1 USD", name="inner")(function))


def test_two_decorators_are_in_force_together(calls):
    """A call counts in both, and each call of the function is one entry of each."""
    handles = []

    @both
    def ask():
        handles.extend(reach().entries)
        calls.spend(10_000)
        return in_force()

    assert (ask(), ask(), in_force()) == (["outer", "inner"], ["outer", "inner"], [])
    assert [handle.spent for handle in handles] == [A_CALL] * 4


@pytest.mark.parametrize("end", ["exhausted", "close", "delete", "throw"])
def test_two_decorators_of_a_generator_end_together(end):
    """However it ends, its last lines run inside both, and neither stays in force."""
    ended = []

    @both
    def numbers():
        try:
            yield in_force()
        finally:
            ended.append(in_force())

    running = numbers()
    assert (next(running), in_force()) == (["outer", "inner"], [])
    if end == "exhausted":
        assert list(running) == []
    elif end == "close":
        running.close()
    elif end == "throw":
        with pytest.raises(LookupError):
            running.throw(LookupError)
    else:
        del running
        gc.collect()
    assert (ended, in_force()) == ([["outer", "inner"]], [])


@pytest.mark.parametrize("end", ["exhausted", "aclose", "cancelled"])
async def test_two_decorators_of_an_async_generator_end_together(end):
    """Also where the task that reads it is cancelled while the generator waits."""
    ended, waits = [], asyncio.Event()

    @both
    async def numbers():
        try:
            yield in_force()
            if end == "cancelled":
                waits.set()
                await asyncio.sleep(60)
        finally:
            ended.append(in_force())

    running = numbers()
    assert (await anext(running), in_force()) == (["outer", "inner"], [])
    if end == "cancelled":
        reader = asyncio.ensure_future(anext(running))
        await waits.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    elif end == "aclose":
        await running.aclose()
    else:
        assert [number async for number in running] == []
    assert (ended, in_force()) == ([["outer", "inner"]], [])


def test_generators_that_take_turns_are_each_in_their_own_budget():
    """Suspended generators leave nothing in force for one another, in whatever order they are ended."""

    def named(name):
        @budget("1 USD", name=name)
        def numbers():
            while True:
                yield in_force()

        return numbers()

    first, second = named("first"), named("second")
    for _ in range(2):
        assert (next(first), next(second)) == (["first"], ["second"])
    first.close()
    assert (next(second), in_force()) == (["second"], [])
    second.close()


def test_a_generator_inside_a_decorated_function_is_in_both():
    """A generator that is read inside another budget's block is in both while it runs."""

    @budget("1 USD", name="of the generator")
    def numbers():
        while True:
            yield in_force()

    running = numbers()
    with budget("1 USD", name="of the reader"):
        assert (next(running), in_force()) == (["of the reader", "of the generator"], ["of the reader"])
    assert (next(running), in_force()) == (["of the generator"], [])
    running.close()


def test_a_generator_that_was_never_begun_leaves_nothing():
    """To make one enters nothing, and to close or drop it neither."""
    begun = []

    @budget("1 USD", name="b")
    def numbers():
        begun.append(in_force())
        yield

    numbers().close()
    del numbers
    gc.collect()
    assert (begun, in_force()) == ([], [])


def test_partial_methods_are_inside():
    """`functools.partialmethod` and a partial of a decorated method keep the budget, the object and the arguments."""

    class Service:
        @budget("1 USD", name="b")
        def ask(self, *words):
            return self, words, in_force()

        hello = functools.partialmethod(ask, "hello")

    service = Service()
    assert service.hello("you") == (service, ("hello", "you"), ["b"])
    assert functools.partial(service.ask, "well")() == (service, ("well",), ["b"])
    assert in_force() == []
