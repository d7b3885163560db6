"""Whether a call fits its budgets: a pure function of the balances, which the store runs inside a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ._units import Unit, account_of

UNLIMITED_OUTPUT = 1 << 62
"""Output tokens that a room buys when output costs nothing in that unit."""

_ONE_EACH = ("requests", "concurrent")


class Cost(Protocol):
    """The cost of a call as a function of its output tokens; `CostBound` of the price room is one."""

    def nano(self, output_tokens: int, /) -> int:
        """Nano-USD for so many output tokens, rounded up."""
        ...

    def affordable_tokens(self, nano: int, /) -> int:
        """The most output tokens that cost no more than `nano`; negative when not even none do."""
        ...


@dataclass(frozen=True, slots=True)
class Limit:
    """One balance that a call has to fit into, and how much that balance may hold.

    `limit` is in `unit`: nano-USD, tokens, requests or calls at once. `reset_at` is in epoch seconds, None where
    nothing ever resets. In a rolling window the balance is the sum of those that start up to `span` seconds before
    `window_start`. A call that does not fit `waits`, or is refused at once.
    """

    budget: str
    scope: str
    window_start: int
    unit: Unit
    limit: int
    reset_at: float | None = None
    span: int = 0
    waits: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        """The primary key of the balance that the call is counted in."""
        return (account_of(self.budget, self.unit), self.scope, self.window_start)

    @property
    def line(self) -> tuple[str, str]:
        """What those who wait for it stand in line for, whatever window it is."""
        return (account_of(self.budget, self.unit), self.scope)


@dataclass(frozen=True, slots=True)
class Balance:
    """A balance as it stands, in the unit of its budget: spent (of it estimated), and held by calls in flight."""

    spent: int = 0
    held: int = 0
    estimated: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What one attempt may use at the most.

    `cost` prices it (None: the call has no price, and no budget in USD matches it). It wants `wanted_output` tokens for
    each of `choices` outputs and takes no fewer than `least_output`; the two are equal where the output is not clamped.
    """

    cost: Cost | None
    input_tokens: int
    wanted_output: int
    least_output: int
    choices: int = 1

    def amount(self, unit: Unit, output_tokens: int) -> int:
        """What the attempt may use in `unit`, when each choice gives at most `output_tokens`."""
        if unit in _ONE_EACH:
            return 1
        if unit == "tokens":
            return self.input_tokens + output_tokens * self.choices
        return self.cost.nano(output_tokens) if self.cost else 0

    def affordable(self, unit: Unit, room: int) -> int:
        """The most output tokens a choice may give so that the attempt fits in `room`; negative when it cannot fit."""
        if unit in _ONE_EACH:
            return UNLIMITED_OUTPUT if room >= 1 else -1
        if unit == "tokens":
            return (room - self.input_tokens) // self.choices
        if self.cost is None:
            return UNLIMITED_OUTPUT if room >= 0 else -1
        return self.cost.affordable_tokens(room)


@dataclass(frozen=True, slots=True)
class Grant:
    """The call may go: `output_tokens` for each choice, and the amount held in each limit."""

    output_tokens: int
    amounts: tuple[int, ...]
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call may not go. `busy` tells that it would fit once the calls in flight have settled below their holds."""

    limit: Limit
    balance: Balance
    needed: int
    busy: bool

    @property
    def may_pass(self) -> bool:
        """Whether it would fit later: after calls in flight, or when the window has turned."""
        return self.busy or (self.limit.reset_at is not None and self.needed <= self.limit.limit)


def decide(demand: Demand, limits: Sequence[Limit], balances: Sequence[Balance]) -> Grant | Refusal:
    """All limits must admit the call, or none is charged.

    It takes what is free now, down to its least output. Where a limit waits, it rather waits there for the calls in
    flight than be cut short: by that limit it is clamped only as far as money is spent.
    """
    wanted, least = demand.wanted_output, demand.least_output
    rooms = [demand.affordable(x.unit, x.limit - b.spent - b.held) for x, b in zip(limits, balances, strict=True)]
    if any(limit.waits for limit in limits):
        later = (
            demand.affordable(x.unit, x.limit - b.spent) if x.waits else room
            for x, b, room in zip(limits, balances, rooms, strict=True)
        )
        least = max(least, min(wanted, *later))
    output = min(wanted, *rooms) if rooms else wanted
    if output >= least:
        return Grant(output, tuple(demand.amount(x.unit, output) for x in limits), tuple(limits))
    return _refusal(demand, limits, balances, rooms, least)


def _refusal(
    demand: Demand, limits: Sequence[Limit], balances: Sequence[Balance], rooms: Sequence[int], least: int
) -> Refusal:
    """The narrowest refusal: one that does not wait, then one that is spent, then the one with the least room."""
    refusing = [
        Refusal(
            limit,
            balance,
            demand.amount(limit.unit, least),
            busy=_fits_when_settled(demand, limit, balance),
        )
        for limit, balance, room in zip(limits, balances, rooms, strict=True)
        if room < least
    ]
    return min(refusing, key=lambda r: (r.limit.waits, r.busy, r.limit.limit - r.balance.spent - r.balance.held))


def _fits_when_settled(demand: Demand, limit: Limit, balance: Balance) -> bool:
    return demand.affordable(limit.unit, limit.limit - balance.spent) >= demand.least_output
