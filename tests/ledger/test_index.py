"""The lazy index: however much of it is there, traces, sessions and runs are answered the same."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import commit, script

from tollspan.ledger import Ledger, new_call_id
from tollspan.ledger import _upkeep as upkeep_module
from tollspan.ledger._index import extend_index

TRACES = ["ab" * 16, "ab" * 8 + "cd" * 8, "01" * 16]  # the first two share what the index keeps of a trace id
NAMES = ["", "r", "R", "a b\n", "ü\u2028", "'; --"]

marks = st.fixed_dictionaries(
    {
        "trace_id": st.none() | st.sampled_from(TRACES),
        "run_id": st.none() | st.sampled_from(NAMES),
        "session_id": st.none() | st.sampled_from(NAMES),
        "days": st.sampled_from([0, 40]),
    }
)


def write(ledger, drawn):
    """Store an event for each; those of 40 days ago can be pruned."""
    for mark in drawn:
        began = time.time() - mark["days"] * 86_400
        fields = {name: value for name, value in mark.items() if name != "days"}
        ledger.write_event(commit(call_id=new_call_id(began).hex(), timestamp=began, **fields))
    ledger.flush()


def found(ledger):
    """Everything that can be looked up."""
    return (
        [ledger.events_for_trace(trace) for trace in TRACES],
        [ledger.events_for_run(name) for name in NAMES],
        [ledger.events_for_session(name) for name in NAMES],
        ledger.runs(),
    )


def looked_through(ledger):
    """The same by reading every event."""
    events = list(ledger.events)
    return (
        [[event for event in events if event.trace_id == trace] for trace in TRACES],
        [[event for event in events if event.run_id == name] for name in NAMES],
        [[event for event in events if event.session_id == name] for name in NAMES],
        list(dict.fromkeys(event.run_id for event in events if event.run_id is not None)),
    )


def indexed_up_to(ledger):
    rows = ledger.store.query("SELECT value FROM ledger_fact WHERE name = 'indexed_up_to'")
    return rows[0]["value"] if rows else 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(marks, max_size=6)),
        st.tuples(st.just("index"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["prune", "reset"]), st.none()),
    ),
    min_size=2,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_whatever_is_indexed_the_answers_are_those_of_the_log(drawn):
    """Nothing indexed, parts, all of it, after pruning and after a reset: what is found is what stands in the log."""
    with Ledger(None) as ledger:
        for step, value in drawn:
            if step == "write":
                write(ledger, value)
            elif step == "index":
                extend_index(ledger.store, piece=value)
            elif step == "prune":
                ledger.prune(30)
            else:
                ledger.reset()
            assert found(ledger) == looked_through(ledger)


def test_a_piece_is_indexed_when_it_is_whole(ledger):
    """The index grows by whole pieces, each once, and says when there is none left."""
    write(ledger, [{"trace_id": TRACES[0], "run_id": "r", "session_id": None, "days": 0}] * 7)
    assert [extend_index(ledger.store, piece=3) for _ in range(3)] == [True, True, False]
    assert indexed_up_to(ledger) == 6
    rows = ledger.store.query("SELECT run_id, first_offset FROM run ORDER BY piece")
    assert [tuple(row) for row in rows] == [("r", 1), ("r", 4)]  # one for each piece
    assert len(ledger.store.query("SELECT * FROM lookup")) == 12
    assert found(ledger) == looked_through(ledger)


def test_the_index_is_filled_in_the_background(ledger, monkeypatch):
    """The writer extends the index when it has nothing else to do."""
    monkeypatch.setattr(upkeep_module, "extend_index", lambda store: extend_index(store, piece=2))
    write(ledger, [{"trace_id": TRACES[0], "run_id": "r", "session_id": None, "days": 0}] * 4)
    give_up_at = time.monotonic() + 10
    while indexed_up_to(ledger) < 4:
        assert time.monotonic() < give_up_at
    assert found(ledger) == looked_through(ledger)


EXTEND = """
import sys
from tollspan.ledger import Ledger
from tollspan.ledger._index import extend_index
ledger = Ledger(sys.argv[1])
ledger.latest_offset()
print("ready", flush=True)
sys.stdin.readline()
while extend_index(ledger.store, piece=3):
    pass
"""


def test_processes_that_extend_it_at_once_do_each_piece_once(ledger):
    """Two processes index the same ledger while a third writes to it: nothing is missing from the index, or false."""
    pattern = [
        {"trace_id": TRACES[n % 3], "run_id": NAMES[n % 5], "session_id": NAMES[n % 2], "days": 0} for n in range(300)
    ]
    write(ledger, pattern)
    others = [script(EXTEND, ledger.path) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout.readline() == "ready\n"
        for other in others:
            other.stdin.write("go\n")
            other.stdin.flush()
        write(ledger, pattern[:60])
        assert [other.wait(60) for other in others] == [0, 0]
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert indexed_up_to(ledger) >= 300
    rows = ledger.store.query("SELECT count(*) AS n, count(DISTINCT offset) AS events, max(offset) AS last FROM lookup")
    assert tuple(rows[0]) == (indexed_up_to(ledger) * 3, indexed_up_to(ledger), indexed_up_to(ledger))
    assert found(ledger) == looked_through(ledger)


def test_a_text_that_is_no_trace_id_is_refused(ledger):
    """A trace id is hexadecimal; anything else is an error and not an empty answer."""
    with pytest.raises(ValueError, match="non-hexadecimal"):
        ledger.events_for_trace("not a trace")
