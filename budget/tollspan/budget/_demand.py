"""What a call may cost at the most, and what strict mode does where that cannot be known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tollspan.ledger import BudgetDefinition, Cost, Demand, RateCard, Settings, Unpriced, to_nano_up

from ._errors import UnboundedCost, UncoveredCall, UnpricedModel

_LARGEST_OUTPUT = 128_000
"""Output tokens assumed of a model whose maximum nobody has listed: the most that any common listed model gives."""
_ANY_OUTPUT = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class CallIntent:
    """A call that asks for admission. Token counts are upper bounds for one attempt.

    `price` is the rate card of the model, or why there is none. `unbounded` says why its cost has no bound, or None.
    `units` are those besides text tokens that the call uses; `text_only` tells that no input is priced apart from text.
    `uncovered` tells that it came by no covered method.
    `clampable` tells whether the caller of `admit` can still lower the request's maximum output. `of_model` gives the
    intent of the same request to another model; None where the request cannot be changed any more. `learned` gives the
    output tokens that the ledger's history bounds such calls by, or None; it must give the same each time, or a call
    may be sent without the maximum that was held for it.
    """

    price: RateCard | Unpriced
    input_tokens: int
    max_output_tokens: int | None
    choices: int = 1
    unbounded: str | None = None
    uncovered: bool = False
    units: tuple[str, ...] = ()
    text_only: bool = False
    clampable: bool = True
    of_model: "Callable[[str], CallIntent] | None" = None
    learned: Callable[[], int | None] = lambda: None


@dataclass(frozen=True, slots=True)
class FixedCost:
    """A cost that does not depend on the output: what the user said to hold where no bound is known."""

    amount: int

    def nano(self, output_tokens: int, /) -> int:  # noqa: ARG002 - the interface of a cost
        """The amount, in nano-USD."""
        return self.amount

    def affordable_tokens(self, nano: int, /) -> int:
        """Any output, where the amount itself is affordable."""
        return _ANY_OUTPUT if nano >= self.amount else -1


def demand(intent: CallIntent, definitions: Sequence[BudgetDefinition], settings: Settings) -> Demand:
    """The demand of a call on these budgets.

    Raises UnpricedModel or UnboundedCost where it has no bound, UncoveredCall where nothing of its kind may go.
    """
    if intent.uncovered and settings.refuse_uncovered:
        raise UncoveredCall(
            "this request to a model comes by a way that no call site covers, such as raw HTTP, and a strict budget "
            "matches it; call by a covered method of an SDK (`tollspan doctor` lists them), or unset "
            "TOLLSPAN_REFUSE_UNCOVERED"
        )
    cost = _cost(intent, definitions, settings)
    wanted, least = _output(intent, definitions, settings.output_floor)
    return Demand(
        cost=cost,
        input_tokens=_input(intent),
        wanted_output=wanted,
        least_output=least,
        choices=intent.choices,
    )


def _cost(intent: CallIntent, definitions: Sequence[BudgetDefinition], settings: Settings) -> Cost | None:
    if all(d.unit in ("requests", "concurrent") for d in definitions):
        return None
    in_usd = any(d.unit == "USD" for d in definitions)
    hold_usd = settings.hold_usd if intent.price.hold_usd is None else intent.price.hold_usd
    fixed = None if hold_usd is None else FixedCost(to_nano_up(hold_usd))
    if intent.unbounded is not None and not (isinstance(intent.price, RateCard) and intent.price.free):
        if fixed is None:
            raise UnboundedCost(
                f"the cost of this call has no bound that is known before it is sent ({intent.unbounded}), and a "
                "strict budget matches it; set TOLLSPAN_HOLD_USD to what it may hold, or its model's `hold_usd` in the "
                "file named by TOLLSPAN_PRICES, or use a best_effort budget"
            )
        return fixed
    missing = _missing_price(intent)
    if missing is None and isinstance(intent.price, RateCard):
        return intent.price.bound(_input(intent), choices=intent.choices, text_only=intent.text_only)
    if in_usd and fixed is None:
        raise UnpricedModel(
            f"a strict budget in USD matches this call, and there is {missing}; or set TOLLSPAN_HOLD_USD to what a "
            "call without a price may hold"
        )
    return fixed if in_usd else None


def _missing_price(intent: CallIntent) -> str | None:
    """Which price of the call's tokens is missing: a card may have none for what this call uses."""
    price = intent.price
    if isinstance(price, RateCard):
        usage = {"tokens_in": 2, "tokens_out": 0 if intent.max_output_tokens == 0 else 2}
        usage |= dict.fromkeys(intent.units, 1)
        cost = price.cost(usage)
        return cost.reason if isinstance(cost, Unpriced) else None
    return price.reason


def _input(intent: CallIntent) -> int:
    price = intent.price
    return price.most_input(intent.input_tokens) if isinstance(price, RateCard) else intent.input_tokens


def largest_output(price: RateCard | Unpriced) -> int:
    """The most output tokens that one choice of this model gives."""
    return price.max_output_tokens or price.context_window or _LARGEST_OUTPUT


def learned_output(intent: CallIntent, definitions: Sequence[BudgetDefinition]) -> int | None:
    """What the ledger's history bounds the output by, where every budget takes that for enough: one may be passed."""
    if intent.max_output_tokens is not None or any(d.output_bound != "learned" for d in definitions):
        return None
    learned = intent.learned() if definitions else None
    return None if learned is None else min(learned, largest_output(intent.price))


def maximum_to_send(intent: CallIntent, definitions: Sequence[BudgetDefinition], granted: int) -> int | None:
    """The output tokens that the request must name as its maximum, None where it stays as it is."""
    if intent.max_output_tokens is not None or not intent.clampable or intent.unbounded is not None:
        return None
    if granted >= largest_output(intent.price) or learned_output(intent, definitions) is not None:
        return None
    return granted


def _output(intent: CallIntent, definitions: Sequence[BudgetDefinition], floor: int) -> tuple[int, int]:
    """The output tokens wanted for each choice, and the fewest that the call may be cut to."""
    most = largest_output(intent.price)
    if intent.max_output_tokens is not None:
        # Not cut to the listed maximum of the model: lists grow old, and beta headers raise what a model gives.
        window = intent.price.context_window if isinstance(intent.price, RateCard) else None
        wanted = min(intent.max_output_tokens, window or intent.max_output_tokens)
        return wanted, wanted
    if (learned := learned_output(intent, definitions)) is not None:  # not sent, so for a repetition as well
        return learned, learned
    if not intent.clampable:
        return most, most
    bounds = [d.output_bound for d in definitions]
    wanted = min([most, *(bound for bound in bounds if isinstance(bound, int))])
    if {*bounds} == {"learned"}:  # with too little history, as if nothing were said
        bounds = ["clamp"]
    return wanted, min(floor, wanted) if "clamp" in bounds and "max" not in bounds else wanted
