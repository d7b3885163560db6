"""What budgets count, and the accounts in which they count it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, get_args

from ._money import format_usd, to_usd

Unit = Literal["USD", "tokens", "requests", "concurrent"]
"""nano-USD spent, tokens, requests sent, or calls at once. The last one is only ever held, never spent."""

_IN = {f" [{unit}]": unit for unit in get_args(Unit) if unit != "USD"}

BEHIND = "@"
"""Where the model begins in a usage key such as `tokens_in@claude-opus-4-5`: what another one has used besides.

It answered behind the same request, at prices of its own, which are in the cost of the call.
"""


def account_of(budget: str, unit: Unit) -> str:
    """The name under which the balances of a budget are kept: a budget of another unit begins anew."""
    return budget if unit == "USD" else f"{budget} [{unit}]"


def unit_of(account: str) -> Unit:
    """The unit of the balances of an account."""
    return next((unit for ending, unit in _IN.items() if account.endswith(ending)), "USD")


def in_unit(amount: int, unit: Unit) -> Decimal:
    """An amount of a balance as users count it: exact USD, where balances have nano-USD, or as it is."""
    return to_usd(amount) if unit == "USD" else Decimal(amount)


def format_amount(amount: int, unit: Unit) -> str:
    """An amount of a balance for people: `$5.00`, `9000 tokens`, `8 at once`."""
    if unit == "USD":
        return format_usd(amount)
    return f"{amount} at once" if unit == "concurrent" else f"{amount} {unit}"


def budget_of(account: str) -> str:
    """The name of the budget of an account."""
    return account if unit_of(account) == "USD" else account[: account.rindex(" [")]


def tokens_of(usage: Mapping[str, float]) -> int:
    """All tokens of a usage, in and out, of every model behind the request."""
    return int(sum(count for key, count in usage.items() if key.partition(BEHIND)[0] in ("tokens_in", "tokens_out")))
