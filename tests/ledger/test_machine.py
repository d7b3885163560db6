"""The ledger against a model in plain Python, and the life of a hold against the table that documents it."""

import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import defaultdict
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule
from samples import commit, tokens_limit, until

from tollspan.ledger import (
    Charge,
    Demand,
    Entry,
    Grant,
    HoldRequest,
    Ledger,
    LedgerConflict,
    LedgerEvent,
    LedgerUnavailable,
    Posting,
    Refusal,
    account_of,
    budget_of,
    event_id_for,
    new_call_id,
    to_nano,
    to_usd,
)
from tollspan.ledger import _upkeep as upkeep_module
from tollspan.ledger._hold_states import TRANSITIONS, hold_diagram, hold_table, state_of
from tollspan.ledger._postings import posting_of
from tollspan.ledger._rows import charges_from, from_row

ROWS = {(row.before, row.cause): row for row in TRANSITIONS}
DAY_MS = 86_400_000
SPENDING = ("commit", "adjust", "retry")
ENDS = ["billed", "outcome unknown", "not billed", "left", "repeated, not billed", "repeated, perhaps billed"]
LIMITS = {"a": 1000, "b": 600}
HELD_USD = Decimal("0.5")
AMOUNTS = {"cost": 30, "estimate": 35, "difference": -5}
"""What the calls of the directed tests count, in tokens, whatever they hold."""

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def started_ms(call_id):
    return int.from_bytes(call_id[:6], "big")


@dataclass(eq=False)
class Call:
    """A call with a hold of so many tokens, and what may become of it."""

    tokens: int
    budgets: tuple[str, ...] = ("a",)
    days: int = 0
    number: int = 0
    attempts: int = 1
    state: str = "asked"
    call_id: bytes = b""
    last: Entry | None = None

    def __post_init__(self):
        self.call_id = self.call_id or new_call_id(time.time() - self.days * 86_400)

    @property
    def hold_id(self):
        return event_id_for(self.call_id, "precheck_hold", self.number)

    def charges(self, amount):
        return tuple(
            Charge(budget=account_of(budget, "tokens"), scope="", window_start=0, amount=amount)
            for budget in self.budgets
        )

    def event(self, kind, number=0, **fields):
        event_id = event_id_for(self.call_id, kind, number).hex()
        return LedgerEvent(event_type=kind, event_id=event_id, call_id=self.call_id.hex(), **fields)

    def hold(self):
        return self.event("precheck_hold", self.number, cost_est_usd=HELD_USD, charges=self.charges(self.tokens))

    def request(self):
        limits = tuple(tokens_limit(LIMITS[budget], budget) for budget in self.budgets)
        demand = Demand(None, 0, self.tokens, self.tokens)
        held, left = lambda _grant: posting_of(self.hold()), lambda: self.entry("left").posting
        return HoldRequest(self.hold_id, demand, limits, held, left)

    def at_hold(self):
        """The commit of a call whose outcome nobody knows."""
        event_id = event_id_for(self.call_id, "commit", self.number).hex()
        return replace(self.hold(), event_type="commit", event_id=event_id, estimated=True)

    def entry(self, cause, amount=0):
        """What is handed to the ledger when something happens to the call."""
        spends = {"charges": self.charges(amount)}
        actual, estimated = {"cost_actual_usd": Decimal("0.1")}, {"cost_est_usd": Decimal("0.2"), "estimated": True}
        event = {
            "billed": partial(self.event, "commit", **spends, **actual),
            "outcome unknown": partial(self.event, "commit", **spends, **estimated),
            "not billed": partial(self.event, "cancel"),
            "left": partial(self.event, "cancel", self.number + 1),
            "repeated, not billed": partial(self.event, "retry", self.attempts),
            "repeated, perhaps billed": partial(self.event, "retry", self.attempts, **spends, **estimated),
            "corrected": partial(self.event, "adjust", self.attempts, **spends, **actual),
        }[cause]()
        ends = any(row.held < 0 for row in TRANSITIONS if row.cause == cause)
        return Entry.of(event, self.hold_id if ends else None)


