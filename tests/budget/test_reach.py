"""Where budgets and scopes are in force: threads of every kind, tasks, and what is decorated more than once."""

import asyncio
import contextlib
import functools
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from tollspan.budget import BudgetExceeded, budget, reach, scope
from tollspan.instrumentation import instrument, uninstrument

A_CALL = Decimal("0.10025")


class Worker(threading.Thread):
    """A thread class with a run of its own, which never calls the inherited one."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def run(self):
        self.work()


class Polite(Worker):
    """One that calls the inherited run as well."""

    def run(self):
        super(Worker, self).run()
        super().run()


class Late(threading.Timer):
    """A timer with a run of its own."""

    def __init__(self, work):
        super().__init__(0, work)

    def run(self):
        super().run()


def replaced(work):
    """A thread whose run was replaced on the object, as error trackers do."""
    thread = threading.Thread(target=lambda: pytest.fail("the replaced run must run"))
    thread.run = work
    return thread


def started(make):
    def run(work):
        thread = make(work)
        thread.start()
        thread.join()

    return run


def in_pool(pool, how):
    def run(work):
        if how == "submit":
            pool.submit(work).result()
        elif how == "map":
            list(pool.map(lambda _: work(), [0]))
        else:
            asyncio.run(in_executor(pool, work))

    return run


async def in_executor(pool, work):
    await asyncio.get_running_loop().run_in_executor(pool, work)


@pytest.fixture
def warm():
    """A pool whose one thread was there before."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool


WAYS = {
    "target": lambda _: started(lambda work: threading.Thread(target=work)),
    "timer": lambda _: started(lambda work: threading.Timer(0, work)),
    "own run": lambda _: started(Worker),
    "own run and the inherited one": lambda _: started(Polite),
    "timer with own run": lambda _: started(Late),
    "run replaced on the object": lambda _: started(replaced),
    "submit": lambda pool: in_pool(pool, "submit"),
    "map": lambda pool: in_pool(pool, "map"),
    "run_in_executor": lambda pool: in_pool(pool, "run_in_executor"),
    "run_in_executor, default": lambda _: in_pool(None, "run_in_executor"),
}


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("way", WAYS)
def test_threads_spend_from_the_budget_that_they_are_started_in(calls, warm, way):
    """Every kind of thread, warm ones of pools too, has the budgets and scopes of where its work was given to it."""
    seen = []

    def work():
        calls.spend(10_000)
        seen.append(dict(reach().dimensions))

    run = WAYS[way](warm)
    with budget("0.15 USD", name="b") as handle, scope(user="ada"):
        run(work)
        assert handle.spent == A_CALL
        with pytest.raises(BudgetExceeded):
            calls.ask()
    run(work)
    assert (handle.spent, seen) == (A_CALL, [{"user": "ada"}, {}])


