"""Any sequence of calls, deaths, leaps of the clock and edits of limits, against a model of what therefore fits.

The model says exactly which calls fit: one let through that does not is as wrong as one refused that does.
"""

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tollspan.budget import BudgetBusy, BudgetExceeded, CallIntent, admit, budget
from tollspan.exporter import CallRecord, Pipeline, settlement, use_pipeline
from tollspan.ledger import BudgetOverride, load_settings, new_call_id, unit_of

IN, OUT, MOST, FLOOR = 2_500, 10_000, 16_384, 256  # nano-USD a token of gpt-4o, the most it gives, the default floor
BUDGETS = {
    "money": budget("1 USD / month", name="money"),
    "tokens": budget("60000 tokens / month", name="tokens"),
    "requests": budget("9 requests / month", name="requests"),
    "users": budget("0.4 USD / month", name="users", each="user"),
    "soft": budget("0.5 USD / month", name="soft", mode="best_effort"),
    "hour": budget("0.6 USD / hour", name="hour", timezone="Asia/Kolkata"),
    "rolling": budget("0.5 USD / rolling day", name="rolling"),
    "pace": budget("4 requests / rolling minute", name="pace"),
    "places": budget("3 concurrent", name="places"),
}
T = 1_793_500_000.0


@dataclass
class Open:
    """A call in flight, and what it holds in each balance."""

    record: CallRecord
    tokens_in: int
    output: int
    held: dict


def amounts(limits, tokens_in, tokens_out):
    by_unit = {"USD": tokens_in * IN + tokens_out * OUT, "tokens": tokens_in + tokens_out}
    return {limit.key: by_unit.get(limit.unit, 1) for limit in limits}


def spendable(charges):
    """Without the calls at once, which are only held."""
    return {key: amount for key, amount in charges.items() if unit_of(key[0]) != "concurrent"}


