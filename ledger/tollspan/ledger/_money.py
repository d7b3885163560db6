"""Money as whole nano-USD: exact to add, exact to compare, and never a float on its way to the ledger.

1 USD = 10**9 nano-USD, so a signed 64-bit column holds 9.2 billion USD. The cheapest call in common use, an embedding
of five tokens, costs 100 nano-USD; micro-USD would round it to nothing.
"""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
_NANO = Decimal(NANO_PER_USD)


def to_nano(usd: Decimal | int | str) -> int:
    """Whole nano-USD of an amount in USD, rounded half-even; raises ValueError for what is no finite number."""
    return int(_scaled(usd).to_integral_value(ROUND_HALF_EVEN))


def to_nano_up(usd: Decimal | int | str) -> int:
    """Whole nano-USD of an amount in USD, rounded up: holds and bounds never round in the caller's favour."""
    return int(_scaled(usd).to_integral_value(ROUND_CEILING))


def to_usd(nano: int) -> Decimal:
    """USD of whole nano-USD, exact."""
    return Decimal(nano) / NANO_PER_USD


def format_usd(nano: int | None) -> str:
    """An amount for people: two decimals from 1 USD on, otherwise as many as tell it from zero; `-` for no amount."""
    if nano is None:
        return "-"
    if abs(nano) >= NANO_PER_USD or nano == 0:
        return f"${to_usd(nano):.2f}"
    return f"${to_usd(nano):.4f}" if abs(nano) >= NANO_PER_USD // 10_000 else f"${to_usd(nano):f}"


def _scaled(usd: Decimal | int | str) -> Decimal:
    try:
        amount = Decimal(usd)
    except InvalidOperation:
        raise ValueError(f"{usd!r} is not an amount in USD; write it like 5 or 0.25") from None
    if not amount.is_finite():
        raise ValueError(f"{usd!r} is not a finite amount in USD")
    return amount * _NANO
