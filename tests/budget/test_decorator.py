"""`budget(...)` as a decorator: in force inside what it decorates, of each kind, and nowhere else."""

import asyncio
import functools
import gc
import inspect
import threading

import pytest

from tollspan.budget import budget, reach


def in_force():
    return [entry.definition.name for entry in reach().entries if entry.open]


def small():
    return budget("1 USD", name="small")


class Service:
    @small()
    def method(self):
        return in_force()

    @small()
    async def coroutine_method(self):
        return in_force()

    @classmethod
    @small()
    def class_inside(cls):
        return cls, in_force()

    @small()
    @classmethod
    def class_outside(cls):
        return cls, in_force()

    @staticmethod
    @small()
    def static_inside():
        return in_force()

    @small()
    @staticmethod
    def static_outside():
        return in_force()


class Callable:
    def __call__(self):
        return in_force()


class AsyncCallable:
    async def __call__(self):
        return in_force()


@small()
def function():
    return in_force()


@small()
async def coroutine():
    return in_force()


@small()
def generator():
    """Generate what is in force, and give back what was sent."""
    sent = yield in_force()
    try:
        sent = yield (sent, in_force())
    except KeyError as error:
        sent = yield (error, in_force())
    finally:
        closed_in.append(in_force())
    return (sent, in_force())


@small()
async def async_generator():
    sent = yield in_force()
    try:
        sent = yield (sent, in_force())
    except KeyError as error:
        yield (error, in_force())
    finally:
        closed_in.append(in_force())


closed_in = []


@pytest.fixture(autouse=True)
def _nothing_closed():
    closed_in.clear()


@pytest.mark.parametrize(
    "decorated",
    [
        function,
        Service().method,
        lambda: Service.class_inside()[1],
        lambda: Service().class_outside()[1],
        Service.static_inside,
        Service().static_outside,
        small()(functools.partial(function.__wrapped__)),
        small()(Callable()),
        small()(in_force),
    ],
)
def test_a_budget_is_in_force_inside_what_it_decorates(decorated):
    """Functions, methods of each kind, partials and callable objects run inside, and nothing is left afterwards."""
    assert (decorated(), in_force()) == (["small"], [])


@pytest.mark.parametrize(
    "decorated",
    [
        coroutine,
        Service().coroutine_method,
        small()(functools.partial(coroutine.__wrapped__)),
        small()(AsyncCallable()),
    ],
)
async def test_a_budget_is_in_force_inside_coroutines(decorated):
    """Coroutine functions stay coroutine functions, and run inside."""
    assert inspect.iscoroutinefunction(decorated)
    assert (await decorated(), in_force()) == (["small"], [])


def test_class_methods_keep_their_class():
    """A decorated class method gets the class it is called on, in either order of the decorators."""

    class Derived(Service):
        pass

    assert (Derived.class_inside()[0], Derived.class_outside()[0]) == (Derived, Derived)


@pytest.mark.parametrize(
    ("twin", "kind"),
    [
        (function, "isfunction"),
        (coroutine, "iscoroutinefunction"),
        (generator, "isgeneratorfunction"),
        (async_generator, "isasyncgenfunction"),
    ],
)
def test_what_is_decorated_keeps_its_kind_and_its_name(twin, kind):
    """`inspect` tells of a decorated function what it tells of the bare one."""
    kinds = {"isfunction", "iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction"}
    assert {k for k in kinds if getattr(inspect, k)(twin)} == {"isfunction", kind}
    assert twin.__name__ == twin.__wrapped__.__name__
    assert inspect.signature(twin) == inspect.signature(twin.__wrapped__)


@pytest.mark.parametrize("wrong", [Service, 5, None, "text", property(lambda self: self)])
def test_what_is_no_function_cannot_be_decorated(wrong):
    """A class is a TypeError that names the budget: its constructor would be limited, and never its methods."""
    with pytest.raises(TypeError, match="'small' decorates functions"):
        small()(wrong)


def test_the_configuration_is_not_read_where_a_function_is_decorated(monkeypatch):
    """A decorator runs at import, often before the environment is set; the zone is read when the budget is entered."""
    early = budget("5 USD / day", name="early")
    monkeypatch.setenv("TOLLSPAN_TIMEZONE", "Asia/Tokyo")
    assert early.definition.window.timezone == "Asia/Tokyo"
    assert early.definition is early.definition
    assert budget("5 USD / day", name="own", timezone="Europe/Berlin").definition.window.timezone == "Europe/Berlin"


# ---- generators


def test_a_generator_has_its_budget_only_while_it_runs():
    """Between two yields the consumer is outside, and what it sends and throws arrives inside."""
    running = generator()
    assert (next(running), in_force()) == (["small"], [])
    assert (running.send("sent"), in_force()) == (("sent", ["small"]), [])
    error = KeyError("thrown")
    assert (running.throw(error), in_force()) == ((error, ["small"]), [])
    with pytest.raises(StopIteration) as ended:
        running.send("last")
    assert ended.value.value == ("last", ["small"])
    assert (closed_in, in_force()) == ([["small"]], [])


@pytest.mark.parametrize("end", ["close", "delete", "throw"])
def test_a_generator_ends_inside_its_budget(end):
    """However a generator is ended, its last lines run inside, once, and nothing stays in force."""
    running = generator()
    next(running)
    next(running)
    if end == "close":
        running.close()
    elif end == "throw":
        with pytest.raises(ValueError, match="thrown"):
            running.throw(ValueError("thrown"))
    del running
    gc.collect()
    assert (closed_in, in_force()) == ([["small"]], [])


def test_a_generator_may_be_driven_from_threads():
    """Each step may run in another thread, and none of them keeps the budget."""
    running, seen = generator(), []

    def step():
        seen.append((next(running), in_force()))

    for _ in range(2):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    running.close()
    assert seen == [(["small"], []), ((None, ["small"]), [])]


async def test_an_async_generator_has_its_budget_only_while_it_runs():
    """As a generator, with asend and athrow."""
    running = async_generator()
    assert (await anext(running), in_force()) == (["small"], [])
    assert (await running.asend("sent"), in_force()) == (("sent", ["small"]), [])
    error = KeyError("thrown")
    assert (await running.athrow(error), in_force()) == ((error, ["small"]), [])
    with pytest.raises(StopAsyncIteration):
        await anext(running)
    assert (closed_in, in_force()) == ([["small"]], [])


@pytest.mark.parametrize("end", ["aclose", "athrow", "delete"])
async def test_an_async_generator_may_end_in_another_task(end):
    """Each step and the end may happen in tasks of their own; the budget stays in none of them."""
    running = async_generator()

    async def step(what):
        return await what, in_force()

    assert await asyncio.create_task(step(anext(running))) == (["small"], [])
    assert await asyncio.create_task(step(running.asend(1))) == ((1, ["small"]), [])
    if end == "aclose":
        assert await asyncio.create_task(step(running.aclose())) == (None, [])
    elif end == "athrow":
        with pytest.raises(ValueError, match="thrown"):
            await asyncio.create_task(step(running.athrow(ValueError("thrown"))))
    else:
        del running
        gc.collect()
        await asyncio.sleep(0.01)
    assert (closed_in, in_force()) == ([["small"]], [])