class Calls(RuleBasedStateMachine):
    """Calls that are admitted, settled, cancelled, or orphaned, in any order, on budgets that overlap."""

    open_calls = Bundle("open_calls")

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.line = Pipeline(load_settings(environ={}, ledger=Path(self.folder.name) / "ledger.db"))
        self.before = use_pipeline(self.line)
        self.spent, self.held, self.limits = Counter(), Counter(), {}
        self.orphaned, self.overrides = set(), {}
        self.patch, self.now = pytest.MonkeyPatch(), T
        self.patch.setattr(time, "time", lambda: self.now)

    @rule(seconds=st.sampled_from([1, 20, 59, 61, 1_800, 3_600, 50_000, 86_400, 40 * 86_400, -30]))
    def leap(self, seconds):
        """The clock goes on, over the ends of windows, or is set back a little."""
        self.now += seconds

    @rule(name=st.sampled_from(["money", "rolling", "pace", "soft"]), factor=st.sampled_from([0, 0.5, 2, None]))
    def edit(self, name, factor):
        """Somebody raises or lowers a limit while calls run, or takes that back."""
        definition, ledger = BUDGETS[name].definition, self.line.ledger
        if factor is None:
            assert ledger.remove_override(name) == (self.overrides.pop(name, None) is not None)
            return
        limit = self.overrides[name] = int(definition.limit * factor)
        ledger.override_budget(BudgetOverride(name=name, limit=limit, unit=definition.unit))

    @rule(
        target=open_calls,
        names=st.sets(st.sampled_from(sorted(BUDGETS)), min_size=1),
        user=st.sampled_from(["ada", "bob"]),
        tokens_in=st.integers(1, 2_000),
        asked=st.none() | st.integers(1, 20_000),
    )
    def ask(self, names, user, tokens_in, asked):
        """A call is admitted exactly if it fits, and holds what it may come to."""
        price = self.line.prices.resolve(provider="openai", model="gpt-4o", at=time.time())
        record = CallRecord(call_id=new_call_id(), started=time.time(), operation="chat", dimensions={"user": user})
        intent = CallIntent(price=price, input_tokens=tokens_in, max_output_tokens=asked)
        with ExitStack() as stack:
            for name in sorted(names):
                stack.enter_context(BUDGETS[name])
            try:
                admission = admit(record, intent)
            except BudgetExceeded as refused:
                admission = refused
        self.limits |= {limit.key: limit for limit in record.limits}
        for limit in record.limits:
            assert limit.limit == self.overrides.get(limit.budget, BUDGETS[limit.budget].definition.limit)
        least, most = (FLOOR, MOST) if asked is None else (asked, asked)
        if names == {"soft"}:  # holds nothing: it compares what was spent
            (limit,) = record.limits
            full = self.taken(limit) >= limit.limit
            assert isinstance(admission, BudgetExceeded) == full
            return multiple() if full else Open(record, tokens_in, most, {})
        if isinstance(admission, BudgetExceeded):
            assert not self.fits(record.limits, tokens_in, least)
            needed = amounts(record.limits, tokens_in, least)
            settled = all(self.total(self.spent, x) + needed[x.key] <= x.limit for x in record.limits)
            assert isinstance(admission, BudgetBusy) == settled
            return multiple()
        output = most if admission.output_tokens is None else admission.output_tokens
        assert least <= output <= most
        assert self.fits(record.limits, tokens_in, output)
        assert output == most or not self.fits(record.limits, tokens_in, output + 1)
        held = amounts(record.limits, tokens_in, output)
        self.held.update(held)
        return Open(record, tokens_in, output, held)

    @rule(call=consumes(open_calls), share=st.sampled_from([0, 0.1, 1, 1, 1.7]), twice=st.booleans())
    def settle(self, call, share, twice):
        """A call ends below, at or above what it held; what it really cost is what counts, once."""
        tokens_out = int(call.output * share)
        call.record.usage = {"tokens_in": call.tokens_in, "tokens_out": tokens_out}
        call.record.cost = call.tokens_in * IN + tokens_out * OUT
        self.end(call, amounts(call.record.limits, call.tokens_in, tokens_out), twice=twice)

    @rule(call=consumes(open_calls), twice=st.booleans())
    def cancel(self, call, twice):
        """A call was not billed: nothing is spent."""
        call.record.outcome = "unbilled"
        self.end(call, {}, twice=twice)

    @rule()
    def crash(self):
        """The process dies: whoever opens the ledger next counts what its calls held as spent."""
        store = self.line.ledger.store
        self.line.ledger.flush()
        holds = store.holds_of(store.owner.known_name)
        store.owner.forget()
        assert self.line.ledger.recover().estimated == len(holds)
        self.orphaned |= set(holds)
        self.spent.update(spendable(self.held))
        self.held.clear()

    def end(self, call, spent, *, twice):
        held = call.record.held
        if held is not None and held.hold_id in self.orphaned:
            return  # its end was written for it, and it is no more
        for _ in range(1 + twice):
            self.line.ledger.writer.put(settlement(call.record))
        self.held.subtract(call.held)
        self.spent.update(spendable(spent))

    def fits(self, limits, tokens_in, output):
        needed = amounts(limits, tokens_in, output)
        return all(self.taken(x) + needed[x.key] <= x.limit for x in limits)

    def taken(self, limit):
        return self.total(self.spent, limit) + self.total(self.held, limit)

    def total(self, counters, limit):
        """What counts in a limit: its window, or all the steps that its rolling window looks back on."""
        if not limit.span:
            return counters[limit.key]
        since = limit.window_start - limit.span
        return sum(n for (*line, start), n in counters.items() if (*line,) == limit.line and start >= since)

    @invariant()
    def the_counters_are_what_was_spent_and_is_held(self):
        """Each balance is the model's, to the nano."""
        self.line.ledger.flush()
        for key in self.limits:
            balance = self.line.ledger.balance(key)
            assert (balance.spent, balance.held) == (self.spent[key], self.held[key])

    def teardown(self):
        """The counters equal the log, and once every call has ended nothing is held."""
        ledger = self.line.ledger
        assert ledger.verify() == []
        self.crash()
        self.the_counters_are_what_was_spent_and_is_held()
        assert ledger.verify() == []
        assert ledger.open_holds().calls == 0
        assert {e.call_id for e in ledger.events if e.event_type == "precheck_hold"} <= {
            e.call_id for e in ledger.events if e.event_type in ("commit", "cancel")
        }
        self.patch.undo()
        use_pipeline(self.before)
        self.line.close()
        self.folder.cleanup()


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
