"""Processes that have children: the calls of each are in the ledger once, however the children end."""

import multiprocessing

import pytest
from calling import ROUNDS
from families import EVENTS, HERE, STRICT, WITHOUT_JOURNAL, WITHOUT_US

METHODS = multiprocessing.get_all_start_methods()
CHILDREN = 2

pytestmark = pytest.mark.skipif("fork" not in METHODS, reason="this system has no fork")


def each_method(*modes, strict):
    """Run a test with each start method in these modes, and with one of them under a strict budget."""
    rows = [(method, mode) for method in METHODS for mode in modes] + [(strict, STRICT)]
    return pytest.mark.parametrize(("method", "mode"), rows, ids=str)


def runs_as_without_us(family, mode, *command):
    """Run the application twice, with and without us; gives the family of the one with us."""
    ours, plain = family(mode), family(WITHOUT_US)
    assert ours.run(HERE / "children.py", *command) == plain.run(HERE / "children.py", *command), ours.errors
    assert len(ours.acknowledged) == len(plain.acknowledged), ours.errors
    return ours


@pytest.mark.parametrize("mode", [EVENTS, WITHOUT_JOURNAL, STRICT], ids=str)
def test_a_fork_that_exits(family, mode):
    """Parent and forked children write what is theirs, each to its end in order."""
    runs_as_without_us(family, mode, "forks", "exit").assert_kept(at_least=ROUNDS * (2 * CHILDREN + 2))


@pytest.mark.parametrize("mode", [EVENTS, STRICT], ids=str)
def test_a_fork_that_vanishes(family, mode):
    """What a forked child wrote before `os._exit` is in its journal."""
    runs_as_without_us(family, mode, "forks", "_exit").assert_kept(at_least=ROUNDS * (2 * CHILDREN + 2))


@pytest.mark.parametrize("mode", [EVENTS, WITHOUT_JOURNAL, STRICT], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_processes(family, method, mode):
    """Children of multiprocessing end with os._exit, which runs no handler of `atexit`; they write it all the same."""
    runs_as_without_us(family, mode, "processes", method).assert_kept(at_least=ROUNDS * (CHILDREN + 3))


@each_method(EVENTS, WITHOUT_JOURNAL, strict="fork")
def test_a_pool_that_is_closed(family, method, mode):
    """The workers of a pool that is closed and joined have written all of it."""
    runs_as_without_us(family, mode, "pool_closed", method).assert_kept(at_least=ROUNDS * 4)


@each_method(EVENTS, strict="forkserver")
def test_a_pool_that_is_terminated(family, method, mode):
    """Leaving a pool's block kills its workers where they stand; the journal has what they had acknowledged."""
    runs_as_without_us(family, mode, "pool_terminated", method).assert_kept(at_least=ROUNDS * 4)


@each_method(EVENTS, WITHOUT_JOURNAL, strict="spawn")
def test_an_executor(family, method, mode):
    """The workers of a ProcessPoolExecutor have written all of it when its block is left."""
    runs_as_without_us(family, mode, "executor", method).assert_kept(at_least=ROUNDS * 4)
