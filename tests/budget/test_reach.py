"""Where budgets and scopes are in force: threads of every kind, pools, tasks, and beside OpenTelemetry's own."""

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from thread_kinds import Late, Polite, Worker, replaced, started, target

from tollspan.budget import BudgetExceeded, budget, reach, scope
from tollspan.instrumentation import instrument, uninstrument

A_CALL = Decimal("0.10025")


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
    "target": lambda _: started(target),
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


def dimensions():
    return dict(reach().dimensions)


def parts():
    return (
        vars(threading.Thread)["start"],
        vars(threading.Thread)["run"],
        vars(threading.Timer).get("start"),
        vars(threading.Timer)["run"],
        vars(ThreadPoolExecutor)["submit"],
    )


@pytest.fixture(autouse=True)
def _nothing_stays():
    """What `threading` is made of is the same after each test as before."""
    before = parts()
    yield
    uninstrument()
    assert same(parts(), before)


def same(now, then):
    """Whether these are the same objects: a wrapper of wrapt is equal to what it wraps."""
    return all(one is other for one, other in zip(now, then, strict=True))


@pytest.fixture
def official():
    """OpenTelemetry's instrumentation of `threading`; it is taken away at the end, whoever stands on it."""
    theirs = pytest.importorskip("opentelemetry.instrumentation.threading", reason="is not installed")
    instrumentor = theirs.ThreadingInstrumentor()
    before = parts()
    yield instrumentor
    uninstrument()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    # Theirs finds nothing of its own under a wrapper of somebody else, and leaves a `start` on `Timer`.
    threading.Thread.start, threading.Thread.run, _, threading.Timer.run, ThreadPoolExecutor.submit = before
    if "start" in vars(threading.Timer):
        del threading.Timer.start


@pytest.fixture(params=["alone", "theirs first", "ours first"])
def beside(request):
    """Us, alone and beside OpenTelemetry's instrumentation of `threading`."""
    first = [] if request.param == "alone" else [request.getfixturevalue("official").instrument]
    for activate in reversed([*first, instrument]) if request.param == "ours first" else [*first, instrument]:
        activate()
    return request.param


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("way", WAYS)
def test_threads_spend_from_the_budget_that_they_are_started_in(calls, warm, way):
    """Every kind of thread, warm ones of pools too, has the budgets and scopes of where its work was given to it."""
    seen = []

    def work():
        calls.spend(10_000)
        seen.append(dimensions())

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


@pytest.mark.parametrize("way", ["target", "own run", "submit"])
def test_spans_have_the_parents_that_they_have_without_us(beside, warm, way):
    """Whether the application's context goes into threads is for the application to say; its baggage is in it."""
    tracer, seen = TracerProvider().get_tracer("app"), []

    def work():
        seen.append((trace.get_current_span().get_span_context(), dict(baggage.get_all()), dimensions()))

    token = context.attach(baggage.set_baggage("theirs", "1"))
    with tracer.start_as_current_span("parent") as parent, scope(user="ada"):
        WAYS[way](warm)(work)
    context.detach(token)
    ((found, entries, ours),) = seen
    is_carried = beside != "alone" and way != "own run"
    assert (found == parent.get_span_context(), "theirs" in entries) == (is_carried, is_carried)
    assert (found.is_valid, ours) == (is_carried, {"user": "ada"})


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("way", ["target", "own run", "submit"])
def test_what_travels_to_other_services_travels_from_threads(configure, warm, way):
    """The entries of baggage that a scope has written are there, and end where the scope ends."""
    configure(baggage="user")
    seen, run = [], WAYS[way](warm)

    def work():
        seen.append(baggage.get_baggage("tollspan.user"))
        with scope(user="bob"):
            seen.append(baggage.get_baggage("tollspan.user"))

    with scope(user="ada"):
        run(work)
    run(work)
    assert seen == ["ada", "bob", None, "bob"]


# ---- pools


@pytest.mark.usefixtures("beside")
def test_a_worker_that_a_scope_has_started_keeps_nothing_of_it():
    """A pool's thread outlives the work that it was started for: what is given to it outside is outside."""
    with ThreadPoolExecutor(1) as pool:
        with scope(user="ada"):
            assert pool.submit(dimensions).result() == {"user": "ada"}
        assert pool.submit(dimensions).result() == {}
        with scope(team="search"):
            assert pool.submit(dimensions).result() == {"team": "search"}


@pytest.mark.usefixtures("beside")
def test_what_a_task_enters_and_leaves_open_ends_with_the_task(warm):
    """The next task of the same worker is in force where it was given, and only there."""

    def leaves_open():
        with scope(user="bob"):
            scope(team="search").__enter__()
        scope(session="s1").__enter__()
        return dimensions()

    with scope(user="ada"):
        assert warm.submit(leaves_open).result() == {"user": "ada", "team": "search", "session": "s1"}
        assert warm.submit(dimensions).result() == {"user": "ada"}
    assert warm.submit(dimensions).result() == {}


