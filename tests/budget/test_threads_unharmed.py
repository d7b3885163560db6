"""Threads, pools and futures are as without us: objects, errors, lifetimes, and what others do to them."""

import contextlib
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import thread_kinds
from opentelemetry import context
from thread_kinds import Late, Worker, replaced, started, target

from tollspan.budget import reach, scope
from tollspan.instrumentation import instrument, uninstrument

pytestmark = pytest.mark.usefixtures("instrumented")


@pytest.fixture
def warm():
    """A pool whose one thread was there before."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool


def dimensions():
    return dict(reach().dimensions)


def in_thread(make=Worker):
    """What a thread that is started in a scope sees."""
    seen = []
    with scope(user="ada"):
        started(make)(lambda: seen.append(dimensions()))
    return seen[0]


@pytest.mark.parametrize("make", [Worker, target, Late])
def test_a_thread_object_is_left_as_it_was(make):
    """While its work runs, a thread has no attribute that its class did not give it."""
    seen = []
    thread = make(lambda: seen.append("run" in vars(threading.current_thread())))
    with scope(user="ada"):
        thread.start()
        thread.join()
    assert (seen, "run" in vars(thread)) == ([False], False)


@pytest.mark.parametrize("make", [Worker, target])
def test_where_nothing_is_in_force_a_thread_is_called_by_python_alone(make):
    """No frame of ours stands between the interpreter and the run of a thread that is started outside of scopes."""
    callers = []
    thread = make(lambda: callers.append(frames()))
    thread.start()
    thread.join()
    ours_not = {threading.__file__, thread_kinds.__file__, __file__}
    assert set(callers[0]) <= ours_not
    with scope(user="ada"):
        started(make)(lambda: callers.append(frames()))
    assert not set(callers[1]) <= ours_not


def frames():
    frame, found = sys._getframe(1), []
    while frame:
        found.append(frame.f_code.co_filename)
        frame = frame.f_back
    return found


class Noted:
    """Something that a weak reference can be taken of, and that can be done."""

    def __call__(self):
        pass


@pytest.mark.parametrize("make", [Worker, replaced, target])
def test_a_thread_is_freed_as_soon_as_nobody_needs_it(make):
    """No reference cycle is left behind, also where garbage is not collected."""
    with uncollected():
        with scope(user="ada"):
            thread = make(lambda: None)
            gone = weakref.ref(thread)
            thread.start()
        thread.join()
        del thread
        assert gone() is None


def test_what_a_thread_ran_is_freed_while_the_thread_is_kept():
    """As without us, a thread that has ended holds neither its target nor the scope that it was started in."""
    with uncollected():
        work, entered = Noted(), scope(user="ada")
        gone = [weakref.ref(work), weakref.ref(entered)]
        with entered:
            thread = target(work)
            thread.start()
        thread.join()
        del work, entered
        assert [one() for one in gone] == [None, None]


@contextlib.contextmanager
def uncollected():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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


@pytest.mark.parametrize("make", [Worker, target])
def test_an_error_in_a_thread_goes_where_it_goes_without_us(monkeypatch, make):
    """`threading.excepthook` gets the exception, and the thread ends."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda told: seen.append((told.exc_type, told.thread)))
    with scope(user="ada"):
        thread = make(lambda: {}["nothing"])
        thread.start()
        thread.join()
    assert seen == [(KeyError, thread)]


def test_who_replaces_run_when_a_thread_starts_meets_a_method():
    """Error trackers take the function from a thread's bound `run`, and call it with the thread."""
    original, seen = threading.Thread.start, []

    def start(thread):
        run = thread.run.__func__
        thread.run = lambda: seen.append("tracked") or run(thread)
        original(thread)

    threading.Thread.start = start
    try:
        assert (in_thread(Worker), in_thread(target)) == ({"user": "ada"}, {"user": "ada"})
    finally:
        threading.Thread.start = original
    assert seen == ["tracked", "tracked"]


def test_who_stands_under_us_and_replaces_run_meets_a_method():
    """The same where the error tracker was there before us: it replaces the `run` that is ours."""
    uninstrument()
    original, seen = threading.Thread.start, []

    def start(thread):
        run = thread.run.__func__
        thread.run = lambda: seen.append("tracked") or run(thread)
        original(thread)

    threading.Thread.start = start
    try:
        instrument()
        assert (in_thread(Worker), in_thread(target)) == ({"user": "ada"}, {"user": "ada"})
        uninstrument()
        assert threading.Thread.start is start
    finally:
        threading.Thread.start = original
    assert seen == ["tracked", "tracked"]


# ---- pools


def test_what_a_task_does_to_the_rest_of_its_context_is_as_without_us(warm):
    """A context that an application attaches in a worker for good stays there, without what is ours."""
    with scope(user="ada"):
        warm.submit(lambda: context.attach(context.set_value("theirs", "kept"))).result()
    assert warm.submit(lambda: (context.get_value("theirs"), dimensions())).result() == ("kept", {})


def test_a_scope_is_freed_when_its_work_is_done(warm):
    """Neither a worker nor a kept future holds it, also where the work has failed."""
    with uncollected():
        entered = scope(user="ada")
        gone = weakref.ref(entered)
        with entered:
            kept = [warm.submit(int), warm.submit({}.pop, "nothing")]
            # The worker lets go of one work when it waits for the next one.
        kept.append(warm.submit(int))
        assert [type(future.exception(30)) for future in kept] == [type(None), KeyError, type(None)]
        del entered
        assert gone() is None


def test_futures_are_as_without_us(warm):
    """Results, errors, arguments of any name and cancellation are Python's own."""
    begun, goes_on = threading.Event(), threading.Event()

    def work(*args, **kwargs):
        return args, kwargs

    with scope(user="ada"):
        assert warm.submit(work, 1, pool=2, work=3, what=4, fn=5).result() == (
            (1,),
            {"pool": 2, "work": 3, "what": 4, "fn": 5},
        )
        with pytest.raises(KeyError, match="nothing"):
            warm.submit({}.pop, "nothing").result()
        running = warm.submit(lambda: begun.set() or goes_on.wait(30))
        waiting = warm.submit(pytest.fail, "was cancelled")
        assert begun.wait(30)
        assert (running.cancel(), waiting.cancel()) == (False, True)
        goes_on.set()
        assert running.result(30)
        warm.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            warm.submit(int)
        assert dimensions() == {"user": "ada"}


def test_wrong_use_of_a_pool_is_told_in_pythons_words(warm):
    """A call without any work raises what it raises without us."""
    with pytest.raises(TypeError) as ours:
        warm.submit()
    uninstrument()
    with pytest.raises(TypeError) as pythons:
        warm.submit()
    assert str(ours.value).split(":")[0] == str(pythons.value).split(":")[0]
