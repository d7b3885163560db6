"""What holds of every cost: it is the sum of its parts, it adds up, more never costs less, and it is rounded once."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tollspan.ledger import Unpriced
from tollspan.ledger._prices._rates import UNITS, rate_card

# Rates of all sizes that lists have: from an embedding at 0.001 USD a million to a video at 3,000 USD an hour.
USD = st.decimals("0.0001", "3000", places=4, allow_nan=False)
COUNT = st.integers(0, 10**7) | st.fractions(0, 10**6).map(lambda f: Decimal(f.numerator) / 8)
PIECES = (
    "characters_in",
    "audio_seconds",
    "video_seconds",
    "images",
    "document_pages",
    "rerank_searches",
    "web_searches",
)
IN = ("tokens_cache_read", "tokens_cache_write", "tokens_audio_in", "tokens_image_in", "tokens_video_in")
OUT = ("tokens_reasoning", "tokens_audio_out", "tokens_image_out", "tokens_video_out")
LEAVES = ("tokens_in", *IN, "tokens_out", *OUT, *PIECES)


def nano(usd: Fraction) -> int:
    """The one rounding that a cost may have."""
    exact = usd * 10**9
    below = exact.numerator // exact.denominator
    half = exact - below - Fraction(1, 2)
    return below + (half > 0 or (half == 0 and below % 2))


@st.composite
def price_lists(draw, *, whole=False):
    """A price in USD for totals and pieces, and for each of the others or none; with `whole`, for all of them.

    Those of an hour are such that a second costs a whole number of femto-USD: other rates are rounded up.
    """
    priced = [unit for unit in LEAVES if unit in ("tokens_in", "tokens_out", *PIECES) or whole or draw(st.booleans())]
    return {unit: draw(USD) * (36 if UNITS[unit].per == 3600 else 1) for unit in priced}


def card_of(prices):
    steps = {UNITS[unit].price_keys[0]: ((-1, usd),) for unit, usd in prices.items()}
    return rate_card(steps, provider="p", model="m", source="test")


@st.composite
def usages(draw, units=LEAVES):
    """How much there is of each unit that is in no other, and the usage whose totals have all of their parts."""
    apart = {unit: draw(st.integers(0, 10**6) if unit.startswith("tokens") else COUNT) for unit in units}
    apart = {unit: count for unit, count in apart.items() if draw(st.booleans())}
    whole = {unit: count for unit, count in apart.items() if unit not in ("tokens_in", "tokens_out")}
    for total, parts in (("tokens_in", IN), ("tokens_out", OUT)):
        if total in units:
            whole[total] = apart.get(total, 0) + sum(apart.get(part, 0) for part in parts)
    return apart, whole


def price_of(prices, unit):
    """The price of a unit in USD each: its own, or its parent's."""
    while unit not in prices:
        unit = UNITS[unit].parent
        if unit is None:
            return None
    return Fraction(prices[unit]) / UNITS[unit].per


@given(price_lists(), usages())
def test_a_cost_is_the_sum_of_its_parts_rounded_once(prices, usage):
    """Each unit at its own price, added up without rounding, and rounded half-even to whole nano-USD at the end."""
    apart, whole = usage
    each = {unit: price_of(prices, unit) for unit, count in apart.items() if count}
    cost = card_of(prices).cost(whole)
    if None in each.values():
        assert isinstance(cost, Unpriced)
    else:
        assert cost == nano(sum((price * Fraction(apart[unit]) for unit, price in each.items()), Fraction(0)))


@given(price_lists(whole=True), usages(), usages())
def test_two_usages_cost_together_what_they_cost_apart(prices, one, other):
    """Additivity, but for the one rounding of each."""
    card = card_of(prices)
    both = {unit: one[1].get(unit, 0) + other[1].get(unit, 0) for unit in one[1] | other[1]}
    costs = [card.cost(usage) for usage in (both, one[1], other[1])]
    assert abs(costs[0] - costs[1] - costs[2]) <= 1


@given(price_lists(whole=True), usages(), st.sampled_from(("tokens_in", "tokens_out", *PIECES)), st.integers(1, 10**6))
def test_more_of_a_unit_never_costs_less(prices, usage, unit, more):
    """Monotonicity, in every unit."""
    card, whole = card_of(prices), usage[1]
    assert card.cost(whole | {unit: whole.get(unit, 0) + more}) >= card.cost(whole)


@given(price_lists(), usages(), st.sampled_from([u for u in LEAVES if UNITS[u].parent is None]), st.integers(1, 10**6))
def test_a_used_unit_without_a_price_makes_the_cost_unknown_whatever_the_others_cost(prices, usage, unit, count):
    """One unit that has no price, and there is no cost, but a reason that names a unit."""
    total = "tokens_out" if unit in OUT else "tokens_in" if unit in IN else unit
    more = {key: usage[1].get(key, 0) + count for key in {unit, total}}
    cost = card_of({known: usd for known, usd in prices.items() if known != unit}).cost(usage[1] | more)
    assert isinstance(cost, Unpriced)
    assert "no rate for" in cost.reason


@given(price_lists(), usages())
def test_money_is_whole_and_never_a_float(prices, usage):
    """Rates are whole femto-USD and costs whole nano-USD, whatever numbers a usage is told in."""
    card = card_of(prices)
    assert all(type(rate) is int for tier in card.tiers for rate in tier.rates.values())
    costs = [card.cost(usage[1]), card.cost({unit: float(count) for unit, count in usage[1].items()})]
    assert all(type(cost) is int or isinstance(cost, Unpriced) for cost in costs)
    assert all(isinstance(price, str) for price in card.rates().values())


@given(st.integers(1, 10**6), st.integers(1, 999))
def test_a_rounding_for_each_unit_would_be_seen(tokens, thousandths):
    """Input and output of half a nano-USD and less each: only their sum is rounded."""
    usd = Decimal(thousandths) / 10**6
    card = card_of({"tokens_in": usd, "tokens_out": usd})
    each = Fraction(usd) / 10**6 * tokens
    assert card.cost({"tokens_in": tokens, "tokens_out": tokens}) == nano(2 * each)
