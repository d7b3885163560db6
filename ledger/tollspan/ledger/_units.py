"""What budgets count, and the accounts in which they count it."""

from typing import Literal, get_args

Unit = Literal["USD", "tokens", "requests", "concurrent"]
"""nano-USD spent, tokens, requests sent, or calls at once. The last one is only ever held, never spent."""

_IN = {f" [{unit}]": unit for unit in get_args(Unit) if unit != "USD"}


def account_of(budget: str, unit: Unit) -> str:
    """The name under which the balances of a budget are kept: a budget of another unit begins anew."""
    return budget if unit == "USD" else f"{budget} [{unit}]"


def unit_of(account: str) -> Unit:
    """The unit of the balances of an account."""
    return next((unit for ending, unit in _IN.items() if account.endswith(ending)), "USD")


def budget_of(account: str) -> str:
    """The name of the budget of an account."""
    return account if unit_of(account) == "USD" else account[: account.rindex(" [")]