@pytest.mark.usefixtures("instrumented")
def test_a_limit_holds_for_all_threads_of_one_block(calls):
    """Twenty threads of a class of its own that all start in one block get what fits, together."""
    admitted = []

    def work():
        with contextlib.suppress(BudgetExceeded):
            admitted.append(calls.ask())

    with budget("0.5 USD", name="b"):
        threads = [Worker(work) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(admitted) == 4


@pytest.mark.usefixtures("instrumented")
def test_a_thread_object_is_left_as_it_was():
    """While its work runs, a thread has no attribute that its class did not give it."""
    seen = []
    thread = Worker(lambda: seen.append("run" in vars(threading.current_thread())))
    with scope(user="ada"):
        thread.start()
        thread.join()
    assert (seen, "run" in vars(thread)) == ([False], False)


@pytest.mark.usefixtures("instrumented")
def test_where_nothing_is_in_force_a_thread_is_called_by_python_alone():
    """No frame of ours stands between the interpreter and the run of a thread that is started outside of scopes."""
    callers = []
    thread = Worker(lambda: callers.append(sys._getframe(2).f_code.co_filename))
    thread.start()
    thread.join()
    assert callers == [threading.__file__]


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("make", [Worker, replaced])
def test_a_thread_is_freed_as_soon_as_nobody_needs_it(make):
    """No reference cycle is left behind, also where garbage is not collected."""
    gc.disable()
    try:
        with scope(user="ada"):
            thread = make(lambda: None)
            gone = weakref.ref(thread)
            thread.start()
        thread.join()
        del thread
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("instrumented")
def test_a_thread_that_cannot_start_is_left_as_it_was():
    """The error is Python's own, and nothing of ours stays on the object."""
    thread, other = Worker(lambda: None), replaced(int)
    with scope(user="ada"):
        for one in (thread, other):
            one.start()
            one.join()
            with pytest.raises(RuntimeError, match="threads can only be started once"):
                one.start()
    assert "run" not in vars(thread)
    assert vars(other)["run"] is int


@pytest.mark.usefixtures("instrumented")
def test_an_error_in_a_thread_goes_where_it_goes_without_us(monkeypatch):
    """`threading.excepthook` gets the exception, and the thread ends."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda told: seen.append((told.exc_type, told.thread)))
    with scope(user="ada"):
        thread = Worker(lambda: {}["nothing"])
        thread.start()
        thread.join()
    assert seen == [(KeyError, thread)]


@pytest.mark.usefixtures("instrumented")
def test_a_thread_that_outlives_a_budget_spends_nothing_of_it(calls):
    """The dimensions of a thread's start stay with it; a budget that was left is ignored."""
    left, done = threading.Event(), threading.Event()

    def work():
        left.wait(30)
        calls.spend(10_000, dimensions=reach().dimensions)
        done.set()

    with budget("1 USD", name="b") as handle, scope(user="ada"):
        Worker(work).start()
    left.set()
    assert done.wait(30)
    assert handle.spent == 0


# ---- what is instrumented, and what is put back


@pytest.fixture(autouse=True)
def _nothing_stays():
    """What `threading` is made of is the same after each test as before."""
    before = parts()
    yield
    uninstrument()
    if ThreadingInstrumentor().is_instrumented_by_opentelemetry:
        ThreadingInstrumentor().uninstrument()
    vars(threading.Timer).get("start") and delattr(threading.Timer, "start")
    assert parts() == before


def parts():
    return (
        vars(threading.Thread)["start"],
        vars(threading.Thread)["run"],
        vars(threading.Timer).get("start"),
        vars(threading.Timer)["run"],
        vars(ThreadPoolExecutor)["submit"],
    )


def layers(function):
    """How many functions lie on top of each other here."""
    return 1 + layers(function.__wrapped__) if hasattr(function, "__wrapped__") else 0


def in_thread(make=Worker):
    """What a thread that is started in a scope sees."""
    seen = []
    with scope(user="ada"):
        started(make)(lambda: seen.append(dict(reach().dimensions)))
    return seen[0]


def target(work):
    return threading.Thread(target=work)


def test_uninstrument_puts_threading_back():
    """Also after a second time, each class has the attributes that it had, and threads get nothing more."""
    before = parts()
    for _ in range(2):
        instrument()
        instrument()
        assert (in_thread(Worker), in_thread(target)) == ({"user": "ada"}, {"user": "ada"})
        uninstrument()
        assert parts() == before
        assert (in_thread(Worker), in_thread(target)) == ({}, {})


def test_what_the_application_has_instrumented_stays_so():
    """Its own threading instrumentation is neither doubled, nor taken away by `uninstrument()`."""
    ThreadingInstrumentor().instrument()
    submit = vars(ThreadPoolExecutor)["submit"]
    instrument()
    assert vars(ThreadPoolExecutor)["submit"] is submit
    assert in_thread(Worker) == {"user": "ada"}
    uninstrument()
    assert ThreadingInstrumentor().is_instrumented_by_opentelemetry
    assert vars(ThreadPoolExecutor)["submit"] is submit
    assert (in_thread(Worker), in_thread(target)) == ({}, {"user": "ada"})


def test_the_application_may_take_away_its_instrumentation_under_us():
    """What it takes away is its own, and not ours: threads with a run of their own are still reached."""
    ThreadingInstrumentor().instrument()
    instrument()
    ThreadingInstrumentor().uninstrument()
    assert (in_thread(Worker), in_thread(target)) == ({"user": "ada"}, {})
    uninstrument()
    assert in_thread(Worker) == {}
    # It does not find its own part of `Thread.start` under ours: take it away for the tests to come.
    threading.Thread.start = threading.Thread.start.__wrapped__


def test_who_wraps_thread_start_after_us_is_left_in_place():
    """Ours stays under it, idle, and `instrument()` wakes it and does not add another one."""
    original = threading.Thread.start
    instrument()
    ours = threading.Thread.start

    @functools.wraps(ours)
    def theirs(thread):
        ours(thread)

    try:
        threading.Thread.start = theirs
        uninstrument()
        assert (threading.Thread.start, in_thread(Worker)) == (theirs, {})
        on_top = layers(theirs)
        instrument()
        assert in_thread(Worker) == {"user": "ada"}
        uninstrument()
        assert (threading.Thread.start, layers(theirs)) == (theirs, on_top)
    finally:
        threading.Thread.start = original


@pytest.mark.parametrize("names", ["threading", "foo, threading", "*"])
def test_threading_is_left_alone_where_its_instrumentation_is_disabled(monkeypatch, names):
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading means all of `threading`, our addition included."""
    before = parts()
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", names)
    instrument()
    assert parts() == before
    assert (in_thread(Worker), in_thread(target)) == ({}, {})


def test_a_disabled_tollspan_leaves_threading_alone(monkeypatch):
    """TOLLSPAN_DISABLED patches nothing."""
    before = parts()
    monkeypatch.setenv("TOLLSPAN_DISABLED", "1")
    instrument()
    assert parts() == before


# ---- zero-code mode

COMMAND = Path(sys.executable).with_name("opentelemetry-instrument")
APPLICATION = """
import threading
from concurrent.futures import ThreadPoolExecutor
from tollspan.budget import reach, scope

class Worker(threading.Thread):
    def run(self):
        print("own run", dict(reach().dimensions))

with scope(user="ada"), ThreadPoolExecutor(1) as pool:
    print("submit", pool.submit(lambda: dict(reach().dimensions)).result())
    thread = Worker()
    thread.start()
    thread.join()
"""


@pytest.fixture
def zero_code(tmp_path):
    """Run the application under `opentelemetry-instrument`; gives what it prints, and its standard error."""

    def run(**environment):
        app = tmp_path / "app.py"
        app.write_text(APPLICATION)
        quiet = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
        done = subprocess.run(
            [COMMAND, sys.executable, app],
            env={**os.environ, **quiet, **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout, done.stderr

    return run


@pytest.mark.skipif(not COMMAND.exists(), reason="opentelemetry-distro is not installed")
def test_zero_code_mode_reaches_threads_without_a_warning(zero_code):
    """OpenTelemetry loads its threading instrumentation there itself, and does not meet one that we have loaded."""
    reached = "submit {'user': 'ada'}\nown run {'user': 'ada'}\n"
    assert zero_code() == (reached, "")


@pytest.mark.skipif(not COMMAND.exists(), reason="opentelemetry-distro is not installed")
def test_zero_code_mode_reaches_threads_after_an_instrumentation_that_crashes(zero_code, tmp_path):
    """One that stops all after it, the threading instrumentation among them, does not stop budgets from holding."""
    info = tmp_path / "site" / "aaa_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aaa-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[opentelemetry_instrumentor]\naaa_broken = aaa_broken:Broken\n")
    (tmp_path / "site" / "aaa_broken.py").write_text("raise ValueError('this instrumentor is broken')\n")
    out, err = zero_code(PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), *sys.path[1:]]))
    assert out == "submit {'user': 'ada'}\nown run {'user': 'ada'}\n"
    assert "this instrumentor is broken" in err


@pytest.mark.skipif(not COMMAND.exists(), reason="opentelemetry-distro is not installed")
def test_zero_code_mode_leaves_threading_alone_where_it_is_disabled(zero_code):
    """The variable means the same in both modes."""
    out, _ = zero_code(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="threading")
    assert out == "submit {}\nown run {}\n"


# ---- tasks


async def test_a_limit_holds_for_all_tasks_of_a_group(calls):
    """Tasks of a TaskGroup are in the budget that the group was opened in, and get what fits, together."""
    admitted = []

    async def work():
        with contextlib.suppress(BudgetExceeded):
            admitted.append(await calls.ask_in_task())

    with budget("0.5 USD", name="b") as handle:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(work())
        assert handle.held == 4 * A_CALL
    assert len(admitted) == 4


async def test_a_task_group_that_fails_leaves_no_budget_in_force():
    """The refusal of one task cancels the others, inside whose decorated coroutines a budget was in force."""
    seen = []

    @budget("1 USD", name="inner")
    async def sleeps():
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(in_force())

    async def fails():
        await asyncio.sleep(0)
        raise LookupError

    async def together():
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeps())
            group.create_task(sleeps())
            group.create_task(fails())

    with budget("1 USD", name="outer"):
        with pytest.raises(ExceptionGroup):
            await together()
        assert (seen, in_force()) == ([["outer", "inner"]] * 2, ["outer"])
    assert in_force() == []


async def test_a_budget_entered_in_a_task_of_a_group_stays_in_that_task():
    """Its siblings and the task that opened the group do not see it."""
    entered, looked = asyncio.Event(), asyncio.Event()

    async def enters():
        async with budget("1 USD", name="b"):
            entered.set()
            await looked.wait()

    async def looks():
        await entered.wait()
        seen = in_force()
        looked.set()
        return seen

    async with asyncio.TaskGroup() as group:
        group.create_task(enters())
        sibling = group.create_task(looks())
    assert (sibling.result(), in_force()) == ([], [])


# ---- decorated more than once, suspended, and left early


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


def test_nothing_of_ours_is_in_an_empty_context():
    """A context that an application empties has no budgets, and leaving one there raises nothing."""
    with budget("1 USD", name="b"), scope(user="ada"):
        token = context.attach(context.Context())
        assert (in_force(), dict(reach().dimensions)) == ([], {})
        context.detach(token)
        assert in_force() == ["b"]
    assert in_force() == []
