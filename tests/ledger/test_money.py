"""Money is whole nano-USD: exact both ways, rounded once, and never a float."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.ledger._money import format_usd, to_nano, to_nano_up, to_usd

_NANO = st.integers(-(2**63), 2**63 - 1)
_USD = st.decimals(min_value=-(10**9), max_value=10**9, places=12)


@given(_NANO)
def test_whole_nano_survive_the_way_through_usd(nano):
    """Any amount that a 64-bit column holds comes back unchanged from USD, by either rounding."""
    assert to_nano(to_usd(nano)) == nano == to_nano_up(to_usd(nano))


@given(_USD)
def test_rounding_up_is_never_below_and_never_a_nano_too_far(usd):
    """A rounded-up amount is less than a nano-USD above the true one; a half-even one is within half of it."""
    assert 0 <= to_usd(to_nano_up(usd)) - usd < Decimal("1e-9")
    assert abs(to_usd(to_nano(usd)) - usd) <= Decimal("5e-10")


@pytest.mark.parametrize(
    ("usd", "nano"),
    [("0.0000000005", 0), ("0.0000000015", 2), ("-0.0000000025", -2), ("0.00000000251", 3), (5, 5_000_000_000)],
)
def test_ties_go_to_the_even_nano(usd, nano):
    """Half a nano-USD is rounded to the even neighbour, so that errors do not add up in one direction."""
    assert to_nano(usd) == nano


@pytest.mark.parametrize(("usd", "nano"), [("0.0000000001", 1), ("-0.0000000019", -1), ("0.25", 250_000_000)])
def test_holds_round_up(usd, nano):
    """The least fraction of a nano-USD makes a whole one."""
    assert to_nano_up(usd) == nano


@pytest.mark.parametrize(
    ("amount", "why"), [("five", "not an amount"), ("nan", "finite"), (Decimal("Infinity"), "finite")]
)
@pytest.mark.parametrize("convert", [to_nano, to_nano_up])
def test_what_is_no_amount_is_refused(convert, amount, why):
    """A text that is no number, and a number that is not finite, raise ValueError with the reason."""
    with pytest.raises(ValueError, match=why):
        convert(amount)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (None, "-"),
        (0, "$0.00"),
        (1_234_560_000_000, "$1234.56"),
        (25_000_000, "$0.0250"),
        (100_000, "$0.0001"),
        (100, "$0.0000001"),
    ],
)
def test_small_amounts_keep_the_decimals_that_tell_them_from_zero(nano, text):
    """An amount is shown with two decimals from 1 USD on, with more below, and a missing one as a dash."""
    assert format_usd(nano) == text
