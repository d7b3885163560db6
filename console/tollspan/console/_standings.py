"""How budgets stand: what code, configuration and the command line say of each, and its balances right now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tollspan.ledger import (
    Balance,
    BudgetDefinition,
    BudgetOverride,
    Ledger,
    Settings,
    Unit,
    Window,
    format_amount,
    format_limit,
    to_usd,
)

from ._render import exact
from ._when import iso, shown

Source = Literal["configuration", "code", "command line"]

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class Known:
    """A budget with a window that is known here, and where it is defined.

    `override` is the limit that is in force over its own; `seen` is when a process last began to use it, None where
    none has yet.
    """

    definition: BudgetDefinition
    window: Window
    source: Source
    override: BudgetOverride | None
    seen: float | None

    @property
    def limit(self) -> int:
        """The limit in force, in nano-USD, tokens, requests or calls at once."""
        return self.definition.limit if self.override is None else self.override.limit

    @property
    def until(self) -> float | None:
        """When the override ends; None where there is none, or it holds for good."""
        return None if self.override is None else self.override.until

    @property
    def text(self) -> str:
        """The limit in force as it is written: `5 USD / day`."""
        return format_limit(self.limit, self.definition.unit, self.window)


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget, when it starts anew (None: never, or bit by bit), and its balances right now, by scope."""

    budget: Known
    reset_at: float | None
    balances: dict[str, Balance]

    @property
    def is_over(self) -> bool:
        """Whether any balance has more spent than the limit."""
        return any(balance.spent > self.budget.limit for balance in self.balances.values())


def standings(ledger: Ledger, settings: Settings, now: float) -> list[Standing]:
    """All budgets that are known, as they stand at an instant (epoch seconds). Raises BudgetSyntaxError."""
    return [_standing(ledger, budget, now) for budget in known(ledger, settings, now)]


def known(ledger: Ledger, settings: Settings, now: float) -> list[Known]:
    """The configured budgets, those that other code used with this ledger, and those of the command line."""
    live = {override.name: override for override in ledger.overrides if override.holds(now)}
    is_there = ledger.path is None or ledger.path.exists()  # to ask would make the file
    seen = {one.definition.name: one for one in ledger.known_budgets()} if is_there else {}
    found: dict[str, tuple[BudgetDefinition, Source]] = {name: (one.definition, "code") for name, one in seen.items()}
    found |= {o.name: (o.definition, "command line") for o in live.values() if o.definition is not None}
    found |= {budget.name: (budget, "configuration") for budget in settings.budgets}
    return [
        Known(
            definition,
            definition.window,
            source,
            _applying(live.get(name), definition),
            seen[name].seen if name in seen else None,
        )
        for name, (definition, source) in found.items()
        if definition.window is not None
    ]


def _applying(override: BudgetOverride | None, definition: BudgetDefinition) -> BudgetOverride | None:
    return override if override is not None and override.unit == definition.unit else None


def _standing(ledger: Ledger, budget: Known, now: float) -> Standing:
    definition, window = budget.definition, budget.window
    balances = ledger.balances(definition.account, window.start(now), window.span)
    if definition.each is None:
        balances = {"": balances.get("", Balance())}
    by_use = sorted(balances.items(), key=lambda item: (-item[1].spent - item[1].held, item[0]))
    return Standing(budget, None if window.span else window.end(now), dict(by_use))


# ---- for programs


def as_dict(budget: Known) -> dict[str, Any]:
    """A budget for programs: amounts are exact texts in its unit, instants ISO 8601 in its zone."""
    definition, window = budget.definition, budget.window
    at_once = definition.unit == "concurrent"
    return {
        "name": definition.name,
        "limit": exactly(budget.limit, definition.unit),
        "unit": definition.unit,
        "window": None if at_once else str(window),
        "looks_back_s": None if at_once else window.span or None,
        "timezone": window.timezone,
        "mode": "strict" if definition.is_strict else definition.mode,
        "on_limit": definition.on_limit,
        "max_wait_timeout_s": definition.max_wait_timeout_s,
        "fallback_model": definition.fallback_model,
        "warn_at": list(definition.warn_at),
        "output_bound": definition.output_bound,
        "cut_stream": definition.cut_stream,
        "match": dict(definition.match),
        "each": definition.each,
        "configured": budget.source == "configuration",
        "defined_in": budget.source,
        "defined_limit": exactly(definition.limit, definition.unit),
        "override": None if budget.override is None else override_dict(budget.override, window.timezone),
        "last_seen": None if budget.seen is None else iso(budget.seen, window.timezone),
    }


def override_dict(override: BudgetOverride, timezone: str) -> dict[str, Any]:
    """An override for programs."""
    return {
        "name": override.name,
        "limit": exactly(override.limit, override.unit),
        "unit": override.unit,
        "set_at": iso(override.at, timezone),
        "until": None if override.until is None else iso(override.until, timezone),
        "is_budget": override.definition is not None,
    }


def exactly(value: int, unit: Unit) -> str:
    """An amount for programs, in its unit."""
    return exact(to_usd(value)) or "" if unit == "USD" else str(value)


# ---- for people


def limit_text(budget: Known) -> str:
    """The limit in force, and its window: `$5.00 / day`, `8 at once`."""
    unit = budget.definition.unit
    limit = format_amount(budget.limit, unit)
    return limit if unit == "concurrent" else f"{limit} / {budget.window}"


def looks_back(window: Window) -> str:
    """How far a rolling window looks back: `60 min`."""
    sizes = ((7 * _DAY_S, _DAY_S, "days"), (_DAY_S, _HOUR_S, "h"), (_HOUR_S, _MINUTE_S, "min"), (0, 1, "s"))
    _, size, unit = next(row for row in sizes if window.span >= row[0])
    return f"{window.span // size} {unit}"


def until_text(until: float | None, timezone: str) -> str:
    """Until when an override holds."""
    return "until it is removed" if until is None else f"until {shown(until, timezone)} {timezone}"


def options(definition: BudgetDefinition) -> Iterator[str]:
    """What a budget says beside its limit, as far as that is not what any budget does."""
    if definition.match:
        yield "counts " + ", ".join(f"{dimension}={glob}" for dimension, glob in dict(definition.match).items())
    if definition.on_limit == "wait":
        yield f"waits up to {definition.max_wait_timeout_s:g} s"
    elif definition.on_limit == "warn":
        yield "only warns"
    elif definition.fallback_model is not None:
        yield f"falls back to {definition.fallback_model}"
    if definition.warn_at:
        yield f"warns at {_shares(definition.warn_at)}"


def _shares(shares: Sequence[float]) -> str:
    *first, last = [f"{100 * share:g} %" for share in shares]
    return f"{', '.join(first)} and {last}" if first else last