@pytest.mark.usefixtures("instrumented")
def test_pools_of_interpreters_are_left_alone():
    """They pickle what they are given, and we are not where it runs; Python has them from 3.14 on."""

    class InterpreterPoolExecutor(ThreadPoolExecutor):
        pass

    with InterpreterPoolExecutor(1) as pool:
        pool.submit(int).result()
        with scope(user="ada"):
            assert pool.submit(dimensions).result() == {}


# ---- what is instrumented, and what is put back


def layers(function):
    """How many functions lie on top of each other here."""
    return 1 + layers(function.__wrapped__) if hasattr(function, "__wrapped__") else 0


def in_thread(make=Worker):
    """What a thread that is started in a scope sees."""
    seen = []
    with scope(user="ada"):
        started(make)(lambda: seen.append(dimensions()))
    return seen[0]


def in_worker():
    """What work sees that is given to a pool in a scope."""
    with ThreadPoolExecutor(1) as pool, scope(user="ada"):
        return pool.submit(dimensions).result()


ADA = {"user": "ada"}


def test_uninstrument_puts_threading_back():
    """Also after a second time, each class has the attributes that it had, and threads get nothing more."""
    before = parts()
    for _ in range(2):
        instrument()
        instrument()
        assert (in_thread(Worker), in_thread(target), in_worker()) == (ADA, ADA, ADA)
        uninstrument()
        assert same(parts(), before)
        assert (in_thread(Worker), in_thread(target), in_worker()) == ({}, {}, {})


def test_what_the_application_has_instrumented_stays_so(official):
    """Its own threading instrumentation is neither doubled, nor taken away by `uninstrument()`."""
    official.instrument()
    before = parts()
    instrument()
    assert in_thread(Worker) == ADA
    uninstrument()
    assert official.is_instrumented_by_opentelemetry
    assert same(parts(), before)
    assert (in_thread(Worker), in_thread(target), in_worker()) == ({}, ADA, ADA)


def test_what_the_application_instruments_after_us_stays_so(official):
    """Ours is under it then, idle after `uninstrument()`, and awake again without another layer."""
    instrument()
    official.instrument()
    before = parts()
    uninstrument()
    assert (in_thread(Worker), in_thread(target), in_worker()) == ({}, ADA, ADA)
    instrument()
    assert in_thread(Worker) == ADA
    assert same(parts(), before)


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_the_application_may_take_away_its_instrumentation_beside_us(official, first):
    """Threads and pools are still reached, and after `uninstrument()` no more."""
    both = [official.instrument, instrument]
    for activate in both if first == "theirs" else reversed(both):
        activate()
    official.uninstrument()
    assert (in_thread(Worker), in_thread(target), in_worker()) == (ADA, ADA, ADA)
    uninstrument()
    assert in_thread(Worker) == {}


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


def test_that_opentelemetrys_is_disabled_does_not_concern_us(monkeypatch):
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=threading names OpenTelemetry's instrumentation, and budgets hold."""
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "threading")
    instrument()
    assert (in_thread(Worker), in_thread(target), in_worker()) == (ADA, ADA, ADA)


def test_a_disabled_tollspan_leaves_threading_alone(monkeypatch):
    """TOLLSPAN_DISABLED patches nothing."""
    before = parts()
    monkeypatch.setenv("TOLLSPAN_DISABLED", "1")
    instrument()
    assert same(parts(), before)


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


@pytest.mark.skipif(not COMMAND.exists(), reason="opentelemetry-distro is not installed")
@pytest.mark.parametrize("disabled", ["", "threading"])
def test_zero_code_mode_reaches_threads_without_a_warning(tmp_path, disabled):
    """Also where OpenTelemetry loads its own instrumentation of threads, or is told not to."""
    app = tmp_path / "app.py"
    app.write_text(APPLICATION)
    quiet = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    done = subprocess.run(
        [COMMAND, sys.executable, app],
        env={**os.environ, **quiet, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("submit {'user': 'ada'}\nown run {'user': 'ada'}\n", "")


# ---- tasks, and contexts of the application's own


def in_force():
    return [entry.definition.name for entry in reach().entries if entry.open]


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


def test_nothing_of_ours_is_in_an_empty_context():
    """A context that an application empties has no budgets, and leaving one there raises nothing."""
    with budget("1 USD", name="b"), scope(user="ada"):
        token = context.attach(context.Context())
        assert (in_force(), dict(reach().dimensions)) == ([], {})
        context.detach(token)
        assert in_force() == ["b"]
    assert in_force() == []
