"""The decision on a hold, as a pure function of demand, limits and balances."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from samples import Linear

from tollspan.ledger import Balance, Demand, Grant, Limit, decide

amounts = st.integers(0, 400)
costs = st.builds(Linear, st.integers(0, 50), st.integers(0, 5))


@st.composite
def demands(draw):
    least = draw(st.integers(0, 30))
    wanted = least + draw(st.integers(0, 100))
    return Demand(draw(costs), draw(st.integers(0, 50)), wanted, least, draw(st.integers(1, 3)))


@st.composite
def tills(draw):
    """Limits of all units, and the balances that stand against them."""
    units = draw(st.lists(st.sampled_from(["USD", "tokens", "requests"]), min_size=1, max_size=4))
    sizes = {"USD": amounts, "tokens": amounts, "requests": st.integers(0, 4)}
    limits = [Limit(f"b{i}", "", 0, unit, draw(sizes[unit])) for i, unit in enumerate(units)]
    balances = [Balance(draw(sizes[x.unit]), draw(sizes[x.unit])) for x in limits]
    return limits, balances


def fits(demand, output, limits, balances, *, settled=False):
    """Whether so much output fits into each limit; `settled` as if no call were in flight."""
    taken = [b.spent + (0 if settled else b.held) for b in balances]
    return all(t + demand.amount(x.unit, output) <= x.limit for x, t in zip(limits, taken, strict=True))


@given(demands(), tills(), st.booleans())
def test_a_grant_never_exceeds_a_limit(demand, till, patient):
    """What is spent, held and now granted fits into every limit, and stays between the least and the wanted output."""
    till = waiting(till) if patient else till
    answer = decide(demand, *till)
    if isinstance(answer, Grant):
        assert fits(demand, answer.output_tokens, *till)
        assert answer.amounts == tuple(demand.amount(x.unit, answer.output_tokens) for x in till[0])
        assert demand.least_output <= answer.output_tokens <= demand.wanted_output


@given(demands(), tills())
def test_an_impatient_grant_is_as_large_as_can_be(demand, till):
    """An impatient call gets the wanted output or the largest that fits, and is refused only if the least does not."""
    answer = decide(demand, *till)
    if isinstance(answer, Grant):
        assert answer.output_tokens == demand.wanted_output or not fits(demand, answer.output_tokens + 1, *till)
    else:
        assert not fits(demand, demand.least_output, *till)


@given(demands(), tills())
def test_a_patient_grant_is_cut_by_what_is_spent_and_never_by_what_is_held(demand, till):
    """A patient call gets what it would get if nothing were in flight, or it is told to wait."""
    till = waiting(till)
    answer, alone = decide(demand, *till), decide(demand, *settled(till))
    if isinstance(answer, Grant):
        assert answer == alone
    else:
        assert answer.busy == isinstance(alone, Grant)


@given(demands(), tills(), st.booleans())
def test_a_refusal_says_truly_whether_waiting_helps(demand, till, patient):
    """A refusal is `busy` exactly if the call would fit once all holds are back, and it names a limit too small."""
    till = waiting(till) if patient else till
    answer = decide(demand, *till)
    if not isinstance(answer, Grant):
        assert answer.busy == fits(demand, demand.least_output, *till, settled=True)
        named = [till[0].index(answer.limit)]
        assert answer.balance == till[1][named[0]]
        wanted = demand.wanted_output if patient else demand.least_output
        assert not fits(demand, wanted, [answer.limit], [answer.balance])
        least, most = (demand.amount(answer.limit.unit, n) for n in (demand.least_output, demand.wanted_output))
        assert least <= answer.needed <= (most if patient else least)
        assert answer.balance.spent + answer.balance.held + answer.needed > answer.limit.limit


@given(demands(), tills(), st.data())
def test_one_limit_that_waits_makes_no_other_refuse(demand, till, data):
    """Where some limits wait, a call is refused by one that does not wait exactly if its least does not fit."""
    limits, balances = till
    limits = [replace(limit, waits=data.draw(st.booleans())) for limit in limits]
    answer = decide(demand, limits, balances)
    at_once = [(x, b) for x, b in zip(limits, balances, strict=True) if not x.waits]
    refused = not fits(demand, demand.least_output, [x for x, _ in at_once], [b for _, b in at_once])
    assert refused == (not isinstance(answer, Grant) and not answer.limit.waits)


@given(demands())
def test_a_call_without_limits_gets_what_it_wants(demand):
    """Where no budget matches there is nothing to clamp by."""
    assert decide(demand, [], []) == Grant(demand.wanted_output, ())


def test_a_spent_limit_is_named_before_one_that_is_only_held():
    """Of two limits without room the refusal names the one for which waiting is in vain."""
    held, spent = Limit("held", "", 0, "requests", 1), Limit("spent", "", 0, "requests", 1)
    answer = decide(Demand(None, 0, 0, 0), [held, spent], [Balance(0, 1), Balance(1, 0)])
    assert (answer.limit, answer.busy) == (spent, False)


def test_without_a_price_a_limit_in_usd_is_not_touched():
    """A call that no budget in USD matches by price holds nothing there."""
    limit = Limit("b", "", 0, "USD", 0)
    assert decide(Demand(None, 5, 10, 10), [limit], [Balance()]) == Grant(10, (0,), (limit,))


def waiting(till):
    return [replace(limit, waits=True) for limit in till[0]], till[1]


def settled(till):
    return till[0], [Balance(b.spent, 0) for b in till[1]]
