"""Any sequence of calls, against a model of what is spent, what is held, and what therefore fits."""

import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tollspan.budget import BudgetBusy, BudgetExceeded, CallIntent, admit, budget
from tollspan.exporter import CallRecord, Pipeline, settlement, use_pipeline
from tollspan.ledger import load_settings, new_call_id

IN, OUT, MOST, FLOOR = 2_500, 10_000, 16_384, 256  # nano-USD a token of gpt-4o, the most it gives, the default floor
BUDGETS = {
    "money": budget("1 USD / month", name="money"),
    "tokens": budget("60000 tokens / month", name="tokens"),
    "requests": budget("9 requests / month", name="requests"),
    "users": budget("0.4 USD / month", name="users", each="user"),
    "soft": budget("0.5 USD / month", name="soft", mode="best_effort"),
}


@dataclass
class Open:
    """A call in flight, and what it holds in each balance."""

    record: CallRecord
    tokens_in: int
    output: int
    held: dict


def amounts(limits, tokens_in, tokens_out):
    by_unit = {"USD": tokens_in * IN + tokens_out * OUT, "tokens": tokens_in + tokens_out, "requests": 1}
    return {limit.key: by_unit[limit.unit] for limit in limits}


class Calls(RuleBasedStateMachine):
    """Calls that are admitted, settled, cancelled, or orphaned, in any order, on budgets that overlap."""

    open_calls = Bundle("open_calls")

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.line = Pipeline(load_settings(environ={}, ledger=Path(self.folder.name) / "ledger.db"))
        self.before = use_pipeline(self.line)
        self.spent, self.held, self.limits = Counter(), Counter(), {}
        self.orphaned = set()

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
        least, most = (FLOOR, MOST) if asked is None else (asked, asked)
        if names == {"soft"}:  # holds nothing: it compares what was spent
            (limit,) = record.limits
            full = self.spent[limit.key] + self.held[limit.key] >= limit.limit
            assert isinstance(admission, BudgetExceeded) == full
            return multiple() if full else Open(record, tokens_in, most, {})
        if isinstance(admission, BudgetExceeded):
            assert not self.fits(record.limits, tokens_in, least)
            settled = all(
                self.spent[key] + amount <= self.limits[key].limit
                for key, amount in amounts(record.limits, tokens_in, least).items()
            )
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
        self.spent.update(self.held)
        self.held.clear()

    def end(self, call, spent, *, twice):
        held = call.record.held
        if held is not None and held.hold_id in self.orphaned:
            return  # its end was written for it, and it is no more
        for _ in range(1 + twice):
            self.line.ledger.writer.put(settlement(call.record))
        self.held.subtract(call.held)
        self.spent.update(spent)

    def fits(self, limits, tokens_in, output):
        needed = amounts(limits, tokens_in, output)
        return all(self.spent[x.key] + self.held[x.key] + needed[x.key] <= x.limit for x in limits)

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
        use_pipeline(self.before)
        self.line.close()
        self.folder.cleanup()


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
