"""However a process ends: what was acknowledged is in the ledger once, and it ends as it would without us."""

import json
import signal

import pytest
from calling import ROUNDS
from families import EVENTS, HERE, STRICT, UNGUARDED, WITHOUT_JOURNAL, WITHOUT_US

IN_ORDER = ["returns", "exits", "fails", "closes_its_loop", "ignores", "calls_at_exit_first"]
OUT_OF_ORDER = ["vanishes", "leaves_daemons", "calls_at_exit_last"]
LINES = 20
SENT = [signal.SIGINT, signal.SIGTERM]
HANDLED = ["handles_before", "handles_after", "stops_when_told_before", "stops_when_told_after"]


def ends_as_without_us(family, mode, ending, *, send=None):
    """Run the application twice, with and without us; gives the family of the one with us."""
    ours, plain = family(mode), family(WITHOUT_US)
    terms = {"send": send, "after": 0 if send is None else ROUNDS}
    status = ours.run(HERE / "endings.py", ending, **terms)
    assert (status, ours.acknowledged.count("handled")) == (
        plain.run(HERE / "endings.py", ending, **terms),
        plain.acknowledged.count("handled"),
    ), ours.errors
    return ours


@pytest.mark.parametrize("mode", [EVENTS, WITHOUT_JOURNAL, STRICT], ids=str)
@pytest.mark.parametrize("ending", IN_ORDER)
def test_an_end_in_order(family, ending, mode):
    """A process that comes to its end writes all of it, with and without a journal."""
    ends_as_without_us(family, mode, ending).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize("mode", [EVENTS, STRICT], ids=str)
@pytest.mark.parametrize("ending", OUT_OF_ORDER)
def test_an_end_that_nobody_is_told_of(family, ending, mode):
    """What no handler of `atexit` sees any more is in the journal."""
    ends_as_without_us(family, mode, ending).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize("mode", [EVENTS, WITHOUT_JOURNAL, STRICT], ids=str)
@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.name)
def test_a_signal_that_python_sees(family, mode, sent):
    """Ctrl-C and SIGTERM, in the middle of a call, end the process by that signal; what had returned is written."""
    ends_as_without_us(family, mode, "is_ended", send=sent).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize("mode", [EVENTS, STRICT], ids=str)
@pytest.mark.parametrize("sent", [*SENT, signal.SIGKILL], ids=lambda sent: sent.name)
def test_a_signal_while_threads_call(family, mode, sent):
    """Other threads call to the very end; what returned to them after the flush is in the journal."""
    ends_as_without_us(family, mode, "is_ended_in_a_thread", send=sent).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize("mode", [EVENTS, WITHOUT_JOURNAL, STRICT], ids=str)
@pytest.mark.parametrize("ending", HANDLED)
def test_a_handler_of_the_application(family, ending, mode):
    """An application's own handler of SIGTERM runs once, whether it came before us or after."""
    ends_as_without_us(family, mode, ending, send=signal.SIGTERM).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize("mode", [EVENTS, STRICT], ids=str)
def test_a_kill(family, mode):
    """SIGKILL in the middle of a call loses nothing that had returned."""
    ends_as_without_us(family, mode, "is_ended", send=signal.SIGKILL).assert_kept(at_least=ROUNDS)


def test_sigterm_without_our_handler(family):
    """With TOLLSPAN_FLUSH_ON_SIGTERM=false SIGTERM kills on the spot, and the journal has it all."""
    ends_as_without_us(family, UNGUARDED, "is_ended", send=signal.SIGTERM).assert_kept(at_least=ROUNDS)


@pytest.mark.parametrize(("state", "mode"), [("cold", EVENTS), ("warm", STRICT)], ids=["cold", "warm"])
def test_sigterm_at_any_line(family, state, mode):
    """No lock that the main thread holds when SIGTERM comes keeps the process from ending by it."""
    one = family(mode)
    assert one.run(HERE / "interrupted.py", state, LINES) == 0, one.errors
    found = json.loads(one.printed)
    assert found["lines"] > LINES
    assert found["ends"] == {}, "they hang (-14), or end otherwise, when interrupted at these lines"
    one.assert_kept(at_least=0 if state == "cold" else LINES)