@contextmanager
def locked(path):
    """Another connection that keeps everyone from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


def events_of(ledger, call):
    rows = ledger.store.query("SELECT * FROM recorded WHERE call_id = ? ORDER BY offset", (call.call_id,))
    return [from_row(row) for row in rows]


def open_holds(ledger):
    """The open holds: what each takes of which balance."""
    rows = ledger.store.query("SELECT hold_id, charges FROM open_hold")
    return {row["hold_id"]: charges_from(row["charges"]) for row in rows}


def balances(ledger):
    rows = ledger.store.query("SELECT budget, scope, window_start, spent, held, estimated FROM balance")
    return {tuple(row)[:3]: tuple(row)[3:] for row in rows if any(tuple(row)[3:])}


def state(ledger, call):
    return state_of(events_of(ledger, call), is_open=call.hold_id in open_holds(ledger))


# ---- the table and its page


def test_the_page_on_holds_is_generated_from_the_table():
    """docs/holds.md holds exactly the diagram and the table that the code makes."""
    text = (Path(__file__).resolve().parents[2] / "docs/holds.md").read_text(encoding="utf-8")
    generated = text.split("<!-- begin: generated from TRANSITIONS -->\n")[1].split("<!-- end -->")[0]
    assert generated == f"{hold_diagram()}\n{hold_table()}"


def test_the_table_is_a_machine_without_gaps():
    """What happens in a state leads to one other; every state is reached from `asked`; what is held can be let go."""
    assert len(ROWS) == len(TRANSITIONS)
    reached = {"asked"}
    for _ in TRANSITIONS:
        reached |= {row.after for row in TRANSITIONS if row.before in reached}
    assert reached == {name for row in TRANSITIONS for name in (row.before, row.after)}
    for row in TRANSITIONS:
        assert row.held == (row.after == "held") - (row.before == "held")
        assert bool(row.event) or not (row.held or row.spent)


def test_a_hold_that_is_neither_open_nor_ended_is_no_state():
    """No ledger has such a hold: to ask for its state is an error, and not a guess."""
    with pytest.raises(ValueError, match="neither open nor ended"):
        state_of([Call(1).hold()], is_open=False)


# ---- every row happens


def taken(ledger, call):
    assert isinstance(ledger.writer.ask(call.request()).wait(5), Grant)
    return call


def in_line(ledger, call):
    """A call that waits for room which another one holds; gives back both, and the ticket."""
    other = taken(ledger, Call(LIMITS["a"]))
    ticket = ledger.writer.ask(call.request(), wait_s=30)
    until(lambda: ledger.writer._line.waiting)
    return other, ticket


def ask(ledger, call, cause):
    match cause:
        case "admitted":
            taken(ledger, call)
        case "no room":
            taken(ledger, Call(LIMITS["a"]))
            assert isinstance(ledger.writer.ask(call.request()).wait(5), Refusal)
        case "no ledger":
            ledger.latest_offset()
            with locked(ledger.path), pytest.raises(LedgerUnavailable):
                ledger.writer.ask(call.request()).wait(5)
        case "in line":
            _, ticket = in_line(ledger, call)
            assert not ticket.settled
            ticket.give_up()
        case "left":
            with ledger.writer.store_lock:
                ticket = ledger.writer.ask(call.request())
                assert ticket.give_up()


def wait(ledger, call, cause):
    other, ticket = in_line(ledger, call)
    match cause:
        case "admitted":
            ledger.writer.put(other.entry("not billed"))
            assert isinstance(ticket.wait(5), Grant)
        case "no room":
            ledger.writer.put(other.entry("billed", LIMITS["a"]))
            assert isinstance(ticket.wait(5), Refusal)
        case "no ledger":
            with ledger.writer.store_lock, Ledger(ledger.path) as another:
                another.store.write([other.entry("not billed")])
                lock = locked(ledger.path)
                lock.__enter__()
            with pytest.raises(LedgerUnavailable):
                ticket.wait(5)
            lock.__exit__(None, None, None)
        case "left":
            assert ticket.give_up()
            ledger.writer.put(other.entry("not billed"))


def end(ledger, call, cause):
    match cause:
        case "owner gone":
            ledger.store.owner.forget()  # the kernel does this to a process that is killed
            with Ledger(ledger.path) as another:
                another.recover()
        case "settlement failed":
            ledger.writer.put(Entry.of(replace(call.entry("billed").event, http_status="no number"), call.hold_id))
            until(lambda: call.hold_id not in open_holds(ledger))
        case "old enough":
            ledger.prune(30)
        case _:
            row = ROWS[call.state, cause]
            ledger.writer.put(call.entry(cause, AMOUNTS.get(row.spent, 0)))


def bring_to(ledger, call, name):
    """Have a call come to one of the states that leave something in the ledger."""
    if name in HOW:
        taken(ledger, call).state = "held"
        if name != "held":
            end(ledger, call, HOW[name])
            call.state = name
    ledger.flush()


HOW = {"held": "admitted", "settled": "billed", "estimated": "outcome unknown", "cancelled": "not billed"}
HOW["retried"] = "repeated, perhaps billed"


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row.before}, {row.cause}")
def test_every_row_of_the_table_happens(tmp_path, row):
    """Each step writes the event that the table names, moves the balances as it says, and leads where it says."""
    with Ledger(tmp_path / "row.db", busy_timeout_ms=100) as ledger:
        call = Call(40, days=40)
        bring_to(ledger, call, row.before)
        before, spent = events_of(ledger, call), balances(ledger)
        held = call.hold_id in open_holds(ledger)
        if row.before in HOW:
            assert state(ledger, call) == row.before
        {"asked": ask, "waiting": wait}.get(row.before, end)(ledger, call, row.cause)
        assert ledger.flush()
        after = events_of(ledger, call)
        assert state(ledger, call) == (row.after if row.after in HOW else None)
        assert ledger.verify() == []
        if row.after == "pruned":
            assert (after, balances(ledger)) == ([], spent)
            return
        new = after[len(before) :]
        assert [event.event_type for event in new] == ([row.event] if row.event else [])
        assert (call.hold_id in open_holds(ledger)) - held == row.held
        counted = [charge.amount for event in new if event.event_type in SPENDING for charge in event.charges]
        assert counted == ([{**AMOUNTS, "hold": 40}[row.spent]] if row.spent else [])
        assert all(event.estimated == (row.spent in ("estimate", "hold")) for event in new)


def test_an_attempt_after_a_retry_has_a_state_of_its_own(ledger):
    """The state of a call is that of its latest hold, whatever became of the ones before it."""
    call = taken(ledger, Call(10))
    ledger.writer.put(call.entry("repeated, perhaps billed", 10))
    ledger.flush()
    assert state(ledger, call) == "retried"
    call.number = 1
    taken(ledger, call)
    assert state(ledger, call) == "held"
    ledger.writer.put(call.entry("left"))
    ledger.flush()
    assert state(ledger, call) == "cancelled"
    call.number = 2
    taken(ledger, call)
    ledger.writer.put(call.entry("billed", 10))
    ledger.flush()
    assert state(ledger, call) == "settled"


# ---- the model


class Model:
    """What a ledger is, in plain Python."""

    def __init__(self):
        self.events = {}
        self.open = {}
        self.pruned_ms = 0
        self.counters = defaultdict(lambda: [0, 0, 0])  # spent, held, estimated

    def refuses(self, event):
        """Whether the ledger must say that it cannot take an event."""
        stored = self.events.get(event.event_id)
        return (stored and stored.model != event.model) or started_ms(bytes.fromhex(event.call_id)) < self.pruned_ms

    def store(self, event, release=None):
        if event.event_id not in self.events and not self.refuses(event):
            self.events[event.event_id] = event
            self._count(event)
        self._hold(self.open.pop(release, ()), -1)

    def admits(self, call):
        return all(
            sum(self._balance(c)[:2]) + c.amount <= LIMITS[budget_of(c.budget)] for c in call.charges(call.tokens)
        )

    def would_admit(self, call):
        """Whether it would if no call were in flight."""
        return all(self._balance(c)[0] + c.amount <= LIMITS[budget_of(c.budget)] for c in call.charges(call.tokens))

    def take(self, call):
        self.store(call.hold())
        self.open[call.hold_id] = call.charges(call.tokens)
        self._hold(self.open[call.hold_id], 1)

    def prune(self, before_ms):
        end = min([before_ms, *(started_ms(hold_id) for hold_id in self.open)])
        gone = {key for key, event in self.events.items() if started_ms(bytes.fromhex(event.call_id)) < end}
        for key in gone:
            del self.events[key]
        self.pruned_ms = end if gone else self.pruned_ms
        return len(gone)

    @property
    def balances(self):
        return {key: tuple(counters) for key, counters in self.counters.items() if any(counters)}

    def _balance(self, charge):
        return self.counters[charge.budget, charge.scope, charge.window_start]

    def _hold(self, charges, sign):
        for charge in charges:
            self._balance(charge)[1] += sign * charge.amount

    def _count(self, event):
        if event.event_type not in SPENDING:
            return
        amounts = [((c.budget, c.scope, c.window_start), c.amount) for c in event.charges]
        if event.spend_usd is not None:
            day = int(event.call_id[:12], 16) // DAY_MS * DAY_MS // 1000
            profiles = ["", f"profile={event.profile_id}"] if event.profile_id is not None else [""]
            amounts += [(("", scope, day), to_nano(event.spend_usd)) for scope in profiles]
        for key, amount in amounts:
            self.counters[key][0] += amount
            self.counters[key][2] += amount if event.estimated else 0


def essence(event):
    """What the model knows of an event."""
    return (event.event_id, event.event_type, event.charges, event.spend_usd, event.estimated)


budgets = st.sampled_from([("a",), ("b",), ("a", "b")])
tokens = st.sampled_from([0, 1, 20, 45, 300])
fresh_events = st.builds(
    lambda usd, budgets, amount, profile, kind, days, estimated: LedgerEvent(
        event_type=kind,
        call_id=new_call_id(time.time() - days * 86_400).hex(),
        charges=Call(0, budgets).charges(amount) if amount else (),
        cost_actual_usd=None if estimated else usd,
        cost_est_usd=usd,
        estimated=estimated,
        profile_id=profile,
    ),
    st.none() | st.decimals(0, 5, places=9),
    budgets,
    st.integers(0, 5),
    st.sampled_from([None, "key-1"]),
    st.sampled_from(["commit", "commit", "adjust", "retry", "exposure", "wait"]),
    st.sampled_from([0, 0, 20, 40]),
    st.booleans(),
)
doings = st.sampled_from(["event", "hold", "settled hold", "begun", "begun and ended"])


_MEMORY = Path("/dev/shm")


class LedgerMachine(RuleBasedStateMachine):
    """Steps of users, processes and people on one ledger file, each done by the model too.

    A crash is real: a forked process with a ledger of its own is killed by SIGKILL.
    """

    events = Bundle("events")

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        # The model says when the dead are looked for.
        self.patch.setattr(upkeep_module.Upkeep, "turn", lambda _upkeep, **_more: None)
        # In memory where the system has room there: on a busy disk, each of the many fsyncs takes long.
        self.folder = Path(tempfile.mkdtemp(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
        self.ledger = Ledger(self.folder / "ledger.db")
        self.model, self.calls, self.dead = Model(), [], []
        self.offsets, self.hidden = {}, 0

    def teardown(self):
        self.ledger.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    # ---- events

    @rule(target=events, batch=st.lists(fresh_events, min_size=1, max_size=4), repeat=st.booleans())
    def write_events(self, batch, repeat):
        """Several in one transaction, perhaps each twice."""
        with self.ledger.writer.store_lock:
            for event in [*batch, *batch] if repeat else batch:
                self.ledger.write_event(event)
        for event in batch:
            self.model.store(event)
        return multiple(*batch)

    @rule(target=events, event=fresh_events)
    def append(self, event):
        self._append(event)
        return event

    @rule(event=events, durable=st.booleans())
    def same_event_again(self, event, durable):
        if durable:
            self._append(event)
        else:
            self.ledger.write_event(event)
            self.model.store(event)

    @rule(event=events)
    def conflicting_event(self, event):
        other = replace(event, model="another")
        self._append(other)

    def _append(self, event):
        refused = self.model.refuses(event)
        try:
            offset = self.ledger.append(event)
        except LedgerConflict:
            assert refused
        else:
            assert not refused
            assert self.offsets.get(event.event_id, offset) == offset
        self.model.store(event)

    # ---- holds

    @rule(wanted=st.lists(st.tuples(tokens, budgets, st.sampled_from([0, 20, 40])), min_size=1, max_size=4))
    def ask(self, wanted):
        for one in wanted:
            self._ask(Call(*one))

    def _ask(self, call):
        ticket = self.ledger.writer.ask(call.request())
        if self.model.refuses(call.hold()):
            with pytest.raises(LedgerConflict) if self.model.admits(call) else nullcontext():
                ticket.wait(5)
            return False
        answer = ticket.wait(5)
        assert isinstance(answer, Grant) == self.model.admits(call)
        if isinstance(answer, Refusal):
            assert answer.busy == self.model.would_admit(call)
            self._move(call, "no room")
            return False
        self._move(call, "admitted")
        self.model.take(call)
        self.calls.append(call)
        return True

    @precondition(lambda self: self._in("held"))
    @rule(data=st.data(), causes=st.lists(st.tuples(st.sampled_from(ENDS), tokens), min_size=1, max_size=3))
    def end(self, data, causes):
        for (cause, amount), call in zip(causes, data.draw(st.permutations(self._in("held"))), strict=False):
            call.last = call.entry(cause, amount)
            self._put(call.last)
            self._move(call, cause)
            call.attempts += cause.startswith("repeated")

    @precondition(lambda self: any(call.last for call in self.calls))
    @rule(data=st.data())
    def settle_twice(self, data):
        self._put(data.draw(st.sampled_from([call.last for call in self.calls if call.last])))

    @precondition(lambda self: self._in("held"))
    @rule(data=st.data(), how=st.sampled_from(["storing", "making"]))
    def fail_to_settle(self, data, how):
        call = data.draw(st.sampled_from(self._in("held")))
        if how == "making":
            self.ledger.writer.settle_at_hold(call.hold_id, "its settlement could not be made")
        else:
            poison = replace(call.entry("billed").event, http_status="no number")
            self.ledger.writer.put(Entry.of(poison, call.hold_id))
        until(lambda: call.hold_id not in open_holds(self.ledger))
        self.model.store(call.at_hold(), call.hold_id)
        self._move(call, "settlement failed")

    @precondition(lambda self: self._in("retried"))
    @rule(data=st.data())
    def ask_again(self, data):
        """The next attempt of a call whose last one may have been billed."""
        call = data.draw(st.sampled_from(self._in("retried")))
        attempt = replace(call, number=call.attempts, attempts=call.attempts + 1, state="asked")
        if self._ask(attempt):
            self.calls.remove(call)

    @precondition(lambda self: self._in("settled", "estimated"))
    @rule(data=st.data(), amount=st.integers(-5, 5))
    def correct(self, data, amount):
        call = data.draw(st.sampled_from(self._in("settled", "estimated")))
        call.attempts += 1
        self._put(call.entry("corrected", amount))
        self._move(call, "corrected")

    def _in(self, *states):
        """The calls in one of these states, but for those of processes that are dead and not buried yet."""
        return [call for call in self.calls if call.state in states and call not in self.dead]

    def _put(self, entry):
        self.ledger.writer.put(entry)
        self.model.store(entry.event, entry.release)

    def _move(self, call, cause):
        call.state = ROWS[call.state, cause].after

    # ---- processes

    @rule()
    def close_and_reopen(self):
        assert self.ledger.flush()
        assert self.ledger.writer.pending == 0
        self.ledger.close()
        self.ledger = Ledger(self.folder / "ledger.db")
        self._bury()

    @rule(things=st.lists(st.tuples(doings, tokens, budgets), min_size=1, max_size=4))
    def crash(self, things):
        """Another process takes holds, hands over events that get no further than its journal, and is killed."""
        self.ledger.flush()
        victims, left = [], []
        for what, amount, where in things:
            call = Call(amount, where)
            if "hold" in what and self.model.admits(call):
                victims.append(call)
                self.model.take(call)
                self._move(call, "admitted")
                self.calls.append(call)
            if what == "settled hold" and call in victims:
                self.dead.append(call)
                left.append(call.entry("billed", amount))
            elif what == "hold" and call in victims:
                self.dead.append(call)
            elif what == "event":
                left.append(Entry.of(commit("0.3", charges=call.charges(1))))
            elif "begun" in what:
                left.append(self._beginning(call))
                if "ended" in what:
                    left.append(Entry(call.entry("billed", amount).posting))
        self._run_and_kill(victims, left)
        self.dead += left

    def _beginning(self, call):
        return Posting(
            event_id=event_id_for(call.call_id, "commit"),
            event_type="commit",
            call_id=call.call_id,
            timestamp=time.time(),
            cost_est_nusd=7,
            estimated=True,
            charges=call.charges(call.tokens),
        )

    def _run_and_kill(self, holds, left):
        pid = os.fork()
        if pid == 0:
            try:
                ledger = Ledger(self.folder / "ledger.db")
                assert all(isinstance(ledger.writer.ask(hold.request()).wait(10), Grant) for hold in holds)
                with ledger.writer.store_lock:
                    for one in left:
                        ledger.writer.put(one) if isinstance(one, Entry) else ledger.writer.begin(one)
                    os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL

    @rule()
    def recover(self):
        self.ledger.recover()
        self._bury()

    def _bury(self):
        """What the next one who opens the ledger makes of the dead: their events, then what has no end."""
        dead, self.dead = self.dead, []
        for one in list(dead):
            if isinstance(one, Entry):
                self.model.store(one.event, one.release)
                for call in self.calls:
                    if call.hold_id == one.release:
                        dead.remove(call)
                        self._move(call, "billed")
        for one in dead:
            if isinstance(one, Posting):
                call_id = one.call_id.hex()
                if event_id_for(one.call_id, "commit").hex() not in self.model.events:
                    spend = {"cost_est_usd": to_usd(one.cost_est_nusd), "estimated": True}
                    self.model.store(LedgerEvent(event_type="commit", call_id=call_id, charges=one.charges, **spend))
            elif isinstance(one, Call):
                self.model.store(one.at_hold(), one.hold_id)
                self._move(one, "owner gone")

    # ---- the whole

    @rule(days=st.sampled_from([1, 10, 30]))
    def prune(self, days):
        self.recover()  # as prune itself does: what the dead have left may be older than what is kept
        gone = self.model.prune(int((time.time() - days * 86_400) * 1000))
        assert self.ledger.prune(days).events == gone
        for call in self.calls:
            if call.hold_id.hex() not in self.model.events and call.state != "pruned":
                self._move(call, "old enough")

    @rule()
    def reset(self):
        self.ledger.reset()
        self.hidden = self.ledger.latest_offset()

    @precondition(lambda self: self.offsets)
    @rule(data=st.data(), limit=st.none() | st.integers(1, 5))
    def tail(self, data, limit):
        after = data.draw(st.integers(0, max(self.offsets.values()) + 1))
        visible = sorted(n for n in self.offsets.values() if n > max(after, self.hidden))
        assert [event.offset for event in self.ledger.tail(after, limit)] == visible[:limit]

    @invariant()
    def the_ledger_is_what_the_model_says(self):
        """Each event once and at its offset for ever, every balance, every open hold, the state of every call."""
        self.ledger.flush()
        stored = [from_row(row) for row in self.ledger.store.query("SELECT * FROM recorded ORDER BY rowid")]
        assert sorted(map(essence, stored)) == sorted(map(essence, self.model.events.values()))
        offsets = {event.event_id: event.offset for event in stored}
        assert {key: n for key, n in self.offsets.items() if key in offsets}.items() <= offsets.items()
        new = [event.offset for event in stored if event.event_id not in self.offsets]
        assert all(n > max(self.offsets.values(), default=0) for n in new)
        self.offsets = offsets
        assert [event.offset for event in self.ledger.events] == [n for n in offsets.values() if n > self.hidden]
        assert balances(self.ledger) == self.model.balances
        assert open_holds(self.ledger) == self.model.open
        assert self.ledger.verify() == []
        for call in self.calls:
            assert state(self.ledger, call) == (None if call.state == "pruned" else call.state)


LedgerMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheLedgerAgainstTheModel = pytest.mark.timeout(300)(
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")(LedgerMachine.TestCase)
)
