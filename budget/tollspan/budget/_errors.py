"""Why a call was not sent. These are the only exceptions of tollspan that reach a caller, always before the request.

CallRefused
├── BudgetExceeded         a limit would be passed
│   ├── BudgetExhausted    it is spent; `reset_at` tells when it starts anew
│   └── BudgetBusy         it is held by calls in flight; try again when they have settled
├── UnpricedModel          strict, and the call has no price
├── UnboundedCost          strict, and nobody can say beforehand what the call costs at the most
├── UncoveredCall          strict, it comes by a way that no call site covers, and `refuse_uncovered` is set
└── LedgerOutOfReach       strict, and the hold could not be written
"""

import datetime as dt
import shlex
from functools import partial
from typing import TYPE_CHECKING

from tollspan.ledger import Unit, format_amount, in_unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.ledger import Refusal

OF_ENTRY = "run="
"""How the scope of a budget without a window begins: the balance is that of one entry."""


class CallRefused(Exception):  # noqa: N818 - says what happened, as users meet it in `except`
    """The call was not sent, and nothing was billed for it."""


class BudgetExceeded(CallRefused):
    """A budget has no room for the call.

    Amounts are Decimal USD, tokens, requests or calls at once, as `unit` says: `needed` by this call, `spent`, `held`
    by calls in flight, and `limit`. `reset_at` is in epoch seconds, None where the budget never starts anew.
    """

    def __init__(self, refusal: "Refusal", *, way_out: str) -> None:
        limit, balance = refusal.limit, refusal.balance
        self._made_of = (refusal, way_out)
        self.budget = limit.budget
        self.scope = limit.scope
        self.unit: Unit = limit.unit
        self.limit = in_unit(limit.limit, limit.unit)
        self.spent = in_unit(balance.spent, limit.unit)
        self.held = in_unit(balance.held, limit.unit)
        self.needed = in_unit(refusal.needed, limit.unit)
        self.reset_at = limit.reset_at
        super().__init__(_text(refusal, way_out))

    def __reduce__(self) -> "tuple[Callable[[Refusal], BudgetExceeded], tuple[Refusal]]":
        """Made again where it is unpickled: so a process pool brings it from a worker to its parent."""
        refusal, way_out = self._made_of
        return partial(type(self), way_out=way_out), (refusal,)


class BudgetExhausted(BudgetExceeded):
    """The budget is spent, or too small: this call cannot fit before `reset_at`, whatever calls in flight give back."""


class BudgetBusy(BudgetExceeded):
    """The room is held by calls in flight; they will give back what they do not use. `retry_after` is in seconds."""

    retry_after = 1.0


class UnpricedModel(CallRefused):
    """A strict budget in USD matches the call, and there is no price for it."""


class UnboundedCost(CallRefused):
    """A strict budget matches the call, and its cost has no bound that can be known before it is sent."""


class UncoveredCall(CallRefused):
    """A strict budget matches the request, it comes by no covered method, and `refuse_uncovered` is set."""


class LedgerOutOfReach(CallRefused):
    """A strict budget matches the call, and its hold could not be made durable; `__cause__` tells why."""


def exceeded(refusal: "Refusal") -> BudgetExceeded:
    """The exception for a refusal of the ledger."""
    if refusal.busy:
        return BudgetBusy(refusal, way_out='retry when they have settled, or wait for it with on_limit="wait"')
    raise_it = "raise its limit where it is set: in code, TOLLSPAN_BUDGET or tollspan.toml"
    if not refusal.limit.scope.startswith(OF_ENTRY):
        raise_it += f", or now with: tollspan budget raise {shlex.quote(refusal.limit.budget)} AMOUNT"
    if _too_large(refusal):
        return BudgetExhausted(refusal, way_out=f"ask for less, with a smaller max_tokens, or {raise_it}")
    return BudgetExhausted(refusal, way_out=raise_it)


def _too_large(refusal: "Refusal") -> bool:
    """Whether the call does not fit even when nothing is spent or held."""
    return refusal.needed > refusal.limit.limit


def _text(refusal: "Refusal", way_out: str) -> str:
    limit, balance = refusal.limit, refusal.balance
    scope = f" ({limit.scope})" if limit.scope else ""
    state = "is spent"
    if refusal.busy:
        state = "is held by calls in flight"
    elif _too_large(refusal):
        state = "is too small for this call"
    this_call = f"+ {format_amount(refusal.needed, limit.unit)} for this call >" if refusal.needed else ">="
    amounts = (
        f"{format_amount(balance.spent, limit.unit)} spent + {format_amount(balance.held, limit.unit)} held "
        f"{this_call} {format_amount(limit.limit, limit.unit)}"
    )
    reset = "" if refusal.busy or _too_large(refusal) else reset_text(limit.reset_at)
    return f"budget {limit.budget!r}{scope} {state}: {amounts}{reset}; {way_out}"


def reset_text(reset_at: float | None) -> str:
    """How a sentence about a budget goes on to say when it starts anew (epoch seconds; None: never)."""
    if reset_at is None:
        return ", and it never resets"
    return f", resets {dt.datetime.fromtimestamp(reset_at, dt.UTC):%Y-%m-%d %H:%M} UTC"
